"""One epoch of training and its evaluation: the part that ``run`` and ``fit`` share.

The carry of an epoch is a :class:`Progress`; its record is a row of the history. Nothing here knows who drives it.

Of a step whose loss or gradient is not finite nothing enters the state. Enough of them in a row end the run, and the
steps that follow in the same epoch change nothing. The test reads two scalars that the history needs anyway.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxopt_nn import losses
from jaxopt_nn._ops import any_over_vmapped_axis
from jaxopt_nn.layers import total_activity_penalty
from jaxopt_nn.optimizers import (
    LearningRateState,
    PlateauState,
    current_learning_rate,
    evaluation_params,
    scale_learning_rate,
)
from jaxopt_nn.training._batches import EpochOrder, count_examples, epoch_order, take_batch
from jaxopt_nn.training._devices import varying, varying_axes
from jaxopt_nn.training._evaluation import evaluate_model
from jaxopt_nn.training._recipe import Recipe, losses_of, model_of, penalty_of
from jaxopt_nn.training._status import Status
from jaxopt_nn.training._step import Step, init_state, make_step
from jaxopt_nn.training._stopping import Best, init_best, update_best
from jaxopt_nn.types import Array, Batch, Key, Params, PyTree, State, TrainState

__all__ = ["Progress", "Row", "RunKeys", "init_progress", "train_epoch"]

Row = dict[str, Array]
"""One epoch's history: name to scalar; NaN where the epoch was not run."""


_MEANS = {"train_loss": "data_loss", "gradient_norm": "gradient_norm", "penalty": "penalty"}
"""What the history has of each step's metrics, the last only if there is a penalty."""


class RunKeys(NamedTuple):
    """The three uses of randomness in a run, each with a key of its own.

    Attributes:
        init: the parameters' initial values.
        order: the order of the examples. Lanes of a sweep that share it share their batches, which is faster.
        noise: dropout and other noise of training steps.
    """

    init: Key
    order: Key
    noise: Key


class Progress(NamedTuple):
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


def init_progress(parts: Recipe, keys: RunKeys, train: Batch, varying_over: frozenset[str] = frozenset()) -> Progress:
    """The beginning of a run; ``varying_over`` are the mesh axes of a ``shard_map`` over which its arguments vary."""
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((parts.batch_size, *leaf.shape[1:]), leaf.dtype), train.x)
    params, model_state = model_of(parts).init(keys.init, example)
    if not jax.tree.leaves(params):
        raise ValueError("model: expected parameters to train, got a model without any")
    state = init_state(params, parts.optimizer, keys.noise, model_state)
    best = None
    if parts.early_stopping is not None:
        best = init_best(parts.early_stopping, state.params, state.model_state)
    plateau = None if parts.plateau is None else parts.plateau.init()
    status = jnp.int32(Status.COMPLETED)
    if train.weight is not None:  # without any weight each loss is 0, and nothing is learned
        status = jnp.where(jnp.sum(train.weight) > 0, status, Status.NONFINITE_TRAINING)
    progress = Progress(state, best, plateau, status, jnp.int32(-1), jnp.int32(0))
    return varying(progress, varying_over)


def train_epoch(
    parts: Recipe,
    progress: Progress,
    order_key: Key,
    epoch: Array,
    train: Batch,
    valid: Batch | None,
    due: Array | bool = True,
) -> tuple[Progress, Row]:
    """One more epoch, if it is ``due`` and the run has not ended: else nothing changes, and the row is NaN.

    Under ``vmap`` the work is skipped once every lane has ended.
    """
    active = (progress.status == Status.COMPLETED) & due

    def blank(row: Row) -> Row:
        nans = {name: jnp.full(value.shape, jnp.nan, value.dtype) for name, value in row.items()}
        return varying(nans, varying_axes(active))

    @jax.jit  # traced once for the shapes of its row and for the branch
    def work(progress: Progress) -> tuple[Progress, Row]:
        new, row = _train_epoch(parts, progress, order_key, epoch, train, valid)
        return _choose(active, (new, row), (progress, blank(row)))

    def skip(progress: Progress) -> tuple[Progress, Row]:
        return progress, blank(jax.eval_shape(lambda: work(progress)[1]))

    return lax.cond(any_over_vmapped_axis(active), work, skip, progress)


