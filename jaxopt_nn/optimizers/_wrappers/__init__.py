"""Optimizers around optimizers."""

__all__: list[str] = []
