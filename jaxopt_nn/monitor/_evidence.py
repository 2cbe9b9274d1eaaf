"""What a run's history says, in the figures that a diagnosis goes by."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Evidence", "first", "last", "of_finite"]

Floats = NDArray[np.float64]
_NO_KERNEL = ("bias", "scale", "beta", "gamma", "b", "offset")


class Evidence:
    """The history of one run, by epoch; epochs that were not run are left out."""

    def __init__(self, history: Mapping[str, Any]) -> None:
        arrays = {name: np.asarray(values, np.float64) for name, values in history.items()}
        train = arrays["train_loss"]
        done = np.flatnonzero(np.isfinite(train))
        self.epochs = int(done[-1]) + 1 if len(done) else 0
        self._history = {name: values[: self.epochs] for name, values in arrays.items()}

    def curve(self, name: str) -> Floats:
        """The values ``[epochs]`` of a scalar entry; none of them if there is no such entry."""
        values = self._history.get(name, np.zeros(0))
        return values if values.ndim == 1 else np.zeros(0)

    def value(self, name: str) -> float:
        """The last finite value of a scalar entry; NaN if there is none."""
        return last(self.curve(name))

    def layers(self, entry: str) -> dict[str, Floats]:
        """``path -> [epochs]`` of ``activation/<path>/<entry>``, in the order of evaluation."""
        pattern = re.compile(rf"activation/(.+)/{entry}")
        return self._by_layer(pattern)

    def starts(self) -> dict[str, Floats]:
        """``path -> [epochs]`` of ``start/<path>``, in the order of evaluation."""
        return self._by_layer(re.compile("start/(.+)"))

    def _by_layer(self, pattern: "re.Pattern[str]") -> dict[str, Floats]:
        found = ((match[1], name) for name in self._history if (match := pattern.fullmatch(name)))
        flat = {own: values for path, name in found for own, values in self._blocks(path, name).items()}
        return {path: flat[path] for path in sorted(flat, key=self._place)}

    def leaves(self, kind: str) -> dict[str, Floats]:
        """``path -> [epochs]`` of ``flow/<kind>/<path>``, kernels alone, in the order of evaluation."""
        start = f"flow/{kind}/"
        paths = [name.removeprefix(start) for name in self._history if name.startswith(start)]
        kernels = [path for path in paths if path.rsplit("/", 1)[-1] not in _NO_KERNEL] or paths
        return {path: self.curve(start + path) for path in sorted(kernels, key=self._place)}

    def relative_gradients(self) -> dict[str, Floats]:
        """``path -> [epochs]``: gradient over parameter, of kernels, which does not depend on the width of a layer."""
        parameters = self.leaves("parameter")
        with np.errstate(divide="ignore", invalid="ignore"):
            return {path: norm / parameters[path] for path, norm in self.leaves("gradient").items()}

    def _blocks(self, path: str, name: str) -> dict[str, Floats]:
        """The one curve of a layer, or those of the n blocks of a ``repeat``."""
        values = self._history[name]
        if values.ndim == 1:
            return {path: values}
        flat = values.reshape(len(values), -1)
        return {f"{path}[{block}]": flat[:, block] for block in range(flat.shape[1])}

    def _place(self, path: str) -> tuple[Any, ...]:
        """By the place of the layer; without records of layers by name, dense_2 before dense_10."""
        natural = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]
        layer, _, block = path.partition("[")
        while layer:
            place = first(self._history.get(f"activation/{layer}/position", np.zeros(0)))
            if np.isfinite(place):
                return int(place), int(block.rstrip("]") or 0), natural
            layer = layer.rpartition("/")[0]
        return -1, 0, natural


def of_finite(reduce: Callable[[Floats], Any], values: Any) -> float:
    """A figure of the finite values; NaN if there are none."""
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    return float(reduce(finite)) if len(finite) else np.nan


def first(values: Floats) -> float:
    """The first finite one; NaN if there is none."""
    return of_finite(lambda finite: finite[0], values)


def last(values: Floats) -> float:
    """The last finite one; NaN if there is none."""
    return of_finite(lambda finite: finite[-1], values)
