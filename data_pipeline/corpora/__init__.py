"""Text as it comes: files here or remote, in several formats, cleaned."""
