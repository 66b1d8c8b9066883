"""Checks of the code itself: planted bugs, unread attributes, imported files, memory."""
