"""From images to a proven network within a budget of time: candidates, a race, the choice of a file, the test."""
