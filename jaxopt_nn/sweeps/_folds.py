"""Cross-validation: the folds are lanes, and each lane looks up its rows in data that all of them share."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_key, shown
from jaxopt_nn.sweeps._plan import check_reads, without_seed
from jaxopt_nn.sweeps._results import Sweep
from jaxopt_nn.sweeps._space import Space, as_trials
from jaxopt_nn.sweeps._sweep import sweep_function
from jaxopt_nn.training import Recipe, RunKeys, RunResult, make_run
from jaxopt_nn.training._batches import count_examples
from jaxopt_nn.training._checks import check_data, check_run_arguments
from jaxopt_nn.training._devices import take_rows
from jaxopt_nn.training._programs import static_unless_number
from jaxopt_nn.training._recipe import build_recipe, model_of
from jaxopt_nn.types import Batch, Key, PyTree

__all__ = ["cross_validate"]

Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]
"""Row numbers ``[folds, rows]``, and weights of that shape, 0 for padding; None if all folds have as many rows."""


def cross_validate(
    recipe: Callable[[Any], Recipe],
    space: Space,
    data: Batch,
    folds: Iterable[tuple[Any, Any]],
    *,
    key: Key,
    objective: str = "valid_loss",
    **options: Any,
) -> Sweep:
    """Runs every trial of a space on every fold.

    The folds are lanes of the same programs as the hyperparameters and seeds. A lane holds the numbers of its rows, not
    a copy of the data. All lanes share one order of the batches.

    Args:
        recipe: a function from hyperparameters to a :class:`~jaxopt_nn.training.Recipe`.
        space: as of :func:`sweep`; each trial is run once a fold.
        data: all examples.
        folds: at least two pairs of row numbers, for training and for validation, as scikit-learn's splitters make
            them: ``KFold(5).split(x)``, ``StratifiedKFold(5).split(x, y)``, ``GroupKFold(5).split(x, y, groups)``.
        key: a PRNG key. A lane is the run on its fold whose keys are ``RunKeys(init, order, noise)``: ``order`` is the
            second of ``jax.random.split(key)``; ``init`` and ``noise`` are the ``jax.random.split`` of
            ``fold_in(key, seed)``.
        objective: a name of the history, as of :func:`sweep`.
        **options: of :func:`sweep_function`, such as ``store``, ``mode`` and ``lanes``.

    Returns:
        A :class:`Sweep`, each of whose trials has a ``fold``. A configuration is judged by its mean over seeds and
        folds, two are compared fold by fold, and intervals are wider than over seeds alone, since the training sets
        overlap. ``expected_drop().new_data`` is the drop that the best one has to expect on test data. Folds of unequal
        size are filled up with rows of weight 0.

    Raises:
        TypeError, ValueError: as :func:`sweep`; the folds are no pairs of row numbers of the data, or a row is in both
            parts of a pair.

    References:
        Nadeau and Bengio, "Inference for the generalization error", 2003.

    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from jaxopt_nn import layers, losses, optimizers, sweeps, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (30, 3))
    >>> data = Batch(x, x @ jnp.array([[1.0], [-2.0], [0.5]]))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(hp["rate"]),
    ...         batch_size=10, epochs=5)
    >>> rows = np.arange(30)
    >>> folds = [(rows[rows % 3 != fold], rows[rows % 3 == fold]) for fold in range(3)]
    >>> result = sweeps.cross_validate(recipe, sweeps.grid(rate=[1e-3, 1e-1]), data, folds, key=jax.random.key(1))
    >>> len(result.records), result.best().hparams
    (6, {'rate': 0.1})
    """
    check_key("key", key)
    trials = as_trials(space)
    check_reads(recipe, trials)
    if taken := [trial for trial in trials if "fold" in trial]:
        raise ValueError(f"space: expected no hyperparameter called 'fold', which numbers the folds, got {taken[0]}")
    data = _checked(recipe, trials, data)
    pairs = _pairs(folds, count_examples(data))
    parts = tuple(_padded([pair[part] for pair in pairs]) for part in (0, 1))
    order = jax.random.key_data(jax.random.split(key)[1])
    implementation = jax.random.key_impl(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else None

    def run(key: Key, hparams: Any, data: Batch, parts: tuple[Rows, Rows], order: Any) -> RunResult:
        fold = hparams["fold"]
        rest = {name: value for name, value in hparams.items() if name != "fold"}
        init, noise = jax.random.split(key)
        keys = RunKeys(init, jax.random.wrap_key_data(order, impl=implementation), noise)
        train, valid = (_of_fold(data, rows, weights, fold) for rows, weights in parts)
        of_fold = make_run(lambda hparams: _looking_up(recipe(hparams), data))
        return of_fold(keys, static_unless_number(rest), train, valid)

    # What the store compares, and error messages name, is the recipe.
    run.__wrapped__ = recipe  # pyright: ignore[reportFunctionMemberAccess]
    every = [{**trial, "fold": fold} for trial in trials for fold in range(len(pairs))]
    result = sweep_function(run, every, data, parts, order, key=key, objective=objective, **options)
    return result._replace(repeats=("seed", "fold"))


def _looking_up(parts: Recipe, data: Batch) -> Recipe:
    """The same recipe for batches whose features and targets are numbers of rows of the data."""
    model = model_of(parts)

    def rows_of(tree: PyTree, rows: Any) -> PyTree:
        return jax.tree.map(lambda leaf: take_rows(leaf, rows), tree)

    def init(key: Key, rows: Any) -> Any:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*rows.shape, *leaf.shape[1:]), leaf.dtype), data.x)
        return model.init(key, shapes)

    def apply(params: Any, state: Any, rows: Any, **settings: Any) -> Any:
        return model.apply(params, state, rows_of(data.x, rows), **settings)

    def of_targets(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda outputs, rows: function(outputs, rows_of(data.y, rows))

    return parts._replace(
        model=model._replace(init=init, apply=apply),
        loss=of_targets(parts.loss),
        metrics={name: of_targets(metric) for name, metric in parts.metrics.items()},
    )


def _of_fold(data: Batch, rows: Any, weights: Any, fold: Any) -> Batch:
    own, weight = rows[fold], None if weights is None else weights[fold]
    if data.weight is not None:
        weight = data.weight[own] if weight is None else data.weight[own] * weight
    return Batch(own, own, weight)


def _padded(parts: list[np.ndarray[Any, Any]]) -> Rows:
    most = max(map(len, parts))
    rows = np.stack([np.pad(part, (0, most - len(part))) for part in parts]).astype(np.int32)
    if all(len(part) == most for part in parts):
        return rows, None
    return rows, np.stack([np.arange(most) < len(part) for part in parts]).astype(np.float32)


def _checked(recipe: Callable[[Any], Recipe], trials: Space, data: Batch) -> Batch:
    """The data on the device; raises as a run does, for the first trial whose recipe does not raise itself."""
    for trial in trials:
        try:
            parts = build_recipe(recipe, without_seed(trial))
        except Exception:
            continue
        return check_run_arguments(parts, data, None)[0]
    return check_data("data", data)


def _pairs(folds: Any, examples: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    if isinstance(folds, (int, str)) or hasattr(folds, "split"):
        raise TypeError(
            f"folds: expected pairs of row numbers, got {shown(folds)}; a splitter of scikit-learn makes them: "
            f"KFold(5).split(x)"
        )
    pairs: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
    for index, pair in enumerate(folds):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"folds[{index}]: expected a pair of row numbers (train, valid), got {shown(pair)}")
        train, valid = (np.asarray(part) for part in pair)
        for name, part in (("train", train), ("valid", valid)):
            if part.ndim != 1 or not np.issubdtype(part.dtype, np.integer) or not part.size:
                raise ValueError(f"folds[{index}]: expected {name} row numbers [n], got {part.dtype}{list(part.shape)}")
            if part.min() < 0 or part.max() >= examples:
                raise ValueError(
                    f"folds[{index}]: expected {name} row numbers in [0, {examples}), got {part.min()} to {part.max()}"
                )
        if both := set(train.tolist()) & set(valid.tolist()):
            raise ValueError(f"folds[{index}]: expected disjoint parts, got row {min(both)} in both")
        pairs.append((train, valid))
    if len(pairs) < 2:
        raise ValueError(f"folds: expected at least two, got {len(pairs)}")
    return pairs
