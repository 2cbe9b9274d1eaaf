"""What an experiment consists of."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn import metrics
from jaxopt_nn._arguments import check_choice, check_number, check_positive_int, shown
from jaxopt_nn.augment import Augment
from jaxopt_nn.augment._batches import check_augment
from jaxopt_nn.layers import as_layer
from jaxopt_nn.optimizers import Plateau
from jaxopt_nn.training._loss_scale import DynamicLossScale, check_loss_scale
from jaxopt_nn.training._records import Record, check_record
from jaxopt_nn.training._step import check_optimizer
from jaxopt_nn.training._stopping import EarlyStopping, infer_mode, resolve_mode
from jaxopt_nn.trees import takes
from jaxopt_nn.types import Array, ArrayLike, Batch, Layer, Params, PyTree, Static, TrainState

__all__ = ["Recipe", "RecipeFn", "build_recipe", "check_recipe", "losses_of", "model_of", "penalty_of"]


class Recipe(NamedTuple):
    """The parts of a training run. A *recipe* is a function from hyperparameters to one of these.

    Numbers inside of the parts (a learning rate, a penalty's strength, a drop rate, a patience) may be traced. The
    fields below that are numbers are static, unless they say otherwise, because they fix shapes and the lengths of
    loops.

    Attributes:
        model: a :class:`~jaxopt_nn.types.Layer`, or a plain function of an array.
        loss: ``(outputs, targets) -> [N]``, one value for each example, as in :mod:`jaxopt_nn.losses`.
        optimizer: any optimizer of the optax protocol.
        penalty: ``params -> scalar``, added to the mean loss, as in :mod:`jaxopt_nn.penalties`; None for none.
        metrics: name to ``(outputs, targets) -> [N]``, as in :mod:`jaxopt_nn.metrics`; evaluated on the validation set
            after each epoch, and recorded as ``valid_<name>``; any name but ``loss``. They are means weighted by
            example. :func:`jaxopt_nn.metrics.whole_set` makes one of all examples at once, such as an area under a
            curve, :func:`jaxopt_nn.metrics.unweighted` one without weights.
        batch_size: examples in a step; all N are batch gradient descent, 1 is stochastic gradient descent.
        epochs: passes over the data, at the most.
        last_batch: what happens to examples that do not fill a batch: ``"pad"`` (the batch is filled up with rows of
            weight 0) or ``"drop"``.
        shuffle: whether each epoch goes through the data in a new random order.
        early_stopping: when to stop and which weights to return; None to train for all epochs and return the last.
        plateau: reduces the learning rate when ``plateau_monitor`` stops improving, as in
            :func:`jaxopt_nn.optimizers.reduce_on_plateau`; None for none.
        plateau_monitor: the name of a history entry. If more of it is better, as of ``valid_accuracy``, the plateau
            needs ``mode="max"``.
        micro_batches: parts into which each batch is split, to bound the memory of a step; the gradient is that of the
            whole batch.
        nonfinite_limit: after so many steps in a row whose loss or gradient is not finite, the run ends; fewer are
            skipped. 1 ends it at the first. May be traced.
        valid_every: validate after every so many epochs, a divisor of ``epochs``. Of the others ``valid_<name>`` is
            NaN, and what monitors it (early stopping, plateau) does not count them.
        train_metrics: whether the metrics are recorded of the training batches too, as ``train_<name>``: like
            ``train_loss`` with the parameters of each step, and dropout. Those of a whole set are not.
        evaluation_batch_size: the most examples that are evaluated at once, to bound the memory. None for 1,024.
        augment: ``(batch, keys) -> batch``, as in :mod:`jaxopt_nn.augment`: changes each batch of training before the
            step, and nothing in evaluation. It keeps shape and dtype of the features; targets may become others.
        loss_scale: for a model that computes in float16: a number, which may be traced, or a
            :class:`DynamicLossScale`, as in :func:`make_step`. None does not scale.
        record: name to :class:`Record`, or to a function of an :class:`EpochEnd`: what else the history keeps. What
            :mod:`jaxopt_nn.monitor` makes are such records.
    """

    model: Layer | Callable[[Any], Any]
    loss: Callable[[Any, Any], Array]
    optimizer: optax.GradientTransformation
    penalty: Callable[[Params], Array] | None = None
    metrics: Mapping[str, Callable[[Any, Any], Array]] = {}
    batch_size: int = 32
    epochs: int = 10
    last_batch: str = "pad"
    shuffle: bool = True
    early_stopping: EarlyStopping | None = None
    plateau: Plateau | None = None
    plateau_monitor: str = "valid_loss"
    micro_batches: int = 1
    nonfinite_limit: ArrayLike = 1
    valid_every: int = 1
    train_metrics: bool = False
    evaluation_batch_size: int | None = None
    augment: Augment | None = None
    loss_scale: ArrayLike | DynamicLossScale | None = None
    record: Mapping[str, Record | Callable[..., Any]] = {}


RecipeFn = Callable[[Any], Recipe]
"""``hparams -> Recipe``. It is called while the run is traced, so numbers in ``hparams`` are tracers."""


def build_recipe(recipe: RecipeFn, hparams: PyTree) -> Recipe:
    """Calls the recipe and checks its parts. It gets the values inside of ``Static`` leaves."""
    check_recipe(recipe)
    _check_hparams(hparams)
    try:
        parts = recipe(jax.tree.map(_plain, hparams, is_leaf=_is_static))
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise TypeError(
            "recipe: it uses a traced hyperparameter as a Python value; wrap that one as jaxopt_nn.types.Static(value) "
            "where it enters the run"
        ) from error
    if not isinstance(parts, Recipe):
        raise TypeError(f"recipe: expected it to return a training.Recipe, got {type(parts).__name__}")
    _check_parts(parts)
    return parts


def check_recipe(recipe: Any) -> None:
    """Raises unless ``recipe`` is a function of hyperparameters."""
    if not callable(recipe) or not takes(recipe, None):
        raise TypeError(
            f"recipe: expected a function of hyperparameters, got {shown(recipe)}: write lambda hp: Recipe(...)"
        )


def _check_hparams(hparams: PyTree) -> None:
    def is_data(node: Any) -> bool:
        return isinstance(node, (Batch, TrainState))

    for node in jax.tree.leaves(hparams, is_leaf=is_data):
        if is_data(node):
            raise TypeError(
                f"hparams: expected hyperparameters, got a {type(node).__name__}; they come before the data: "
                f"run(key, hparams, train, valid), fit(recipe, hparams, train, valid, key=key), "
                f"evaluate(recipe, hparams, result, batch)"
            )


def _check_parts(parts: Recipe) -> None:
    for name in ("batch_size", "epochs", "micro_batches", "valid_every"):
        check_positive_int(name, getattr(parts, name))
    if parts.epochs % parts.valid_every:
        raise ValueError(
            f"valid_every: expected a divisor of the {parts.epochs} epochs, so that the last is validated, "
            f"got {parts.valid_every}"
        )
    if parts.evaluation_batch_size is not None:
        check_positive_int("evaluation_batch_size", parts.evaluation_batch_size)
    check_number("nonfinite_limit", parts.nonfinite_limit, 1, whole=True)
    check_loss_scale(parts.loss_scale)
    check_choice("last_batch", parts.last_batch, "pad", "drop")
    for name in ("shuffle", "train_metrics"):
        if not isinstance(getattr(parts, name), (bool, np.bool_)):
            raise TypeError(f"{name}: expected True or False, got {getattr(parts, name)!r}")
    check_optimizer("optimizer", parts.optimizer)
    if parts.augment is not None:
        check_augment("augment", parts.augment)
    _check_function("loss", parts.loss, "(outputs, targets) -> [N], as losses.mean_squared_error", 2)
    if parts.loss in (metrics.accuracy, metrics.binary_accuracy, metrics.top_k_accuracy):
        raise TypeError(f"loss: expected a loss, got the metric {parts.loss.__name__}, whose gradient is 0")
    if parts.penalty is not None:
        _check_function("penalty", parts.penalty, "params -> scalar, as penalties.l2(1e-4)", 1)
    given: Any = parts.metrics
    if not isinstance(given, Mapping):
        raise TypeError(
            f'metrics: expected a dictionary of functions, as {{"accuracy": metrics.accuracy}}, got {given!r}'
        )
    for name, function in parts.metrics.items():
        _check_type("metrics", name, str, 'names, as "accuracy"')
        _check_function(f"metrics[{name!r}]", function, "(outputs, targets) -> [N], as metrics.accuracy", 2)
    if "loss" in parts.metrics:
        raise ValueError("metrics: expected another name than 'loss', which is the recipe's loss")
    _check_monitors(parts)
    check_record(parts.record)
    model_of(parts)


def _check_monitors(parts: Recipe) -> None:
    stopping, plateau, monitor = parts.early_stopping, parts.plateau, parts.plateau_monitor
    if stopping is not None:
        _check_type("early_stopping", stopping, EarlyStopping, "training.EarlyStopping(patience=10)")
        _check_type("early_stopping.monitor", stopping.monitor, str, '"valid_loss"')
        resolve_mode(stopping)
        check_number("early_stopping.patience", stopping.patience, 1, whole=True)
        check_number("early_stopping.min_delta", stopping.min_delta, 0)
        start = stopping.start_from_epoch
        check_number("early_stopping.start_from_epoch", start, 0, whole=True)
        if isinstance(start, int) and start >= parts.epochs:
            raise ValueError(
                f"early_stopping.start_from_epoch: expected less than the {parts.epochs} epochs, got {start}"
            )
    if plateau is not None:
        _check_type("plateau", plateau, Plateau, "optimizers.reduce_on_plateau(patience=5)")
        _check_type("plateau_monitor", monitor, str, '"valid_loss"')
        due = infer_mode(monitor)
        if plateau.mode is None and due != "min":
            better = f'mode="{due}"' if due else 'mode="min" or "max"'
            raise ValueError(f"plateau: expected reduce_on_plateau(..., {better}) to monitor {monitor!r}, got no mode")


def _check_type(name: str, value: Any, kind: type, example: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {example}, got {value!r}")


def _check_function(name: str, value: Any, example: str, arguments: int) -> None:
    if not callable(value) or not takes(value, *[None] * arguments):
        raise TypeError(f"{name}: expected a function {example}, got {shown(value)}")


def model_of(parts: Recipe) -> Layer:
    """The model of a recipe as a layer."""
    return as_layer(parts.model)


def losses_of(parts: Recipe, outputs: Any, targets: Any, examples: int) -> Array:
    """The losses ``[N]`` of examples."""
    try:
        values = jnp.asarray(parts.loss(outputs, targets))
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError("loss: expected a function in jax.numpy, got one in NumPy, which has no gradient") from error
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"loss: expected floats, which have a gradient, got {values.dtype}")
    if values.shape != (examples,):
        hint = "; average over the axes behind the first" if values.ndim > 1 else ""
        raise ValueError(f"loss: expected one number an example, [{examples}], got {list(values.shape)}{hint}")
    return values


def penalty_of(parts: Recipe, params: Params) -> Array | None:
    """The penalty, a float scalar; None if there is none."""
    if parts.penalty is None:
        return None
    value: Any = parts.penalty(params)
    if value is None:
        raise TypeError("penalty: expected it to return a float scalar, got None")
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"penalty: expected a float scalar, got {value.dtype}{list(value.shape)}")
    return value


def _is_static(leaf: Any) -> bool:
    return isinstance(leaf, Static)


def _plain(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Static) else leaf
