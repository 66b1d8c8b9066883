"""The processes that train, seen from the supervisor and from themselves."""
