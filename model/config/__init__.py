"""Settings of networks: the section `model` of a recipe."""
