"""Tuning by gradient descent on the hyperparameters."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.sweeps._hypergradient import check_arguments, float_leaves, validation_loss
from jaxopt_nn.training import Recipe, RunKeys
from jaxopt_nn.training._programs import compiled
from jaxopt_nn.training._step import check_optimizer
from jaxopt_nn.types import Array, Batch, Key, PyTree

__all__ = ["Descent", "descend"]


class Descent(NamedTuple):
    """What :func:`descend` returns.

    Attributes:
        hparams: those of the least validation loss that was seen.
        valid_loss: that loss.
        valid_losses: ``[updates + 1]``, the loss before the first update, and after each; shorter where it ended early.
        visited: the tree of ``hparams``, each float stacked ``[updates + 1, ...]``, and None for all else.
    """

    hparams: PyTree
    valid_loss: float
    valid_losses: np.ndarray[Any, Any]
    visited: PyTree


def descend(
    recipe: Callable[[Any], Recipe],
    hparams: PyTree,
    train: Batch,
    valid: Batch,
    *,
    key: Key | RunKeys,
    updates: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    steps: int | None = None,
    per_step: Sequence[str] = (),
) -> Descent:
    """Improves hyperparameters by the gradient of the validation loss after a fixed number of steps.

    A float leaf whose values are all positive moves on a logarithmic scale, ``h = e^u``, and stays positive; any other
    moves as it is. ``u ← u + optimizer(∂L/∂u)``.

    It finds the nearest valley for these data, this seed and this number of steps. Short runs like smaller rates than
    long ones, and hundreds of rates can be fitted to a validation set: judge them on test data, and with other seeds.

    Args:
        recipe, hparams, train, valid, key, steps, per_step: as of :func:`validation_loss`.
        updates: static; how many.
        optimizer: of the hyperparameters, any of the optax protocol; None for Adam with the rate 0.1, a factor of 1.1
            an update.

    Returns:
        A :class:`Descent`. It ends early where the loss or the gradient is not finite.

    Raises:
        TypeError, ValueError: as :func:`hypergradient`; the loss is not finite at the start.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, sweeps, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (32, 3))
    >>> data = Batch(x, x @ jnp.array([[1.0], [-2.0], [0.5]]))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(hp["rate"]),
    ...         batch_size=32)
    >>> tuned = sweeps.descend(recipe, {"rate": 0.01}, data, data, key=jax.random.key(1), steps=10, updates=5)
    >>> bool(tuned.hparams["rate"] > 0.01), tuned.valid_losses.shape
    (True, (6,))
    """
    check_positive_int("updates", updates)
    optimizer = optax.adam(0.1) if optimizer is None else optimizer
    check_optimizer("optimizer", optimizer)
    floats, assemble = float_leaves(hparams)
    positive = [bool(np.all(np.asarray(leaf) > 0)) for leaf in floats]
    train, valid = check_arguments(recipe, hparams, train, valid, key, per_step)

    def back(moved: list[Any]) -> list[Array]:
        return [jnp.exp(leaf) if flag else leaf for leaf, flag in zip(moved, positive, strict=True)]

    def begin(floats: list[Any]) -> tuple[list[Array], PyTree]:
        moved = [jnp.log(leaf) if flag else leaf for leaf, flag in zip(floats, positive, strict=True)]
        return moved, optimizer.init(moved)

    def update(moved: list[Any], state: PyTree, key: Key | RunKeys, train: Batch, valid: Batch) -> Any:
        def loss(moved: list[Any]) -> Array:
            return validation_loss(recipe, assemble(back(moved)), train, valid, key=key, steps=steps, per_step=per_step)

        value, gradient = jax.value_and_grad(loss)(moved)
        finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in [value, *gradient]])
        changes, state = optimizer.update(gradient, state, moved)
        return value, jnp.all(finite), back(moved), optax.apply_updates(moved, changes), state

    state = compiled(begin, floats)[0](floats)
    program = compiled(update, *state, key, train, valid)[0]
    value, values = math.nan, list[float]()
    visited: list[list[Any]] = []
    for _ in range(updates + 1):
        value, finite, current, *state = program(*state, key, train, valid)
        if not np.isfinite(float(value)):
            break
        values.append(float(value))
        visited.append([np.asarray(leaf)[()] for leaf in current])
        if not bool(finite):
            break
    if not values:
        raise ValueError(f"hparams: expected a finite validation loss to begin with, got {float(value)}")
    best = int(np.argmin(values))
    stacked = [np.stack(leaves) for leaves in zip(*visited, strict=True)]
    return Descent(assemble(visited[best]), values[best], np.array(values), assemble(stacked, None))
