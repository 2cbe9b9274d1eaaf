"""What is measured, beside whom, and what is to be reached."""

import numpy as np

from benchmarks.work import (
    Case,
    Checking,
    Checkpointing,
    Compiling,
    FirstResult,
    Hypergradient,
    LargeUpdate,
    Streaming,
    Sweep,
    Training,
    Update,
    Work,
)

__all__ = ["ACCELERATOR", "CASES", "quick"]


def _small_leaves() -> tuple[tuple[int, ...], ...]:
    sizes = np.random.default_rng(0).integers(64, 257, size=1000)
    return tuple((int(size),) for size in sizes)


_DIGITS = Training("digits", (64, 64, 32, 10), 32, 30, 1e-3)
_FASHION = Training("fashion", (784, 256, 128, 10), 64, 1, 1e-3, validation=False)

CASES = {
    "0-cold": Case(
        "1 without validation, as a whole process: imports, data, compiling, training, test accuracy",
        "processes",
        FirstResult("cold"),
        {"sklearn": 0.5, "keras-jax": 2.2, "torch": None},
    ),
    "0-cached": Case(
        "the same again, with JAX's compilation cache on disk",
        "processes",
        FirstResult("cached"),
        {"sklearn": 0.77},
    ),
    "0-again": Case(
        "fit of 1 called again in the same process, with another learning rate",
        "runs",
        FirstResult("again"),
        {"ours-run": 0.91},
    ),
    "0-predict": Case(
        "predictions of one row, a call each, by a function made once; traced anew: predict",
        "calls",
        FirstResult("predict"),
        {"ours-jitted": None, "ours-traced-anew": None, "sklearn": None, "torch": None, "keras-jax": None},
    ),
    "0d": Case(
        "600 trials on digits (learning rate x L2 x drop rate x width x optimizer x 5 seeds), 10 epochs, to the table",
        "trials",
        Sweep("grid"),
        {
            "optuna-torch": 20.0,
            "optuna-keras": 20.0,
            "sklearn-search": 20.0,
            "torch-ray-tune": 20.0,
            "ours-memory": 0.97,
            "ours-one-device": None,
            "ours-ray-1": None,
            "ours-ray-2": None,
        },
    ),
    "1": Case(
        "digits MLP 64-64-32-10, batch 32, Adam; ours with history, validation and early stopping",
        "steps",
        _DIGITS,
        {
            "torch": 10.0,
            "keras-jax": 2.5,
            "keras-jax-16": 2.5,
            "equinox": 10.0,
            "sklearn": None,
            "ours-one-core": None,
            "torch-one-core": None,
        },
    ),
    "2": Case(
        "Fashion-MNIST MLP 784-256-128-10, batch 64, Adam; the same work for all",
        "steps",
        _FASHION,
        {
            "torch": 1.9,
            "torch-compile": 1.9,
            "keras-jax": 1.4,
            "keras-jax-16": 1.4,
            "equinox": None,
            "ours-validation": None,
        },
        roofline=True,
        matmul_goal=0.65,
    ),
    "2-eigen": Case(
        "2, ours compiled with Eigen's matrix products in place of XLA's default",
        "steps",
        _FASHION._replace(eigen=True),
        {"torch": 1.9, "torch-compile": 1.9, "keras-jax": 1.4, "keras-jax-16": 1.4, "ours-ynnpack": None},
        roofline=True,
        matmul_goal=0.65,
    ),
    "1-streamed": Case(
        "fit of 1 over batches read in shuffled blocks, each epoch validated",
        "steps",
        Streaming(_DIGITS._replace(epochs=200)),
        {"ours-in-memory": 0.9},
    ),
    "2-streamed": Case(
        "fit of 2 over batches read in shuffled blocks, each epoch validated",
        "steps",
        Streaming(_FASHION._replace(epochs=3)),
        {"ours-in-memory": 0.9},
    ),
    "3": Case(
        "64 runs of 1 as lanes of one program, on two devices of the CPU, 16 at a time on each",
        "steps",
        _DIGITS._replace(epochs=10, lanes=64, devices=2, together=16),
        {"torch": 30.0, "sklearn-2": 12.0, "ours-single": 3.5, "ours-one-device": None},
    ),
    "4": Case(
        "32 runs of a 784-64-10 MLP on Fashion-MNIST, batch 64, as lanes, on two devices of the CPU, 4 at a time",
        "steps",
        Training("fashion", (784, 64, 10), 64, 1, 1e-3, examples=10_000, lanes=32, devices=2, together=4),
        {"torch": 3.0, "ours-single": None, "ours-one-device": None},
    ),
    "5": Case(
        "LeNet on Fashion-MNIST, batch 64, Adam, in the compiled run with validation",
        "steps",
        Training("fashion", (), 64, 1, 1e-3, examples=6_400),
        {"torch": 1.0, "flax-scan": 12.0, "ours-stepwise": 0.95, "ours-eigen": None},
        roofline=True,
    ),
    "5-augmented": Case(
        "5 with random flips and crops of the training images",
        "steps",
        Training("fashion", (), 64, 1, 1e-3, examples=6_400, augmented=True),
        {"ours-unaugmented": 0.8},
    ),
    "6": Case(
        "1 with dropout 0.2 after both hidden layers",
        "steps",
        _DIGITS._replace(drop_rate=0.2),
        {"ours-without": 0.85},
    ),
    "7": Case(
        "1 with batch normalization, and with monitor.watch() at every step",
        "steps",
        _DIGITS._replace(batch_norm=True, watch=1),
        {"ours-unwatched": 0.95, "ours-watched-10": None},
    ),
    "7-fashion": Case(
        "2 with monitor.watch() at every step",
        "steps",
        _FASHION._replace(watch=1),
        {"ours-unwatched": 0.95, "ours-watched-10": None},
    ),
    "8-run": Case(
        "compiling the run of 1, tracing included",
        "compilations",
        Compiling({"ours": "run", "jax-plain": "plain-0"}),
        {"torch-compile": None, "jax-plain": 1.0},
        compile_goal=1.5,
    ),
    "8-blocks": Case(
        "compiling a run of 64 equal blocks, repeated; plain JAX: the network of 1",
        "compilations",
        Compiling({"ours": "blocks-64", "ours-4-blocks": "blocks-4", "jax-plain": "plain-0"}),
        {"ours-4-blocks": None, "jax-plain": 0.68},  # 1.5 s / 2.2 s
        compile_goal=2.2,
    ),
    "8-lanes": Case(
        "compiling 256 lanes of 1",
        "compilations",
        Compiling({"ours": "lanes-256", "ours-1-lane": "lanes-1"}),
        {"ours-1-lane": 0.83},
    ),
    "8-epochs": Case(
        "compiling the run of 1 with 10,000 epochs",
        "compilations",
        Compiling({"ours": "epochs-10000", "ours-10-epochs": "epochs-10"}),
        {"ours-10-epochs": 1.0},
    ),
    "9": Case(
        "successive halving of 81 configurations of a 784-64-10 MLP, 5,000 images of Fashion-MNIST, up to 81 epochs",
        "configurations",
        Sweep("halving", "fashion", examples=5_000, batch_size=64, epochs=81, trials=81, store=False),
        {"ours-full": 5.0},
    ),
    "9-frame": Case(
        "a sweep of 1,000 lanes x 100 epochs to a data frame; goal: a second",
        "frames",
        Sweep("frame", epochs=100, trials=1000),
        {},
    ),
    "10": Case(
        "gradient check of a 128-512-64-10 tanh MLP, mean loss, 99,530 parameters: the whole report, compiling apart",
        "checks",
        Checking((128, 512, 64, 10), 32),
        {"torch-gradcheck": 100.0, "torch-gradcheck-fast": None, "ours-first": None},
    ),
    "11-small": Case(
        "AdamW update alone, 1,000 leaves of 64 to 256 numbers, ours in one compiled loop, as in a run",
        "updates",
        Update(_small_leaves(), 50, loop=True),
        {"ours-flat": None, "optax": 2.0, "optax-loop": None, "torch": 1.2},
        roofline=True,
    ),
    "11-small-calls": Case(
        "AdamW update alone, 1,000 leaves of 64 to 256 numbers, a jitted call each, ours as one vector",
        "updates",
        Update(_small_leaves(), 50),
        {"ours-leaves": None, "optax": 2.0, "torch": 1.2},
        roofline=True,
    ),
    "11-large": Case(
        "AdamW update alone, 50 million numbers in 20 leaves, a jitted call each",
        "updates",
        Update(((2500, 1000),) * 20, 20),
        {"ours-loop": None, "optax": 1.0, "optax-loop": None, "torch": None},
        roofline=True,
    ),
    "12": Case(
        "hypergradient of 1,000 per-step rates: the validation loss of a run like 1, by every one of them",
        "steps",
        Hypergradient(_DIGITS._replace(epochs=25, examples=1280)),
        {"ours-run": 0.25, "ours-forward": None},
    ),
    "13-digits": Case(
        "fit of 1 with a checkpoint after each epoch",
        "steps",
        Checkpointing(_DIGITS),
        {"ours-without": 0.98},
    ),
    "13-fashion": Case(
        "fit of 2 with a checkpoint after each epoch, 5 epochs",
        "steps",
        Checkpointing(_FASHION._replace(epochs=5)),
        {"ours-without": 0.98},
    ),
}

