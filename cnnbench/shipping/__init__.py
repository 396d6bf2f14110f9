"""ALL OF IT: images in, a proven network out; candidates, a race, the choice of a file, the test."""
