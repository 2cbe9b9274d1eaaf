"""Evaluation and prediction, in bounded memory."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn import losses
from jaxopt_nn._dtypes import compute_dtype
from jaxopt_nn._scale import power_of_two
from jaxopt_nn.data._checks import is_integer
from jaxopt_nn.metrics._in_runs import Unweighted
from jaxopt_nn.training._batches import count_examples
from jaxopt_nn.training._checks import check_data, check_values, examples_at_once, init_shapes
from jaxopt_nn.training._devices import slice_rows, split_rows
from jaxopt_nn.training._programs import compiled, is_traced_any, static_unless_number
from jaxopt_nn.training._recipe import Recipe, RecipeFn, build_recipe, losses_of, model_of
from jaxopt_nn.training._weighting import is_whole_set, rows_of, values_of, whole_set_value
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Array, Batch, Params, PyTree, State

__all__ = ["Trained", "checked_variables", "evaluate", "evaluate_model", "make_predict", "predict", "run_program"]


class Trained(Protocol):
    """Anything with trained parameters: a ``RunResult``, a ``TrainState``."""

    @property
    def params(self) -> Params: ...
    @property
    def model_state(self) -> State: ...


def predict(recipe: RecipeFn, hparams: PyTree, trained: Trained, x: PyTree) -> PyTree:
    """The outputs of a trained model in evaluation mode.

    Args:
        recipe, hparams: what it was trained with.
        trained: has ``params`` and ``model_state``: a run's result (its best weights), or a ``TrainState``.
        x: features ``[N, ...]``, N >= 1.

    Returns:
        The outputs ``[N, ...]``, for a classifier usually logits, computed ``evaluation_batch_size`` examples at a
        time. Outside of ``jit`` a call is one program, which is compiled once.

    Raises:
        TypeError: ``trained`` has no parameters, or ``x`` is a ``Batch``.
        ValueError: the parameters are not those of this model (naming the paths), ``x`` has another number of features
            (naming the layer) or holds NaN, infinity or, for an embedding, ids out of range.
    """
    x = _features(x)
    parts = build_recipe(recipe, hparams)
    variables = checked_variables(parts, trained, Batch(x, None))

    def outputs(hparams: PyTree, variables: tuple[Params, State], x: PyTree) -> PyTree:
        return _predict(build_recipe(recipe, hparams), *variables, x)

    return run_program(outputs, hparams, variables, x)


def make_predict(recipe: RecipeFn, hparams: PyTree, trained: Trained) -> Callable[[PyTree], PyTree]:
    """The predictions of one trained model as a function, which is traced once: to serve it, row by row.

    :func:`predict` calls the recipe and traces the model at each call, which takes milliseconds, so that it never uses
    an old one. This function keeps the model as it is now, whatever the recipe would say later.

    Args:
        recipe, hparams, trained: as for :func:`predict`.

    Returns:
        ``x -> outputs``, with the values and errors of :func:`predict`. It compiles a program for each shape of ``x``.
        Only integer features, as ids, are looked at by a trace at each call.

    Raises:
        TypeError: ``trained`` has no parameters.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> train = Batch(jnp.arange(8.0).reshape(8, 1) / 8, jnp.arange(8.0).reshape(8, 1))
    >>> def recipe(rate):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(rate), batch_size=4)
    >>> result = training.fit(recipe, 0.1, train, key=jax.random.key(0))
    >>> predict = training.make_predict(recipe, 0.1, result)
    >>> predict(train.x).shape, predict(train.x[:1]).shape
    ((8, 1), (1, 1))
    """
    parts, variables = build_recipe(recipe, hparams), _variables(trained)
    checked: set[Any] = set()  # shapes of features

    @jax.jit
    def outputs(variables: tuple[Params, State], x: PyTree) -> PyTree:
        return _predict(parts, *variables, x)

    def predict(x: PyTree) -> PyTree:
        x = _features(x)
        leaves, treedef = jax.tree.flatten(x)
        shapes = (treedef, *((leaf.shape, leaf.dtype) for leaf in leaves))
        if shapes not in checked or any(is_integer(leaf.dtype) for leaf in leaves):
            checked_variables(parts, trained, Batch(x, None))
            checked.add(shapes)
        return outputs(variables, x)

    return predict


def evaluate(recipe: RecipeFn, hparams: PyTree, trained: Trained, batch: Batch) -> dict[str, Array]:
    """The mean loss (without penalty) and metrics of a trained model over a data set, weighted by example.

    Args:
        recipe, hparams: what it was trained with.
        trained: has ``params`` and ``model_state``: a run's result (its best weights), or a ``TrainState``.
        batch: the data set.

    Returns:
        ``{"loss": ..., <name>: ...}`` with the recipe's metrics. Outside of ``jit`` a call is one program, which is
        compiled once. Around ``vmap`` put ``jit``: else more rows than ``evaluation_batch_size`` compile at each call.

    Raises:
        TypeError, ValueError: as :func:`predict`, and for unusable data (see :func:`jaxopt_nn.data.check_batch`), such
            as targets that the loss or a metric is not defined for.
    """
    parts = build_recipe(recipe, hparams)
    batch = check_data("batch", batch)
    variables = checked_variables(parts, trained, batch, "batch", [parts.loss, *parts.metrics.values()])

    def values(hparams: PyTree, variables: tuple[Params, State], batch: Batch) -> dict[str, Array]:
        return evaluate_model(build_recipe(recipe, hparams), *variables, batch)

    return run_program(values, hparams, variables, batch)


def run_program(function: Callable[..., Any], hparams: PyTree, *arguments: PyTree) -> Any:
    """Calls the function: inside of a program that is being traced, or else as a program that is compiled once."""
    if is_traced_any((hparams, arguments)):
        return function(hparams, *arguments)
    arguments = (static_unless_number(hparams), *arguments)
    return compiled(function, *arguments)[0](*arguments)


def _predict(parts: Recipe, params: Params, model_state: State, x: PyTree) -> PyTree:
    examples = count_examples(Batch(x, None))
    size = examples_at_once(parts, examples)
    if size == examples:
        return _outputs(parts, params, model_state, x)

    def outputs(x: PyTree) -> PyTree:
        return _outputs(parts, params, model_state, x)

    count = -(-examples // size)
    windows = lax.map(outputs, jax.tree.map(lambda leaf: split_rows(leaf, count, size), x))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:examples], windows)


def evaluate_model(parts: Recipe, params: Params, model_state: State, data: Batch) -> dict[str, Array]:
    """The same for a recipe's parts; ``evaluation_batch_size`` examples at a time, each counted once."""

    def means(outputs: PyTree, batch: Batch, is_new: Array | None) -> tuple[dict[str, Array], dict[bool, Array]]:
        """The means, and of what they are means: the sum of weights, and, for unweighted metrics, the rows."""
        rows = rows_of(outputs, batch)
        values = {"loss": losses_of(parts, rows.outputs, rows.targets, rows.size)}
        values |= {name: values_of(name, metric, rows) for name, metric in mean_metrics.items()}
        weight = jnp.ones_like(values["loss"]) if rows.weight is None else rows.weight.astype(values["loss"].dtype)
        if is_new is not None:
            is_new = is_new if rows.size == is_new.size else jnp.repeat(is_new, rows.size // is_new.size)
            weight = jnp.where(is_new, weight, 0)
        weights = {True: weight}
        if any(map(is_unweighted, values)):
            weights[False] = (weight > 0).astype(weight.dtype)
        each = {name: losses.weighted_mean(value, weights[not is_unweighted(name)]) for name, value in values.items()}
        return each, {weighted: jnp.sum(weight) for weighted, weight in weights.items()}

    def is_unweighted(name: str) -> bool:
        return isinstance(parts.metrics.get(name), Unweighted)

    mean_metrics = {name: metric for name, metric in parts.metrics.items() if not is_whole_set(metric)}
    has_whole_set = len(mean_metrics) < len(parts.metrics)
    if data.weight is not None:  # only their ratios count, but their sum has to be finite
        weight = data.weight.astype(compute_dtype(data.weight.dtype))
        data = data._replace(weight=weight / power_of_two(jnp.max(weight)))
    examples = count_examples(data)
    size = examples_at_once(parts, examples)
    if size == examples:
        outputs = _outputs(parts, params, model_state, data.x)
        values, totals = means(outputs, data, None)
    else:
        # The last window overlaps the one before, and rows that were counted there have weight 0. So nothing is padded.
        def window(index: Array) -> tuple[dict[str, Array], dict[bool, Array], PyTree]:
            start = jnp.minimum(index * size, examples - size)
            rows = jax.tree.map(lambda leaf: slice_rows(leaf, start, size), data)
            is_new = start + jnp.arange(size) >= index * size
            outputs = _outputs(parts, params, model_state, rows.x)
            return *means(outputs, rows, is_new), outputs if has_whole_set else None

        each, sums, outputs = lax.map(window, jnp.arange(-(-examples // size)))
        values = {name: losses.weighted_mean(mean, sums[not is_unweighted(name)]) for name, mean in each.items()}
        totals = {weighted: jnp.sum(each) for weighted, each in sums.items()}
        outputs = jax.tree.map(lambda leaf: _without_overlap(leaf, examples), outputs)
    if has_whole_set:
        rows = rows_of(outputs, data)
        values |= {
            name: whole_set_value(name, each, rows) for name, each in parts.metrics.items() if is_whole_set(each)
        }
    return {name: jnp.where(totals[True] == 0, jnp.nan, value) for name, value in values.items()}


def _without_overlap(windows: Array, examples: int) -> Array:
    """Windows ``[count, size, ...]``, of which the last overlaps the one before, as ``[examples, ...]``."""
    count, size = windows.shape[:2]
    before = windows[:-1].reshape(-1, *windows.shape[2:])
    return jnp.concatenate([before, windows[-1, count * size - examples :]])


def _outputs(parts: Recipe, params: Params, model_state: State, x: PyTree) -> PyTree:
    return model_of(parts).apply(params, model_state, x, train=False, key=None, weight=None)[0]


def _features(x: PyTree) -> PyTree:
    """Features as JAX arrays; raises if they cannot be used."""
    if isinstance(x, Batch):
        raise TypeError("x: expected features, got a Batch: pass its x")
    return check_data("", Batch(x, None)).x


def checked_variables(
    parts: Recipe,
    trained: Any,
    batch: Batch,
    name: str = "",
    functions: Sequence[Callable[[Any, Any], Any]] = (),
) -> tuple[Params, State]:
    """Parameters and model state. Raises if they are not of this model, or for values as ``check_values`` does."""
    variables = _variables(trained)
    expected = init_shapes(parts, batch.x)
    for part, want, have in zip(("params", "model_state"), expected, variables, strict=True):
        paths, got = {path for path, _ in named_leaves(want)}, {path for path, _ in named_leaves(have)}
        if paths != got:
            missing, unexpected = sorted(paths - got), sorted(got - paths)
            raise ValueError(f"{part}: not those of this model: missing {missing}, unexpected {unexpected}")
    check_values(parts, variables, batch, name, functions)  # if the features do not fit, their layer says so
    # A model may take shapes that are not its own: a layer may be of another width.
    for part, want, have in zip(("params", "model_state"), expected, variables, strict=True):
        shapes = {path: np.shape(leaf) for path, leaf in named_leaves(have)}
        for path, leaf in named_leaves(want):
            if leaf.shape != shapes[path]:
                raise ValueError(
                    f"{part}[{path}]: expected the shape {list(leaf.shape)} of this model, got {list(shapes[path])}"
                )
    return variables


def _variables(trained: Any) -> tuple[Params, State]:
    if not (hasattr(trained, "params") and hasattr(trained, "model_state")):
        raise TypeError(
            f"trained: expected what has params and model_state, as a run's result or a TrainState, got a "
            f"{type(trained).__name__}"
        )
    return trained.params, trained.model_state
