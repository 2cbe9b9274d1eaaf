"""The few types everything else is made of.

A *pair* is a NamedTuple of pure functions: a :class:`Layer` is ``(init, apply)``, an optimizer is optax's
``GradientTransformation(init, update)``. A *step* maps ``(TrainState, Batch)`` to ``(TrainState, metrics)``.
This module imports nothing of ours.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
from jax.typing import ArrayLike as ArrayLike  # "may be traced and swept; never branched on in Python"

__all__ = [
    "Array",
    "ArrayLike",
    "Batch",
    "Key",
    "Layer",
    "LossFn",
    "LossScale",
    "NotFinite",
    "Params",
    "PyTree",
    "State",
    "Static",
    "TrainState",
]

Array = jax.Array
Key = jax.Array
PyTree = Any
Params = Any
"""Trained numbers: a pytree of float arrays, in our layers nested dictionaries: ``{"dense_0": {"kernel": ...}}``."""
State = Any
"""What a model carries from step to step but does not train, as BatchNorm's running statistics: a pytree of arrays."""


class Batch(NamedTuple):
    """Examples: a mini-batch, or a whole data set (it is the same thing, only longer).

    Attributes:
        x: features, an array ``[N, ...]`` (or a pytree of such arrays).
        y: targets, an array ``[N, ...]``: integer class labels, or floats.
        weight: ``[N]`` non-negative example weights, or None where all count the same. A row of weight 0 counts
            nowhere: not in the loss, not in a metric, not in BatchNorm's statistics. Or the weights of single outputs,
            with the first axes of ``y``, ``[N, T]``: outputs then count as examples of their own, in losses and
            metrics, and BatchNorm takes the largest weight of an example.
    """

    x: PyTree
    y: PyTree
    weight: Any = None


class ApplyFn(Protocol):
    """``apply`` of a :class:`Layer`."""

    def __call__(
        self,
        params: Params,
        state: State,
        x: PyTree,
        *,
        train: bool = False,
        key: Key | None = None,
        weight: Array | None = None,
    ) -> tuple[PyTree, State]: ...


class Layer(NamedTuple):
    """A layer, a block or a whole model, as a pair of pure functions.

    Attributes:
        init: ``init(key, x) -> (params, state)``; ``x`` is an example input, as an array or as a
            ``jax.ShapeDtypeStruct`` with the batch axis first: only its shape and dtype are read.
        apply: ``apply(params, state, x, *, train=False, key=None, weight=None) -> (y, new_state)``: by itself it
            evaluates. ``train`` (static) switches dropout and batch statistics on. ``key`` may be None where nothing
            random happens. ``weight`` are the example weights ``[N]``, or None. A batch of total weight 0 changes no
            state.
        name: the base of the layer's name within a combinator: the first ``dense`` is ``dense_0``.
        wiring: of a combinator, what it is made of, for summaries and drawings; None for a layer in itself.
    """

    init: Callable[[Key, PyTree], tuple[Params, State]]
    apply: ApplyFn
    name: str = "layer"
    wiring: Any = None


class NotFinite(NamedTuple):
    """What a step with a ``nonfinite_limit`` counts: steps whose loss or gradient was not finite, which it skips.

    Attributes:
        notfinite_count: int32 scalar, such steps since the last finite one; at the limit no step is taken any more.
        total_notfinite: int32 scalar, all such steps.
        last_finite: bool scalar, whether the last step was finite; True before the first.

    The names are those of ``optax.apply_if_finite``. Differs from it: at the limit it lets the next update pass,
    whatever it is; and it guards the optimizer alone, where a step guards the model state and looks at the loss too.
    """

    notfinite_count: Array
    total_notfinite: Array
    last_finite: Array


class LossScale(NamedTuple):
    """What a step with a dynamic loss scale carries.

    Attributes:
        scale: float32 scalar, what the next loss is multiplied by.
        finite_steps: int32 scalar, the finite steps since it last changed.
    """

    scale: Array
    finite_steps: Array


class TrainState(NamedTuple):
    """All that a training step carries: equal in tree, shapes and dtypes before and after a step.

    Attributes:
        step: int32 scalar, the number of steps done.
        params: the trained numbers.
        model_state: what the model carries but does not train.
        opt_state: the optimizer's state.
        key: the noise key. It never changes: step ``t`` uses ``fold_in(key, t)``, so a resumed run repeats itself.
        notfinite: what was skipped; a step without a ``nonfinite_limit`` leaves it as it is.
        loss_scale: of a step with a dynamic loss scale; None otherwise.
    """

    step: Array
    params: Params
    model_state: State
    opt_state: PyTree
    key: Key
    notfinite: NotFinite | None = None
    loss_scale: LossScale | None = None


class LossFn(Protocol):
    """``loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))``, as ``make_step`` takes it."""

    def __call__(
        self, params: Params, model_state: State, batch: Batch, key: Key
    ) -> tuple[Array, tuple[State, dict[str, Array]]]: ...


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """Marks a hyperparameter that is not a number to trace but a Python value: a width, a batch size, an activation.

    ``run(key, {"width": Static(64), "learning_rate": 1e-3}, ...)``: the recipe sees ``hp["width"] == 64``, a plain
    ``int``, and ``hp["learning_rate"]``, a tracer. A new static value is a new trace.

    Attributes:
        value: any hashable value.

    Raises:
        TypeError: the value is not hashable, such as a list: what was compiled for it could go stale.
    """

    value: Hashable

    def __post_init__(self) -> None:
        try:
            hash(self.value)
        except TypeError as error:
            raise TypeError(f"Static: expected a hashable value (a tuple for a list), got {self.value!r}") from error
