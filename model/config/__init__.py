"""Settings of networks: the section `model` of a recipe."""

from foundation.moved import names_of

__getattr__ = names_of(__name__, "model.config.transformer")
