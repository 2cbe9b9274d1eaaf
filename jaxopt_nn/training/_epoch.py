"""One epoch of training and its evaluation: the part that ``run`` and ``fit`` share.

The carry of an epoch is a :class:`RunState`, and its output is a row of the history.

A step whose loss or gradient is not finite does not change the state. After ``nonfinite_limit`` of them in a row, the
rest of the epoch changes nothing, and the run ends. Only the loss and the gradient's norm are tested, which the history
needs anyway.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_nn._ops import any_over_vmapped_axis
from jaxopt_nn.optimizers import (
    current_learning_rate,
    evaluation_params,
    scale_learning_rate,
)
from jaxopt_nn.training._augmentation import augmented
from jaxopt_nn.training._batches import count_examples, take_batch
from jaxopt_nn.training._devices import cast_to_varying, varying_axes
from jaxopt_nn.training._evaluation import evaluate_model
from jaxopt_nn.training._recipe import Recipe
from jaxopt_nn.training._recipe_step import (
    batch_step,
    means_of_terms,
    nothing_recorded_before,
    nothing_recorded_yet,
    order_of_epoch,
    outer_scale,
    scales_itself,
    step_of_epoch,
)
from jaxopt_nn.training._recording import (
    Recorded,
    epoch_values,
    finished,
)
from jaxopt_nn.training._records import EpochEnd
from jaxopt_nn.training._run_state import EpochMetrics, RunState
from jaxopt_nn.training._status import Status
from jaxopt_nn.training._stopping import update_best
from jaxopt_nn.types import Array, Batch, Key, Params, PyTree, State, TrainState

__all__ = [
    "EpochMetrics",
    "EpochPart",
    "end_epoch",
    "start_chunks",
    "start_epoch",
    "train_chunk",
    "train_epoch",
    "train_steps",
]


class EpochPart(NamedTuple):
    """The part of an epoch that is done.

    Attributes:
        state: the training state after it.
        terms: ``[steps, 2, means]``, what each step adds to the epoch's means; of steps to come it is not read.
        recorded: what the recipe's records of steps and layers have so far; None if it has none.
    """

    state: TrainState
    terms: Array
    recorded: dict[str, Recorded] | None = None


def train_epoch(
    parts: Recipe,
    run_state: RunState,
    order_key: Key,
    epoch: Array,
    train: Batch,
    valid: Batch | None,
    due: Array | bool = True,
) -> tuple[RunState, EpochMetrics]:
    """One more epoch, if it is ``due`` and the run has not ended. Otherwise nothing changes, and the metrics are NaN.

    Under ``vmap`` the work is skipped once every lane has ended.
    """
    active = (run_state.status == Status.COMPLETED) & due

    def blank(metrics: EpochMetrics) -> EpochMetrics:
        nans = {name: jnp.full(value.shape, jnp.nan, value.dtype) for name, value in metrics.items()}
        return cast_to_varying(nans, varying_axes(active))

    @jax.jit  # traced once, for the shapes of its metrics and for the branch
    def work(run_state: RunState) -> tuple[RunState, EpochMetrics]:
        new, metrics = _train_epoch(parts, run_state, order_key, epoch, train, valid)
        return _choose(active, (new, metrics), (run_state, blank(metrics)))

    def skip(run_state: RunState) -> tuple[RunState, EpochMetrics]:
        return run_state, blank(jax.eval_shape(lambda: work(run_state)[1]))

    return lax.cond(any_over_vmapped_axis(active), work, skip, run_state)


def _train_epoch(
    parts: Recipe, run_state: RunState, order_key: Key, epoch: Array, train: Batch, valid: Batch | None
) -> tuple[RunState, EpochMetrics]:
    step, order = step_of_epoch(parts, run_state, train, epoch), order_of_epoch(parts, order_key, epoch, train)
    recorded = nothing_recorded_yet(parts, run_state, order, train)
    index = None if recorded is None else jnp.arange(len(order[0]))
    (state, recorded), terms = lax.scan(step, (run_state.state, recorded), (order, index))
    return end_epoch(parts, run_state, EpochPart(state, terms, recorded), epoch, valid)


def start_epoch(parts: Recipe, run_state: RunState, order_key: Key, train: Batch) -> EpochPart:
    """An epoch of which no step is done."""
    order = order_of_epoch(parts, order_key, jnp.int32(0), train)
    batch = take_batch(train, *jax.tree.map(lambda leaf: leaf[0], order))
    return start_chunks(parts, run_state, batch, order[0].shape[0])


def start_chunks(parts: Recipe, run_state: RunState, batch: Batch, steps: int) -> EpochPart:
    """The same for an epoch of so many steps, of batches like this one."""
    batch = augmented(parts.augment, batch, run_state.state.key, 0, jnp.arange(count_examples(batch)))
    recorded = nothing_recorded_before(parts, run_state, batch, steps)
    index = None if recorded is None else jnp.int32(0)
    step, progress = batch_step(parts, run_state), (run_state.state, recorded)
    terms = jax.eval_shape(lambda: step(progress, batch, index)[1])
    return EpochPart(run_state.state, jnp.zeros((steps, *terms.shape), terms.dtype), recorded)


def train_steps(
    parts: Recipe,
    run_state: RunState,
    part: EpochPart,
    order_key: Key,
    epoch: Array,
    first: Array,
    count: Array,
    train: Batch,
) -> EpochPart:
    """The steps ``first`` to ``first + count`` of an epoch; all of them and :func:`end_epoch` are the epoch."""
    step, order = step_of_epoch(parts, run_state, train, epoch), order_of_epoch(parts, order_key, epoch, train)
    if part.recorded is not None:
        new = nothing_recorded_yet(parts, run_state, order, train)
        part = part._replace(recorded=jax.tree.map(lambda *pair: jnp.where(first == 0, *pair), new, part.recorded))

    def body(index: Array, part: EpochPart) -> EpochPart:
        indices = jax.tree.map(lambda leaf: leaf[index], order)
        (state, recorded), terms = step((part.state, part.recorded), (indices, index))
        return EpochPart(state, part.terms.at[index].set(terms), recorded)

    return lax.fori_loop(first, first + count, body, part)


def train_chunk(
    parts: Recipe, run_state: RunState, part: EpochPart, chunk: Batch, skip: Array, first: Array, count: Array
) -> EpochPart:
    """The steps ``first`` to ``first + count`` of an epoch, with the batches from ``skip`` on of arrays of batches."""
    step = batch_step(parts, run_state)

    def batch_of(chunk_index: Array | int, place: Array | int) -> Batch:
        batch = jax.tree.map(lambda leaf: leaf[chunk_index], chunk)
        if parts.augment is None:
            return batch
        # An example of a stream is known by its place in the epoch.
        rows = place * parts.batch_size + jnp.arange(count_examples(batch))
        return augmented(parts.augment, batch, run_state.state.key, run_state.epochs, rows)

    if part.recorded is not None:
        new = nothing_recorded_before(parts, run_state, batch_of(0, 0), part.terms.shape[0])
        part = part._replace(recorded=jax.tree.map(lambda *pair: jnp.where(first == 0, *pair), new, part.recorded))

    def body(index: Array, part: EpochPart) -> EpochPart:
        batch = batch_of(skip + index, first + index)
        (state, recorded), terms = step((part.state, part.recorded), batch, first + index)
        return EpochPart(state, part.terms.at[first + index].set(terms), recorded)

    return lax.fori_loop(0, count, body, part)


def end_epoch(
    parts: Recipe, run_state: RunState, part: EpochPart, epoch: Array, valid: Batch | None
) -> tuple[RunState, EpochMetrics]:
    """What follows the last step of an epoch that began with ``run_state``: its metrics, and whether to go on."""
    state = part.state
    # Parameters can overflow although all gradients are finite. Then the state before the epoch is restored.
    params_finite = _all_finite((state.params, state.model_state))
    assert state.notfinite is not None
    succeeded = params_finite & (state.notfinite.notfinite_count < jnp.asarray(parts.nonfinite_limit))
    first_bad_step = jnp.where(succeeded, -1, state.step)
    state = _choose(params_finite, state, run_state.state._replace(notfinite=state.notfinite))
    metrics = means_of_terms(parts, part.terms)
    learning_rate = current_learning_rate(state.opt_state)
    if learning_rate is not None:
        metrics["learning_rate"] = learning_rate * outer_scale(run_state)
    eval_params = evaluation_params(state.opt_state, state.params)
    validated = None if valid is None or parts.valid_every == 1 else (epoch + 1) % parts.valid_every == 0
    if valid is not None:
        values = _validate(parts, eval_params, state.model_state, valid, validated)
        metrics |= {f"valid_{name}": value for name, value in values.items()}
    if parts.record:
        metrics |= _record_entries(parts, part, epoch, metrics, state)

    def if_monitored(name: str, after: PyTree, before: PyTree) -> PyTree:
        """What follows from the value of an entry, if this epoch has one."""
        return after if validated is None or not name.startswith("valid_") else _choose(validated, after, before)

    status, best, plateau = run_state.status, run_state.best, run_state.plateau
    if best is not None and parts.early_stopping is not None:
        stopping = parts.early_stopping
        value = jnp.where(succeeded, _monitored(metrics, stopping.monitor), jnp.nan)
        after = update_best(stopping, best, value, epoch, eval_params, state.model_state)
        best = if_monitored(stopping.monitor, after, best)
        status = jnp.where(best.bad_epochs >= stopping.patience, Status.STOPPED_EARLY, status)
    if plateau is not None and parts.plateau is not None:
        after = parts.plateau.update(_monitored(metrics, parts.plateau_monitor), plateau, metrics.get("learning_rate"))
        plateau = if_monitored(parts.plateau_monitor, after, plateau)
        if scales_itself(state.opt_state):
            state = state._replace(opt_state=scale_learning_rate(state.opt_state, plateau.scale))
    if valid is not None:
        finite = jnp.isfinite(metrics["valid_loss"])
        finite = finite if validated is None else finite | ~validated
        status = jnp.where(finite, status, Status.NONFINITE_VALIDATION)
    status = jnp.where(succeeded, status, Status.NONFINITE_TRAINING).astype(jnp.int32)
    return RunState(state, best, plateau, status, first_bad_step, run_state.epochs + 1), metrics


def _validate(parts: Recipe, params: Params, model_state: State, valid: Batch, due: Array | None) -> dict[str, Array]:
    """Loss and metrics of the validation set; NaN if it is not due. None is always."""
    if due is None:
        return evaluate_model(parts, params, model_state, valid)

    def evaluate(params: Params, model_state: State, valid: Batch) -> dict[str, Array]:
        return evaluate_model(parts, params, model_state, valid)

    def blank(*arguments: PyTree) -> dict[str, Array]:
        shapes = jax.eval_shape(evaluate, *arguments)
        nans = {name: jnp.full(shape.shape, jnp.nan, shape.dtype) for name, shape in shapes.items()}
        return cast_to_varying(nans, varying_axes(arguments))

    return lax.cond(due, evaluate, blank, params, model_state, valid)


def _record_entries(
    parts: Recipe, part: EpochPart, epoch: Array, metrics: EpochMetrics, state: TrainState
) -> EpochMetrics:
    """What the records add to the history; those of the epoch see all entries of the others."""
    entries = {} if part.recorded is None else finished(parts.record, part.recorded)
    everything = metrics | entries
    scalars: dict[str, Any] = {name: value for name, value in everything.items() if value.ndim == 0}
    arrays = {name: value for name, value in everything.items() if value.ndim}
    of_epoch = epoch_values(parts.record, EpochEnd(cast(Any, epoch), scalars, state, arrays))
    for names, others in ((entries.keys(), metrics.keys()), (of_epoch.keys(), everything.keys())):
        if twice := sorted(names & others):
            raise ValueError(f"record: expected names that the history does not have, got {twice}")
    return entries | of_epoch


def _monitored(metrics: EpochMetrics, name: str) -> Array:
    if name not in metrics:
        hint = "" if "valid_loss" in metrics else " (there is no validation set)"
        raise ValueError(f"monitor: expected one of {sorted(metrics)}{hint}, got {name!r}")
    if metrics[name].ndim:
        raise ValueError(f"monitor: expected an entry that is one number, got {name!r}, {list(metrics[name].shape)}")
    return metrics[name]


def _all_finite(tree: PyTree) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _choose(flag: Array, chosen: PyTree, other: PyTree) -> PyTree:
    """One of two trees. A branch saves a kernel for each leaf; under ``vmap`` it becomes a select."""
    return lax.cond(flag, lambda: chosen, lambda: other)
