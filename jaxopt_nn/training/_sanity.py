"""Checks of a set-up before it is trained, after Karpathy's recipe."""

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxopt_nn import checking, losses
from jaxopt_nn.losses._targets import activation_before
from jaxopt_nn.training._checks import check_run_arguments, init_shapes
from jaxopt_nn.training._evaluation import evaluate_model
from jaxopt_nn.training._programs import compiled, is_traced_any, static_unless_number
from jaxopt_nn.training._recipe import Recipe, RecipeFn, build_recipe, losses_of, model_of
from jaxopt_nn.training._recipe_step import make_recipe_step
from jaxopt_nn.training._run import check_run_key, split_key
from jaxopt_nn.training._run_state import RunKeys, init_run_state
from jaxopt_nn.training._sanity_data import (
    Measured,
    classes_of,
    duplicates,
    leak,
    relation,
    sample_rows,
    scales,
    table,
)
from jaxopt_nn.types import Array, Batch, Key, PyTree, TrainState

__all__ = ["Finding", "SanityReport", "sanity_check"]

_STEPS = 50  # of the recipe's optimizer on one batch
_FITTING_STEPS = 500  # of Adam on two examples
_RATE = 0.01  # of Adam there; outputs by themselves move at five times that
_WRONG = 1e-3  # relative error of a gradient that matters in training


class Finding(NamedTuple):
    """Something that looks wrong.

    Attributes:
        check: which check says so, a key of :attr:`SanityReport.figures`.
        sentence: what is wrong, with its figure.
        figure: the figure.
    """

    check: str
    sentence: str
    figure: float


class SanityReport(NamedTuple):
    """What :func:`sanity_check` saw. Printing it prints the findings.

    Attributes:
        findings: what looks wrong.
        figures: what each check measured, by its name, whether or not it found something.
        skipped: why a check was not made, by its name.
    """

    findings: tuple[Finding, ...]
    figures: dict[str, float]
    skipped: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        head = f"sanity check: {len(self.findings) or 'no'} finding{'s' * (len(self.findings) != 1)}"
        head += f" in {len(self.figures)} checks"
        lines = [f"- {finding.check}: {finding.sentence}" for finding in self.findings]
        return "\n".join([head, *lines, *(f"  {name} was not checked: {why}" for name, why in self.skipped.items())])

    def __repr__(self) -> str:
        """The findings."""
        return str(self)


def sanity_check(
    recipe: RecipeFn, hparams: PyTree, train: Batch, valid: Batch | None = None, *, key: Key | RunKeys
) -> SanityReport:
    """Looks for what is usually wrong before a training: in the data, the model, the loss and the optimizer.

    Each check measures one number, and a finding is a number out of the usual range. It is a hint and no proof; no
    finding is no proof either.

    - ``initial_loss``: of classes about log C; of a squared error about the variance of the targets.
    - ``overfits``: the model fits two examples with different targets, 1 as well as free outputs, 0 as the best common
      output (Adam, 500 steps, without penalty and dropout).
    - ``loss_falls``: the share by which the loss of one batch falls in 50 steps of the recipe's own optimizer.
    - ``independent``: in evaluation, the change of an example's outputs with the others in its batch.
    - ``gradient``: the relative error of the model's gradient, by :func:`jaxopt_nn.checking.check_gradients`.
    - ``logits``: 1 if the model ends with the activation that is part of the loss.
    - ``constant``: the largest share of a class, or of equal targets.
    - ``relation``: how clearly targets depend on features, in standard deviations, on up to 1,000 rows.
    - ``leak``: how well the best single feature tells the target.
    - ``scale``: the largest standard deviation or mean of a feature; no finding if the model normalizes it.
    - ``duplicates``: the share of validation rows that are in the training set.

    Args:
        recipe, hparams, train, valid: as for :func:`fit`.
        key: a PRNG key, or :class:`RunKeys`.

    Returns:
        The report. It takes some seconds, nearly all of them to compile.

    Raises:
        ValueError, TypeError: as :func:`fit`; also inside of ``jit``.

    References:
        Karpathy, "A recipe for training neural networks", 2019.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (200, 3))
    >>> train = Batch(x, (x[:, 0] > 0).astype(int))
    >>> def recipe(rate):
    ...     return training.Recipe(
    ...         layers.serial(layers.dense(2), jax.nn.softmax), losses.softmax_cross_entropy, optimizers.adam(rate))
    >>> report = training.sanity_check(recipe, 0.01, train, key=jax.random.key(1))
    >>> [finding.check for finding in report.findings]
    ['logits']
    """
    check_run_key(key)
    if is_traced_any((key, hparams, train, valid)):
        raise TypeError("sanity_check: expected to be called outside of jit, vmap and grad")
    parts = build_recipe(recipe, hparams)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="loss: it takes logits")  # a finding here
        train, valid = check_run_arguments(parts, train, valid)
    rows = sample_rows(train)
    setup = _Setup(recipe, static_unless_number(hparams), parts, split_key(key), rows)
    findings: list[Finding] = []
    figures: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for name, check in _checks(setup, train, valid):
        try:
            measured = check()
        except (TypeError, ValueError, NotImplementedError) as error:
            skipped[name] = str(error).split("\n", 1)[0]
            continue
        if measured is not None:
            figures[name] = measured.figure
            if measured.text:
                findings.append(Finding(name, measured.text, measured.figure))
    return SanityReport(tuple(findings), figures, skipped)


