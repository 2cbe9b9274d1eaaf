"""
Handwritten digits, in compiled runs
====================================

A whole training run is one pure function ``(key, hparams, train, valid) -> result``. This script trains one, compares
optimizers and initializations as lanes of one program each, and checks the gradient of the very loss it trained.
"""

# %%
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import checking, data, initializers, layers, losses, metrics, optimizers, penalties, plots, training
from jaxopt_nn.types import Static

# sphinx_gallery_thumbnail_number = 3
QUICK = "--quick" in sys.argv  # a few epochs, to see that everything runs
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
DATA_KEY, RUN_KEY, LANES_KEY, CHECK_KEY = jax.random.split(KEY, 4)


def heading(text):
    print(f"\n{text}\n{'─' * len(text)}")


# %% [markdown]
# The data: 1,797 images of 8x8, bundled with scikit-learn
# --------------------------------------------------------
#
# Split by class; scaled by the statistics of the training part alone.

# %%
train, valid, test = data.split(DATA_KEY, data.load_digits(), (0.7, 0.15, 0.15))
scaler = data.fit_standard_scaler(train.x)
train, valid, test = (data.transform(scaler, part) for part in (train, valid, test))

# %% [markdown]
# One run: a regularized network, with early stopping
# ---------------------------------------------------
#
# One place says the whole experiment. Any number in it may come from ``hp``.


# %%
def digits_recipe(hp):
    return training.Recipe(
        model=layers.serial(
            layers.dense(64, use_bias=False),
            layers.batch_norm(),
            jax.nn.relu,
            layers.dropout(hp["drop_rate"]),
            layers.dense(32),
            jax.nn.relu,
            layers.dense(10),
        ),
        loss=losses.softmax_cross_entropy,
        penalty=penalties.l2(hp["l2"]),
        optimizer=optimizers.adam(hp["learning_rate"]),
        metrics={"accuracy": metrics.accuracy},
        batch_size=32,
        epochs=5 if QUICK else 100,
        early_stopping=training.EarlyStopping(patience=15),
    )


hparams = {"learning_rate": 2e-3, "l2": 1e-4, "drop_rate": 0.2}

heading(f"One run on handwritten digits ({len(train.y)} / {len(valid.y)} / {len(test.y)} images)")
started = time.perf_counter()
run = jax.jit(training.make_run(digits_recipe)).lower(RUN_KEY, hparams, train, valid).compile()
compiled = time.perf_counter()
result = jax.block_until_ready(run(RUN_KEY, hparams, train, valid))
finished = time.perf_counter()
scores = training.evaluate(digits_recipe, hparams, result, test)
print(
    f"compiled once in {compiled - started:.1f} s, ran {int(result.state.step):,} steps in {finished - compiled:.2f} s"
)
print(
    f"{training.Status(int(result.status)).name} after {int(result.epochs)} epochs; "
    f"weights of epoch {int(result.best_epoch) + 1}; test accuracy {float(scores['accuracy']):.1%}"
)
figure = plots.plot_history(result.history, best_epoch=int(result.best_epoch), title="Digits: one compiled run")
figure.savefig(OUT / "digits.png", dpi=120)

# %% [markdown]
# ``fit`` is the same run driven from the host: a progress bar, and the same bits.

# %%
fitted = training.fit(digits_recipe, hparams, train, valid, key=RUN_KEY, progress_bar=True)
same = all(bool(jnp.all(a == b)) for a, b in zip(*map(jax.tree.leaves, (fitted.params, result.params)), strict=True))
print(f"fit from the host gives the same bits as the compiled run: {same}")

# %% [markdown]
# Lanes: optimizers
# -----------------
#
# The optimizer is static, so each is one program; its learning rates and seeds are the lanes of that program. They
# share the order of the examples, so each batch is gathered once for all lanes.


# %%
def optimizer_recipe(hp):
    choices = {
        "SGD": lambda rate: optimizers.sgd(rate),
        "Momentum": lambda rate: optimizers.sgd(rate, momentum=0.9),
        "RMSProp": lambda rate: optimizers.rmsprop(rate),
        "Adam": lambda rate: optimizers.adam(rate),
    }
    return training.Recipe(
        model=layers.serial(layers.dense(64), jax.nn.relu, layers.dense(10)),
        loss=losses.softmax_cross_entropy,
        optimizer=choices[hp["optimizer"]](hp["learning_rate"]),
        metrics={"accuracy": metrics.accuracy},
        batch_size=32,
        epochs=2 if QUICK else 20,
    )


