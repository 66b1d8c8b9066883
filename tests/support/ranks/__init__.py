"""Rank processes without Ray, and jobs for them."""