class _Setup(NamedTuple):
    recipe: RecipeFn
    hparams: PyTree
    parts: Recipe
    keys: RunKeys
    rows: Batch


def _checks(setup: _Setup, train: Batch, valid: Batch | None) -> Iterator[tuple[str, Callable[[], Measured | None]]]:
    features, y = table(setup.rows.x), setup.rows.y
    yield "logits", lambda: _logits(setup)
    yield "initial_loss", lambda: _initial_loss(setup)
    yield "loss_falls", lambda: _loss_falls(setup, train)
    yield "overfits", lambda: _overfits(setup, features)
    yield "independent", lambda: _independent(setup)
    yield "gradient", lambda: _gradient(setup)
    yield "constant", lambda: _constant(y)
    if features is not None:
        yield "relation", lambda: relation(features, y)
        yield "leak", lambda: leak(features, y)
        yield "scale", lambda: _scale(setup, features)
    if valid is not None:
        yield "duplicates", lambda: duplicates(train, valid)


def _logits(setup: _Setup) -> Measured:
    x = _shapes(setup.rows.x)
    activation = activation_before(setup.parts.loss, _evaluation(setup), init_shapes(setup.parts, x), x)
    text = f"the loss takes logits, but the model ends with a {activation} (1 time too often): leave that out"
    return Measured(float(activation is not None), text if activation else "")


def _initial_loss(setup: _Setup) -> Measured:
    rows = _some(setup.rows, 256)

    def program(hparams: PyTree, keys: RunKeys, rows: Batch) -> Array:
        parts, start = _start(setup, hparams, keys, rows)
        layer, key = model_of(parts), keys.noise
        # As in training: before the first step the running statistics of a BatchNorm are of no use.
        outputs = layer.apply(start.params, start.model_state, rows.x, train=True, key=key, weight=rows.weight)[0]
        return losses.weighted_mean(losses_of(parts, outputs, rows.y, _count(rows)), rows.weight)

    loss, kind = float(_call(program, setup.hparams, setup.keys, rows)), _plain_loss(setup.parts.loss)
    classes = classes_of(rows.y)
    if not math.isfinite(loss):
        return Measured(loss, f"the loss at the start is {loss}")
    if kind in (losses.softmax_cross_entropy, losses.sigmoid_cross_entropy):
        count = _outputs_of(setup)[-1] if kind is losses.softmax_cross_entropy else 2
        expected = math.log(count)
        if loss > 2 * expected + 1:
            text = (
                f"the loss at the start is {loss:.3g}, of log({count}) = {expected:.3g} for a model that knows nothing"
            )
            return Measured(loss, f"{text}: scale the features, or take a smaller initialization of the last layer")
        if classes is not None and len(np.unique(classes)) > 1:
            shares = np.bincount(classes) / len(classes)
            entropy = -float(np.sum(shares[shares > 0] * np.log(shares[shares > 0])))
            if loss < 0.5 * entropy:
                text = (
                    f"the loss at the start is {loss:.3g}, far below that of the shares of the classes, {entropy:.3g}"
                )
                return Measured(loss, f"{text}: does the model know the labels?")
    if kind is losses.mean_squared_error:
        y = np.asarray(rows.y, np.float64)
        variance = float(np.mean(np.var(y, 0)))
        if variance > 0 and loss > 30 * variance + 30:
            text = f"the loss at the start is {loss:.3g}, {loss / variance:.0f} times the variance of the targets"
            return Measured(loss, f"{text}: scale the features and the targets")
    return Measured(loss, "")


