"""MANY runs: which there are to do, where they are done, and what they will take."""
