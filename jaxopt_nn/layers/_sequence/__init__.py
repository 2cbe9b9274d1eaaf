"""Layers over sequences: attention and recurrences."""

__all__: list[str] = []
