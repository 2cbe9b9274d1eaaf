"""Values of the function along lines, and slopes from their differences."""

__all__: list[str] = []
