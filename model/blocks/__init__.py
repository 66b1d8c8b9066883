"""Building blocks of networks, a file per concept."""
