"""Early stopping, inside of the compiled program."""

import re
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_nn._arguments import check_choice
from jaxopt_nn.training._devices import cast_to_varying, varying_axes
from jaxopt_nn.types import Array, ArrayLike, Params, State

__all__ = ["Best", "EarlyStopping", "infer_mode", "init_best", "resolve_mode", "update_best"]

Mode = Literal["min", "max"]

_LESS_IS_BETTER = {"error", "loss", "mae", "mse", "nll", "perplexity", "rmse"}
_MORE_IS_BETTER = {"accuracy", "auc", "f1", "precision", "r2", "recall"}


class EarlyStopping(NamedTuple):
    """Stops a run whose monitored value has not improved for ``patience`` epochs, and returns the best weights.

    An epoch improves on the best value so far if ``value < best − min_delta`` (``mode="min"``) or
    ``value > best + min_delta`` (``"max"``). NaN is never an improvement. The run ends after ``patience`` epochs in a
    row without one. The weights (and the model state, such as BatchNorm's statistics) of the best epoch are returned
    whether or not the run was stopped.

    Warning: with an optimizer that keeps other weights to evaluate with (``weight_ema``, ``lookahead``,
    ``schedule_free``) these are compared and returned, while BatchNorm's running statistics are those of the weights
    that were trained. The two do not fit together; see :class:`~jaxopt_nn.training.RunResult`.

    Attributes:
        monitor: the name of a history entry: ``"valid_loss"``, ``"valid_<metric>"``, ``"train_loss"``, …
        mode: ``"min"`` or ``"max"``. None takes it from the words of the name: ``"min"`` if one of them is error, loss,
            mae, mse, nll, perplexity or rmse, ``"max"`` if one is accuracy, auc, f1, precision, r2 or recall. For any
            other name, ``mode`` must be given.
        patience: epochs without improvement to wait for, >= 1; may be traced.
        min_delta: the least change that counts as an improvement, >= 0; may be traced.
        start_from_epoch: the first epoch, from 0, that is looked at; those before neither count nor can be the best.
            May be traced. If the run ends before it, the last weights are returned, and ``best_epoch`` is −1.

    With ``Recipe(valid_every=n)`` only epochs that were validated are looked at, so ``patience`` counts validations.

    Differs from keras.callbacks.EarlyStopping: best weights are always restored. flax.training.early_stopping stops one
    epoch later for the same ``patience``.
    """

    monitor: str = "valid_loss"
    mode: Mode | None = None
    patience: ArrayLike = 10
    min_delta: ArrayLike = 0.0
    start_from_epoch: ArrayLike = 0


class Best(NamedTuple):
    """The best epoch so far.

    Attributes:
        params: its parameters.
        model_state: its model state.
        value: its monitored value; ±inf before the first epoch.
        epoch: int32, its index; −1 before the first epoch.
        bad_epochs: int32, epochs since then.
    """

    params: Params
    model_state: State
    value: Array
    epoch: Array
    bad_epochs: Array


def infer_mode(monitor: str) -> Mode | None:
    """Which values of a history entry are better, by the words of its name; None if they do not tell."""
    words = set(re.split(r"[^a-z0-9]+", monitor.lower()))
    is_less, is_more = bool(words & _LESS_IS_BETTER), bool(words & _MORE_IS_BETTER)
    if is_less == is_more:
        return None
    return "min" if is_less else "max"


def resolve_mode(stopping: EarlyStopping) -> Mode:
    """The mode that was given, or that follows from the monitored name."""
    mode = infer_mode(stopping.monitor) if stopping.mode is None else stopping.mode
    if mode is None:
        raise ValueError(
            f'early_stopping.mode: expected "min" or "max", as {stopping.monitor!r} does not say which values are '
            f"better, got None"
        )
    check_choice("early_stopping.mode", mode, "min", "max")
    return mode


def init_best(stopping: EarlyStopping, params: Params, model_state: State) -> Best:
    """Before the first epoch: any finite value is an improvement."""
    worst = jnp.asarray(jnp.inf if resolve_mode(stopping) == "min" else -jnp.inf, jnp.float32)
    return Best(params, model_state, worst, jnp.int32(-1), jnp.int32(0))


def update_best(stopping: EarlyStopping, best: Best, value: Array, epoch: Array, params: Params, state: State) -> Best:
    """The best epoch so far, after ``epoch`` has ended with these parameters and this monitored value."""
    delta = jnp.asarray(stopping.min_delta, best.value.dtype)
    value = value.astype(best.value.dtype)
    better = value < best.value - delta if resolve_mode(stopping) == "min" else value > best.value + delta
    improved = Best(params, state, value, jnp.asarray(epoch, jnp.int32), jnp.int32(0))
    improved = cast_to_varying(improved, varying_axes(better))
    not_improved = best._replace(bad_epochs=best.bad_epochs + 1)
    after = jax.lax.cond(better, lambda: improved, lambda: not_improved)  # a branch: no kernel for each leaf
    start = stopping.start_from_epoch
    if isinstance(start, int) and start == 0:
        return after
    return jax.lax.cond(epoch >= jnp.asarray(start), lambda: after, lambda: best)