ACCELERATOR = {
    "a-lanes": Case(
        "256 runs of a 784-128-10 MLP, batch 128, as lanes, all steps counted",
        "steps",
        Training("made", (784, 128, 10), 128, 2, 1e-3, examples=25_600, lanes=256),
        {"torch": 100.0, "ours-single": 30.0},
    ),
    "a-lenet": Case(
        "64 runs of LeNet, batch 64, as lanes, all steps counted",
        "steps",
        Training("made", (), 64, 1, 1e-3, examples=12_800, lanes=64),
        {"torch": 10.0, "ours-single": None},
    ),
    "a-adamw": Case(
        "AdamW update alone, 1e9 float32 parameters in 20 leaves, a jitted call each",
        "updates",
        LargeUpdate(20, 50_000_000, 10),
        {"torch": 1.0},
        roofline=True,
        copy_goal=0.8,
    ),
    "a-adamw-bfloat16": Case(
        "AdamW update alone, 1e9 parameters, moments in bfloat16, rounded stochastically",
        "updates",
        LargeUpdate(20, 50_000_000, 10, "bfloat16"),
        {"ours-float32": 1.5},
        roofline=True,
    ),
    "a-wide": Case(
        "MLP 8192-8192-8192-8192-10 in bfloat16, batch 8192, Adam, in the compiled run",
        "steps",
        Training("made", (8192, 8192, 8192, 8192, 10), 8192, 4, 1e-5, examples=8 * 8192, dtype="bfloat16"),
        {"torch": None},
        roofline=True,
        matmul_goal=0.7,
    ),
}


