"""From images to a proven network within a time budget: candidates, a race, the choice of a file, the test."""
