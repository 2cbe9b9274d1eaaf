"""A model shown: tables, drawings, FLOPs."""

__all__: list[str] = []
