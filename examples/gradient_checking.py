"""
Gradient checking
=================

Backpropagation by hand, in NumPy, with five bugs that everybody has written once. Does the checker find them, and say
what is wrong? How exact are one-sided differences, two-sided differences and the complex step? And the rule of thumb,
"a relative difference below 1e-7 is right": when does it lie?
"""

# %%
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from jaxopt_nn import checking, data

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)
KEY = jax.random.key(0)

digits = data.load_digits()
rows = 8 if QUICK else 64
x = data.transform(data.fit_standard_scaler(digits.x), digits.x)[:rows].astype(np.float64)
labels = digits.y[:rows]
random = np.random.default_rng(0)
HIDDEN, L2 = 6, 1e-2
params = {
    "W1": random.normal(size=(64, HIDDEN)) / 8,
    "b1": 0.1 * random.normal(size=HIDDEN),
    "W2": random.normal(size=(HIDDEN, 10)) / HIDDEN**0.5,
    "b2": 0.1 * random.normal(size=10),
}

# %% [markdown]
# Forwards and backwards by hand
# ------------------------------
#
# Two layers, tanh, softmax with cross-entropy, and an L2 penalty. The bugs are lines of the backward pass.


# %%
def loss(params, x, labels):
    hidden = np.tanh(x @ params["W1"] + params["b1"])
    logits = hidden @ params["W2"] + params["b2"]
    logits = logits - logits.max(1, keepdims=True)  # of complex numbers, that with the largest real part
    picked = logits[np.arange(len(labels)), labels]
    return np.mean(np.log(np.sum(np.exp(logits), 1)) - picked) + L2 * np.sum(params["W1"] ** 2)


