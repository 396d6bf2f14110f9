"""HOW one asks: one file per verb, named for it."""
