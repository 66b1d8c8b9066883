"""Process of one rank: its job, its placement, and its messages to the supervisor."""
