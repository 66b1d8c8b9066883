"""Translation of a large file's lines on a cluster, in chunks that are each done once."""
