"""Programs read, run in another way, and differentiated without the rules that somebody wrote."""

__all__: list[str] = []
