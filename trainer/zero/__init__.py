"""Adapter of DeepSpeed ZeRO; no other package imports DeepSpeed."""
