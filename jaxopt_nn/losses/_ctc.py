"""The loss of sequences whose alignment is not known."""

import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn._arguments import check_each, concrete_array, plain_array
from jaxopt_nn.losses._arrays import floats
from jaxopt_nn.types import Array, ArrayLike

__all__ = ["ctc"]


def ctc(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Connectionist temporal classification: minus the log-probability of all alignments of the labels (optax's).

    Args:
        logits: ``[N, T, C]``: class 0 is the blank.
        labels: ``[N, L]``: classes in [1, C); the end of a shorter sequence is filled with -1 (or 0).

    Returns:
        ``[N]``: about 1e5 where T is too short for the labels.

    Raises:
        TypeError: ``logits`` are not floats, or classes not integers.
        ValueError: shapes that do not match; a concrete class is out of range, or follows the end of its sequence.

    References:
        Graves et al., "Connectionist temporal classification", 2006.

    >>> loss = ctc(jnp.zeros((1, 2, 3)), jnp.array([[2, -1]]))  # of 9 paths: 2 2, 2 blank, blank 2
    >>> bool(jnp.allclose(loss, jnp.log(3.0)))
    True
    """
    z = floats("logits", logits)
    labels = plain_array("labels", labels)
    shape = np.shape(labels)
    if z.ndim != 3 or len(shape) != 2 or shape[0] != z.shape[0]:
        raise ValueError(f"labels: expected [N, L] for logits [N, T, C], got {list(shape)} for {list(z.shape)}")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise TypeError(f"labels: expected integer classes, got {jnp.result_type(labels)}{list(shape)}")
    known = concrete_array(labels)
    if known is not None:
        check_each("labels", known, known < z.shape[-1], f"a class in [1, {z.shape[-1]}), or -1")
        ended = np.maximum.accumulate(known <= 0, axis=1)
        check_each("labels", known, ~ended | (known <= 0), "no class behind the end of its sequence")
    classes = jnp.asarray(labels)
    classes = classes.astype(jnp.result_type(classes, jnp.int32))
    filled = classes <= 0
    loss = optax.ctc_loss(z, jnp.zeros(z.shape[:2], z.dtype), jnp.where(filled, 0, classes), filled.astype(z.dtype))
    return jnp.where(jnp.any(classes >= z.shape[-1], -1), jnp.nan, loss)
