"""Prepared datasets: manifest, shards, and verification."""
