"""Penalties of activations."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_number
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn.layers._inputs import check_array
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, ArrayLike, Key, Layer, Params, State

__all__ = ["activity_penalty", "total_activity_penalty"]

_ENTRY = "activity_penalty"


def activity_penalty(*, l1: ArrayLike = 0.0, l2: ArrayLike = 0.0) -> Layer:
    """Passes its input on and penalizes it: ``mean over examples of l1·Σ abs(a) + l2·Σ a²``.

    In training, the layer's new state holds the penalty of this batch under the name ``activity_penalty``.
    ``training.make_run`` and ``fit`` add all such entries to the loss before they differentiate it, and record them in
    the history's ``penalty``. A loop of your own adds :func:`total_activity_penalty` of the new state. In evaluation
    the state does not change, and losses are without penalties.

    Args:
        l1: strength of the sum of absolute values, >= 0; may be traced.
        l2: strength of the sum of squares, >= 0; may be traced.

    Returns:
        A layer without parameters. Examples count by their weight.

    Raises:
        ValueError: a strength is negative or not finite.

    The same as keras.layers.ActivityRegularization, which divides by the size of the batch too.

    >>> import jax, jax.numpy as jnp
    >>> layer = activity_penalty(l1=0.5)
    >>> x = jnp.array([[1.0, -3.0], [0.0, 2.0]])
    >>> y, state = layer.apply({}, layer.init(None, x)[1], x, train=True, key=None)
    >>> bool((y == x).all()), float(total_activity_penalty(state))
    (True, 1.5)
    """
    check_number("l1", l1, 0)
    check_number("l2", l2, 0)

    def init(key: Key, x: Any) -> tuple[Params, State]:
        del key
        check_array(x)
        if not jnp.issubdtype(x.dtype, jnp.floating) or len(x.shape) < 1:
            raise ValueError(f"expected floating-point [batch, ...], got {x.dtype}{list(x.shape)}")
        return {}, {_ENTRY: jnp.zeros((), compute_dtype(x))}

    def apply(
        params: Params,
        state: State,
        x: Any,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[Array, State]:
        del params, key
        check_array(x)
        if not train:
            return x, state
        dtype = compute_dtype(x)
        share = jnp.ones(x.shape[0], dtype) if weight is None else jnp.asarray(weight, dtype)
        present = (share > 0).reshape((-1,) + (1,) * (x.ndim - 1))
        values = jnp.where(present, x, jnp.zeros_like(x)).astype(dtype)
        axes = tuple(range(1, x.ndim))
        # sign · a, not abs: in JAX that has the derivative 1 at 0
        sizes = jnp.asarray(l1, dtype) * jnp.sum(values * jnp.sign(values), axes)
        sizes = sizes + jnp.asarray(l2, dtype) * jnp.sum(jnp.square(values), axes)
        penalty = jnp.sum(share * sizes) / jnp.maximum(jnp.sum(share), jnp.finfo(dtype).tiny)
        return x, {_ENTRY: penalty.astype(state[_ENTRY].dtype)}

    return Layer(init, apply, "activity_penalty")


def total_activity_penalty(model_state: State) -> Array | None:
    """The sum of the activity penalties in a model's new state; None (static) if it has none.

    >>> total_activity_penalty({"batch_norm_0": {"mean": jnp.zeros(3)}}) is None
    True
    """
    penalties = [jnp.sum(leaf) for path, leaf in named_leaves(model_state) if path.rsplit("/", 1)[-1] == _ENTRY]
    return jax.tree.reduce(jnp.add, penalties) if penalties else None
