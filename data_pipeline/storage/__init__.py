"""Where files come from and go to: folders, URLs, caches, tar files, durable writes."""
