"""One epoch of training and its evaluation: the part that ``run`` and ``fit`` share.

The carry of an epoch is a :class:`RunState`, and its output is a row of the history.

A step whose loss or gradient is not finite does not change the state. After ``nonfinite_limit`` of them in a row, the
rest of the epoch changes nothing, and the run ends. Only the loss and the gradient's norm are tested, which the history
needs anyway.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxopt_nn import losses
from jaxopt_nn._ops import any_over_vmapped_axis
from jaxopt_nn.layers import apply_with_outputs, total_activity_penalty
from jaxopt_nn.optimizers import (
    LearningRateState,
    PlateauState,
    current_learning_rate,
    evaluation_params,
    scale_learning_rate,
)
from jaxopt_nn.training._augmentation import augmented, training_batch
from jaxopt_nn.training._batches import EpochOrder, count_examples, epoch_order, take_batch
from jaxopt_nn.training._devices import cast_to_varying, varying_axes
from jaxopt_nn.training._evaluation import evaluate_model
from jaxopt_nn.training._recipe import Recipe, losses_of, model_of, penalty_of
from jaxopt_nn.training._recording import (
    Recorded,
    epoch_values,
    finished,
    layer_values,
    layer_vectors,
    nothing_recorded,
    step_values,
    with_layers,
    with_step,
)
from jaxopt_nn.training._records import EpochEnd, records_of
from jaxopt_nn.training._status import Status
from jaxopt_nn.training._step import Observer, Step, init_state, make_observed_step
from jaxopt_nn.training._stopping import Best, init_best, update_best
from jaxopt_nn.training._weighting import example_weight, is_whole_set, rows_of, training_metrics
from jaxopt_nn.trees import check_same_structure
from jaxopt_nn.types import Array, Batch, Key, LossFn, Params, PyTree, State, TrainState

__all__ = [
    "EpochMetrics",
    "EpochPart",
    "RunKeys",
    "RunState",
    "Weights",
    "end_epoch",
    "init_run_state",
    "make_recipe_step",
    "recipe_loss",
    "recipe_optimizer",
    "start_chunks",
    "start_epoch",
    "train_chunk",
    "train_epoch",
    "train_steps",
    "weights_of",
]

EpochMetrics = dict[str, Array]
"""One row of the history: name to scalar, of records to array; NaN where the epoch was not run."""


def _means_of(parts: Recipe) -> dict[str, str]:
    """Name in the history to name in a step's metrics, of the means of an epoch; the last if there is a penalty."""
    names = {"train_loss": "data_loss", "gradient_norm": "gradient_norm"}
    if parts.train_metrics:
        names |= {(train := f"train_{name}"): train for name, each in parts.metrics.items() if not is_whole_set(each)}
    return names | {"penalty": "penalty"}


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


class Weights(NamedTuple):
    """Parameters to start from.

    Attributes:
        params: the parameters.
        model_state: the model state that belongs to them; None for that of a new model.
    """

    params: Params
    model_state: State | None


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
    step, order = _step_of_epoch(parts, run_state, train, epoch), _order(parts, order_key, epoch, train)
    recorded = _nothing_recorded_yet(parts, run_state, order, train)
    index = None if recorded is None else jnp.arange(len(order[0]))
    (state, recorded), terms = lax.scan(step, (run_state.state, recorded), (order, index))
    return end_epoch(parts, run_state, EpochPart(state, terms, recorded), epoch, valid)


Progress = tuple[TrainState, dict[str, Recorded] | None]


def _step_of_epoch(
    parts: Recipe, run_state: RunState, train: Batch, epoch: Array
) -> Callable[[Progress, tuple[EpochOrder, Array | None]], tuple[Progress, Array]]:
    """The body of an epoch's loop: from the rows of a batch to the next state, and what the step adds to the means.

    It gets the place of the step in its epoch too, if the recipe has records of steps.
    """
    step = _batch_step(parts, run_state)

    def body(progress: Progress, inputs: tuple[EpochOrder, Array | None]) -> tuple[Progress, Array]:
        indices, index = inputs
        batch = training_batch(parts.augment, train, indices, run_state.state.key, epoch)
        return step(progress, batch, index)

    return body


