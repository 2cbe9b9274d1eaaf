"""The checkpoints of a run: when one is written, and what of it is compared when the run goes on.

A checkpoint has all that the rest of the run depends on, so a run that goes on from it ends with the same bits. What
it was made of (data, hyperparameters, key, shapes) is compared before anything is compiled.
"""

import base64
import json
import os
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxopt_nn.training._checkpoint import Checkpoint
from jaxopt_nn.training._drive import Position
from jaxopt_nn.training._folders import check_fits, read_description, tree_of
from jaxopt_nn.training._orbax import Writer, numbered, read_checkpoint, writer_of
from jaxopt_nn.training._own_folder import own_folder
from jaxopt_nn.training._reader import Place
from jaxopt_nn.training._stopping import infer_mode
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import PyTree

__all__ = ["Identity", "Plan", "Store", "opened"]


class Identity(NamedTuple):
    """Which run it is.

    Attributes:
        same: name to text; where one of them differs, it is another run.
        program: a checksum of what the recipe computes, which may be another in another version of JAX.
        described: what else stands in the description.
        arrays: the arrays that belong to it.
    """

    same: Mapping[str, str]
    program: str
    described: Mapping[str, Any]
    arrays: Mapping[str, Any]


class Plan(NamedTuple):
    """How long the run is to be.

    Attributes:
        epochs: in all.
        steps: in an epoch; None of a stream, which counts its batches.
    """

    epochs: int
    steps: int | None


@contextmanager
def opened(checkpoint: Checkpoint, identity: Identity, plan: Plan) -> "Generator[Store]":
    """The checkpoints in a folder, which is made if it is not there, and ours until the end.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be written to, or another process uses it.
    """
    worth: dict[int, float] = {}
    with own_folder(checkpoint.path) as folder, writer_of(folder, checkpoint.keep, worth) as writer:
        yield Store(checkpoint, folder, identity, plan, writer, worth)


