"""The committed results, and how their figures are written."""

import json
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "ROOT", "Results", "about", "layer_results", "missing", "number", "ratio", "results"]

ROOT = Path(__file__).parents[1]
PEERS = {
    "ours": "ours",
    "torch": "torch, eager, fused Adam",
    "torch-compile": "torch.compile",
    "ours-first": "ours, the first check of a function: compiling is part of it",
    "torch-gradcheck": "torch gradcheck, slow mode, one round if it takes more than a minute",
    "torch-gradcheck-fast": "torch gradcheck, fast mode, one direction",
    "keras-jax": "Keras on JAX",
    "keras-jax-16": "Keras on JAX, 16 steps per execution",
    "equinox": "equinox and optax, a jitted step",
    "optax": "optax, jitted",
    "optax-loop": "optax, all updates in one compiled loop",
    "sklearn": "scikit-learn",
    "sklearn-2": "scikit-learn, two processes",
    "flax-scan": "flax and optax, steps in a scan, native convolution",
    "jax-plain": "plain JAX and optax, training only",
    "ours-one-core": "ours, on one core",
    "torch-one-core": "torch, on one core",
    "ours-loop": "ours, all updates in one compiled loop",
    "ours-eigen": "ours, Eigen's matrix products in place of XLA's default",
    "ours-ynnpack": "ours, XLA's default matrix products",
    "ours-leaves": "ours, leaf by leaf",
    "ours-flat": "ours, small leaves as one vector",
    "ours-single": "ours, one run",
    "ours-one-device": "ours, on one device",
    "ours-stepwise": "ours, a jitted call for each step",
    "ours-without": "ours without dropout",
    "ours-unaugmented": "ours without augmentation",
    "ours-validation": "ours, with validation and early stopping too",
    "ours-run": "the compiled run alone",
    "ours-forward": "the forward run, without its gradient",
    "ours-watched-10": "ours, watched at every tenth step",
    "ours-unwatched": "ours, not watched",
    "ours-in-memory": "`fit` on arrays in memory",
    "ours-jitted": "the model's forward pass, jitted, without checks",
    "ours-traced-anew": "`predict`, which traces the model at each call",
    "ours-1-lane": "ours, 1 lane",
    "ours-4-blocks": "ours, 4 blocks",
    "ours-10-epochs": "ours, 10 epochs",
    "ours-float32": "ours, moments in float32",
    "ours-memory": "ours, without a file",
    "ours-full": "ours, all configurations to the end",
    "ours-ray-1": "ours, on a Ray of one worker",
    "ours-ray-2": "ours, on a Ray of two workers",
    "optuna-torch": "Optuna and torch, trial by trial, 40 of them",
    "optuna-keras": "Optuna and Keras on JAX, trial by trial, 40 of them",
    "sklearn-search": "scikit-learn's RandomizedSearchCV, two processes, 40 trials",
    "torch-ray-tune": "Ray Tune and torch, two trials at a time, 40 of them",
    "machine": "the machine's rates",
}

Results = dict[str, dict[str, Any]]


def results(kind: str = "cases") -> dict[str, Results]:
    """The committed results, by the name of their file: of the cases, or of the ``"scaling"`` curves."""
    found: dict[str, Results] = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        measured = json.loads(path.read_text())
        if "cases" in measured and path.stem.endswith("-scaling") == (kind == "scaling"):
            found[path.stem] = measured["cases"]
    return found


def layer_results() -> dict[str, Any] | None:
    """The committed results of :mod:`benchmarks.layers`."""
    path = ROOT / "benchmarks" / "results" / "cpu-layers.json"
    return json.loads(path.read_text()) if path.is_file() else None


def about(measured: Results) -> str:
    """On what, when and how often a file's results were measured."""
    machines = {
        f"{result['machine']['processor']}, {result['machine']['cores']} cores"
        + (f", {result['machine']['backend']}" if result["machine"]["backend"] != "cpu" else "")
        for result in measured.values()
    }
    dates, rounds = ({result[key] for result in measured.values()} for key in ("date", "rounds"))
    when = " to ".join(sorted({min(dates), max(dates)}))
    jax = " and ".join(sorted({result["versions"]["jax"] for result in measured.values()}))
    where = f"{'; '.join(sorted(machines))}, with JAX {jax}, {when}"
    return f"Median and range of {min(rounds)} or more rounds in turn, on {where}."


def ratio(side: dict[str, float]) -> str:
    """How many times faster ours is than a side, with the least and the largest of the rounds."""
    if "ours_faster" not in side:
        return ""
    return f"{side['ours_faster']:.2f}x ({side['ours_faster_min']:.2f} to {side['ours_faster_max']:.2f})"


def number(value: float) -> str:
    """A rate to read: three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def missing(side: str, result: dict[str, Any]) -> str:
    """Why a side has no figures."""
    return next((why for why in ("absent", "failed") if side in result[why]), "not measured")
