"""Traced programs: what their equations hold, what they compute, and a cache of what was compiled."""

__all__: list[str] = []
