"""The last steps of a run again, with the statistics of every layer, and what first was not finite.

A run is a function of its arguments, so nothing has to be kept for this while it runs: the epochs before are run again
by the programs of :func:`fit`, to the same bits, and then the steps one by one. Statistics come from a program of their
own, which changes nothing in the steps.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn._safetensors import is_key
from jaxopt_nn.checking._jaxpr.origin import Origin, is_finite, search
from jaxopt_nn.layers import apply_with_outputs, places
from jaxopt_nn.optimizers import evaluation_params, frozen_paths
from jaxopt_nn.training._accumulation import split_batch
from jaxopt_nn.training._augmentation import training_batch
from jaxopt_nn.training._batches import count_examples, epoch_order
from jaxopt_nn.training._checks import check_run_arguments
from jaxopt_nn.training._drive import Position, Run, by_epochs, part_shapes, start_run, steps_per_epoch, with_missing
from jaxopt_nn.training._epoch import EpochPart, train_steps
from jaxopt_nn.training._evaluation import evaluate_model
from jaxopt_nn.training._programs import as_arrays, compiled, is_traced_any, static_unless_number
from jaxopt_nn.training._recipe import Recipe, RecipeFn, build_recipe, model_of
from jaxopt_nn.training._recipe_step import recipe_loss, recipe_optimizer
from jaxopt_nn.training._run import RunResult, check_run_key
from jaxopt_nn.training._run_state import RunKeys, RunState, weights_of
from jaxopt_nn.training._status import Status
from jaxopt_nn.training._step import gradient_fn, update
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Batch, Key, Params, PyTree, State, TrainState

__all__ = ["Failure", "Replay", "Spread", "replay"]

_STAGES = {
    "loss": "loss",
    "gradient": "gradient",
    "model_state": "running statistic",
    "updates": "update",
    "params": "parameter",
}
"""The parts of a step in their order; field of ``_Look`` to name."""


class Spread(NamedTuple):
    """How the numbers of an array are spread, at each of some steps: arrays ``[steps]`` of NumPy.

    Attributes:
        mean, deviation: of those that are finite.
        largest: the largest absolute value of those that are finite.
        nonfinite: how many are NaN or infinite.
    """

    mean: Any
    deviation: Any
    largest: Any
    nonfinite: Any


class Failure(NamedTuple):
    """What first was not finite. As a string it is two lines.

    Attributes:
        epoch, batch: where, from 0; after the last batch of the epoch for a validation.
        stage: ``"loss"``, ``"gradient"``, ``"running statistic"``, ``"update"``, ``"parameter"`` or ``"validation"``.
        paths: the leaves that are not finite there; of a loss or a validation none.
        layer: the path of the layer in which it began; empty outside of layers or if it is not known.
        origin: the operation that it began with and its line; None if step by step, operation by operation, everything
            is finite, which tells of rounding.
    """

    epoch: int
    batch: int
    stage: str
    paths: tuple[str, ...]
    layer: str
    origin: Origin | None

    def __str__(self) -> str:
        leaves = f" of {_listed(self.paths)}" if self.paths else ""
        layer = f", first in {self.layer}" if self.layer else ""
        where = f"epoch {self.epoch}" + ("" if self.stage == "validation" else f", batch {self.batch}")
        cause = "operation by operation it is finite: it overflows by rounding" if self.origin is None else self.origin
        return f"{where}: the {self.stage}{leaves} is not finite{layer}\n{cause}"


class Replay(NamedTuple):
    """The last steps of a run. As a string it is a report.

    Attributes:
        failure: what first was not finite; None if nothing.
        exact: whether the state that was reached is that of the result, to the bit.
        epoch, batch: ``[steps]`` of each step, from 0.
        loss: ``[steps]`` with penalty.
        outputs: path of a layer to the :class:`Spread` of its outputs in training, padded rows included; of a
            ``repeat``, over all blocks.
        gradients, updates, params, model_state: path of a leaf to the spread of its gradient, its update, and its value
            after the step. Of frozen leaves there is no gradient.
    """

    failure: Failure | None
    exact: bool
    epoch: NDArray[Any]
    batch: NDArray[Any]
    loss: NDArray[Any]
    outputs: dict[str, Spread]
    gradients: dict[str, Spread]
    updates: dict[str, Spread]
    params: dict[str, Spread]
    model_state: dict[str, Spread]

    def __str__(self) -> str:
        lines = ["nothing is not finite" if self.failure is None else str(self.failure)]
        if not self.exact:
            lines.append("the state that was reached is NOT that of the result: was it the same recipe, data and key?")
        steps = range(max(0, len(self.loss) - 6), len(self.loss))
        rows = [("batch", *(f"{self.epoch[step]}/{self.batch[step]}" for step in steps))]
        rows.append(("loss", *(f"{self.loss[step]:.3g}" for step in steps)))
        named = {"output": self.outputs, "gradient": self.gradients, "parameter": self.params}
        for name, spreads in (named | {"statistic": self.model_state}).items():
            rows += [(f"{name} {path}", *(_cell(spread, step) for step in steps)) for path, spread in spreads.items()]
        width = max(len(row[0]) for row in rows)
        lines += ["largest absolute values (! not finite), by epoch/batch:"]
        lines += [f"{row[0]:<{width}}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
        return "\n".join(lines)


class _Look(NamedTuple):
    """All that a step computes, in this order: arrays by path."""

    loss: Array
    gradient: dict[str, Array]
    model_state: PyTree
    updates: PyTree
    params: PyTree


def replay(
    recipe: RecipeFn,
    hparams: PyTree,
    result: RunResult,
    train: Batch,
    valid: Batch | None = None,
    *,
    key: Key | RunKeys,
    steps: int = 5,
    init_from: PyTree = None,
) -> Replay:
    """Runs the last steps of a run again, exactly, with the statistics of every layer, and says what was not finite.

    The epochs before them are run again too, so it takes as long as the run, and some seconds to compile. The run
    itself keeps nothing for it. Of many runs take one, ``jax.tree.map(lambda leaf: leaf[3], results)``, with the key
    and the hyperparameters of this lane.

    Args:
        recipe, hparams, train, valid, key, init_from: the arguments of the run.
        result: what it returned, by ``make_run``, ``fit``, inside of ``jit`` or not.
        steps: how many before the one that failed; or the last ones of a run that did not fail.

    Returns:
        The :class:`Replay`; ``print`` shows it. Its ``failure`` names the first step that was not finite, the stage,
        the leaves, the layer, and the operation and line that first produced it.

    Raises:
        ValueError, TypeError: as the run, for data that are no good: a compiled run cannot say so. If the result is of
            many runs, or the arguments are those of another run, which does not fail there.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> train = Batch(jnp.arange(8.0).reshape(8, 1), jnp.arange(8.0).reshape(8, 1))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.serial(layers.dense(4), jnp.exp, layers.dense(1)), loss=losses.mean_squared_error,
    ...         optimizer=optimizers.sgd(hp), batch_size=4)
    >>> result = training.make_run(recipe)(jax.random.key(0), 1.0, train)
    >>> training.Status(int(result.status)).name
    'NONFINITE_TRAINING'
    >>> last = training.replay(recipe, 1.0, result, train, key=jax.random.key(0))
    >>> last.exact, last.failure.stage, last.failure.layer, last.failure.origin.operation
    (True, 'loss', 'exp_0', 'exp')
    """
    check_positive_int("steps", steps)
    _check_result(result)
    start = weights_of(init_from)
    if is_traced_any((hparams, result, train, valid, key, start)):
        raise TypeError("replay: expected to be called outside of jit, vmap and grad, with the result of one run")
    check_run_key(key)
    parts = build_recipe(recipe, hparams)
    train, valid = check_run_arguments(parts, train, valid)
    run = Run(recipe, static_unless_number(hparams), train, valid, parts.epochs)
    again = _Again(run, parts, key, as_arrays(start))
    status, done = Status(int(result.status)), int(result.epochs)
    failed = status is Status.NONFINITE_TRAINING
    last = again.first_bad(result) if failed else done * again.steps - 1
    window = again.window(max(0, last - steps + (not failed)), last)
    failure = None
    if failed:
        failure = _failure(parts, window, *divmod(last, again.steps))
        kept = window.before
        if int(result.state.step) < int(result.first_bad_step):  # the epoch was undone
            kept = again.epoch(done - 1).state
    else:
        kept = again.epoch(done).state
        if status is Status.NONFINITE_VALIDATION:
            failure = _validation_failure(parts, kept, valid, done - 1, again.steps, window)
    loss, outputs, *spreads = jax.tree.map(lambda *values: np.stack(values), *window.spreads)
    # A dictionary that was the result of a program is in alphabetical order; the layers have one of their own.
    layers = [place.path for place in places(model_of(parts))]
    outputs = {path: outputs[path] for layer in layers for path in outputs if f"{path}/".startswith(f"{layer}/")}
    where = np.arange(last + 1 - len(window.spreads), last + 1)
    return Replay(
        failure, _same(kept, result.state), where // again.steps, where % again.steps, loss, outputs, *spreads
    )


class _Window(NamedTuple):
    """Some steps: the state before the last, its batch and run state, and the statistics of each."""

    run_state: RunState
    before: TrainState
    batch: Batch
    spreads: list[Any]


class _Again:
    """A run, again."""

    def __init__(self, run: Run, parts: Recipe, key: Key | RunKeys, start: PyTree) -> None:
        self.run, self.steps = run, steps_per_epoch(run)
        begin, _ = compiled(start_run(run.recipe), run.hparams, key, run.train, start)
        self.order, first = begin(run.hparams, key, run.train, start)
        self.limit = int(np.asarray(parts.nonfinite_limit))
        metrics, self.positions = by_epochs(run, self.order, first, 1)
        self.position = self.start = Position(self.order, first, with_missing({}, metrics, parts.epochs))
        self.shapes = part_shapes(run, self.order, first)
        self.take, _ = compiled(self._take, run.hparams, first, self.shapes, self.order, 0, 0, 1, run.train)
        self.look, _ = compiled(self._look, run.hparams, first, first.state, self.order, 0, 0, run.train)

    def epoch(self, index: int) -> RunState:
        """What the run carries at the beginning of an epoch."""
        if index < self.position.epochs:
            self.position = self.start
        if index > self.position.epochs:
            for position in self.positions(self.position, lambda position: (1, 1)):
                self.position = position
                if position.epochs == index:
                    break
        if self.position.epochs != index:
            raise _other_run(f"ends after {self.position.epochs} epochs")
        return self.position.run_state

    def part(self, run_state: RunState, epoch: int, count: int) -> EpochPart:
        """The first steps of an epoch."""
        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self.shapes._replace(state=None))
        return self.go(run_state, as_arrays(blank)._replace(state=run_state.state), epoch, 0, count)

    def go(self, run_state: RunState, part: EpochPart, epoch: int, first: int, count: int) -> EpochPart:
        """Some more steps."""
        if not count:
            return part
        return self.take(self.run.hparams, run_state, part, self.order, epoch, first, count, self.run.train)

    def first_bad(self, result: RunResult) -> int:
        """The batch, counted over all epochs, with which the failure began."""
        epoch = int(result.epochs) - 1
        run_state = self.epoch(epoch)
        assert run_state.state.notfinite is not None
        before = int(run_state.state.notfinite.notfinite_count)
        undone = int(result.state.step) < int(result.first_bad_step)
        known = 0 if undone or before else int(result.first_bad_step) - int(run_state.state.step)
        part = self.part(run_state, epoch, known)
        if known:
            assert part.state.notfinite is not None
            before = int(part.state.notfinite.notfinite_count)
        row = epoch * self.steps + known - before  # the first of the batches in a row that are not finite
        for index in range(known, self.steps):
            part = self.go(run_state, part, epoch, index, 1)
            state = part.state
            assert state.notfinite is not None
            if not all(map(is_finite, jax.tree.leaves((state.params, state.model_state)))):
                return epoch * self.steps + index
            count = int(state.notfinite.notfinite_count)
            row = epoch * self.steps + index if count == 1 and before == 0 else row
            if count >= self.limit:
                return row
            before = count
        raise _other_run(f"is finite in epoch {epoch}")

    def window(self, first: int, last: int) -> _Window:
        """The steps from the first to the last, both included."""
        epoch, index = divmod(first, self.steps)
        run_state = self.epoch(epoch)
        part, spreads = self.part(run_state, epoch, index), list[Any]()
        while True:
            before = part.state
            batch, spread = self.look(self.run.hparams, run_state, before, self.order, epoch, index, self.run.train)
            spreads.append(jax.device_get(spread))
            if epoch * self.steps + index == last:
                return _Window(run_state, before, batch, spreads)
            part = self.go(run_state, part, epoch, index, 1)
            index += 1
            if index == self.steps:
                epoch, index = epoch + 1, 0
                run_state = self.epoch(epoch)
                part = self.part(run_state, epoch, 0)

    # The same arguments as in by_steps, so that it is the same program.
    def _take(
        self,
        hparams: PyTree,
        run_state: RunState,
        part: EpochPart,
        order: Key,
        epoch: Array,
        first: Array,
        count: Array,
        train: Batch,
    ) -> EpochPart:
        return train_steps(build_recipe(self.run.recipe, hparams), run_state, part, order, epoch, first, count, train)

    def _look(
        self,
        hparams: PyTree,
        run_state: RunState,
        state: TrainState,
        order: Key,
        epoch: Array,
        index: Array,
        train: Batch,
    ) -> tuple[Batch, Any]:
        parts = build_recipe(self.run.recipe, hparams)
        key = jax.random.fold_in(order, epoch)
        rows = epoch_order(key, count_examples(train), parts.batch_size, parts.last_batch, parts.shuffle)
        indices = jax.tree.map(lambda leaf: leaf[index], rows)
        batch = training_batch(parts.augment, train, indices, state.key, epoch)
        look, outputs = _look_at(parts, run_state, state, batch), _outputs(parts, state, batch)
        trees = (outputs, look.gradient, look.updates, look.params, look.model_state)
        return batch, (look.loss, *({path: _spread(leaf) for path, leaf in _floats(tree)} for tree in trees))


def _look_at(parts: Recipe, run_state: RunState, state: TrainState, batch: Batch) -> _Look:
    """What a step computes."""
    compute_gradient = gradient_fn(recipe_loss(parts), parts.micro_batches, parts.loss_scale)
    (loss, (model_state, _)), gradient = compute_gradient(state.params, state, batch)
    params, _, updates = update(recipe_optimizer(parts, run_state), compute_gradient, state, batch, loss, gradient)
    frozen = frozen_paths(state.opt_state)
    trained = [path for path, _ in named_leaves(state.params) if path not in frozen]
    return _Look(loss, dict(zip(trained, gradient, strict=True)), model_state, updates, params)


def _outputs(parts: Recipe, state: TrainState, batch: Batch) -> dict[str, PyTree]:
    """The outputs of each layer in training, by path."""
    model, key = model_of(parts), jax.random.fold_in(state.key, state.step)

    def outputs(model_state: PyTree, batch: Batch, key: Key) -> tuple[PyTree, dict[str, PyTree]]:
        _, model_state, each = apply_with_outputs(
            model, state.params, model_state, batch.x, train=True, key=key, weight=batch.weight
        )
        return model_state, {path: values for path, (_, values) in each.items()}

    if parts.micro_batches == 1:
        return outputs(state.model_state, batch, key)[1]
    batches, _ = split_batch(batch, parts.micro_batches)

    def body(model_state: PyTree, part: tuple[Array, Batch]) -> tuple[PyTree, dict[str, PyTree]]:
        return outputs(model_state, part[1], jax.random.fold_in(key, part[0]))

    return lax.scan(body, state.model_state, (jnp.arange(parts.micro_batches), batches))[1]


def _floats(tree: PyTree) -> list[tuple[str, Array]]:
    leaves = named_leaves(tree)
    return [(path, leaf) for path, leaf in leaves if leaf.size and jnp.issubdtype(leaf.dtype, jnp.floating)]


def _spread(values: Array) -> Spread:
    values = values.astype(compute_dtype(values))
    finite = jnp.isfinite(values)
    count = jnp.maximum(jnp.sum(finite), 1)
    largest = jnp.max(jnp.where(finite, jnp.abs(values), 0))
    scaled = jnp.where(finite, values / jnp.where(largest == 0, 1, largest), 0)  # so that no square overflows
    mean = jnp.sum(scaled) / count
    deviation = jnp.sqrt(jnp.sum(jnp.where(finite, jnp.square(scaled - mean), 0)) / count)
    return Spread(mean * largest, deviation * largest, largest, jnp.sum(~finite))


def _failure(parts: Recipe, window: _Window, epoch: int, batch: int) -> Failure:
    """What was not finite in the last step of the window."""

    def look(state: TrainState, batch: Batch) -> _Look:
        return _look_at(parts, window.run_state, state, batch)

    # jax.tree knows a tuple's fields in their order, so the first leaf that is not finite is of the first stage.
    paths, origin = search(look, window.before, window.batch)
    if not paths:
        _, _, gradient, updates, params, model_state = window.spreads[-1]
        seen = {"gradient": gradient, "model_state": model_state, "updates": updates, "params": params}
        paths = [] if np.isfinite(window.spreads[-1][0]) else ["loss"]
        paths += [f"{name}/{path}" for name, each in seen.items() for path, spread in each.items() if spread.nonfinite]
    field = paths[0].split("/")[0] if paths else "loss"
    leaves = tuple(path.partition("/")[2] for path in paths if path.startswith(f"{field}/"))
    layer = _layer(origin, window.spreads[-1][1])
    return Failure(epoch, batch, _STAGES[field], leaves, layer, origin)


def _validation_failure(
    parts: Recipe, state: TrainState, valid: Batch | None, epoch: int, batch: int, window: _Window
) -> Failure:
    weights = evaluation_params(state.opt_state, state.params)

    def loss(params: Params, model_state: State) -> Array:
        assert valid is not None
        return evaluate_model(parts, params, model_state, valid)["loss"]

    _, origin = search(loss, weights, state.model_state)
    return Failure(epoch, batch, "validation", (), _layer(origin, window.spreads[-1][1]), origin)


def _layer(origin: Origin | None, paths: Mapping[str, Any]) -> str:
    """The longest path of a layer in the names around an operation: ``transpose(jvp(dense_0))`` is of ``dense_0``."""
    scope = "" if origin is None else f"/{re.sub(r'[a-z_]+[(]|[)]', '', origin.scope)}/"
    return max((path for path in paths if f"/{path}/" in scope), key=len, default="")


def _check_result(result: Any) -> None:
    if not isinstance(result, RunResult):
        raise TypeError(f"result: expected what a run returned, a RunResult, got a {type(result).__name__}")
    if np.shape(result.status) != ():
        raise ValueError(
            f"result: expected that of one run, got those of {list(np.shape(result.status))}: take one, "
            f"jax.tree.map(lambda leaf: leaf[0], result), and its key and hyperparameters"
        )
    if int(result.epochs) < 1:
        raise ValueError("result: expected that of a run with an epoch, got one that did not begin any")


def _other_run(what: str) -> ValueError:
    return ValueError(
        f"result: expected that of a run with these arguments, which {what}: pass the recipe, hyperparameters, data, "
        f"key and init_from of the run"
    )


def _same(state: TrainState, other: TrainState) -> bool:
    """Whether two states are the same bits, but for what they count of steps that are not finite."""

    def bits(leaf: Any) -> bytes:
        return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf).tobytes()

    first, second = (each._replace(notfinite=None, loss_scale=None) for each in (state, other))
    return jax.tree.structure(first) == jax.tree.structure(second) and all(
        bits(a) == bits(b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:4])
    return shown if len(paths) <= 4 else f"{shown} and {len(paths) - 4} more"


def _cell(spread: Spread, step: int) -> str:
    return f"{spread.largest[step]:.3g}" + ("!" if spread.nonfinite[step] else "")
