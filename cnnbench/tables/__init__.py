"""WHAT came out: records gathered, and one row for all runs that differ in their seed alone."""
