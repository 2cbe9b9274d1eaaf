"""
Loss landscapes
===============

What does the loss of a network look like, and how do optimizers move on it? A network has thousands of parameters, a
picture has two: so the loss is drawn on a plane, first of random directions, then of those that the paths of training
themselves span (Li et al., "Visualizing the loss landscape of neural nets", 2018).
"""

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxopt_nn import data, layers, losses, monitor, optimizers, plots, sweeps, training

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
EPOCHS, POINTS, SEEDS = (2, 9, range(2)) if QUICK else (20, 41, range(4))
RATES = [0.01] if QUICK else [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]

train, _ = data.split(KEY, data.load_digits(), (0.7, 0.3))
train = data.transform(data.fit_standard_scaler(train.x), train)

# %% [markdown]
# Three paths
# -----------
#
# Three optimizers start from the same weights, for each of several seeds, and have the best of the same rates. A record
# keeps the weights before every tenth step, as one long vector.

# %%
OPTIMIZERS = {
    "SGD": optimizers.sgd,
    "momentum": lambda rate: optimizers.sgd(rate, momentum=0.9),
    "Adam": optimizers.adam,
}
NAMES = list(OPTIMIZERS)[QUICK:]
model = layers.mlp([32, 32, 10])
weights, unravel = ravel_pytree(model.init(KEY, train.x)[0])


def recipe(hp):
    record = training.Record(lambda end: ravel_pytree(end.params)[0], of="step", every=10, series=True)
    return training.Recipe(
        model=model,
        loss=losses.softmax_cross_entropy,
        optimizer=OPTIMIZERS[hp["optimizer"]](hp["rate"]),
        epochs=EPOCHS,
        record={"weights": record},
    )


space = sweeps.grid(optimizer=NAMES, rate=RATES, seed=SEEDS)
result = sweeps.sweep(recipe, space, train, key=KEY)
best = {part.value: part.best.hparams for part in result.isolate("optimizer")}


def paths_of(seed):
    """The paths of all optimizers, parameters whose leaves are ``[optimizers, times, ...]``."""
    histories = [result.history({**best[name], "seed": seed})["weights"] for name in NAMES]
    return jax.vmap(jax.vmap(unravel))(jnp.asarray(histories).reshape(len(NAMES), -1, len(weights)))


# %% [markdown]
# Two planes
# ----------
#
# Both go through the end of the last optimizer's path. The directions of the random one are filter-normalized: each
# filter's is as long as the filter. The principal one lies nearest to all paths. What is drawn of a path is its shadow
# on the plane: beside the plane the loss is another one than the map shows below it.


# %%
@jax.jit
def planes_of(key, paths):
    """Both planes, the coordinates of the paths in each, and the share of the paths that lies in it."""
    end = jax.tree.map(lambda leaf: leaf[-1, -1], paths)
    points = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), paths)
    planes = [monitor.random_plane(key, end), monitor.principal_plane(points, end)[0]]
    coordinates = [monitor.project(plane, points).reshape(len(NAMES), -1, 2) for plane in planes]
    return planes, coordinates, jnp.stack([monitor.share_in_plane(plane, points) for plane in planes])


@jax.jit
@jax.vmap
def share_of_one(path):
    """The share of a single path in the principal plane through its own end."""
    return jnp.sum(monitor.principal_plane(path, jax.tree.map(lambda leaf: leaf[-1], path))[1])


@jax.jit
def losses_on(plane, x, y):
    def loss(params):
        return jnp.mean(losses.softmax_cross_entropy(model.apply(params, {}, train.x)[0], train.y))

    return monitor.plane_losses(loss, plane, x, y)


found = [planes_of(jax.random.fold_in(KEY, seed), paths_of(seed)) for seed in SEEDS]
shares = np.array([each[2] for each in found])
singles = np.array([share_of_one(paths_of(seed)) for seed in SEEDS])  # [seeds, optimizers]
figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
for index, (ax, plane, at) in enumerate(zip(axes, *found[0][:2], strict=True)):
    reach = np.array([[-1.0, -1.0], [1.0, 1.0]]) if index == 0 else np.array([at.min((0, 1)), at.max((0, 1))])
    middle, half = reach.mean(0), 0.65 * np.ptp(reach, axis=0)
    x, y = (np.linspace(m - h, m + h, POINTS) for m, h in zip(middle, half, strict=True))
    plots.plot_paths(x, y, losses_on(plane, x, y), dict(zip(NAMES, at, strict=True)), ax=ax)
    title = ("random, filter-normalized directions", "the principal plane of the paths")[index]
    ax.set(title=f"{title}\n{shares[0, index]:.2%} of the paths lie in it", xlabel="direction 1", ylabel="direction 2")
figure.suptitle(f"Training loss of a network of {len(weights):,} parameters on the digits; darker is lower")
figure.savefig(OUT / "loss_landscapes.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------
#
# A share is that of the squared distances from the end.

# %%
for part in result.isolate("optimizer"):
    print(f"{part.value}: best rate {part.best.hparams['rate']:.2g}, training loss {part.best.value:.3g}")
low, high = shares[:, 1].min(), shares[:, 1].max()
print(
    f"The principal plane holds {low:.0%} to {high:.0%} of the paths over {len(SEEDS)} seeds, a random plane "
    f"{shares[:, 0].max():.2%} at most (of {len(weights):,} directions two are {2 / len(weights):.2%})."
)
low, high = singles.min(), singles.max()
print(
    f"One path and a plane of its own: {low:.0%} to {high:.0%}. Li et al. report 40 to 90 % for deeper networks: "
    f"{'within that' if low >= 0.4 and high <= 0.9 else 'it is more here' if low > 0.9 else 'not the same here'}."
)