RATES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
SEEDS = 2 if QUICK else 4
optimizer_run = training.make_run(optimizer_recipe)
order_key = jax.random.fold_in(LANES_KEY, 0)


def over_rates_and_seeds(name):
    """Every learning rate with every seed: lanes [rates, seeds] of one program."""
    init_keys, noise_keys = jax.random.split(LANES_KEY, (2, SEEDS))
    keys = training.RunKeys(init_keys, order_key, noise_keys)
    over_seeds = jax.vmap(optimizer_run, (training.RunKeys(0, None, 0), None, None, None))
    over_rates = jax.vmap(over_seeds, (None, {"optimizer": None, "learning_rate": 0}, None, None))
    hp = {"optimizer": Static(name), "learning_rate": jnp.array(RATES)}
    return jax.jit(over_rates)(keys, hp, train, valid)


heading(f"Optimizers: {len(RATES)} learning rates x {SEEDS} seeds each, no regularization")
print(
    f"{'':10s}{'best rate':>10s}{'validation':>12s}{'test':>8s}   "
    f"validation accuracy at each rate, {RATES[0]:g} … {RATES[-1]:g} (a diverged run: 0)"
)
curves = {}
for name in ("SGD", "Adam") if QUICK else ("SGD", "Momentum", "RMSProp", "Adam"):
    lanes = jax.block_until_ready(over_rates_and_seeds(name))
    accuracy = np.asarray(lanes.history["valid_accuracy"])  # [rates, seeds, epochs]
    completed = np.asarray(lanes.status == training.Status.COMPLETED)
    final = np.where(completed, accuracy[:, :, -1], 0.0).mean(1)
    best = int(final.argmax())
    winners = jax.tree.map(lambda leaf, best=best: leaf[best], lanes)
    hp = {"optimizer": name, "learning_rate": RATES[best]}
    tested = jax.vmap(lambda lane, hp=hp: training.evaluate(optimizer_recipe, hp, lane, test)["accuracy"])(winners)
    by_rate = "  ".join(f"{v:8.1%}" if some else "diverged" for v, some in zip(final, completed.any(1), strict=True))
    print(f"{name:10s}{RATES[best]:10g}{final[best]:12.1%}{float(tested.mean()):8.1%}   {by_rate}")
    curves[f"{name}, rate {RATES[best]:g}"] = np.asarray(winners.history["train_loss"])
figure = plots.plot_comparison(
    curves, ylabel="training loss", title=f"Each optimizer at its best rate, {SEEDS} seeds", log=True
)
figure.savefig(OUT / "optimizers.png", dpi=120)

# %% [markdown]
# Lanes: initializations
# ----------------------
#
# Which initialization is a traced choice here: all of them are lanes of one single program.

# %%
INITIALIZERS = {
    "zero": initializers.zeros(),
    "random, std 1": initializers.normal(1.0),
    "Xavier": initializers.xavier_uniform(),
    "He": initializers.he_normal(),
}


def initializer_recipe(hp):
    def chosen(key, shape, dtype):
        return jnp.stack([init(key, shape, dtype) for init in INITIALIZERS.values()])[hp["choice"]]

    hidden = [part for _ in range(3) for part in (layers.dense(32, kernel_init=chosen), jax.nn.relu)]
    return training.Recipe(
        model=layers.serial(*hidden, layers.dense(10, kernel_init=chosen)),
        loss=losses.softmax_cross_entropy,
        optimizer=optimizers.sgd(0.02, momentum=0.9),
        metrics={"accuracy": metrics.accuracy},
        batch_size=32,
        epochs=2 if QUICK else 20,
    )


