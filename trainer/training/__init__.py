"""What happens at a step: the loop, and what it asks and decides there."""
