"""What an experiment consists of."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from jaxopt_nn._arguments import check_number, check_positive_int
from jaxopt_nn.layers import as_layer
from jaxopt_nn.optimizers import Plateau
from jaxopt_nn.training.stopping import EarlyStopping
from jaxopt_nn.types import Array, ArrayLike, Layer, Params, PyTree, Static

__all__ = ["Recipe", "RecipeFn", "build_recipe", "model_of"]


class Recipe(NamedTuple):
    """The parts of a training run. A *recipe function* maps hyperparameters to one of these.

    Numbers inside the parts (a learning rate, a penalty's strength, a drop rate, a patience) may be traced; the fields
    below that are numbers themselves are static, because they fix shapes and trip counts.

    Attributes:
        model: a :class:`~jaxopt_nn.types.Layer`, or a plain function of an array.
        loss: ``(outputs, targets) -> [N]`` losses of the examples, as in :mod:`jaxopt_nn.losses`.
        optimizer: any optimizer of the optax protocol.
        penalty: ``params -> scalar``, added to the mean loss, as in :mod:`jaxopt_nn.penalties`; None for none.
        metrics: name to ``(outputs, targets) -> [N]``, as in :mod:`jaxopt_nn.metrics`; evaluated on the validation set
            after each epoch, and recorded as ``valid_<name>``.
        batch_size: examples a step: N is batch gradient descent, 1 is stochastic gradient descent.
        epochs: passes over the data, at the most.
        last_batch: what becomes of the examples that do not fill a batch: ``"pad"`` (a last batch filled up with rows
            of weight 0) or ``"drop"``.
        shuffle: whether each epoch goes through the data in a new random order.
        early_stopping: when to stop and which weights to return; None to train for all epochs and return the last.
        plateau: reduces the learning rate when ``plateau_monitor`` stops improving, as in
            :func:`jaxopt_nn.optimizers.reduce_on_plateau`; None for none.
        plateau_monitor: the name of a history entry.
        micro_batches: parts into which each batch is split to bound the memory of a step; the gradient is the batch's.
        nonfinite_limit: steps in a row with a loss or gradient that is not finite that end the run; fewer are skipped.
            1 ends it at the first; may be traced.
        evaluation_batch_size: examples at once in evaluation, at the most; bounds its memory. None for 1,024.
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
    evaluation_batch_size: int | None = None


RecipeFn = Callable[[Any], Recipe]
"""``hparams -> Recipe``. It is called while the run is traced: numbers in ``hparams`` are tracers there."""


def build_recipe(recipe: RecipeFn, hparams: PyTree) -> Recipe:
    """Calls the recipe function and checks what it says. ``Static`` leaves reach it as the plain values they hold."""
    if not callable(recipe):
        raise TypeError(f"recipe: expected a function of hyperparameters, got {recipe!r}: write lambda hp: Recipe(...)")
    parts = recipe(jax.tree.map(_plain, hparams, is_leaf=_is_static))
    if not isinstance(parts, Recipe):
        raise TypeError(f"recipe: expected it to return a training.Recipe, got {type(parts).__name__}")
    for name in ("batch_size", "epochs", "micro_batches"):
        check_positive_int(name, getattr(parts, name))
    if parts.evaluation_batch_size is not None:
        check_positive_int("evaluation_batch_size", parts.evaluation_batch_size)
    check_number("nonfinite_limit", parts.nonfinite_limit, 1)
    if parts.last_batch not in ("pad", "drop"):
        raise ValueError(f'last_batch: expected "pad" or "drop", got {parts.last_batch!r}')
    if not (hasattr(parts.optimizer, "init") and hasattr(parts.optimizer, "update")):
        raise TypeError(f"optimizer: expected an optax-protocol (init, update) pair, got {parts.optimizer!r}")
    if parts.early_stopping is not None:
        mode, patience, min_delta = parts.early_stopping[1:]
        if mode not in ("min", "max"):
            raise ValueError(f'early_stopping.mode: expected "min" or "max", got {mode!r}')
        check_number("early_stopping.patience", patience, 1)
        check_number("early_stopping.min_delta", min_delta, 0)
    model_of(parts)
    return parts


def model_of(parts: Recipe) -> Layer:
    """The model of a recipe as a layer."""
    return as_layer(parts.model)


def _is_static(leaf: Any) -> bool:
    return isinstance(leaf, Static)


def _plain(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Static) else leaf
