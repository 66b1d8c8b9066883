"""Raw text: local or remote files in several formats, parsed and cleaned."""
