"""Whether a recipe can be trained, and what that takes, told before it is tried."""
