"""Conversion to and from Hugging Face's layouts, a file for each kind of network."""
