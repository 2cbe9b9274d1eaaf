"""
Augmentation
============

With few images, a network learns them by heart. Changed copies of them help if the change keeps the class, and harm if
it does not. Which augmentations help on handwritten digits, how strong should they be, and does it depend on how many
images there are? Each strength is a lane of one program.
"""

# %%
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import augment, data, layers, losses, metrics, optimizers, plots, sweeps, training

QUICK, OUT, KEY = "--quick" in sys.argv, Path("out"), jax.random.key(0)
OUT.mkdir(exist_ok=True)
SHOTS, SEEDS, STEPS = ([4, 8], range(2), 10) if QUICK else ([10, 50], range(5), 600)
STRENGTHS = [0.0, 1.0] if QUICK else [0.0, 0.25, 0.5, 1.0]

# %% [markdown]
# Few images to learn from
# ------------------------
#
# Digits of 8 by 8 pixels: 10 or 50 of each class for training, the others half for choosing and half for judging.

# %%
digits = data.load_digits()
digits = digits._replace(x=digits.x.reshape(-1, 8, 8, 1) / digits.x.max())
pool, valid, test = data.split(KEY, digits, (0.4, 0.3, 0.3))


def first_of_each_class(number):
    rows = np.concatenate([np.flatnonzero(pool.y == c)[:number] for c in range(10)])
    return jax.tree.map(lambda leaf: leaf[rows], pool)


# %% [markdown]
# What they do, at full strength
# ------------------------------
#
# An augmentation is a pure function of a batch and of a key for each example. Its strength may be traced.

# %%
AUGMENTATIONS = {
    "shift": lambda strength: augment.random_shift(0.25 * strength),
    "rotation": lambda strength: augment.random_rotation(45.0 * strength),
    "zoom": lambda strength: augment.random_affine(max_zoom=1.0 + 0.5 * strength),
    "noise": lambda strength: augment.random_noise(0.5 * strength),
    "mixup": lambda strength: augment.mixup(1e-4 + strength, num_classes=10),
    "mirror": lambda strength: augment.random_flip_left_right(0.5 * strength),
}
if QUICK:
    AUGMENTATIONS = {name: AUGMENTATIONS[name] for name in ("shift", "mirror")}
pair = jax.tree.map(lambda leaf: leaf[2:4], first_of_each_class(1))  # mixup needs another image
figure, panels = plt.subplots(len(AUGMENTATIONS), 7, figsize=(7.2, 1.05 * len(AUGMENTATIONS)), layout="constrained")
for row, (name, make) in zip(panels, AUGMENTATIONS.items(), strict=True):
    change = jax.jit(lambda batch, keys, make=make: make(1.0)(batch, keys).x[0])
    images = [pair.x[0], *(change(pair, jax.random.split(jax.random.key(index), 2)) for index in range(6))]
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
panels[0][0].set_title("original", fontsize=9)
figure.savefig(OUT / "augmentation_examples.png", dpi=120)
figure

# %% [markdown]
# One at a time, by strength
# --------------------------
#
# Every network takes the same number of steps, on whatever number of images.


# %%
def recipe(hp):
    hidden = [layers.conv(16, 3), jax.nn.relu, layers.max_pool(2), layers.flatten, layers.dense(64), jax.nn.relu]
    return training.Recipe(
        model=layers.serial(*hidden, layers.dense(10)),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=optimizers.adam(3e-3),
        batch_size=hp["shots"],
        epochs=STEPS // 10,
        valid_every=STEPS // 10,
        augment=augment.chain(*(AUGMENTATIONS[name](hp["strength"]) for name in hp["augmentation"].split(" + "))),
    )


figure, panels = plt.subplots(1, len(SHOTS), figsize=(10.4, 4.4), layout="constrained", sharey=True)
helps, harms = {}, {}
for ax, shots in zip(panels, SHOTS, strict=True):
    grid = sweeps.grid(augmentation=list(AUGMENTATIONS), strength=STRENGTHS, shots=shots, seed=SEEDS)
    sweep = sweeps.sweep(recipe, grid, first_of_each_class(shots), valid, key=KEY, objective="valid_accuracy")
    plots.plot_response(sweep, "strength", "augmentation", ax=ax).set_title(f"{shots} images a class", pad=36)
    for name in AUGMENTATIONS:
        own = {"augmentation": name, "shots": shots}
        against = {s: sweep.compare({**own, "strength": s}, {**own, "strength": 0.0}) for s in STRENGTHS[1:]}
        best = max(against, key=lambda strength: against[strength].difference)
        gains = {strength: f"{each.difference:+.3f} {each.verdict}" for strength, each in against.items()}
        print(f"{shots} a class, {name}: accuracy against none by strength {gains}")
        if against[best].verdict == "better":
            helps.setdefault(shots, {})[name] = best
        if against[STRENGTHS[-1]].verdict == "worse":
            harms.setdefault(shots, []).append(name)
figure.savefig(OUT / "augmentation.png", dpi=120)
figure

# %% [markdown]
# Together, judged on images that had no part in the choice
# ---------------------------------------------------------
#
# All that help alone, each at its best strength, one after another; with new seeds.

# %%
final = {"nothing": {}, "all that help": {}}
verdicts = {}
for shots in SHOTS:
    chain = augment.chain(*(AUGMENTATIONS[name](strength) for name, strength in helps.get(shots, {}).items()))

    def together(hp, chain=chain):
        parts = recipe({"shots": hp["shots"], "augmentation": "shift", "strength": 0.0})
        return parts._replace(augment=chain if hp["augmented"] else None)

    if shots not in helps:
        continue
    grid = sweeps.grid(augmented=[False, True], shots=shots, seed=[100 + seed for seed in SEEDS])
    judged = sweeps.sweep(together, grid, first_of_each_class(shots), test, key=KEY, objective="valid_accuracy")
    for each in judged.configurations():
        final["all that help" if each.hparams["augmented"] else "nothing"][shots] = list(each.values.values())
    pair = [{"augmented": flag, "shots": shots} for flag in (True, False)]
    verdicts[shots] = judged.compare(*pair)

# %% [markdown]
# What was found
# --------------

# %%
for shots in SHOTS:
    print(f"With {shots} images a class, these help alone: {', '.join(helps.get(shots, {})) or 'none'}; "
          f"these harm at full strength: {', '.join(harms.get(shots, [])) or 'none'}.")  # fmt: skip
    if shots in verdicts:
        gap = verdicts[shots]
        none, both = (np.mean(final[name][shots]) for name in ("nothing", "all that help"))
        print(f"Together they bring the test accuracy from {none:.1%} to {both:.1%}: {gap.verdict}, "
              f"{gap.difference:+.1%} ({gap.low:+.1%} to {gap.high:+.1%}).")  # fmt: skip
