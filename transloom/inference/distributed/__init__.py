"""Translation of a large file on a cluster, in chunks of lines whose results are stored."""
