"""Adapter of DeepSpeed ZeRO: the only package that depends on DeepSpeed."""
