"""A saved model in words, without its recipe."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxopt_nn.training._folders import is_folder, read_description, read_folder
from jaxopt_nn.training._orbax import read_checkpoint
from jaxopt_nn.training._status import Status

__all__ = ["describe_saved"]


def describe_saved(path: str | os.PathLike[str]) -> str:
    """What :func:`save` wrote, or a checkpoint, as lines to read; the files are checked against their checksums.

    Raises:
        OSError: there is no such folder.
        ValueError: it is damaged.
        ImportError: it is a checkpoint, and Orbax is missing.
    """
    folder = Path(path)
    if not is_folder(folder):
        hint = ": that of all checkpoints, name one of them" if (folder / "lock").exists() else ""
        raise FileNotFoundError(f"{path}: expected a folder that training.save wrote, or one checkpoint{hint}")
    is_checkpoint = read_description(folder)["kind"] == "checkpoint"
    about, arrays = (read_checkpoint if is_checkpoint else read_folder)(folder)
    start = "run/state/params/" if is_checkpoint else "params/"
    params = {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
    sizes = {name: f"{value.dtype}{list(value.shape)}" for name, value in params.items()}
    count = sum(value.size for value in params.values())
    nbytes = sum(value.nbytes for value in params.values())
    parts: dict[str, Mapping[str, str]] = {
        "run": {"kind": about["kind"], **_ending(about, arrays, is_checkpoint)},
        f"parameters ({count:,} numbers, {nbytes:,} bytes)": sizes,
        "hyperparameters": _values(about["hparams"], arrays),
        "key": _values(about["key"], arrays),
        "preprocessing": _values(about.get("preprocessing"), arrays),
        "an example's features": _values(about["features"], arrays),
        "training data": about["data"],
        "versions": about["versions"],
    }
    lines = [f"{folder}"]
    for head, values in parts.items():
        lines.append(f"\n{head}")
        width = max((len(name) for name in values), default=0)
        lines += [f"  {name:<{width}}  {value}".rstrip() for name, value in values.items()]
        if not values:
            lines.append("  none")
    return "\n".join(lines)


def _ending(about: Mapping[str, Any], arrays: Mapping[str, Any], is_checkpoint: bool) -> dict[str, str]:
    """How the run ended, and the history at the epoch of the parameters."""
    if is_checkpoint:
        metrics = {name: f"{value:.4g}" for name, value in about["metrics"].items()}
        return {"epochs": str(about["epochs"]), "steps": str(about["steps"]), **metrics}
    best = int(arrays["best_epoch"])
    ending = {
        "status": Status(int(arrays["status"])).name,
        "epochs": str(int(arrays["epochs"])),
        "best epoch": str(best + 1) if best >= 0 else "none",
    }
    history = {name.removeprefix("history/"): arrays[name] for name in arrays if name.startswith("history/")}
    curves = {name: np.asarray(values) for name, values in sorted(history.items()) if "/" not in name}
    scalars = {name: values[best] for name, values in curves.items() if values.ndim == 1 and best >= 0}
    return ending | {name: f"{float(value):.4g}" for name, value in scalars.items()}


def _values(value: Any, arrays: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """By their paths, the values that a description holds."""
    if value is None:
        return {}
    if isinstance(value, list):
        entries = enumerate(cast("list[Any]", value))
    elif isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        kind = next(iter(fields), "")
        inner: Any = fields.get(kind)
        match kind:
            case "$static" | "$scaler" | "$table" | "$column" | "$tuple":
                return _values(inner, arrays, path)
            case "$array":
                array = arrays[inner]
                return {path or "value": str(array) if array.ndim == 0 else f"{array.dtype}{list(array.shape)}"}
            case "$key":
                return {path or "key": f"{inner[1]} {arrays[inner[0]].tolist()}"}
            case "$opaque":
                return {path or "value": f"{inner} (its text alone was saved)"}
            case _:
                entries = fields.items()
    else:
        return {path or "value": str(value)}
    found: dict[str, str] = {}
    for name, each in entries:
        found |= _values(each, arrays, f"{path}/{name}" if path else str(name))
    return found
