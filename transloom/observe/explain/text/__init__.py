"""Pages of networks with one stack: how a masked model fills in a text, how one goes on."""