def _loss_falls(setup: _Setup, train: Batch) -> Measured:
    size = setup.parts.batch_size
    rows = _some(sample_rows(train, max(size, 2000)), size)
    count = _count(rows)
    weight = np.ones(count, np.float32) if rows.weight is None else rows.weight
    if count < size:  # rows without weight were left out
        rows = jax.tree.map(lambda leaf: np.resize(leaf, (size, *leaf.shape[1:])), rows._replace(weight=None))
        weight = np.concatenate([weight, np.zeros(size - count, weight.dtype)])
    rows = rows._replace(weight=weight)

    def program(hparams: PyTree, keys: RunKeys, rows: Batch) -> tuple[Array, Array, Array]:
        parts = build_recipe(setup.recipe, hparams)
        start = init_run_state(parts, keys, rows)
        step = make_recipe_step(parts, start)

        def body(state: TrainState, index: Array) -> tuple[TrainState, tuple[Array, Array]]:
            del index
            state, metrics = step(state, rows)
            return state, (metrics["loss"], metrics["applied"])

        end, (values, applied) = lax.scan(body, start.state, jnp.arange(_STEPS))
        evaluated = [
            evaluate_model(parts, state.params, state.model_state, rows)["loss"] for state in (start.state, end)
        ]
        return values, applied, jnp.stack(evaluated)

    values, applied, evaluated = (np.asarray(each) for each in _call(program, setup.hparams, setup.keys, rows))
    if not applied.all():
        step = int(np.argmin(applied))
        return Measured(float("nan"), f"the loss or its gradient is not finite at step {step} of {_STEPS} on one batch")
    first, last = float(values[:5].mean()), float(values[-5:].mean())
    falls = (first - last) / max(abs(first), 1e-12)
    by_evaluation = float(evaluated[0] - evaluated[1]) / max(abs(float(evaluated[0])), 1e-12)
    text = (
        f"the loss of one batch does not fall in {_STEPS} steps of the optimizer, from {first:.4g} to {last:.4g}: the "
        f"learning rate is far too large or far too small, or the gradient is 0"
    )
    return Measured(falls, text if max(falls, by_evaluation) < 1e-4 or not math.isfinite(falls) else "")


def _overfits(setup: _Setup, features: np.ndarray[Any, Any] | None) -> Measured | None:
    pair = _two_different(setup.rows, features)
    if pair is None:
        return None
    is_regression = classes_of(setup.rows.y) is None
    rate = 5 * _RATE * (max(1.0, float(np.abs(pair.y).max())) if is_regression else 1.0)

    def program(hparams: PyTree, keys: RunKeys, rows: Batch) -> tuple[Array, Array, Array]:
        parts, start = _start(setup, hparams, keys, rows)

        def loss_of(outputs: PyTree) -> Array:
            return jnp.mean(losses_of(parts, outputs, rows.y, 2))

        def outputs_of(params: PyTree) -> PyTree:
            layer = model_of(parts)
            return layer.apply(params, start.model_state, rows.x, train=False, key=None, weight=None)[0]

        outputs = outputs_of(start.params)
        zeros = jax.tree.map(jnp.zeros_like, outputs)

        def of_common(outputs: PyTree) -> Array:
            return loss_of(jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), outputs))

        return (
            _least(lambda params: loss_of(outputs_of(params)), start.params, _RATE),
            _least(of_common, zeros, rate),
            _least(loss_of, zeros, rate),
        )

    model, common, free = (float(value) for value in _call(program, setup.hparams, setup.keys, pair))
    if not common - free > 1e-3 * max(abs(common), abs(free), 1e-6):
        return None
    share = (common - model) / (common - free)
    text = (
        f"two examples with different targets cannot be fitted: after {_FITTING_STEPS} steps the loss is {model:.3g}, "
        f"that of one output for both {common:.3g}; is the gradient 0, or does the model not see its input?"
    )
    return Measured(share, "" if share > 0.5 else text)


