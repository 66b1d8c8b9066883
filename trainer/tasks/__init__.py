"""The tasks' halves in torch; `task.py` says what one has to know."""
