"""DeepSpeed ZeRO behind our own classes: the only room that knows DeepSpeed."""