def backward(params, x, labels, bug=None):
    hidden = np.tanh(x @ params["W1"] + params["b1"])
    logits = hidden @ params["W2"] + params["b2"]
    error = np.exp(logits - logits.max(1, keepdims=True))
    error /= error.sum(1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    if bug != "no mean over the batch":
        error /= len(labels)
    W2 = params["W2"]
    gradient = {"W2": hidden.T @ error, "b2": error.sum(0)}
    if bug == "W2 updated too early":
        W2 = W2 - 0.1 * gradient["W2"]
    error = error @ W2.T
    if bug != "no derivative of tanh":
        error = error * (1 - hidden**2)
    gradient |= {"W1": x.T @ error + 2 * L2 * params["W1"], "b1": error.sum(0)}
    if bug == "L2 without its 2":
        gradient["W1"] -= L2 * params["W1"]
    if bug == "bias: mean, not sum":
        gradient["b1"] = error.mean(0)
    return gradient


BUGS = ["no mean over the batch", "no derivative of tanh", "L2 without its 2", "bias: mean, not sum", "W2 updated too early"]

# %% [markdown]
# The rule of thumb beside the checker
# ------------------------------------
#
# The rule takes two-sided differences with one step of 1e-5 at each coordinate, and one number for all of them: the norm
# of the difference by the sum of the norms.


# %%
def rule_of_thumb(loss, gradient, params, h=1e-5):
    claimed, numeric = [], []
    for name, leaf in params.items():
        for place in np.ndindex(leaf.shape):
            up, down = ({**params, name: leaf.copy()} for _ in range(2))
            up[name][place] += h
            down[name][place] -= h
            numeric.append((loss(up) - loss(down)) / (2 * h))
            claimed.append(gradient[name][place])
    claimed, numeric = np.array(claimed), np.array(numeric)
    return np.linalg.norm(claimed - numeric) / (np.linalg.norm(claimed) + np.linalg.norm(numeric))


def judge(name, x, params, bug=None, loss=loss, backward=backward):
    gradient = backward(params, x, labels, bug)
    relative = rule_of_thumb(lambda params: loss(params, x, labels), gradient, params)
    report = checking.check_gradients(
        lambda params: loss(params, x, labels), params, grad_fn=lambda params: backward(params, x, labels, bug), key=KEY
    )
    print(f"\n{name}: relative difference {relative:.1e}, the checker says {report.verdict}")
    for leaf in report.leaves:
        if leaf.verdict not in ("PASS", "DEAD"):
            print(f"  {leaf.path}: {leaf.verdict}. {leaf.hypothesis}")
    return relative, report


verdicts = {bug or "no bug": judge(bug or "no bug", x, params, bug) for bug in [None, *BUGS]}

# %% [markdown]
# Three differences
# -----------------
#
# The slope along one direction, in steps of 1 to 1e-15. The complex step takes the imaginary part of the loss at
# ``params + i h v``: nothing is subtracted, so nothing cancels.

# %%
direction = {name: random.normal(size=leaf.shape) for name, leaf in params.items()}
slope = sum(np.sum(leaf * direction[name]) for name, leaf in backward(params, x, labels).items())


def at(step, dtype):
    return loss({name: (leaf + step * direction[name]).astype(dtype) for name, leaf in params.items()}, x.astype(dtype), labels)


steps = 10.0 ** -np.arange(0, 16, 1 if QUICK else 0.5)
errors = {
    "one-sided": [(at(h, float) - at(0, float)) / h for h in steps],
    "two-sided": [(at(h, float) - at(-h, float)) / (2 * h) for h in steps],
    "two-sided, float32": [(float(at(h, np.float32)) - float(at(-h, np.float32))) / (2 * h) for h in steps],
    "complex step": [at(1j * h, complex).imag / h for h in steps],
}
errors = {name: np.maximum(abs(np.array(values) / slope - 1), 1e-17) for name, values in errors.items()}
figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
styles = [("#0072B2", "o-"), ("#E69F00", "s-"), ("#009E73", "^--"), ("#000000", "D:")]
for (name, values), (colour, style) in zip(errors.items(), styles, strict=True):
    ax.loglog(steps, values, style, color=colour, markersize=4, label=name)
ax.axhline(1e-7, color="0.5", linewidth=1)
ax.annotate("1e-7", (steps[-1], 1e-7), (0, 3), textcoords="offset points", fontsize="small")
ax.invert_xaxis()
ax.set(xlabel="step h, smaller to the right", ylabel="relative error of a right gradient", title="Which difference, which step?")
ax.grid(alpha=0.3)
ax.legend(frameon=False, fontsize="small")
figure.savefig(OUT / "gradient_checking.png", dpi=120)
figure

# %% [markdown]
# Where the rule lies
# -------------------
#
# Features in the wrong unit, 1e-9 times as large, make the gradient of the first kernel tiny: that it is wrong hardly
# changes the norm of all. And at a kink no difference is right: of a ReLU at exactly 0, for an empty image, say.


# %%
def without_penalty(params, x, labels):
    return loss(params, x, labels) - L2 * np.sum(params["W1"] ** 2)


def twice(params, x, labels, bug):
    gradient = backward(params, x, labels)
    return {**gradient, "W1": 2 * (gradient["W1"] - 2 * L2 * params["W1"])}


def relu_loss(params, x, labels):
    return np.mean(np.maximum(x @ params["W1"], 0) @ params["W2"][:, 0])


def relu_backward(params, x, labels, bug):
    before = x @ params["W1"]
    error = (before > 0) * params["W2"][:, 0] / len(x)
    return {"W1": x.T @ error, "W2": np.outer(np.maximum(before, 0).mean(0), np.eye(10)[0])}


tiny = judge("W1 twice too large, tiny features", 1e-9 * x, params, None, without_penalty, twice)
dead = {"W1": np.where(np.arange(64)[:, None] % 2, params["W1"], 0), "W2": params["W2"]}
even = x * (np.arange(64) % 2 == 0)  # only the rows of zeros are reached: all is at the kink
kink = judge("right, at a kink", even, dead, None, relu_loss, relu_backward)

# %% [markdown]
# What was found
# --------------

# %%
found = [bug for bug in BUGS if not verdicts[bug][1].ok]
print(f"The checker found {len(found)} of {len(BUGS)} bugs, and passed the gradient without one: {verdicts['no bug'][1].ok}.")
print(f"The rule of 1e-7 found {sum(verdicts[bug][0] > 1e-7 for bug in BUGS)}; the right gradient has {verdicts['no bug'][0]:.0e}.")
for name, values in errors.items():
    best = int(np.argmin(values))
    falling = [i for i in range(best) if values[i] > 30 * values[best] and steps[i] <= 0.1]
    power = np.polyfit(np.log(steps[falling]), np.log(values[falling]), 1)[0] if len(falling) > 1 else np.nan
    print(f"{name}: at best {values[best]:.0e}, at h = {steps[best]:.0e}; the error falls as h^{power:.1f}.")
print(f"A wrong gradient under the rule: {tiny[0]:.0e} for a kernel that is twice too large. It "
      f"{'passes' if tiny[0] < 1e-7 else 'does not pass'} the rule; the checker, leaf by leaf: {tiny[1].verdict}.")
print(f"A right gradient at a kink: {kink[0]:.0e}. It {'passes' if kink[0] < 1e-7 else 'fails'} the rule; "
      f"the checker: {kink[1].verdict}.")
