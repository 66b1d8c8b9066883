"""File access: folders, URLs, caches, tar files and durable writes."""
