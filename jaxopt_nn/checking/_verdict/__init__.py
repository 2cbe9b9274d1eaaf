"""From claims and samples to one verdict a leaf, with its cause."""

__all__: list[str] = []
