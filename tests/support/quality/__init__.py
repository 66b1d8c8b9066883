"""Looking at the code itself: planted bugs, attributes that are read, what is imported, memory."""
