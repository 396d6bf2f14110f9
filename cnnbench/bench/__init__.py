"""HOW fast, HOW robust: one call timed on every backend alike, and accuracy on shifted images."""
