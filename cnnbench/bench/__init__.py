"""HOW fast: one call timed, on every engine alike."""
