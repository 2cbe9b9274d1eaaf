"""Layers that treat each position by itself: dense, embedding, dropout, noise, activity penalties."""

__all__: list[str] = []
