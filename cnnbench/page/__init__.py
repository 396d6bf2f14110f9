"""WHAT it shows: one self-contained page."""
