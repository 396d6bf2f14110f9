"""HOW one asks: one file a verb, named for it."""
