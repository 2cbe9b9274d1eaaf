"""Records: functions of a step, of a layer's output or of an epoch, whose values end up in the history."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

from jaxopt_nn._arguments import check_bool, check_choice, check_positive_int, shown
from jaxopt_nn.trees import takes
from jaxopt_nn.types import Array, Batch, Params, PyTree, State, TrainState

__all__ = ["EpochEnd", "LayerOutput", "Record", "StepEnd", "check_record", "records_of"]


class Record(NamedTuple):
    """A function whose values a run keeps in its history; an entry of a recipe's ``record``.

    Numbers and arrays that it returns, also in nested dictionaries, are entries of the history: ``name``, or
    ``name/path``. They are floats there.

    Attributes:
        function: of an :class:`EpochEnd`, a :class:`StepEnd` or a :class:`LayerOutput`, as ``of`` says; in JAX. With
            ``init``, ``(StepEnd, memory) -> (values, memory)``.
        of: ``"epoch"``: called after each epoch. ``"step"``: after each step; the history has the mean over the steps
            of an epoch, of each number without those that are NaN. ``"layer"``: in each step for each layer of the
            model; the entries are ``name/path of the layer``; a layer for which it returns None has no entry.
        every: the cadence: only every so many epochs, or steps of an epoch, beginning with the first. In between
            nothing is computed.
        series: of a step or layer: the history keeps each recorded step, ``[epochs, ceil(steps / every), ...]``.
        init: of a step: ``params -> memory``, what the function gets at the first step of an epoch. After that it gets
            what it returned. None for a function without memory.
        finish: of a step or layer: what is done with the means before they go into the history, with ``series`` with
            each step's values; such as the root of a mean of squares.
    """

    function: Callable[..., Any]
    of: Literal["epoch", "step", "layer"] = "epoch"
    every: int = 1
    series: bool = False
    init: Callable[[Params], PyTree] | None = None
    finish: Callable[[PyTree], PyTree] | None = None


class EpochEnd(NamedTuple):
    """What a callback of :func:`fit`, and a record of an epoch, is given after each epoch.

    Attributes:
        epoch: its index, from 0.
        metrics: its row of the history without arrays: Python floats; in a record traced scalars.
        state: the training state after it.
        arrays: what the row has besides: entries of records that are no scalars.
    """

    epoch: int
    metrics: dict[str, float]
    state: TrainState
    arrays: dict[str, Any] = {}  # noqa: RUF012, never written to


class StepEnd(NamedTuple):
    """What a record of a step is given. A compiled program computes only what is read of it.

    Attributes:
        step: int32, its index: the steps taken before it.
        batch: its examples.
        loss: with penalties, before the update.
        params: the parameters before the update.
        model_state: the model state after the step.
        gradient: like ``params``, before the optimizer changes it; 0 for frozen parameters.
        update: like ``params``: what the optimizer adds to them.
        loss_and_gradient: ``params -> (loss, gradient)`` for the same batch and the same noise. It costs what the
            step's own gradient costs.
    """

    step: Array
    batch: Batch
    loss: Array
    params: Params
    model_state: State
    gradient: Params
    update: Params
    loss_and_gradient: Callable[[Params], tuple[Array, Params]]


class LayerOutput(NamedTuple):
    """What a record of a layer is given, in each step for each layer that is not made of layers.

    Attributes:
        path: where the layer is in the model: ``"residual_0/serial_0/dense_0"``. Static.
        name: its kind: ``"dense"``, ``"relu"``. Static.
        position: its place in the order of evaluation, from 0. Static.
        inputs: what it got, ``[N, ...]``.
        value: what it made of that, ``[N, ...]``.
        weight: ``[N]`` weights of the examples, or None.

    Under ``micro_batches`` the function gets one part of the batch at a time, and the values are the weighted means
    over the parts. The layers of a ``repeat`` get one entry, with an axis for the n blocks in front.
    """

    path: str
    name: str
    position: int
    inputs: PyTree
    value: PyTree
    weight: Array | None


def check_record(record: Any) -> None:
    """Raises ``TypeError`` or ``ValueError``, naming the entry, unless it is a dictionary of records."""
    if not isinstance(record, Mapping):
        raise TypeError(f'record: expected a dictionary, as {{"name": function}}, got {shown(record)}')
    for name, each in cast("Mapping[Any, Any]", record).items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"record: expected names, got {name!r}")
        entry, one = f"record[{name!r}]", _as_record(each)
        check_choice(f"{entry}.of", one.of, *_GIVEN)
        check_positive_int(f"{entry}.every", one.every)
        check_bool(f"{entry}.series", one.series)
        for field, kinds in {"series": ("step", "layer"), "finish": ("step", "layer"), "init": ("step",)}.items():
            if getattr(one, field) and one.of not in kinds:
                raise ValueError(f"{entry}.{field}: expected it of a record of a {' or '.join(kinds)}, got {one.of!r}")
        arguments, given = (1, _GIVEN[one.of]) if one.init is None else (2, f"{_GIVEN[one.of]} and its memory")
        if not _is_function(one.function, arguments):
            raise TypeError(f"{entry}: expected a function of {given}, got {shown(one.function)}")
        for field in ("init", "finish"):
            function = getattr(one, field)
            if function is not None and not _is_function(function, 1):
                raise TypeError(f"{entry}.{field}: expected a function of one argument, got {shown(function)}")


_GIVEN = {"epoch": "an EpochEnd", "step": "a StepEnd", "layer": "a LayerOutput"}


def _is_function(function: Any, arguments: int) -> bool:
    return callable(function) and not isinstance(function, type) and takes(function, *[None] * arguments)


def _as_record(each: Any) -> Record:
    """A function alone is a record of each epoch."""
    return each if isinstance(each, Record) else Record(each)


def records_of(record: Mapping[str, Any], *kinds: str) -> dict[str, Record]:
    """The records of these kinds: "epoch", "step", "layer"."""
    return {name: one for name, each in record.items() if (one := _as_record(each)).of in kinds}
