"""Training and evaluating from start to end, as the command line does it."""
