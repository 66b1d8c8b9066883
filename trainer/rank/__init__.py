"""The process of one rank: its job, its place among the ranks, its messages."""
