"""Object stores of this host for tests, and a proxy that makes them fail."""
