"""HOW it learns: the one recipe, the one data module, and the folder a run leaves behind."""
