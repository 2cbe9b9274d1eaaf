"""The estimators. Parameters are stored as they come and checked by ``fit``, as scikit-learn asks for."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import jax
import numpy as np
import optax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxopt_nn import layers, losses, optimizers, penalties, training
from jaxopt_nn._arguments import check_bool, check_number, check_positive_int, shown
from jaxopt_nn.training._programs import compiled
from jaxopt_nn.types import Array, Batch, Layer

__all__ = ["JaxClassifier", "JaxRegressor"]

_ROWS = 64  # predicted at once: always as many, so that a row's prediction does not depend on how many there are

Model = Sequence[int] | Callable[[int], Layer | Callable[[Any], Any]]


class _Estimator(BaseEstimator):
    """What both have in common. A subclass encodes the targets, and has ``_loss`` and ``_count_outputs``."""

    model: Model
    optimizer: Callable[[Any], optax.GradientTransformation]
    learning_rate: float
    l2: float
    batch_size: int
    epochs: int
    early_stopping: bool
    validation_fraction: float
    patience: int
    random_state: Any
    result_: training.RunResult
    n_iter_: int
    _keys: training.RunKeys
    _programs: dict[Any, Any]

    @abstractmethod
    def _loss(self) -> Callable[[Any, Any], Array]: ...

    @abstractmethod
    def _count_outputs(self) -> int: ...

    def _fit(self, data: Batch, strata: Any = None) -> Self:
        """Trains from new parameters."""
        seed = self._start()
        valid = None
        if self.early_stopping:
            data, valid = self._split(data, strata, seed)
        stopping = training.EarlyStopping(patience=self.patience) if self.early_stopping else None
        recipe = self._recipe(len(data.y), self.epochs, stopping)
        self._keep(
            training.fit(
                recipe,
                self._hparams(),
                data,
                valid,
                key=self._keys,
                progress_bar=False,
                epochs_per_call=self.epochs,
            )
        )
        self.n_iter_ = int(self.result_.epochs)
        return self

    def _partial_fit(self, data: Batch) -> Self:
        """One pass over the rows, from where training stands."""
        before = getattr(self, "result_", None)
        if before is None:
            self._start()
        order = jax.random.fold_in(self._keys.order, self.n_iter_)  # another one in each pass
        start = None if before is None else before.state
        run = training.make_run(self._recipe(len(data.y), 1, None))

        def one_pass(keys: training.RunKeys, hparams: Any, train: Batch, start: Any) -> training.RunResult:
            return run(keys, hparams, train, None, start)

        # training.fit would trace the model at each call.
        self._keep(self._program(one_pass, self._keys._replace(order=order), self._hparams(), data, start))
        self.n_iter_ += 1
        return self

    def _start(self) -> int:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._keys, self.n_iter_ = training.RunKeys(*jax.random.split(jax.random.key(seed), 3)), 0
        self._programs = {}
        return seed

    def _keep(self, result: training.RunResult) -> None:
        if training.Status(int(result.status)).name.startswith("NONFINITE"):
            raise ValueError(f"fit: {result!r}: take a smaller learning_rate, or scale the features")
        self.result_ = result

    def _hparams(self) -> dict[str, float]:
        """Arguments of the compiled programs, so that other values compile nothing."""
        return {"learning_rate": self.learning_rate, "l2": self.l2}

    def _recipe(
        self, examples: int, epochs: int, stopping: training.EarlyStopping | None
    ) -> Callable[[Any], training.Recipe]:
        def recipe(hparams: Any) -> training.Recipe:
            return training.Recipe(
                model=self._make_model(),
                loss=self._loss(),
                optimizer=self.optimizer(hparams["learning_rate"]),
                penalty=penalties.l2(hparams["l2"]) if self.l2 else None,
                batch_size=min(self.batch_size, examples),
                epochs=epochs,
                early_stopping=stopping,
            )

        return recipe

    def _program(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls the function as a program that is traced once, until a parameter is set that is compiled into it."""
        parameters = self.get_params(deep=False)
        static = [value for name, value in parameters.items() if name not in ("learning_rate", "l2", "random_state")]
        static.append(bool(self.l2))
        if static != self._programs.get("static"):
            self._programs.clear()  # in place: predict may not set an attribute
            self._programs["static"] = static
        leaves, treedef = jax.tree.flatten(arguments)
        key = (function.__name__, treedef, *((np.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves))
        if key not in self._programs:
            self._programs[key] = compiled(function, *arguments)[0]
        return self._programs[key](*arguments)

    def _make_model(self) -> Layer:
        model, outputs = self.model, self._count_outputs()
        if callable(model) and not isinstance(model, type):
            return layers.as_layer(model(outputs))
        if isinstance(model, Layer) or not isinstance(model, (tuple, list)):
            raise TypeError(
                f"model: expected widths of hidden layers, as (100,), or a function from the number of outputs to a "
                f"layer, got {shown(model)}"
            )
        return layers.mlp([*cast("Sequence[int]", model), outputs])

    def _outputs(self, X: Any) -> Any:
        """The model's outputs ``[N, outputs]``, a NumPy array."""
        check_is_fitted(self)
        x: Any = validate_data(self, X, reset=False, dtype=_dtype())
        variables, layer = (self.result_.params, self.result_.model_state), self._make_model()

        def apply(variables: Any, x: Any) -> Any:
            params, model_state = variables
            return layer.apply(params, model_state, x)[0]

        padded = np.concatenate([x, np.zeros((-len(x) % _ROWS, x.shape[1]), x.dtype)])
        parts = [self._program(apply, variables, padded[at : at + _ROWS]) for at in range(0, len(padded), _ROWS)]
        return np.concatenate([np.asarray(part) for part in parts])[: len(x)]

    def _check_parameters(self) -> None:
        if isinstance(self.optimizer, (str, bytes)) or not callable(self.optimizer):
            raise TypeError(
                f"optimizer: expected a function from a learning rate to an optimizer, as optimizers.adam, got "
                f"{shown(self.optimizer)}"
            )
        check_number("learning_rate", self.learning_rate, 0.0)
        check_number("l2", self.l2, 0.0)
        check_positive_int("batch_size", self.batch_size)
        check_positive_int("epochs", self.epochs)
        check_bool("early_stopping", self.early_stopping)
        check_number("validation_fraction", self.validation_fraction, 0.0, 1.0, open_low=True, open_high=True)
        check_positive_int("patience", self.patience)

    def _split(self, data: Batch, strata: Any, seed: int) -> tuple[Batch, Batch]:
        rows = np.arange(len(data.y))
        parts: list[Batch] = []
        for chosen in train_test_split(rows, test_size=self.validation_fraction, random_state=seed, stratify=strata):
            part = Batch(data.x[chosen], data.y[chosen], None if data.weight is None else data.weight[chosen])
            if part.weight is not None and not part.weight.any():
                raise ValueError("sample_weight: all weights of one part of early stopping are zero")
            parts.append(part)
        return parts[0], parts[1]

    def __getstate__(self) -> dict[str, Any]:
        """All but the programs, which are made again."""
        state: Any = super().__getstate__()
        return {**state, "_programs": {}} if "_programs" in state else state


class JaxClassifier(ClassifierMixin, _Estimator):
    """A neural network that classifies, with scikit-learn's interface. It minimizes the softmax cross-entropy.

    Args:
        model: widths of hidden layers with ReLU, as ``(100,)``, or a function from the number of outputs to a layer:
            ``lambda classes: layers.serial(layers.dense(32), jnp.tanh, layers.dense(classes))``. To pickle the
            estimator, define it in a module.
        optimizer: a function from the learning rate to an optimizer, as ``optimizers.adam``.
        learning_rate: > 0. Another one, or another ``l2`` above 0, compiles nothing in a grid search.
        l2: the strength of the penalty on kernels, >= 0.
        batch_size: examples in a step; no more than there are.
        epochs: passes over the data, at the most.
        early_stopping: whether to keep a part of the data for validation, stop when its loss no longer improves, and
            return the best weights.
        validation_fraction: of the data, with equal shares of each class.
        patience: epochs without improvement to wait for.
        random_state: an int, for the same result each time; or a ``RandomState``; or None.

    Attributes:
        classes_: ``[C]`` the labels.
        n_features_in_: how many features; ``feature_names_in_`` their names, if they came in a data frame.
        n_iter_: epochs done.
        result_: the :class:`~jaxopt_nn.training.RunResult`, with ``result_.history``.

    ``fit`` raises ``ValueError`` where training is not finite.

    Differs from ``sklearn.neural_network.MLPClassifier``: float32 (float64 where JAX is set to it), any model and
    optimizer, a softmax for two classes too, early stopping by the loss and not by the accuracy, no default penalty.

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from jaxopt_nn.estimators import JaxClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), JaxClassifier((16,), learning_rate=0.01, epochs=50, random_state=0))
    >>> model.fit(x, y).score(x, y) > 0.95
    True
    """

    def __init__(
        self,
        model: Model = (100,),
        *,
        optimizer: Callable[[Any], optax.GradientTransformation] = optimizers.adam,
        learning_rate: float = 1e-3,
        l2: float = 0.0,
        batch_size: int = 64,
        epochs: int = 100,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.l2 = l2
        self.batch_size = batch_size
        self.epochs = epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains from new parameters.

        Args:
            X: ``[N, features]``.
            y: ``[N]`` labels of any type.
            sample_weight: ``[N]`` non-negative, or None.
        """
        self._check_parameters()
        x, y = validate_data(self, X, y, dtype=_dtype())
        weight = _weight(sample_weight, x)
        check_classification_targets(y)
        counted = y if weight is None else y[weight > 0]
        if len(np.unique(counted)) < 2:
            raise ValueError(f"y: expected at least two classes, got 1 class, {shown(counted[0])}")
        self.classes_ = np.unique(y)
        labels = np.searchsorted(self.classes_, y)
        return self._fit(Batch(x, labels, weight), labels)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One pass over these rows, from where training stands; the state of the optimizer is kept.

        Rows of another number than before compile another program.

        Args:
            X, y, sample_weight: as for :meth:`fit`.
            classes: all labels that will come; asked for by the first call.
        """
        self._check_parameters()
        is_first = not hasattr(self, "classes_")
        if is_first and classes is None:
            raise ValueError("classes: expected all labels in the first call of partial_fit, got None")
        x, y = validate_data(self, X, y, dtype=_dtype(), reset=is_first)
        weight = _weight(sample_weight, x)
        check_classification_targets(y)
        known = np.unique(classes) if is_first else self.classes_
        if classes is not None and not np.array_equal(known, np.unique(classes)):
            raise ValueError(f"classes: expected those of the first call, {shown(list(known))}, got {shown(classes)}")
        if len(known) < 2:
            raise ValueError(f"classes: expected at least two, got {shown(list(known))}")
        if not np.isin(y, known).all():
            raise ValueError(f"y: expected labels among classes, got {y[~np.isin(y, known)][0]!r}")
        self.classes_ = known
        return self._partial_fit(Batch(x, np.searchsorted(known, y), weight))

    def predict(self, X: Any) -> Any:
        """The most probable label of each row, ``[N]``."""
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(1)]

    def predict_proba(self, X: Any) -> Any:
        """The probability of each label, ``[N, C]``, in the order of ``classes_``."""
        outputs = self._outputs(X)
        powers = np.exp(outputs - outputs.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def _loss(self) -> Callable[[Any, Any], Array]:
        return losses.softmax_cross_entropy

    def _count_outputs(self) -> int:
        return len(self.classes_)


class JaxRegressor(RegressorMixin, _Estimator):
    """A neural network that predicts numbers, with scikit-learn's interface.

    Targets of a scale far from 1 are learned slowly: put it into ``sklearn.compose.TransformedTargetRegressor``.

    Args:
        model, optimizer, learning_rate, l2, batch_size, epochs, early_stopping, validation_fraction, patience,
            random_state: as for :class:`JaxClassifier`. The validation part is drawn at random.
        loss: of :mod:`jaxopt_nn.losses`, for outputs and targets ``[N, outputs]``.

    Attributes:
        n_features_in_, n_iter_, result_: as for :class:`JaxClassifier`.

    >>> import numpy as np
    >>> from jaxopt_nn.estimators import JaxRegressor
    >>> x = np.linspace(-1, 1, 100)[:, None]
    >>> JaxRegressor((32,), learning_rate=0.01, random_state=0).fit(x, x[:, 0] ** 2).score(x, x[:, 0] ** 2) > 0.9
    True
    """

    def __init__(
        self,
        model: Model = (100,),
        *,
        loss: Callable[[Any, Any], Array] = losses.mean_squared_error,
        optimizer: Callable[[Any], optax.GradientTransformation] = optimizers.adam,
        learning_rate: float = 1e-3,
        l2: float = 0.0,
        batch_size: int = 64,
        epochs: int = 100,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.l2 = l2
        self.batch_size = batch_size
        self.epochs = epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains from new parameters.

        Args:
            X: ``[N, features]``.
            y: ``[N]`` or ``[N, outputs]`` numbers.
            sample_weight: ``[N]`` non-negative, or None.
        """
        self._check_parameters()
        return self._fit(self._data(X, y, sample_weight, reset=True))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One pass over these rows, from where training stands; the state of the optimizer is kept.

        Rows of another number than before compile another program.

        Args:
            X, y, sample_weight: as for :meth:`fit`.
        """
        self._check_parameters()
        return self._partial_fit(self._data(X, y, sample_weight, reset=not hasattr(self, "result_")))

    def predict(self, X: Any) -> Any:
        """The prediction for each row, of the shape of the targets."""
        outputs = self._outputs(X).astype(np.float64)  # as scikit-learn's own regressors
        return outputs.reshape((len(outputs), *self._target_shape))

    def _data(self, X: Any, y: Any, sample_weight: Any, *, reset: bool) -> Batch:
        x, y = validate_data(self, X, y, dtype=_dtype(), multi_output=True, y_numeric=True, reset=reset)
        with np.errstate(over="ignore"):  # said below
            y = np.asarray(y, _dtype())
        if not np.isfinite(y).all():
            raise ValueError(f"y: expected numbers that fit {y.dtype}, got one that is too large")
        if not reset and y.shape[1:] != self._target_shape:
            raise ValueError(f"y: expected the shape [N, {self._target_shape}] of the first call, got {list(y.shape)}")
        self._target_shape = y.shape[1:]
        return Batch(x, y.reshape(len(y), -1), _weight(sample_weight, x))

    def _loss(self) -> Callable[[Any, Any], Array]:
        return self.loss

    def _count_outputs(self) -> int:
        return self._target_shape[0] if self._target_shape else 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _dtype() -> Any:
    """float32, or float64 where JAX is set to it."""
    return jax.dtypes.canonicalize_dtype(np.float64)


def _weight(sample_weight: Any, x: Any) -> Any:
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, _dtype())
    if weight.shape != (len(x),):
        raise ValueError(f"sample_weight: expected one weight a row, [{len(x)}], got {list(weight.shape)}")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError("sample_weight: expected finite numbers >= 0")
    if not weight.any():
        raise ValueError("sample_weight: expected some weight, got zero weights alone")
    return weight
