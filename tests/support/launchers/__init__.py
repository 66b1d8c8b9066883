"""Programs that stand for those of a cluster in tests without one."""
