"""What a run carries from epoch to epoch, and where it starts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_nn.optimizers import (
    PlateauState,
)
from jaxopt_nn.training._devices import cast_to_varying
from jaxopt_nn.training._recipe import Recipe, model_of
from jaxopt_nn.training._status import Status
from jaxopt_nn.training._step import init_state
from jaxopt_nn.training._stopping import Best, init_best
from jaxopt_nn.trees import check_same_structure
from jaxopt_nn.types import Array, Batch, Key, Params, PyTree, State, TrainState

__all__ = ["EpochMetrics", "RunKeys", "RunState", "Weights", "init_run_state", "weights_of"]

EpochMetrics = dict[str, Array]
"""One row of the history: name to scalar, of records to array; NaN where the epoch was not run."""


class RunKeys(NamedTuple):
    """The three uses of randomness in a run, each with a key of its own.

    Attributes:
        init: the parameters' initial values.
        order: the order of the examples. Lanes that share it share their batches, which is faster.
        noise: dropout and other noise of training steps.
    """

    init: Key
    order: Key
    noise: Key


class RunState(NamedTuple):
    """What a run carries from epoch to epoch.

    Attributes:
        state: the training state.
        best: the best epoch so far; None without early stopping.
        plateau: the state of the recipe's plateau; None without one.
        status: int32 :class:`Status`; COMPLETED while nothing has ended the run.
        first_bad_step: int32, the step that ended the run; −1 if none did.
        epochs: int32, the epochs begun.
    """

    state: TrainState
    best: Best | None
    plateau: PlateauState | None
    status: Array
    first_bad_step: Array
    epochs: Array


class Weights(NamedTuple):
    """Parameters to start from.

    Attributes:
        params: the parameters.
        model_state: the model state that belongs to them; None for that of a new model.
    """

    params: Params
    model_state: State | None


def weights_of(init_from: Any) -> PyTree:
    """What :func:`init_run_state` starts from, as a pytree of arrays.

    A ``TrainState`` as it is; of what has ``params`` and ``model_state`` these two, as a ``Weights``; anything else are
    parameters. Raises ``TypeError`` for what is no array.
    """
    for leaf in jax.tree.leaves(init_from.params if hasattr(init_from, "params") else init_from):
        if not hasattr(leaf, "dtype"):
            raise TypeError(
                f"init_from: expected parameters, a TrainState, or what has params and model_state, as a result or "
                f"what training.load returns, got {leaf!r}"
            )
    if init_from is None or isinstance(init_from, TrainState):
        return init_from
    if hasattr(init_from, "params") and hasattr(init_from, "model_state"):
        return Weights(init_from.params, init_from.model_state)
    return Weights(init_from, None)


def init_run_state(
    parts: Recipe,
    keys: RunKeys,
    train: Batch,
    varying_over: frozenset[str] = frozenset(),
    start: TrainState | Weights | None = None,
) -> RunState:
    """The state at the start of a run.

    Its arguments vary over the mesh axes ``varying_over`` of a ``shard_map``; ``start`` replaces the new parameters.
    """
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((parts.batch_size, *leaf.shape[1:]), leaf.dtype), train.x)
    params, model_state = model_of(parts).init(keys.init, example)
    if not jax.tree.leaves(params):
        raise ValueError("model: expected parameters to train, got a model without any")
    if isinstance(start, Weights):
        check_same_structure("init_from.params", params, start.params)
        params = start.params
        if start.model_state is not None:
            check_same_structure("init_from.model_state", model_state, start.model_state)
            model_state = start.model_state
    state = init_state(params, parts.optimizer, keys.noise, model_state, parts.loss_scale)
    if isinstance(start, TrainState):
        start = start if start.notfinite is not None else start._replace(notfinite=state.notfinite)
        check_same_structure("init_from", state, start)
        state = start
    best = None
    if parts.early_stopping is not None:
        best = init_best(parts.early_stopping, state.params, state.model_state)
    plateau = None if parts.plateau is None else parts.plateau.init()
    status = jnp.int32(Status.COMPLETED)
    if train.weight is not None:  # without any weight every loss is 0, and nothing is learned
        status = jnp.where(jnp.sum(train.weight) > 0, status, Status.NONFINITE_TRAINING)
    run_state = RunState(state, best, plateau, status, jnp.int32(-1), jnp.int32(0))
    return cast_to_varying(run_state, varying_over)
