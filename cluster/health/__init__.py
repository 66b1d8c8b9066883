"""How a process of a run knows that another one is lost, hung or failed."""