def quick(case: Case) -> Case:
    """The same case with so little work that it only shows whether it runs."""
    return case._replace(work=_little(case.work))


def _little(work: Work) -> Work:
    if isinstance(work, Training):
        inputs = work.widths[:1] if work.dataset != "made" else work.widths[:1] and (64,)
        widths = (*inputs, *(min(width, 64) for width in work.widths[1:]))
        batch_size, lanes = min(work.batch_size, 64), min(work.lanes, 2)
        little = work._replace(widths=widths, batch_size=batch_size, epochs=1, examples=320, lanes=lanes)
        return little._replace(devices=min(work.devices, lanes))
    if isinstance(work, Update):
        shapes = tuple(tuple(min(size, 64) for size in shape) for shape in work.shapes[:3])
        return work._replace(shapes=shapes, updates=2)
    if isinstance(work, LargeUpdate):
        return work._replace(leaves=2, size=1000, updates=2)
    if isinstance(work, Compiling):
        return Compiling({side: f"little-{program}" for side, program in work.programs.items()})
    if isinstance(work, Streaming):
        little = _little(work.training)
        assert isinstance(little, Training)
        return Streaming(little._replace(epochs=2))
    if isinstance(work, Checkpointing):
        little = _little(work.training)
        assert isinstance(little, Training)
        return Checkpointing(little)
    if isinstance(work, Hypergradient):
        little = _little(work.training)
        assert isinstance(little, Training)
        return Hypergradient(little)
    if isinstance(work, FirstResult):
        program = "cold" if work.program == "cached" else work.program  # the same process
        return FirstResult(program, little=True)
    if isinstance(work, Sweep):
        return work._replace(dataset="digits", examples=320, epochs=3, seeds=1, trials=2)  # of one program
    return Checking((8, 8, 10), 4)
