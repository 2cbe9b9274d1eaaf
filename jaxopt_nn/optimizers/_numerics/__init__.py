"""The arithmetic that the algorithms share."""

__all__: list[str] = []
