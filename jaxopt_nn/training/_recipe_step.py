"""The step of a recipe: its loss, its optimizer, its records, and what a step adds to the means of its epoch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn import losses
from jaxopt_nn.layers import apply_with_outputs, total_activity_penalty
from jaxopt_nn.optimizers import (
    LearningRateState,
)
from jaxopt_nn.training._augmentation import training_batch
from jaxopt_nn.training._batches import EpochOrder, count_examples, epoch_order
from jaxopt_nn.training._devices import cast_to_varying, varying_axes
from jaxopt_nn.training._recipe import Recipe, losses_of, model_of, penalty_of
from jaxopt_nn.training._recording import (
    Recorded,
    layer_values,
    layer_vectors,
    nothing_recorded,
    step_values,
    with_layers,
    with_step,
)
from jaxopt_nn.training._records import records_of
from jaxopt_nn.training._run_state import EpochMetrics, RunState
from jaxopt_nn.training._step import Observer, Step, make_observed_step
from jaxopt_nn.training._weighting import example_weight, is_whole_set, rows_of, training_metrics
from jaxopt_nn.types import Array, Batch, Key, LossFn, Params, PyTree, State, TrainState

__all__ = [
    "Progress",
    "batch_step",
    "make_recipe_step",
    "means_of_terms",
    "nothing_recorded_before",
    "nothing_recorded_yet",
    "order_of_epoch",
    "outer_scale",
    "recipe_loss",
    "recipe_optimizer",
    "scales_itself",
    "step_of_epoch",
]


Progress = tuple[TrainState, dict[str, Recorded] | None]


def step_of_epoch(
    parts: Recipe, run_state: RunState, train: Batch, epoch: Array
) -> Callable[[Progress, tuple[EpochOrder, Array | None]], tuple[Progress, Array]]:
    """The body of an epoch's loop: from the rows of a batch to the next state, and what the step adds to the means.

    It gets the place of the step in its epoch too, if the recipe has records of steps.
    """
    step = batch_step(parts, run_state)

    def body(progress: Progress, inputs: tuple[EpochOrder, Array | None]) -> tuple[Progress, Array]:
        indices, index = inputs
        batch = training_batch(parts.augment, train, indices, run_state.state.key, epoch)
        return step(progress, batch, index)

    return body


def batch_step(parts: Recipe, run_state: RunState) -> Callable[[Progress, Batch, Array | None], tuple[Progress, Array]]:
    """The same of a batch itself, and of the place of the step."""
    plain = make_recipe_step(parts, run_state)

    def body(progress: Progress, batch: Batch, index: Array | None) -> tuple[Progress, Array]:
        state, recorded = progress
        weight = jnp.asarray(parts.batch_size, jnp.float32) if batch.weight is None else jnp.sum(batch.weight)
        if recorded is None or index is None:
            state, step_metrics = plain(state, batch)
        else:
            state, step_metrics, recorded = _recorded_step(parts, run_state, recorded, index)(state, batch)
        return (state, recorded), _terms(parts, step_metrics, weight)

    return body


def _recorded_step(
    parts: Recipe, run_state: RunState, recorded: dict[str, Recorded], index: Array
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array], dict[str, Recorded]]]:
    """The step of a recipe with records, and what these have after it."""
    of_steps, of_layers = records_of(parts.record, "step"), records_of(parts.record, "layer")
    before = {name: recorded[name] for name in of_steps}
    observer = Observer(lambda end: with_step(of_steps, before, index, end), before)
    inner = _observed_step(parts, run_state, index, observer)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array], dict[str, Recorded]]:
        state, metrics, after = inner(state, batch)
        own = {name: recorded[name] for name in of_layers}
        rows = {name: metrics[f"{_RECORD}{name}"] for name in of_layers}
        taken = jax.tree.map(lambda row: jnp.where(metrics["applied"], row, jnp.nan), rows)
        return state, metrics, {**after, **with_layers(of_layers, own, index, taken)}

    return step


_RECORD = "record/"
"""In front of the names of records among the metrics of a step."""


def nothing_recorded_before(parts: Recipe, run_state: RunState, batch: Batch, steps: int) -> dict[str, Recorded] | None:
    """What the recipe's records of steps and layers have before the first step; None if there are none."""
    record = records_of(parts.record, "step", "layer")
    if not record:
        return None
    of_steps, of_layers = records_of(parts.record, "step"), records_of(parts.record, "layer")
    state = run_state.state

    def values(batch: Batch) -> dict[str, PyTree]:
        observer = Observer(lambda end: step_values(of_steps, end), None)
        plain = parts._replace(record={}, nonfinite_limit=None)
        of_step = _observed_step(plain, run_state, None, observer)(state, batch)[2]
        part = jax.tree.map(lambda leaf: leaf[: -(-leaf.shape[0] // parts.micro_batches)], batch)
        weight = example_weight(part.weight)
        outputs = apply_with_outputs(
            model_of(parts), state.params, state.model_state, part.x, train=True, key=state.key, weight=weight
        )[2]
        return {**of_step, **layer_values(of_layers, model_of(parts), outputs, weight)}

    started = nothing_recorded(record, jax.eval_shape(values, batch), state.params, steps)
    return cast_to_varying(started, varying_axes((state, batch.x)))


def nothing_recorded_yet(
    parts: Recipe, run_state: RunState, order: EpochOrder, train: Batch
) -> dict[str, Recorded] | None:
    """The same for an epoch over data in memory."""
    if not records_of(parts.record, "step", "layer"):
        return None
    first = jax.tree.map(lambda leaf: leaf[0], order)
    batch = training_batch(parts.augment, train, first, run_state.state.key, 0)
    return nothing_recorded_before(parts, run_state, batch, order[0].shape[0])


def make_recipe_step(parts: Recipe, run_state: RunState) -> Step:
    """The step of a recipe, without its records."""
    step = _observed_step(parts._replace(record={}), run_state, None, None)
    return lambda state, batch: step(state, batch)[:2]


def _observed_step(
    parts: Recipe, run_state: RunState, index: Array | None, observer: Observer | None
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array], PyTree]]:
    """The step of a recipe, with an observer; records of layers are among its metrics."""
    return make_observed_step(
        recipe_loss(parts, index),
        recipe_optimizer(parts, run_state),
        parts.micro_batches,
        parts.nonfinite_limit,
        parts.loss_scale,
        observer,
    )


def recipe_loss(parts: Recipe, index: Array | None = None) -> LossFn:
    """What a step of a recipe differentiates: the mean loss of a batch and the penalties."""
    of_layers = records_of(parts.record, "layer")

    def loss_fn(
        params: Params, model_state: State, batch: Batch, key: Key
    ) -> tuple[Array, tuple[State, dict[str, Array]]]:
        weight = example_weight(batch.weight)
        model, options = model_of(parts), dict[str, Any](train=True, key=key, weight=weight)
        values: dict[str, Array] = {}
        if of_layers and index is not None:
            outputs, model_state, by_path = apply_with_outputs(model, params, model_state, batch.x, **options)
            vectors = layer_vectors(of_layers, model, by_path, weight, index)
            values = {f"{_RECORD}{name}": row for name, row in vectors.items()}
        else:
            outputs, model_state = model.apply(params, model_state, batch.x, **options)
        rows = rows_of(outputs, batch)
        data_loss = losses.weighted_mean(losses_of(parts, rows.outputs, rows.targets, rows.size), rows.weight)
        values |= {"data_loss": data_loss}
        if parts.train_metrics:
            values |= training_metrics(parts.metrics, rows, data_loss.dtype)
        both = (penalty_of(parts, params), total_activity_penalty(model_state))
        penalties = [penalty for penalty in both if penalty is not None]
        if not penalties:
            return data_loss, (model_state, values)
        penalty = sum(penalties[1:], penalties[0])
        return data_loss + penalty, (model_state, values | {"penalty": penalty})

    return loss_fn


def recipe_optimizer(parts: Recipe, run_state: RunState) -> optax.GradientTransformation:
    """The optimizer of a recipe; one that records no learning rate is scaled by the plateau."""
    if run_state.plateau is not None and not scales_itself(run_state.state.opt_state):
        return _scaled(parts.optimizer, outer_scale(run_state))
    return parts.optimizer


def scales_itself(opt_state: PyTree) -> bool:
    """Whether the optimizer's state records a learning rate, which a plateau can scale."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, LearningRateState))
    return any(isinstance(node, LearningRateState) for node in nodes)


def outer_scale(run_state: RunState) -> Array:
    """The factor for the updates of an optimizer that records no learning rate."""
    if run_state.plateau is None or scales_itself(run_state.state.opt_state):
        return jnp.float32(1.0)
    return run_state.plateau.scale


def _scaled(optimizer: optax.GradientTransformation, scale: Array) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, with the same state, its updates multiplied by ``scale``."""
    update = optax.with_extra_args_support(optimizer).update

    def scaled_update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: object) -> tuple[PyTree, PyTree]:
        updates, state = update(updates, state, params, **extra)
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates), state

    return optax.GradientTransformationExtraArgs(optimizer.init, scaled_update)


