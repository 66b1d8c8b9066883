"""Process of one rank: its job, its placement among the ranks, its messages."""
