"""The precision in which a check works: float64, whatever the caller's settings are."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import jax
import numpy as np
from jax._src import dtypes

__all__ = ["in_float64"]


@contextmanager
def in_float64() -> Generator[None]:
    """Float64 and matrix products at highest precision; nothing of it remains afterwards.

    From JAX 0.10 on, an array of NumPy has one copy of JAX's, in 32 or 64 bits, while any program lives that closes
    over it, and each trace gets that one, under ``jax.enable_x64`` or not. So a function that has run in float32 would
    fail in float64, and after a check the caller's own in float32. Here every trace takes a copy of its own. There is
    no public way to do this; a JAX without this function does without.
    """
    canonical: Any = getattr(dtypes, "canonicalize_value", None)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        if canonical is None:
            yield
            return

        def of_a_copy(value: Any) -> Any:
            is_wide = type(value) is np.ndarray and cast(Any, value).dtype.itemsize >= 8
            return canonical(value.copy() if is_wide else value)

        setattr(dtypes, "canonicalize_value", of_a_copy)  # noqa: B010, to a module
        try:
            yield
        finally:
            setattr(dtypes, "canonicalize_value", canonical)  # noqa: B010
