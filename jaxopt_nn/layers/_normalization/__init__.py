"""Normalization: over batches, over each example, of weights."""

__all__: list[str] = []
