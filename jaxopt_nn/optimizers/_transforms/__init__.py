"""Transforms of gradients or updates: clipping, weight decay, proximal steps, learning rates."""

__all__: list[str] = []
