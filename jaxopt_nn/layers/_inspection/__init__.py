"""Tables and drawings of a model."""

__all__: list[str] = []
