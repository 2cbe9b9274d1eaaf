"""The checked function as a scalar function of float64 leaves, and what is known of it before it is sampled."""

__all__: list[str] = []
