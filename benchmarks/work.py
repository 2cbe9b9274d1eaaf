"""The work that every side of a benchmark does: the same data, the same network, the same number of steps."""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["CASES", "Case", "Training", "Update", "load"]


class Training(NamedTuple):
    """Training a network with Adam.

    Attributes:
        dataset: ``"digits"`` or ``"fashion"``.
        widths: the dense layers' widths, inputs first; ReLU between them. Empty for LeNet on images.
        batch_size: examples a step; the last, smaller batch of an epoch is left out by every side.
        epochs: passes over the data in one round.
        learning_rate: Adam's.
        examples: how many training examples at the most, and a tenth of it for validation; None for all.
        lanes: runs with seeds of their own; what is counted are the steps of all of them together.
        drop_rate: of dropout after each hidden layer.
    """

    dataset: str
    widths: tuple[int, ...]
    batch_size: int
    epochs: int
    learning_rate: float
    examples: int | None = None
    lanes: int = 1
    drop_rate: float = 0.0


class Update(NamedTuple):
    """Updates of AdamW alone: the same gradients again and again.

    Attributes:
        shapes: of the leaves.
        updates: how many in one round.
    """

    shapes: tuple[tuple[int, ...], ...]
    updates: int


class Case(NamedTuple):
    """One piece of work.

    Attributes:
        title: what it is, in a line.
        unit: what is counted a second.
        work: what is done.
        goals: who is compared with ours, and how many times faster ours is to be; None where no goal is set.
    """

    title: str
    unit: str
    work: Training | Update
    goals: dict[str, float | None]


def _small_leaves() -> tuple[tuple[int, ...], ...]:
    sizes = np.random.default_rng(0).integers(64, 257, size=1000)
    return tuple((int(size),) for size in sizes)


CASES = {
    "1": Case(
        "digits MLP 64-64-32-10, batch 32, Adam; ours with history, validation and early stopping",
        "steps",
        Training("digits", (64, 64, 32, 10), 32, 30, 1e-3),
        {"torch": 10.0, "keras-jax": 2.5, "keras-jax-16": 2.5, "equinox": 10.0, "sklearn": None},
    ),
    "2": Case(
        "Fashion-MNIST MLP 784-256-128-10, batch 64, Adam; ours with validation on 10,000 images",
        "steps",
        Training("fashion", (784, 256, 128, 10), 64, 1, 1e-3),
        {"torch": 1.9, "torch-compile": 1.9, "keras-jax": 1.4, "keras-jax-16": 1.4, "equinox": None},
    ),
    "3": Case(
        "64 runs of 1 as lanes of one program, all steps counted",
        "steps",
        Training("digits", (64, 64, 32, 10), 32, 10, 1e-3, lanes=64),
        {"torch": 30.0, "sklearn-2": 12.0, "ours-single": 3.5},
    ),
    "4": Case(
        "32 runs of a 784-64-10 MLP on Fashion-MNIST, batch 64, as lanes, all steps counted",
        "steps",
        Training("fashion", (784, 64, 10), 64, 1, 1e-3, examples=10_000, lanes=32),
        {"torch": 3.0, "ours-single": None},
    ),
    "5": Case(
        "LeNet on Fashion-MNIST, batch 64, Adam, in the compiled run with validation",
        "steps",
        Training("fashion", (), 64, 1, 1e-3, examples=6_400),
        {"torch": 1.0, "jax-plain": 12.0, "ours-stepwise": 0.95},
    ),
    "6": Case(
        "1 with dropout 0.2 after both hidden layers",
        "steps",
        Training("digits", (64, 64, 32, 10), 32, 30, 1e-3, drop_rate=0.2),
        {"ours-without": 0.85},
    ),
    "11-small": Case(
        "AdamW update alone, 1,000 leaves of 64 to 256 numbers, a jitted call each",
        "updates",
        Update(_small_leaves(), 50),
        {"ours-loop": None, "optax": 2.0, "optax-loop": None, "torch": 1.2},
    ),
    "11-large": Case(
        "AdamW update alone, 50 million numbers in 20 leaves, a jitted call each",
        "updates",
        Update(((2500, 1000),) * 20, 5),
        {"ours-loop": None, "optax": 1.0, "optax-loop": None, "torch": None},
    ),
}


def load(case: Training) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and validation features and labels, scaled: the same arrays for every side."""
    if case.dataset == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = ((x - x.mean(0)) / np.maximum(x.std(0), 1e-3)).astype("float32")
        order = np.random.default_rng(0).permutation(len(y))
        x, y = x[order], y[order].astype("int32")
        return _limited(case, x[:1437], y[:1437], x[1437:], y[1437:])
    from jaxopt_nn import data

    train, valid = data.load_fashion_mnist(split="train"), data.load_fashion_mnist(split="test")
    x, vx = ((part.x.reshape(-1, 28, 28, 1) if not case.widths else part.x.reshape(-1, 784)) for part in (train, valid))
    return _limited(case, x, train.y, vx, valid.y)


def _limited(case: Training, x: np.ndarray, y: np.ndarray, vx: np.ndarray, vy: np.ndarray) -> Any:
    if case.examples is None:
        return x, y, vx, vy
    return x[: case.examples], y[: case.examples], vx[: case.examples // 10], vy[: case.examples // 10]
