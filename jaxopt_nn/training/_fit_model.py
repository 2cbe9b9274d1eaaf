"""Training without a recipe function, for a model whose numbers are fixed."""

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn import losses, metrics
from jaxopt_nn.training._evaluation import evaluate, predict
from jaxopt_nn.training._fit import fit
from jaxopt_nn.training._recipe import Recipe, RecipeFn
from jaxopt_nn.training._run import RunResult
from jaxopt_nn.training._run_state import RunKeys
from jaxopt_nn.types import Array, Batch, Key, Layer, Params, PyTree, State

__all__ = ["FittedModel", "fit_model"]

_SOFTMAX = (losses.softmax_cross_entropy, losses.softmax_focal, losses.kl_divergence)
_SIGMOID = (losses.sigmoid_cross_entropy, losses.sigmoid_focal)


class FittedModel(NamedTuple):
    """A model and its training, as :func:`fit_model` returns it.

    Attributes:
        recipe: the recipe function that it was trained with; its hyperparameters are None.
        result: the :class:`RunResult`.
    """

    recipe: RecipeFn
    result: RunResult

    @property
    def params(self) -> Params:
        """The trained parameters."""
        return self.result.params

    @property
    def model_state(self) -> State:
        """The model state that belongs to them."""
        return self.result.model_state

    @property
    def history(self) -> dict[str, Array]:
        """The losses and metrics of each epoch."""
        return self.result.history

    def evaluate(self, batch: Batch) -> dict[str, float]:
        """The mean loss and metrics over a data set, as :func:`evaluate`, as Python floats."""
        return {name: float(value) for name, value in evaluate(self.recipe, None, self.result, batch).items()}

    def predict(self, x: PyTree) -> PyTree:
        """The model's outputs, as :func:`predict`: for a classifier logits, for a regression numbers."""
        return predict(self.recipe, None, self.result, x)

    def predict_proba(self, x: PyTree) -> Array:
        """Probabilities of the classes, ``[N, ..., C]``, from the outputs by what the loss takes them for.

        A softmax or a sigmoid. A single sigmoid output gives two classes, ``[N, 2]``, several (multi-label) give each
        output's own probability. Of an ordinal loss: P(k) = P(above k - 1) - P(above k).

        Raises:
            TypeError: the loss is none that takes logits.
        """
        return _probabilities(self._loss(), self.predict(x))

    def predict_classes(self, x: PyTree) -> Array:
        """The most probable class of each example, int32 ``[N, ...]``; multi-label: 0 or 1 for each output.

        Raises:
            TypeError: the loss is none of classes.
        """
        return _classes(self._loss(), self.predict(x))

    def confusion_matrix(self, batch: Batch) -> Array:
        """How often each true class (row) of a data set is predicted as each class (column), ``[C, C]``.

        Raises:
            TypeError: the loss is none of classes.
            ValueError: the outputs are several labels an example.
        """
        loss, outputs = self._loss(), self.predict(batch.x)
        predicted, count = _classes(loss, outputs), _count_classes(loss, outputs)
        labels = jnp.asarray(batch.y)
        if labels.ndim == predicted.ndim + 1 and labels.shape[-1] == count:
            labels = jnp.argmax(labels, -1)
        labels = labels.reshape(predicted.shape)
        weight = batch.weight
        if weight is not None and predicted.ndim > 1:
            weight = jnp.broadcast_to(jnp.expand_dims(weight, range(1, predicted.ndim)), predicted.shape).ravel()
        return metrics.confusion_matrix(labels.ravel().astype(int), predicted.ravel(), count, weight)

    def classification_report(self, batch: Batch, names: Sequence[str] | None = None) -> str:
        """Precision, recall and F1 of each class over a data set, as a table to print.

        Raises:
            TypeError, ValueError: as :meth:`confusion_matrix`; another number of names than classes.
        """
        return metrics.classification_report(self.confusion_matrix(batch), names)

    def _loss(self) -> Callable[..., Any]:
        loss: Any = self.recipe(None).loss
        while isinstance(loss, functools.partial):
            loss = loss.func
        return loss

    def __repr__(self) -> str:
        """How the training ended."""
        return repr(self.result).replace("RunResult", "FittedModel", 1)


