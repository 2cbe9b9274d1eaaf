"""Studies of the gradient checker: what it finds and what it misses. ``python -m studies.gradient_checking``."""
