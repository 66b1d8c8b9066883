"""Object stores on this host, and a proxy that makes their requests fail."""