heading(f"Initialization of 4 layers: {SEEDS} seeds each, SGD with momentum")
init_keys, noise_keys = jax.random.split(LANES_KEY, (2, SEEDS))
over_seeds = jax.vmap(training.make_run(initializer_recipe), (training.RunKeys(0, None, 0), None, None, None))
over_choices = jax.jit(jax.vmap(over_seeds, (None, {"choice": 0}, None, None)))
choices = {"choice": jnp.arange(len(INITIALIZERS))}
lanes = over_choices(training.RunKeys(init_keys, order_key, noise_keys), choices, train, valid)
print(f"{'':15s}{'validation':>11s}{'loss, epoch 1':>15s}{'gradient norm, epoch 1':>24s}   diverged")
for index, name in enumerate(INITIALIZERS):
    history = {key: np.asarray(values[index]) for key, values in lanes.history.items()}
    diverged = np.asarray(lanes.status[index]) != training.Status.COMPLETED
    final = np.where(diverged, 0.1, history["valid_accuracy"][:, -1])  # a diverged network guesses
    loss, norm = history["train_loss"][:, 0].mean(), history["gradient_norm"][:, 0].mean()
    print(f"{name:15s}{final.mean():11.1%}{loss:15.3g}{norm:24.3g}   {diverged.sum()} of {SEEDS}")
curves = {name: np.asarray(lanes.history["valid_accuracy"][index]) for index, name in enumerate(INITIALIZERS)}
figure = plots.plot_comparison(curves, ylabel="validation accuracy", title="Initialization decides whether it learns")
figure.savefig(OUT / "initializations.png", dpi=120)

# %% [markdown]
# The gradient of the very loss that was trained
# ----------------------------------------------
#
# At the trained parameters, with the same dropout mask for every evaluation, against differences in float64.

# %%
heading("Gradient check of the digits loss, with BatchNorm, dropout and L2, at the trained weights")
parts = digits_recipe(hparams)
batch = jax.tree.map(lambda leaf: leaf[:64], train)


def objective(params):
    outputs, _ = parts.model.apply(params, result.model_state, batch.x, train=True, key=KEY, weight=None)
    return jnp.mean(parts.loss(outputs, batch.y)) + parts.penalty(params)


report = checking.check_gradients(objective, result.params, key=CHECK_KEY)
print(report)

# %% [markdown]
# Fashion-MNIST, where its files are found
# ----------------------------------------


# %%
def fashion_recipe(hp):
    return training.Recipe(
        model=layers.serial(
            layers.flatten,
            layers.dense(256),
            jax.nn.relu,
            layers.dropout(hp["drop_rate"]),
            layers.dense(128),
            jax.nn.relu,
            layers.dense(10),
        ),
        loss=losses.softmax_cross_entropy,
        penalty=penalties.l2(hp["l2"]),
        optimizer=optimizers.adam(hp["learning_rate"]),
        metrics={"accuracy": metrics.accuracy},
        batch_size=128,
        epochs=1 if QUICK else 8,
        early_stopping=training.EarlyStopping("valid_accuracy", patience=3),
    )


heading("Fashion-MNIST")
try:
    if QUICK:
        raise FileNotFoundError("the quick form goes without it")
    fashion, fashion_test = (data.load_fashion_mnist(split=part) for part in ("train", "test"))
except FileNotFoundError as error:
    print(f"left out: {error}")
else:
    fashion_train, fashion_valid = data.split(DATA_KEY, fashion, (0.9, 0.1))
    hparams = {"learning_rate": 1e-3, "l2": 1e-5, "drop_rate": 0.2}
    fitted = training.fit(fashion_recipe, hparams, fashion_train, fashion_valid, key=RUN_KEY, progress_bar=True)
    scores = training.evaluate(fashion_recipe, hparams, fitted, fashion_test)
    print(
        f"{training.Status(int(fitted.status)).name} after {int(fitted.epochs)} epochs; "
        f"weights of epoch {int(fitted.best_epoch) + 1}; test accuracy {float(scores['accuracy']):.1%}"
    )
    figure = plots.plot_history(fitted.history, best_epoch=int(fitted.best_epoch), title="Fashion-MNIST")
    figure.savefig(OUT / "fashion_mnist.png", dpi=120)

# %%
heading("Written")
for path in sorted(OUT.glob("*.png")):
    print(path)
if not report.ok:
    raise SystemExit("the gradient is wrong")
