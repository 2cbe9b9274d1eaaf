"""The work that every side of a benchmark does: the same data, the same network, the same number of steps."""

from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Case",
    "Checking",
    "Checkpointing",
    "Compiling",
    "FirstResult",
    "Hypergradient",
    "LargeUpdate",
    "Streaming",
    "Sweep",
    "Training",
    "Update",
    "Work",
    "load",
]


class Training(NamedTuple):
    """Training a network with Adam.

    Attributes:
        dataset: ``"digits"``, ``"fashion"``, or ``"made"``: clusters with noise, for where no data set is at hand.
        widths: the dense layers' widths, inputs first; ReLU between them. Empty for LeNet on images of 28 x 28.
        batch_size: examples a step; the last, smaller batch of an epoch is left out by every side.
        epochs: passes over the data in one round.
        learning_rate: Adam's.
        examples: how many training examples at the most, and a tenth of it for validation; None for all.
        lanes: runs with seeds of their own; what is counted are the steps of all of them together.
        drop_rate: of dropout after each hidden layer.
        dtype: of features, parameters and products.
        devices: how many devices the lanes are spread over.
        together: lanes of one device of a CPU that are trained at a time, the next ones after them; None for all. Fewer
            fit its caches.
        eigen: whether ours is compiled with the matrix products of Eigen in place of YNNPACK's, XLA's default for CPUs.
        batch_norm: whether each hidden layer has a batch normalization.
        watch: 0, or the cadence in steps at which ours records the flow of gradients (``monitor.watch``).
        validation: whether ours validates after each epoch, and keeps the best weights, within the time that is taken;
            peers never do.
        augmented: whether ours flips and crops its images at random; peers never do.
    """

    dataset: str
    widths: tuple[int, ...]
    batch_size: int
    epochs: int
    learning_rate: float
    examples: int | None = None
    lanes: int = 1
    drop_rate: float = 0.0
    dtype: str = "float32"
    devices: int = 1
    together: int | None = None
    eigen: bool = False
    validation: bool = True
    augmented: bool = False
    batch_norm: bool = False
    watch: int = 0


class Update(NamedTuple):
    """Updates of AdamW alone: the same gradients again and again.

    Attributes:
        shapes: of the leaves.
        updates: how many in one round.
        loop: whether ours does them in one compiled loop, as in a run, or by a jitted call each.
    """

    shapes: tuple[tuple[int, ...], ...]
    updates: int
    loop: bool = False


class LargeUpdate(NamedTuple):
    """Updates of AdamW alone, so large that everything is made on the device.

    Attributes:
        leaves: how many.
        size: numbers in each.
        updates: how many in one round.
        state_dtype: of the moments; with ``"bfloat16"`` they are rounded stochastically.
    """

    leaves: int
    size: int
    updates: int
    state_dtype: str = "float32"


class Compiling(NamedTuple):
    """From a function to a compiled program: tracing, lowering and XLA.

    Attributes:
        programs: side to program, a name that ``benchmarks.compile_time`` knows.
    """

    programs: dict[str, str]


class Checking(NamedTuple):
    """Checking the gradient of the mean cross-entropy of a dense tanh network.

    Attributes:
        widths: of the layers, inputs first.
        examples: in the batch.
    """

    widths: tuple[int, ...]
    examples: int


class Checkpointing(NamedTuple):
    """Training driven by ``fit``, with a checkpoint after each epoch.

    Attributes:
        training: what is trained.
    """

    training: Training


class Hypergradient(NamedTuple):
    """The validation loss after a training run, differentiated by the learning rate of each of its steps.

    Attributes:
        training: the run.
    """

    training: Training


class FirstResult(NamedTuple):
    """The training of row 1 with an evaluation after it, as a person meets it.

    Attributes:
        program: ``"cold"`` or ``"cached"`` for a whole process, without and with JAX's compilation cache; ``"again"``
            for another call; ``"predict"`` for predictions of single rows.
        little: whether it is only to be shown that it runs.
    """

    program: str
    little: bool = False


class Sweep(NamedTuple):
    """Many runs of small networks, from the call to the table.

    Attributes:
        program: ``"grid"``, ``"halving"`` for successive halving, ``"frame"`` for the data frame alone.
        dataset, examples, batch_size, epochs: of each run.
        seeds: runs of each configuration.
        trials: at the most; None for all.
        store: whether they are kept in a file.
    """

    program: str
    dataset: str = "digits"
    examples: int | None = None
    batch_size: int = 32
    epochs: int = 10
    seeds: int = 5
    trials: int | None = None
    store: bool = True


class Streaming(NamedTuple):
    """Training with batches that are read while it goes on.

    Attributes:
        training: the network, the data and the epochs, of which the first is not timed.
    """

    training: Training


Work = (
    Training
    | Update
    | LargeUpdate
    | Compiling
    | Checking
    | Checkpointing
    | Hypergradient
    | FirstResult
    | Streaming
    | Sweep
)


class Case(NamedTuple):
    """One piece of work.

    Attributes:
        title: what it is, in a line.
        unit: what is counted a second.
        work: what is done.
        goals: who is compared with ours, and how many times faster ours is to be; None where no goal is set.
        compile_goal: seconds that compiling ours may take.
        matmul_goal: the fraction of the measured matrix-product rate that ours is to reach.
        copy_goal: the fraction of the measured copy rate that ours is to reach.
        roofline: whether ours is compared with these rates.
    """

    title: str
    unit: str
    work: Work
    goals: dict[str, float | None]
    compile_goal: float | None = None
    matmul_goal: float | None = None
    copy_goal: float | None = None
    roofline: bool = False


def load(case: Training) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and validation features and labels, scaled: the same float32 arrays for every side."""
    if case.dataset == "made":
        return _made(case)
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


def _made(case: Training) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ten clusters in as many dimensions as there are inputs, with noise of the size of their distance."""
    assert case.examples is not None, "made data have no size of their own"
    rng, shape = np.random.default_rng(0), (28, 28, 1) if not case.widths else (case.widths[0],)
    y = rng.integers(0, 10, case.examples + case.examples // 10).astype("int32")
    centres = rng.standard_normal((10, *shape), np.float32)
    x = centres[y] + 2 * rng.standard_normal((len(y), *shape), np.float32)
    return x[: case.examples], y[: case.examples], x[case.examples :], y[case.examples :]


def _limited(case: Training, x: np.ndarray, y: np.ndarray, vx: np.ndarray, vy: np.ndarray) -> Any:
    if case.examples is None:
        return x, y, vx, vy
    return x[: case.examples], y[: case.examples], vx[: case.examples // 10], vy[: case.examples // 10]
