"""What the commands do, without their arguments."""
