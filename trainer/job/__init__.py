"""Job of a rank, and its messages to the supervisor."""