def _least(function: Callable[[PyTree], Array], start: PyTree, rate: float) -> Array:
    """The least value on the way of Adam."""
    optimizer = optax.adam(rate)

    def body(carry: Any, index: Array) -> tuple[Any, Array]:
        del index
        at, state = carry
        value, slope = jax.value_and_grad(function)(at)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(at, updates), state), value

    values = lax.scan(body, (start, optimizer.init(start)), jnp.arange(_FITTING_STEPS))[1]
    return jnp.nanmin(values)


def _independent(setup: _Setup) -> Measured | None:
    count = min(8, _count(setup.rows))
    if count < 2:
        return None
    x = _some(setup.rows, count).x
    half = count // 2
    # The same rows in another order; and half of them among others: all copies of the first.
    turned = jax.tree.map(lambda leaf: leaf[::-1], x)
    among = jax.tree.map(lambda leaf: np.concatenate([leaf[:half], np.repeat(leaf[:1], count - half, 0)]), x)

    def program(hparams: PyTree, keys: RunKeys, x: PyTree, turned: PyTree, among: PyTree) -> tuple[PyTree, ...]:
        parts, start = _start(setup, hparams, keys, Batch(x, None))

        def outputs(x: PyTree) -> PyTree:
            layer = model_of(parts)
            return layer.apply(start.params, start.model_state, x, train=False, key=None, weight=None)[0]

        return outputs(x), jax.tree.map(lambda leaf: leaf[::-1], outputs(turned)), outputs(among)

    plain, back, near = (
        [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(each)]
        for each in _call(program, setup.hparams, setup.keys, x, turned, among)
    )
    change = 0.0
    for one, other, third in zip(plain, back, near, strict=True):
        size = float(np.sqrt(np.mean(one**2))) + 1e-12
        change = max(change, float(np.abs(one - other).max()) / size)
        change = max(change, float(np.abs(one[:half] - third[:half]).max()) / size)
    text = (
        f"in evaluation, the outputs of an example change by {change:.2g} of their size with the other examples in its "
        f"batch: does a layer mix examples?"
    )
    return Measured(change, "" if change < 0.02 else text)


def _gradient(setup: _Setup) -> Measured:
    parts, rows = setup.parts, _some(setup.rows, 4)
    layer = model_of(parts)
    key, check_key = jax.random.split(setup.keys.noise)
    params, model_state = jax.jit(layer.init)(setup.keys.init, rows.x)

    def loss(params: PyTree) -> Array:
        outputs = layer.apply(params, model_state, rows.x, train=True, key=key, weight=None)[0]
        return jnp.mean(losses_of(parts, outputs, rows.y, _count(rows)))

    report = checking.check_gradients(loss, params, key=check_key)
    # One that a stop_gradient blocks is taken as meant.
    suspects = [leaf for leaf in report.leaves if leaf.verdict in ("FAIL", "NONDETERMINISTIC")]
    wrong = [leaf for leaf in suspects if not leaf.relative_error < _WRONG]
    error = max((leaf.relative_error for leaf in report.leaves if math.isfinite(leaf.relative_error)), default=0.0)
    if not wrong:
        return Measured(error, "")
    names = ", ".join(leaf.path for leaf in wrong[:3])
    return Measured(
        error,
        f"the gradient of {names} is not the slope of the loss, relative error {error:.2g}: "
        f"{wrong[0].hypothesis or 'see checking.check_gradients'}",
    )


def _constant(y: Any) -> Measured | None:
    if not hasattr(y, "dtype"):
        return None
    classes = classes_of(y)
    values = classes if classes is not None else np.asarray(y).reshape(len(y), -1)
    counts = np.unique(values, axis=0, return_counts=True)[1]
    share = float(counts.max() / len(y))
    if share == 1 and len(y) > 1:
        return Measured(share, f"all targets are equal (a share of {share:.0%})")
    if share > 0.99 and len(y) >= 100:
        return Measured(share, f"a share of {share:.1%} of the targets is equal: the model will say nothing else")
    return Measured(share, "")


def _scale(setup: _Setup, features: np.ndarray[Any, Any]) -> Measured | None:
    x = setup.rows.x
    if any(np.asarray(leaf).dtype.kind in "iub" for leaf in jax.tree.leaves(x)):
        return None  # ids, or pixels for a model that converts them
    measured = scales(features)
    if measured.text and _normalizes(setup):
        return Measured(measured.figure, "")
    return measured