def _train_epoch(
    parts: Recipe, progress: Progress, order_key: Key, epoch: Array, train: Batch, valid: Batch | None
) -> tuple[Progress, Row]:
    step = _make_step(parts, progress)
    rows, padding = _order(parts, order_key, epoch, train)

    def body(state: TrainState, indices: EpochOrder) -> tuple[TrainState, Array]:
        batch = take_batch(train, *indices)
        weight = jnp.asarray(parts.batch_size, jnp.float32) if batch.weight is None else jnp.sum(batch.weight)
        state, metrics = step(state, batch)
        return state, _terms(metrics, weight)

    state, terms = lax.scan(body, progress.state, (rows, padding))
    # Finite gradients can still make parameters overflow. Then there is only the state before the epoch to go back to.
    kept = _all_finite((state.params, state.model_state))
    assert state.notfinite is not None
    fine = kept & (state.notfinite.notfinite_count < jnp.asarray(parts.nonfinite_limit))
    first_bad_step = jnp.where(fine, -1, state.step)
    state = _choose(kept, state, progress.state._replace(notfinite=state.notfinite))
    row = _means(terms)
    learning_rate = current_learning_rate(state.opt_state)
    if learning_rate is not None:
        row["learning_rate"] = learning_rate * _outer_scale(progress)
    found = evaluation_params(state.opt_state, state.params)
    if valid is not None:
        values = evaluate_model(parts, found, state.model_state, valid)
        row |= {f"valid_{name}": value for name, value in values.items()}

    status, best, plateau = progress.status, progress.best, progress.plateau
    if best is not None and parts.early_stopping is not None:
        stopping = parts.early_stopping
        value = jnp.where(fine, _monitored(row, stopping.monitor), jnp.nan)
        best = update_best(stopping, best, value, epoch, found, state.model_state)
        status = jnp.where(best.bad_epochs >= stopping.patience, Status.STOPPED_EARLY, status)
    if plateau is not None and parts.plateau is not None:
        plateau = parts.plateau.update(_monitored(row, parts.plateau_monitor), plateau, row.get("learning_rate"))
        if _scales_itself(state.opt_state):
            state = state._replace(opt_state=scale_learning_rate(state.opt_state, plateau.scale))
    if valid is not None:
        status = jnp.where(jnp.isfinite(row["valid_loss"]), status, Status.NONFINITE_VALIDATION)
    status = jnp.where(fine, status, Status.NONFINITE_TRAINING).astype(jnp.int32)
    return Progress(state, best, plateau, status, first_bad_step, progress.epochs + 1), row


def _make_step(parts: Recipe, progress: Progress) -> Step:
    """The step of a recipe."""

    def loss_fn(params: Params, model_state: State, batch: Batch, key: Key) -> tuple[Array, tuple[State, Row]]:
        outputs, model_state = model_of(parts).apply(
            params, model_state, batch.x, train=True, key=key, weight=batch.weight
        )
        data_loss = losses.weighted_mean(losses_of(parts, outputs, batch.y, count_examples(batch)), batch.weight)
        both = (penalty_of(parts, params), total_activity_penalty(model_state))
        penalties = [penalty for penalty in both if penalty is not None]
        if not penalties:
            return data_loss, (model_state, {"data_loss": data_loss})
        penalty = sum(penalties[1:], penalties[0])
        return data_loss + penalty, (model_state, {"data_loss": data_loss, "penalty": penalty})

    optimizer = parts.optimizer
    if progress.plateau is not None and not _scales_itself(progress.state.opt_state):
        optimizer = _scaled(optimizer, _outer_scale(progress))
    return make_step(loss_fn, optimizer, micro_batches=parts.micro_batches, nonfinite_limit=parts.nonfinite_limit)


def _scales_itself(opt_state: PyTree) -> bool:
    """Whether the optimizer has a learning rate of ours, for a plateau to scale where it acts."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, LearningRateState))
    return any(isinstance(node, LearningRateState) for node in nodes)


def _outer_scale(progress: Progress) -> Array:
    """What the updates of an optimizer without one are multiplied by."""
    if progress.plateau is None or _scales_itself(progress.state.opt_state):
        return jnp.float32(1.0)
    return progress.plateau.scale


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


def _terms(metrics: Row, weight: Array) -> Array:
    """What a step adds to the means of its epoch: ``[2, means]``, weighted values and weights; zeros if skipped.

    One array for all of them, because each output of a loop costs kernels of its own.
    """
    names = [name for name in _MEANS.values() if name in metrics]
    values = jnp.stack([metrics[name] for name in names])
    weights = jnp.stack([weight if name == "data_loss" else jnp.ones_like(weight) for name in names])
    weights = jnp.where(metrics["applied"], weights, 0)
    return jnp.stack([jnp.where(weights == 0, 0, values * weights), weights.astype(values.dtype)])


def _means(terms: Array) -> Row:
    """The weighted means over the steps; NaN if none was taken."""
    totals, weights = jnp.sum(terms, 0)
    return dict(zip(_MEANS, totals / weights, strict=False))


def _monitored(row: Row, name: str) -> Array:
    if name not in row:
        hint = "" if "valid_loss" in row else " (there is no validation set)"
        raise ValueError(f"monitor: expected one of {sorted(row)}{hint}, got {name!r}")
    return row[name]


def _all_finite(tree: PyTree) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _choose(flag: Array, chosen: PyTree, other: PyTree) -> PyTree:
    """One of two trees. A branch: for lanes it becomes a select, for a single run it is a kernel for each leaf less."""
    return lax.cond(flag, lambda: chosen, lambda: other)
