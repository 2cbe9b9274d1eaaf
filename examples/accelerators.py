"""
CPU, GPU, TPU: the same run, and how to measure it
==================================================

How fast is a training run on a device, and from which size on does an accelerator pay? The same code runs on every kind
of device that JAX finds on this machine. Before that, two mistakes of measuring are shown by what they say: not waiting
for the result, and timing the compiler.
"""

# %%
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import data, layers, losses, metrics, optimizers, plots, training
from jaxopt_nn.types import Static

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)
ROUNDS = 3 if QUICK else 7
WIDTHS = [8, 32] if QUICK else [16, 64, 256, 1024]
LANES = [1, 4] if QUICK else [1, 4, 16, 64]

# %% [markdown]
# The devices
# -----------
#
# ``jax.devices(kind)`` raises where there is none of a kind. A process that sees a GPU has a CPU as well.


# %%
def devices_of(kind):
    try:
        return jax.devices(kind)
    except RuntimeError:
        return []


devices = {kind: devices_of(kind)[0] for kind in ("cpu", "gpu", "tpu") if devices_of(kind)}
for kind, device in devices.items():
    print(f"{kind}: {device.device_kind}, {len(devices_of(kind))} of them; default: {jax.default_backend() == kind}")

train, valid, _ = data.split(KEY, data.load_digits(), (0.7, 0.15, 0.15))


def recipe(hp):
    return training.Recipe(
        model=layers.mlp([hp["width"], hp["width"], 10]),
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy},
        optimizer=optimizers.adam(hp["rate"]),
        batch_size=64,
        epochs=1 if QUICK else 3,
        valid_every=1 if QUICK else 3,
    )


STEPS = recipe({"width": 1, "rate": 0.1}).epochs * -(-len(train.y) // 64)

# %% [markdown]
# What a stopwatch says
# ---------------------
#
# The first call compiles. A call returns before its result is there: JAX computes while Python goes on. Only
# ``jax.block_until_ready`` says when it is done.

# %%
run = jax.jit(training.make_run(recipe))
arguments = KEY, {"width": Static(WIDTHS[-1]), "rate": 1e-3}, train, valid


def stopwatch(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


first = stopwatch(lambda: jax.block_until_ready(run(*arguments)))
not_waited = stopwatch(lambda: run(*arguments))
jax.block_until_ready(run(*arguments))
waited = [stopwatch(lambda: jax.block_until_ready(run(*arguments))) for _ in range(ROUNDS)]
print(f"the first call: {first:.3f} s, with the compiler")
print(f"a later one, not waited for: {not_waited:.4f} s")
print(f"waited for: {np.median(waited):.3f} s, the median of {ROUNDS}; {min(waited):.3f} to {max(waited):.3f} s")

# %% [markdown]
# The same run everywhere
# -----------------------
#
# Small networks keep a fast device waiting: it starts each operation anew. Wider ones fill it, and so do many lanes.
# Data are put onto the device before the clock starts. What is compared is steps per second, of all lanes together.


# %%
def steps_per_second(device, width, lanes):
    """Of each round: the network's steps, of all lanes together, in a second. And the training loss, to compare."""
    with jax.default_device(device):
        rates = jnp.geomspace(1e-4, 1e-2, lanes)
        own = jax.device_put((KEY, {"width": Static(width), "rate": rates}, train, valid), device)
        mapped = jax.jit(jax.vmap(training.make_run(recipe), (None, {"width": None, "rate": 0}, None, None)))
        result = jax.block_until_ready(mapped(*own))
        times = [stopwatch(lambda: jax.block_until_ready(mapped(*own))) for _ in range(ROUNDS)]
    return lanes * STEPS / np.array(times), float(result.history["train_loss"][0, -1])


figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
speeds, losses_seen = {}, {}
for kind, device in devices.items():
    for case in [(width, 1) for width in WIDTHS] + [(WIDTHS[1], lanes) for lanes in LANES[1:]]:
        speeds[kind, case], losses_seen[kind, case] = steps_per_second(device, *case)
for ax, label, cases in (
    (panels[0], "width of two hidden layers, one lane", {width: (width, 1) for width in WIDTHS}),
    (panels[1], f"lanes, of width {WIDTHS[1]}", {lanes: (WIDTHS[1], lanes) for lanes in LANES}),
):
    lines = {kind: {at: speeds[kind, case] for at, case in cases.items()} for kind in devices}
    plots.plot_means(lines, xlabel=label, ylabel="steps per second, of all lanes", log=True, ax=ax)
figure.savefig(OUT / "accelerators.png", dpi=120)
figure

# %% [markdown]
# What was found
# --------------

# %%
for kind in devices:
    one, many = (np.median(speeds[kind, (WIDTHS[1], lanes)]) for lanes in (1, LANES[-1]))
    small, large = (np.median(speeds[kind, (width, 1)]) for width in (WIDTHS[0], WIDTHS[-1]))
    print(f"{kind}: {LANES[-1]} lanes make {many / one:.1f} times as many steps a second as one.")
    print(f"{kind}: layers {WIDTHS[-1] // WIDTHS[0]} times as wide take {small / large:.1f} times as long.")
for kind in set(devices) - {"cpu"}:
    faster = [width for width in WIDTHS if np.median(speeds[kind, (width, 1)]) > np.median(speeds["cpu", (width, 1)])]
    print(f"{kind} against cpu, one lane: faster at the widths {faster or 'none'} of {WIDTHS}.")
    gap = max(abs(losses_seen[kind, case] - loss) for (of, case), loss in losses_seen.items() if of == "cpu")
    print(f"The training losses of {kind} and cpu differ by {gap:.1e} at the most.")
if len(devices) == 1:
    print("There is one kind of device here: run it where there is a GPU or a TPU to compare.")
print(f"A call that is not waited for looks {np.median(waited) / not_waited:.0f} times as fast as it is.")
