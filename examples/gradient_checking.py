"""
Gradient checking
=================

Backpropagation by hand, in NumPy, with five bugs that many have written once. Does the checker find them, and say what
is wrong? How exact are one-sided differences, two-sided differences and the complex step? And the rule of thumb, "a
relative difference below 1e-7 is right": when does it lie?
"""

# %%
import sys
from pathlib import Path

import jax
import numpy as np

from jaxopt_nn import checking, data, plots

QUICK = "--quick" in sys.argv
OUT = Path("out")
OUT.mkdir(exist_ok=True)

digits, random = data.load_digits(), np.random.default_rng(0)
x = data.transform(data.fit_standard_scaler(digits.x), digits.x)[: 12 if QUICK else 50].astype(np.float64)
labels = digits.y[: len(x)]
params = {"W1": (64, 6), "b1": 6, "W2": (6, 10), "b2": 10}  # shapes
params = {name: 0.2 * random.normal(size=shape) for name, shape in params.items()}

# %% [markdown]
# Forwards and backwards by hand
# ------------------------------
#
# Two layers, tanh, cross-entropy, and an L2 penalty. Each bug is a line of the backward pass.


# %%
def loss(params, x, l2=0.01):
    hidden = np.tanh(x @ params["W1"] + params["b1"])
    logits = hidden @ params["W2"] + params["b2"]
    right = logits[np.arange(len(x)), labels]
    return np.mean(np.log(np.sum(np.exp(logits), 1)) - right) + l2 * np.sum(params["W1"] ** 2)


def backward(params, x, l2=0.01, bug=None):
    hidden = np.tanh(x @ params["W1"] + params["b1"])
    error = np.exp(hidden @ params["W2"] + params["b2"])
    error /= error.sum(1, keepdims=True)
    error[np.arange(len(x)), labels] -= 1
    error /= 1 if bug == "no batch mean" else len(x)
    gradient = {"W2": hidden.T @ error, "b2": error.sum(0)}
    W2 = params["W2"] - (0.1 * gradient["W2"] if bug == "W2 updated too early" else 0)
    error = (error @ W2.T) * (1 if bug == "no derivative of tanh" else 1 - hidden**2)
    gradient["b1"] = error.mean(0) if bug == "mean for a bias" else error.sum(0)
    gradient["W1"] = x.T @ error + (1 if bug == "half of L2" else 2) * l2 * params["W1"]
    return {name: gradient[name] * (2 if bug == f"{name} twice" else 1) for name in params}


CASES = ["no bug", "no batch mean", "no derivative of tanh", "half of L2", "mean for a bias", "W2 updated too early"]

# %% [markdown]
# The rule of thumb beside the checker
# ------------------------------------
#
# The rule takes two-sided differences with a step of 1e-5 at each coordinate, and one number for all of them: the norm
# of what differs by the sum of both norms.


# %%
def rule_of_thumb(loss, gradient, params, h=1e-5):
    claimed, numeric = [], []
    for name, leaf in params.items():
        for index in range(leaf.size):
            step = h * np.eye(leaf.size)[index].reshape(leaf.shape)
            numeric.append((loss({**params, name: leaf + step}) - loss({**params, name: leaf - step})) / (2 * h))
            claimed.append(gradient[name].flat[index])
    return np.linalg.norm(np.subtract(claimed, numeric)) / (np.linalg.norm(claimed) + np.linalg.norm(numeric))


def judge(name, loss, backward, params):
    relative = rule_of_thumb(loss, backward(params), params)
    report = checking.check_gradients(loss, params, grad_fn=backward, key=jax.random.key(0))
    print(f"{name}: relative difference {relative:.1e}; the checker: {report.verdict}")
    for leaf in (leaf for leaf in report.leaves if not leaf.ok):
        print(f"  {leaf.path}: {leaf.verdict}. {leaf.hypothesis}")
    return relative, report


judged = {bug: judge(bug, lambda p: loss(p, x), lambda p, bug=bug: backward(p, x, bug=bug), params) for bug in CASES}

# %% [markdown]
# Three differences
# -----------------
#
# The slope along one direction, with steps from 1 to 1e-15. The complex step takes the imaginary part of the loss at
# ``params + i h v``. Nothing is subtracted, so nothing cancels.

# %%
direction = {name: random.normal(size=leaf.shape) for name, leaf in params.items()}
slope = sum(np.sum(leaf * direction[name]) for name, leaf in backward(params, x).items())


def at(h, dtype):
    return loss({name: (leaf + h * direction[name]).astype(dtype) for name, leaf in params.items()}, x.astype(dtype))


steps = 10.0 ** -np.arange(0, 15.5, 0.5)
values = {
    "one-sided": [(at(h, "f8") - at(0, "f8")) / h for h in steps],
    "two-sided": [(at(h, "f8") - at(-h, "f8")) / (2 * h) for h in steps],
    "two-sided, float32": [(float(at(h, "f4")) - float(at(-h, "f4"))) / (2 * h) for h in steps],
    "complex step": [at(1j * h, "c16").imag / h for h in steps],
}
errors = {name: np.maximum(abs(np.array(own) / slope - 1), 1e-17) for name, own in values.items()}
figure = plots.plot_differences(steps, errors).figure
figure.suptitle("How exact is a numeric derivative?")
figure.savefig(OUT / "gradient_checking.png", dpi=120)
figure

# %% [markdown]
# Where the rule lies
# -------------------
#
# Features in a wrong unit, 1e-9 times as large, make the gradient of the first kernel tiny: that it is wrong hardly
# changes the norm of all. And at a kink no difference is right, as where a ReLU begins with a kernel of zeros.

# %%
tiny = judge("wrong", lambda p: loss(p, 1e-9 * x, 0.0), lambda p: backward(p, 1e-9 * x, 0.0, "W1 twice"), params)
kink = judge(
    "right",
    lambda p: np.mean(np.maximum(x @ p["w"], 0)),
    lambda p: {"w": x.T @ (x @ p["w"] > 0) / len(x)},
    {"w": np.zeros(64)},
)

# %% [markdown]
# What was found
# --------------

# %%
right = judged.pop("no bug")
bad = sum(not report.ok for _, report in judged.values())
print(f"The checker found {bad} of {len(judged)} bugs; without a bug it says {right[1].verdict}.")
print(f"The rule found {sum(relative > 1e-7 for relative, _ in judged.values())}; without a bug {right[0]:.0e}.")
for name, own in errors.items():
    best = own.argmin()
    falls = (steps <= 0.03) & (steps > steps[best]) & (own > 10 * own[best])  # the error of the step alone
    slope = np.polyfit(np.log(steps[falls]), np.log(own[falls]), 1)[0] if falls.sum() > 2 else np.nan
    print(f"{name}: at best {own[best]:.0e}, with a step of {steps[best]:.0e}, falling as h^{slope:.1f}.")
for name, (relative, report) in {"a kernel twice too large": tiny, "a right gradient at a kink": kink}.items():
    print(f"{name} {'passes' if relative < 1e-7 else 'does not pass'}, with {relative:.0e}; checker: {report.verdict}.")
