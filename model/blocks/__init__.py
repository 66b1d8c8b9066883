"""The parts that networks are made of, a file per concept."""
