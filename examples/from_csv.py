"""
From a CSV file to a saved model and a report
=============================================

A table as people bring it: numbers with gaps, words, a target that is text. It is read, split, tuned, judged on rows
that had no part in anything, saved with its preprocessing, and used on a new row. What do gaps cost, and is the network
better or worse than the gradient boosting of scikit-learn?
"""

# %%
import sys
from collections import defaultdict
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas
from scipy.stats import t as student
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

from jaxopt_nn import data, layers, losses, metrics, optimizers, plots, sweeps, training

QUICK, OUT = "--quick" in sys.argv, Path("out")
OUT.mkdir(exist_ok=True)
KEY, PATH = jax.random.key(0), OUT / "tumours.csv"

# %% [markdown]
# The file
# --------
#
# 569 tumours, measured under a microscope. Two of ten columns are turned into words, and each tenth cell is emptied at
# random.


# %%
def write_csv(path, gaps, seed=0):
    raw = load_breast_cancer(as_frame=True)
    frame = raw.data.iloc[:, :10].rename(columns=lambda name: name.removeprefix("mean "))
    frame["area"] = pandas.qcut(frame["area"], 3, labels=["small", "medium", "large"]).astype(object)
    frame["texture"] = pandas.qcut(frame["texture"], 4, labels=["fine", "medium", "coarse", "rough"]).astype(object)
    frame = frame.mask(np.random.default_rng(seed).random(frame.shape) < gaps)
    frame["diagnosis"] = raw.target_names[raw.target]
    frame.to_csv(path, index=False)


write_csv(PATH, gaps=0.1)
print("".join(PATH.read_text().splitlines(keepends=True)[:4]))

# %% [markdown]
# Read, split, fitted to the training rows
# ----------------------------------------
#
# ``fit_table`` learns from the training rows alone how the columns become features. ``held_out=True`` raises if one of
# the other rows was among them.


# %%
def read(path, seed=0):
    frame = pandas.read_csv(path)
    rows, test = train_test_split(frame, test_size=0.3, stratify=frame["diagnosis"], random_state=seed)
    rows, valid = train_test_split(rows, test_size=0.3, stratify=rows["diagnosis"], random_state=seed)
    return rows, valid, test


rows, valid_rows, test_rows = read(PATH)
table = data.fit_table(rows, target="diagnosis")
train = data.transform_table(table, rows)
valid, test = (data.transform_table(table, part, held_out=True) for part in (valid_rows, test_rows))
print(f"{len(table.feature_names)} features: {', '.join(table.feature_names)}")

# %% [markdown]
# Tuned, judged, saved, used
# --------------------------


# %%
def recipe(hp):
    model = layers.mlp([32, 2], drop_rate=hp["drop_rate"])
    optimizer = optimizers.adamw(hp["rate"], weight_decay=1e-2)
    parts = training.Recipe(model, losses.softmax_cross_entropy, optimizer, epochs=4 if QUICK else 100)
    return parts._replace(metrics={"accuracy": metrics.accuracy}, early_stopping=training.EarlyStopping(patience=20))


RATES, DROP_RATES = ([1e-3, 1e-2], [0.0]) if QUICK else ([3e-4, 1e-3, 3e-3, 1e-2], [0.0, 0.5])
grid = sweeps.grid(rate=RATES, drop_rate=DROP_RATES, seed=range(2 if QUICK else 5))
sweep = sweeps.sweep(recipe, grid, train, valid, key=KEY)
print(sweep.best())
sweep.report(OUT / "from_csv.html", title="Tumours")

hparams = sweep.best().hparams
result = training.fit(recipe, hparams, train, valid, key=KEY)
predicted = training.predict(recipe, hparams, result, test.x).argmax(-1)
print(metrics.classification_report(metrics.confusion_matrix(test.y, predicted, 2), table.classes))

training.save(OUT / "tumours", result, recipe=recipe, hparams=hparams, train=train, preprocessing=table)
loaded = training.load(OUT / "tumours", recipe)
new = {name: [None] for name in rows.columns if name != "diagnosis"} | {"radius": [21.0], "area": ["large"]}
features = data.transform_table(loaded.preprocessing, new)
chances = jax.nn.softmax(training.predict(recipe, loaded.hparams, loaded, features.x))[0]
print(f"A large tumour of radius 21, all else unknown: {table.classes[int(chances.argmax())]}, {chances.max():.0%}")

# %% [markdown]
# What do gaps cost?
# ------------------
#
# The same hyperparameters with other shares of empty cells. Each seed is another split and other gaps. Gradient
# boosting sees the same features, and also the rows that the network needs for early stopping.

# %%
SHARES, NEW_SEEDS = ([0, 30], (1, 2)) if QUICK else ([0, 10, 30, 50], range(1, 6))
accuracy = {"network": defaultdict(list), "gradient boosting": defaultdict(list)}
for share, seed in [(share, seed) for share in SHARES for seed in NEW_SEEDS]:
    write_csv(OUT / "gaps.csv", share / 100, seed)
    parts = read(OUT / "gaps.csv", seed)
    table = data.fit_table(parts[0], target="diagnosis")
    train, valid, test = (data.transform_table(table, part) for part in parts)
    result = training.fit(recipe, hparams, train, valid, key=jax.random.key(seed))
    accuracy["network"][share].append(float(training.evaluate(recipe, hparams, result, test)["accuracy"]))
    both = np.concatenate([train.x, valid.x]), np.concatenate([train.y, valid.y])
    boosting = HistGradientBoostingClassifier(random_state=seed).fit(*both)
    accuracy["gradient boosting"][share].append(boosting.score(test.x, test.y))
figure, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
plots.plot_means(accuracy, xlabel="empty cells (%)", ylabel="accuracy on test rows", ax=ax)
figure.savefig(OUT / "from_csv.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------


# %%
def gap_of(first, second):
    """The mean difference over seeds in points, and half of its 95 % interval."""
    gap = 100 * np.subtract(first, second)
    return gap.mean(), student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5


for name, own in accuracy.items():
    gap, half = gap_of(own[SHARES[-1]], own[0])
    word = "cost" if gap < -half else "do not measurably change"
    print(f"{SHARES[-1]} % empty cells {word} accuracy ({name}): {gap:+.1f} ± {half:.1f} points.")
for share in SHARES:
    gap, half = gap_of(accuracy["network"][share], accuracy["gradient boosting"][share])
    word = "better than" if gap > half else "worse than" if gap < -half else "not told apart from"
    print(f"With {share} % empty cells the network is {word} boosting: {gap:+.1f} ± {half:.1f} points.")
