"""Layers made of layers."""

__all__: list[str] = []
