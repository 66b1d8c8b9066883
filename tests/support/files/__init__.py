"""Files, disks and servers that fail, and what is read of them."""
