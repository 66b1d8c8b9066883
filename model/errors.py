"""What the network refuses, in the user's words."""


class ModelError(Exception):
    """A setting or an input that the network cannot work with; the message says what to change."""