def order_of_epoch(parts: Recipe, order_key: Key, epoch: Array, train: Batch) -> EpochOrder:
    key = jax.random.fold_in(order_key, epoch)
    return epoch_order(key, count_examples(train), parts.batch_size, parts.last_batch, parts.shuffle)


def _terms(parts: Recipe, metrics: dict[str, Array], weight: Array) -> Array:
    """What a step adds to the means of its epoch: weighted values and weights, ``[2, means]``; zeros if skipped.

    One array for all of them, because each output of a loop needs kernels of its own.
    """
    names = [name for name in _means_of(parts).values() if name in metrics]

    counts = {name: metrics[f"count_{name}"] for name in names if f"count_{name}" in metrics}

    def value_of(name: str) -> Array:
        return metrics[name] / jnp.where(counts[name] == 0, 1, counts[name]) if name in counts else metrics[name]

    def weight_of(name: str) -> Array:
        if name in ("gradient_norm", "penalty"):
            return jnp.ones_like(weight)
        return weight * counts[name] if name in counts else weight

    values = jnp.stack([value_of(name) for name in names])
    weights = jnp.stack([weight_of(name) for name in names])
    weights = jnp.where(metrics["applied"], weights, 0)
    return jnp.stack([jnp.where(weights == 0, 0, values * weights), weights.astype(values.dtype)])


def means_of_terms(parts: Recipe, terms: Array) -> EpochMetrics:
    """The weighted means over the steps; NaN if none was taken."""
    totals, weights = jnp.sum(terms, 0)
    return dict(zip(_means_of(parts), totals / weights, strict=False))


def _means_of(parts: Recipe) -> dict[str, str]:
    """Name in the history to name in a step's metrics, of the means of an epoch; the last if there is a penalty."""
    names = {"train_loss": "data_loss", "gradient_norm": "gradient_norm"}
    if parts.train_metrics:
        names |= {(train := f"train_{name}"): train for name, each in parts.metrics.items() if not is_whole_set(each)}
    return names | {"penalty": "penalty"}
