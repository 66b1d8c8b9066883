"""Files, disks and servers that fail, and records of what is read from them."""
