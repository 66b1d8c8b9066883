"""What commands and runs look like in a terminal."""
