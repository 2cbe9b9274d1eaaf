"""A run's result in a sentence."""

from collections import Counter
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxopt_nn.training._status import Status

__all__ = ["describe"]

_PARTS = {"train": "training", "valid": "validation"}


def describe(status: Any, epochs: Any, best_epoch: Any, first_bad_step: Any, skipped: Any, history: Any) -> str | None:
    """How a run, or each of several, ended and how good it was at its best epoch; None for what is no run's result.

    >>> import numpy as np
    >>> history = {"valid_accuracy": np.array([0.5, 0.9, 0.8, np.nan])}
    >>> describe(np.int32(1), np.int32(3), np.int32(1), np.int32(-1), np.int32(0), history)
    'stopped early at epoch 3 of 4, at its best (epoch 2) validation accuracy 0.90'
    """
    if not isinstance(history, dict):
        return None
    fields = [status, epochs, best_epoch, first_bad_step, skipped, *history.values()]
    if any(isinstance(field, Tracer) for field in fields):
        return "traced, its values are not known yet"
    if not all(isinstance(field, (jax.Array, np.ndarray, np.generic)) for field in fields):
        return None
    try:
        status, epochs, best_epoch, first_bad_step, skipped = (
            np.asarray(value).astype(int) for value in (status, epochs, best_epoch, first_bad_step, skipped)
        )
        rows = {name: np.asarray(values) for name, values in sorted(history.items())}
    except RuntimeError:
        return "its arrays were donated, or are on another machine"
    if any(values.shape[:-1] != status.shape or not values.shape for values in rows.values()):
        return None
    if not np.isin(status, list(Status)).all():
        return None
    total = max((values.shape[-1] for values in rows.values()), default=int(epochs.max(initial=0)))
    best = {name: _at(values, best_epoch) for name, values in rows.items() if name in _shown(rows)}
    if status.ndim:
        return _lanes(status, best)
    scores = ", ".join(f"{_label(name)} {_number(name, float(value))}" for name, value in best.items())
    text = _ending(Status(int(status)), int(epochs), total, int(first_bad_step))
    if scores and best_epoch >= 0:
        is_last = best_epoch == epochs - 1
        text += f", {scores}" if is_last else f", at its best (epoch {best_epoch + 1}) {scores}"
    if skipped:
        text += f"; {skipped} step{'' if skipped == 1 else 's'} skipped"
    return text


def _ending(status: Status, epochs: int, total: int, bad_step: int) -> str:
    of = f"epoch {epochs} of {total}"
    if status is Status.COMPLETED:
        return f"completed {total} epoch{'s' * (total != 1)}"
    if status is Status.STOPPED_EARLY:
        return f"stopped early at {of}"
    if status is Status.INTERRUPTED:
        return f"interrupted after {of}"
    if status is Status.NONFINITE_VALIDATION:
        return f"validation loss not finite at {of}"
    return f"training not finite at step {bad_step}, in {of}"


def _lanes(status: Any, best: dict[str, Any]) -> str:
    names = {code: Status(code).name.lower().replace("_", " ") for code in {int(code) for code in status.flat}}
    counts = Counter(names[int(code)] for code in status.flat)
    text = f"{status.size} lanes: " + ", ".join(f"{number} {name}" for name, number in counts.items())
    for name, values in best.items():
        known = values[np.isfinite(values)]
        if known.size:
            low, high = (_number(name, float(value)) for value in (known.min(), known.max()))
            text += f", {_label(name)} {low} to {high}"
    return text


def _shown(names: Any) -> list[str]:
    """The metrics of the validation set, or else its loss, or else the training loss."""
    metrics = [name for name in names if name.startswith("valid_") and name != "valid_loss"]
    return metrics or [name for name in ("valid_loss", "train_loss") if name in names][:1]


def _at(values: Any, epoch: Any) -> Any:
    if not values.shape[-1]:
        return np.full(epoch.shape, np.nan)
    picked = np.take_along_axis(values, np.maximum(epoch, 0)[..., None], -1)[..., 0]
    return np.where(epoch >= 0, picked, np.nan)


def _label(name: str) -> str:
    part, _, rest = name.partition("_")
    return f"{_PARTS.get(part, part)} {rest}".strip()


def _number(name: str, value: float) -> str:
    return f"{value:.3g}" if name.endswith("loss") or not 0 <= value <= 1 else f"{value:.2f}"
