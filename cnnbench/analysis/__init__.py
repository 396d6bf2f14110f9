"""WHAT it costs: figures that follow from a network's structure, without data."""
