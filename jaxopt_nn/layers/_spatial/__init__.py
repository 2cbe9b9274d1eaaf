"""Layers over spatial axes: convolution and pooling."""

__all__: list[str] = []
