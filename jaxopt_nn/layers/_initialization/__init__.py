"""Initial values of a whole model."""

__all__: list[str] = []
