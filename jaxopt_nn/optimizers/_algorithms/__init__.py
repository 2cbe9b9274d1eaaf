"""One file for each optimization algorithm."""

__all__: list[str] = []
