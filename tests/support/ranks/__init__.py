"""Rank processes without Ray, and what they are given to do."""