def _batch_step(
    parts: Recipe, run_state: RunState
) -> Callable[[Progress, Batch, Array | None], tuple[Progress, Array]]:
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


def _nothing_recorded(parts: Recipe, run_state: RunState, batch: Batch, steps: int) -> dict[str, Recorded] | None:
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


def _nothing_recorded_yet(
    parts: Recipe, run_state: RunState, order: EpochOrder, train: Batch
) -> dict[str, Recorded] | None:
    """The same for an epoch over data in memory."""
    if not records_of(parts.record, "step", "layer"):
        return None
    first = jax.tree.map(lambda leaf: leaf[0], order)
    batch = training_batch(parts.augment, train, first, run_state.state.key, 0)
    return _nothing_recorded(parts, run_state, batch, order[0].shape[0])


def start_epoch(parts: Recipe, run_state: RunState, order_key: Key, train: Batch) -> EpochPart:
    """An epoch of which no step is done."""
    order = _order(parts, order_key, jnp.int32(0), train)
    batch = take_batch(train, *jax.tree.map(lambda leaf: leaf[0], order))
    return start_chunks(parts, run_state, batch, order[0].shape[0])


def start_chunks(parts: Recipe, run_state: RunState, batch: Batch, steps: int) -> EpochPart:
    """The same for an epoch of so many steps, of batches like this one."""
    batch = augmented(parts.augment, batch, run_state.state.key, 0, jnp.arange(count_examples(batch)))
    recorded = _nothing_recorded(parts, run_state, batch, steps)
    index = None if recorded is None else jnp.int32(0)
    step, progress = _batch_step(parts, run_state), (run_state.state, recorded)
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
    step, order = _step_of_epoch(parts, run_state, train, epoch), _order(parts, order_key, epoch, train)
    if part.recorded is not None:
        new = _nothing_recorded_yet(parts, run_state, order, train)
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
    step = _batch_step(parts, run_state)

    def batch_of(chunk_index: Array | int, place: Array | int) -> Batch:
        batch = jax.tree.map(lambda leaf: leaf[chunk_index], chunk)
        if parts.augment is None:
            return batch
        # An example of a stream is known by its place in the epoch.
        rows = place * parts.batch_size + jnp.arange(count_examples(batch))
        return augmented(parts.augment, batch, run_state.state.key, run_state.epochs, rows)

    if part.recorded is not None:
        new = _nothing_recorded(parts, run_state, batch_of(0, 0), part.terms.shape[0])
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
    metrics = _means(parts, part.terms)
    learning_rate = current_learning_rate(state.opt_state)
    if learning_rate is not None:
        metrics["learning_rate"] = learning_rate * _outer_scale(run_state)
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
        if _scales_itself(state.opt_state):
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
    if run_state.plateau is not None and not _scales_itself(run_state.state.opt_state):
        return _scaled(parts.optimizer, _outer_scale(run_state))
    return parts.optimizer


def _scales_itself(opt_state: PyTree) -> bool:
    """Whether the optimizer's state records a learning rate, which a plateau can scale."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, LearningRateState))
    return any(isinstance(node, LearningRateState) for node in nodes)


def _outer_scale(run_state: RunState) -> Array:
    """The factor for the updates of an optimizer that records no learning rate."""
    if run_state.plateau is None or _scales_itself(run_state.state.opt_state):
        return jnp.float32(1.0)
    return run_state.plateau.scale


def _scaled(optimizer: optax.GradientTransformation, scale: Array) -> optax.GradientTransformationExtraArgs:
    """The same optimizer, with the same state, its updates multiplied by ``scale``."""
    update = optax.with_extra_args_support(optimizer).update

    def scaled_update(updates: PyTree, state: PyTree, params: PyTree = None, **extra: object) -> tuple[PyTree, PyTree]:
        updates, state = update(updates, state, params, **extra)
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), updates), state

    return optax.GradientTransformationExtraArgs(optimizer.init, scaled_update)


def _order(parts: Recipe, order_key: Key, epoch: Array, train: Batch) -> EpochOrder:
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


def _means(parts: Recipe, terms: Array) -> EpochMetrics:
    """The weighted means over the steps; NaN if none was taken."""
    totals, weights = jnp.sum(terms, 0)
    return dict(zip(_means_of(parts), totals / weights, strict=False))


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