def _normalizes(setup: _Setup) -> bool:
    """Whether the model brings its features to a usual scale by itself."""
    x = _some(setup.rows, 64).x

    def whole(leaf: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((leaf - leaf.mean()) / max(leaf.std(), 1e-12)).astype(leaf.dtype)

    def each(leaf: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((leaf - leaf.mean(0)) / np.maximum(leaf.std(0), 1e-6 * leaf.std() + 1e-12)).astype(leaf.dtype)

    def program(hparams: PyTree, keys: RunKeys, *several: PyTree) -> list[PyTree]:
        parts, start = _start(setup, hparams, keys, Batch(several[0], None))
        apply = functools.partial(
            model_of(parts).apply, start.params, start.model_state, train=True, key=keys.noise, weight=None
        )
        return [apply(x)[0] for x in several]

    outputs = _call(program, setup.hparams, setup.keys, x, jax.tree.map(whole, x), jax.tree.map(each, x))
    raw, *scaled = (
        np.concatenate([np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(each)], 1)
        for each in outputs
    )
    spread = float(raw.std(0).mean()) + 1e-12
    is_invariant = any(float(np.abs(raw - other).mean()) < 0.2 * spread for other in scaled)
    # It divides by a number of its own: then scaled features would have become tiny.
    divides = all(float(other.std(0).mean()) < 0.2 * spread for other in scaled) and spread < 5
    return is_invariant or divides


def _two_different(rows: Batch, features: np.ndarray[Any, Any] | None) -> Batch | None:
    """Two rows with targets as different as a few hundred rows have."""
    y = rows.y
    if features is None or not hasattr(y, "dtype"):
        return None
    classes = classes_of(y)
    chosen = np.linspace(0, len(y) - 1, min(500, len(y))).astype(int)
    values, x = (classes if classes is not None else np.asarray(y, np.float64)).reshape(len(y), -1), features[chosen]
    values = values[chosen]
    low = int(values.mean(1).argmin())
    differs = np.flatnonzero((values != values[low]).any(1))
    if not len(differs):
        return None
    if classes is None:  # the targets furthest from it
        away = np.abs(values[differs] - values[low]).mean(1)
        differs = differs[away >= np.quantile(away, 0.9)]
    apart = np.square(x[differs] - x[low]).sum(1)
    high = int(differs[apart.argsort()[len(apart) // 2]])  # the furthest one may be an outlier
    if (x[low] == x[high]).all():
        return None
    pair = chosen[[low, high]]
    return Batch(*(jax.tree.map(lambda leaf: np.asarray(leaf)[pair], each) for each in rows[:2]))


def _start(setup: _Setup, hparams: PyTree, keys: RunKeys, rows: Batch) -> tuple[Recipe, TrainState]:
    """The recipe, and the state before the first step."""
    parts = build_recipe(setup.recipe, hparams)
    return parts, init_run_state(parts, keys, rows).state


def _outputs_of(setup: _Setup) -> tuple[int, ...]:
    x = _shapes(setup.rows.x)
    return jax.eval_shape(_evaluation(setup), init_shapes(setup.parts, x), x).shape


def _evaluation(setup: _Setup) -> Callable[[Any, PyTree], Any]:
    """The model's outputs in evaluation, of ``(params, model_state)`` and features."""

    def outputs(variables: Any, x: PyTree) -> Any:
        params, model_state = variables
        return model_of(setup.parts).apply(params, model_state, x, train=False, key=None, weight=None)[0]

    return outputs


def _plain_loss(loss: Any) -> Any:
    """The loss itself, without numbers that change only little; one of weighted classes is another loss."""
    while isinstance(loss, functools.partial):
        if set(loss.keywords) - {"label_smoothing"} or loss.args:
            return None
        loss = loss.func
    return loss


def _some(rows: Batch, count: int) -> Batch:
    """So many rows, or all, evenly spread: data may be sorted."""
    total = _count(rows)
    chosen = np.linspace(0, total - 1, min(count, total)).astype(int)
    return jax.tree.map(lambda leaf: leaf[chosen], rows)


def _count(rows: Batch) -> int:
    return len(jax.tree.leaves(rows.x)[0])


def _shapes(x: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return compiled(function, *arguments)[0](*arguments)