def fit_model(
    model: Layer | Callable[[Any], Any],
    train: Batch,
    valid: Batch | None = None,
    *,
    loss: Callable[[Any, Any], Array],
    optimizer: optax.GradientTransformation,
    key: Key | RunKeys,
    **options: Any,
) -> FittedModel:
    """Trains a model, without a recipe function.

    For experiments take a recipe and :func:`fit`: there numbers such as the learning rate are arguments of the compiled
    program, so other values compile nothing, and :func:`make_run` and sweeps train many at once.

    Args:
        model: a layer, or a plain function of an array.
        train, valid: data sets.
        loss, optimizer: as in a :class:`Recipe`.
        key: a PRNG key, or :class:`RunKeys`.
        options: any other field of a :class:`Recipe`, as ``epochs=30``, ``batch_size=64``,
            ``metrics={"accuracy": metrics.accuracy}`` or ``early_stopping=training.EarlyStopping()``, and any other
            argument of :func:`fit`, as ``callbacks`` or ``checkpoint``.

    Returns:
        A :class:`FittedModel`, which evaluates and predicts.

    Raises:
        TypeError, ValueError: as :func:`fit`; an option that neither has.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (64, 3))
    >>> train = Batch(x, (x[:, 0] > 0).astype(int))
    >>> fitted = training.fit_model(
    ...     layers.dense(2), train, loss=losses.softmax_cross_entropy, optimizer=optimizers.adam(0.1),
    ...     epochs=20, key=jax.random.key(1))
    >>> bool((fitted.predict_classes(x) == train.y).mean() > 0.9), fitted.predict_proba(x).shape
    (True, (64, 2))
    """
    of_fit = set(inspect.signature(fit).parameters) - {"recipe", "hparams", "train", "valid", "key"}
    of_recipe = set(Recipe._fields)
    for name in options:
        if name not in of_fit | of_recipe:
            close = difflib.get_close_matches(name, of_fit | of_recipe, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"{name}: expected a field of training.Recipe or an argument of training.fit{hint}")
    parts = Recipe(model, loss, optimizer, **{name: value for name, value in options.items() if name in of_recipe})

    def recipe(hparams: None) -> Recipe:
        del hparams
        return parts

    rest = {name: value for name, value in options.items() if name in of_fit}
    return FittedModel(recipe, fit(recipe, None, train, valid, key=key, **rest))


def _probabilities(loss: Callable[..., Any], outputs: Any) -> Array:
    if loss in _SOFTMAX:
        return jax.nn.softmax(outputs)
    if loss in _SIGMOID:
        p, rest = jax.nn.sigmoid(outputs), jax.nn.sigmoid(-outputs)
        if p.ndim == 1:
            return jnp.stack([rest, p], 1)
        return jnp.concatenate([rest, p], -1) if p.shape[-1] == 1 else p
    if loss is losses.ordinal:
        above = jax.lax.cummin(jax.nn.sigmoid(outputs), axis=outputs.ndim - 1)
        ends = [(0, 0)] * (outputs.ndim - 1)
        return jnp.pad(above, [*ends, (1, 0)], constant_values=1) - jnp.pad(above, [*ends, (0, 1)])
    raise TypeError(f"predict_proba: expected a model trained with a loss of logits, got {_name(loss)}")


def _classes(loss: Callable[..., Any], outputs: Any) -> Array:
    if loss in _SOFTMAX:
        return jnp.argmax(outputs, -1).astype(jnp.int32)
    if loss in _SIGMOID or loss is losses.hinge:
        yes = outputs[..., 0] if outputs.ndim > 1 and outputs.shape[-1] == 1 else outputs
        return (yes > 0).astype(jnp.int32)
    if loss is losses.ordinal:
        return jnp.sum(outputs > 0, -1).astype(jnp.int32)
    raise TypeError(f"predict_classes: expected a model trained with a loss of classes, got {_name(loss)}")


def _count_classes(loss: Callable[..., Any], outputs: Any) -> int:
    if loss in _SOFTMAX:
        return outputs.shape[-1]
    if loss is losses.ordinal:
        return outputs.shape[-1] + 1
    if np.size(outputs) != len(outputs):
        raise ValueError(
            f"confusion_matrix: expected one class an example, got several labels, outputs {list(outputs.shape)}: "
            f"look at them one by one, with metrics.confusion_matrix"
        )
    return 2


def _name(loss: Any) -> str:
    return getattr(loss, "__name__", repr(loss))