class Store:
    """The folder of a checkpoint, and when something is written to it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        identity: Identity,
        plan: Plan,
        writer: Writer,
        worth: dict[int, float],
    ) -> None:
        self._checkpoint, self._folder, self._identity, self._plan = checkpoint, folder, identity, plan
        self._writer, self._worth = writer, worth
        self._saved: int | None = None
        self._time = time.monotonic()
        for step, path in numbered(folder).items():
            with suppress(OSError, ValueError):  # one that is damaged is the best of nothing
                self._remember(step, read_description(path))

    def latest(self, shapes: PyTree, part_shapes: Callable[[int], PyTree]) -> Position | None:
        """How far the run is by the last checkpoint that is whole; None if there is none yet.

        Args:
            shapes: of the order's key and the run state.
            part_shapes: says those of an epoch's part of so many steps.

        Raises:
            ValueError: the checkpoint is of another run, or of a longer one; none of several is whole.
        """
        damaged: list[tuple[Path, str]] = []
        for step, path in reversed(numbered(self._folder).items()):
            try:
                about, arrays = read_checkpoint(path)
            except (OSError, ValueError) as error:
                damaged.append((path, str(error)))
                continue
            position = self._position(path, about, arrays, shapes, part_shapes)
            for each, text in damaged:
                os.replace(each, each.with_name(f"damaged-{each.name}-{time.time_ns()}"))
                warnings.warn(f"checkpoint: {text}. The run goes on from {path.name}, before it", stacklevel=3)
            if damaged:
                self._writer.reload()
            self._saved = step
            return position
        if damaged:
            texts = "; ".join(text for _, text in damaged)
            raise ValueError(
                f"checkpoint.path: none of its checkpoints is whole: {texts}. To start anew, delete the folder"
            )
        return None

    def _position(
        self,
        path: Path,
        about: Mapping[str, Any],
        arrays: Mapping[str, Any],
        shapes: PyTree,
        part_shapes: Callable[[int], PyTree],
    ) -> Position:
        expected: dict[str, Any] = dict(zip(("order", "run"), shapes, strict=True))
        if about["steps"]:
            expected["part"] = part_shapes(about["steps"])
        found = {name: array for name, array in arrays.items() if name.partition("/")[0] in ("order", "run", "part")}
        self._check_same(path, about["same"])
        check_fits(f"checkpoint.path: {path}", expected, found)
        same_versions = about["versions"] == self._identity.described["versions"]
        if same_versions and about["program"] != self._identity.program:
            warnings.warn(
                f"checkpoint: the recipe is not the one that {path} was written with: another loss, layer or number "
                f"in it. The run goes on with the new one",
                stacklevel=4,
            )
        begun = about["epochs"] + (about["steps"] > 0)
        if begun > self._plan.epochs:
            raise ValueError(f"epochs: expected {begun} or more, which {path} has behind it, got {self._plan.epochs}")
        tree, history = tree_of(expected, found), dict[str, Any]()
        for name, values in arrays.items():
            if name.startswith("history/"):
                longer = history[name.removeprefix("history/")] = np.full(
                    (self._plan.epochs, *values.shape[1:]), np.nan, values.dtype
                )
                longer[: about["epochs"]] = values[: about["epochs"]]
        place, batches = _place_of(about.get("stream"))
        return Position(tree["order"], tree["run"], history, tree.get("part"), about["steps"], place, batches)

    def _check_same(self, path: Path, there: Mapping[str, str]) -> None:
        here = self._identity.same
        for name in [*here, *(name for name in there if name not in here)]:
            was, given = (each.get(name, "none") for each in (there, here))
            if was != given:
                raise ValueError(
                    f"{name}: expected {was}, as in the run that {path} belongs to, got {given}. For another run take "
                    f"another folder; to start one from weights or a state, init_from=..."
                )

    def check_monitor(self, names: list[str]) -> None:
        """Raises ``ValueError`` unless the history will have what decides which checkpoint is the best."""
        best = self._checkpoint.keep_best
        if best is not None and best not in names:
            raise ValueError(f"checkpoint.keep_best: expected one of {names}, got {best!r}")

    def ahead(self, position: Position) -> tuple[int, int]:
        """The epochs and the steps until a checkpoint is due, as far as is known."""
        checkpoint, never = self._checkpoint, np.iinfo(np.int32).max
        epochs = self._every_epochs - position.epochs % self._every_epochs if self._every_epochs else never
        done = self._steps_done(position)
        steps = checkpoint.every_steps - done % checkpoint.every_steps if checkpoint.every_steps else never
        return epochs, steps

    @property
    def _every_epochs(self) -> int | None:
        return 1 if self._checkpoint.every_epochs is None and not self.within_epochs else self._checkpoint.every_epochs

    @property
    def within_epochs(self) -> bool:
        """Whether a checkpoint may be due in the middle of an epoch."""
        return self._checkpoint.every_steps is not None or self._checkpoint.every_seconds is not None

    def _steps_done(self, position: Position) -> int:
        """In all epochs."""
        if self._plan.steps is None:
            return position.batches
        return position.epochs * self._plan.steps + position.steps

    def save_if_due(self, before: Position, after: Position) -> None:
        """Writes a checkpoint if one is due between two positions, at the second."""
        epochs, steps = self.ahead(before)
        done = self._steps_done(after) - self._steps_done(before)
        seconds = self._checkpoint.every_seconds
        late = seconds is not None and time.monotonic() - self._time >= seconds
        if after.epochs - before.epochs >= epochs or done >= steps or late or self._is_best(before, after):
            self.save(after)

    def _is_best(self, before: Position, after: Position) -> bool:
        """Whether the last epoch is the best so far, and nobody has looked yet."""
        name = self._checkpoint.keep_best
        if name is None or after.epochs == before.epochs:
            return False
        *earlier, last = (_worth(name, value) for value in after.history[name][: after.epochs])
        return last > max(earlier, default=-np.inf)

    def save(self, position: Position) -> None:
        """Begins to write a checkpoint, unless it is there; waits for the one before.

        If one cannot be written it warns: the run is worth more.
        """
        step = self._steps_done(position)
        self._time = time.monotonic()
        if step in (0, self._saved):  # a start is as quickly made anew
            return
        self._wait()
        tree: dict[str, Any] = {"order": position.order, "run": position.run_state}
        if position.steps:
            tree["part"] = position.part
        arrays = dict(named_leaves(tree)) | {f"history/{key}": values for key, values in position.history.items()}
        last = position.epochs - 1
        curves = {key: values for key, values in position.history.items() if values.ndim == 1}
        about = {
            "kind": "checkpoint",
            "epochs": position.epochs,
            "steps": position.steps,
            "metrics": {key: float(values[last]) for key, values in curves.items()} if last >= 0 else {},
            "same": dict(self._identity.same),
            "program": self._identity.program,
            "stream": _described_place(position),
            **self._identity.described,
        }
        self._saved = step
        self._remember(step, about)
        with self._told():
            self._writer.start(step, about, {**arrays, **self._identity.arrays})

    def _remember(self, step: int, about: Mapping[str, Any]) -> None:
        """How good the epoch was that a checkpoint ends."""
        name = self._checkpoint.keep_best
        if name is not None and not about["steps"]:
            self._worth[step] = _worth(name, about["metrics"].get(name, np.nan))

    def finish(self, position: Position) -> None:
        """Writes a checkpoint, unless it is there, and waits until it is complete."""
        self._wait()  # if the last one failed, it is tried again
        self.save(position)
        self._wait()

    def _wait(self) -> None:
        with self._told():
            self._writer.wait()

    @contextmanager
    def _told(self) -> Generator[None]:
        """Warns if a checkpoint cannot be written; the next one is then tried as if this had never been."""
        try:
            yield
        except Exception as error:  # Orbax has no one word for a full disk
            text = getattr(error, "strerror", None) or str(error).partition(" [")[0]
            warnings.warn(f"checkpoint: cannot write to {self._folder}: {text}. The run goes on", stacklevel=4)
            self._saved = None


def _described_place(position: Position) -> Any:
    """Where a stream stands, as JSON has it; None where data are in memory."""
    if not position.batches:
        return None
    epoch, step, state = position.place
    text = {"base64": base64.b64encode(state).decode()} if isinstance(state, bytes) else {"json": state}
    try:
        json.dumps(text)
    except TypeError:  # a state of another kind: the batches before are read once more
        text = {"json": None}
    return {"batches": position.batches, "epoch": epoch, "step": step, "state": text}


def _place_of(stream: Any) -> tuple[Place, int]:
    """The same read back, and the batches."""
    if stream is None:
        return Place(), 0
    text = stream["state"]
    state = base64.b64decode(text["base64"]) if "base64" in text else text["json"]
    return Place(stream["epoch"], stream["step"], state), stream["batches"]


def _worth(monitor: str, value: float) -> float:
    """More for what is better; least for what is not finite."""
    return -np.inf if not np.isfinite(value) else -value if infer_mode(monitor) == "min" else value
