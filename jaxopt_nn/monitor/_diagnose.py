"""What a run's history means, in words."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxopt_nn.monitor._evidence import Evidence, first, last, of_finite
from jaxopt_nn.training import Status

__all__ = ["Diagnosis", "Finding", "diagnose"]


class Finding(NamedTuple):
    """One thing that is wrong with a run.

    Attributes:
        name: one of those that :func:`diagnose` knows.
        evidence: what shows it, with figures.
        remedy: what usually helps.
        figures: the figures by name.
    """

    name: str
    evidence: str
    remedy: str
    figures: dict[str, float]

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}\n  {self.remedy}"


class Diagnosis(NamedTuple):
    """What :func:`diagnose` found. As a string it is a paragraph for each finding.

    Attributes:
        findings: causes before their usual consequences; none if nothing is wrong that the history shows.
        unknown: what could not be looked for, and what is missing for it.
    """

    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the findings."""
        return tuple(finding.name for finding in self.findings)

    def __str__(self) -> str:
        text = [str(finding) for finding in self.findings] or ["nothing found that the history shows"]
        return "\n".join([*text, *(f"not looked for: {each}" for each in self.unknown)])


def diagnose(result: Any) -> Diagnosis:
    """What is wrong with a run, as far as its history shows it.

    ===================  ==============================================================================================
    name                 what shows it
    ===================  ==============================================================================================
    inputs not scaled    features above 20 or below 0.02 in size, or one that is 50 times as spread as the others
    exploding            outputs grow 100-fold from layer to layer; the first step is not finite
    rate too high        updates of a tenth of the parameters; the loss grows; steps end behind the minimum
    dead ReLUs           40 % of a layer's units are 0 for all examples
    saturated            60 % of the outputs of tanh or sigmoid are at their bounds
    vanishing            the first layers' gradient is a thousandth of the last ones'; outputs shrink 1000-fold
    first layer starved  the first layer alone changes a hundredth as much as the others
    rate too low         updates below 2e-5 of the parameters, and the loss falls and is still high
    labels shuffled      the training loss falls, and the validation loss was never better than guessing
    overfitting          the validation loss has risen again, and the training loss has not
    plateau              the loss has stopped high, and the steps have become negligible
    underfitting         the loss has stopped high, at training and validation, with steps of the usual size
    ===================  ==============================================================================================

    A loss is high if it is above half of that of guessing (``target/entropy`` or ``target/variance``), or where that
    was not recorded of that of the first epoch. Data that cannot be predicted any better look like underfitting. What
    follows from a finding is left out: behind dead units every gradient vanishes.

    Args:
        result: of a run with ``record=monitor.watch()``, or its history. With less in it less is looked for.

    Returns:
        The :class:`Diagnosis`; print it.

    Raises:
        TypeError: it is neither a result nor a history.
        ValueError: it is of several lanes.

    >>> history = {"train_loss": [2.0, 1.0, 0.5, 0.2, 0.1], "valid_loss": [1.5, 0.9, 1.0, 1.6, 2.5]}
    >>> diagnose(history).names
    ('overfitting',)
    """
    history = getattr(result, "history", result)
    if not isinstance(history, Mapping) or "train_loss" not in history:
        raise TypeError(f"result: expected the result of a run, or its history, got a {type(result).__name__}")
    if np.ndim(history["train_loss"]) != 1:
        raise ValueError(
            f"result: expected that of one run, got lanes {list(np.shape(history['train_loss'])[:-1])}: take one by "
            f"jax.tree.map(lambda leaf: leaf[0], result)"
        )
    evidence = Evidence(history)
    status = Status(int(getattr(result, "status", Status.COMPLETED)))
    bad_step = int(getattr(result, "first_bad_step", -1))
    facts = _Facts(evidence, status, bad_step)
    findings = tuple(finding for rule in _RULES if (finding := rule(facts)) is not None)
    missing = {
        "valid_loss": "overfitting and shuffled labels, which need a validation set",
        "flow/": "the size of gradients and updates, which needs monitor.gradient_flow()",
        "activation/": "dead and saturated units, which needs monitor.activations()",
        "input/": "the scale of the inputs, which needs monitor.inputs()",
    }
    unknown = tuple(text for start, text in missing.items() if not any(name.startswith(start) for name in history))
    return Diagnosis(_with_consequences_left_out(findings), unknown)


class _Facts(NamedTuple):
    evidence: Evidence
    status: Status
    bad_step: int

    @property
    def train(self) -> Any:
        return self.evidence.curve("train_loss")

    @property
    def valid(self) -> Any:
        return self.evidence.curve("valid_loss")

    def ratio(self, when: Callable[[Any], float]) -> float:
        """The median of update over parameter, of kernels; NaN if it was not recorded."""
        return of_finite(np.median, [when(values) for values in self.evidence.leaves("ratio").values()])

    @property
    def chance(self) -> float:
        """The loss of who sees no features, if it is cross-entropy or squared error; NaN if nothing says it."""
        figures = [self.evidence.value(f"target/{name}") for name in ("entropy", "variance")]
        return next((figure for figure in figures if np.isfinite(figure)), np.nan)

    @property
    def is_high(self) -> bool:
        """Whether the training loss is still above half of chance, or where that is unknown of the first epoch."""
        usual = first(self.train) if np.isnan(self.chance) else self.chance
        return bool(len(self.train) > 1 and last(self.train) > 0.5 * usual)

    @property
    def is_flat(self) -> bool:
        """Whether the training loss has not improved by a fiftieth over the last third of the epochs."""
        part = max(len(self.train) // 3, 2)
        if len(self.train) < 5:
            return False
        before, now = np.median(self.train[-part - 1 : -part + 1]), np.median(self.train[-2:])
        return bool(now > before - 0.02 * abs(before))


Rule = Callable[[_Facts], Finding | None]


def _inputs_not_scaled(facts: _Facts) -> Finding | None:
    figures = {name: facts.evidence.value(f"input/{name}") for name in ("largest", "spread")}
    texts = {
        "largest": (20.0, "a feature has the size {:.3g}"),
        "spread": (50.0, "one feature is {:.3g} times as spread as the median one"),
    }
    found = [text.format(figures[name]) for name, (limit, text) in texts.items() if figures[name] > limit]
    if figures["largest"] < 0.02:
        found.append(f"the largest feature has the size {figures['largest']:.3g}")
    if not found:
        return None
    remedy = "Scale the features to mean 0 and deviation 1: data.fit_standard_scaler(train.x), data.transform."
    return Finding("inputs not scaled", "; ".join(found), remedy, figures)


def _exploding(facts: _Facts) -> Finding | None:
    remedy = (
        "Begin with smaller weights (initializers.he_normal for ReLU, xavier_normal for tanh), put layers.batch_norm "
        "or layers.layer_norm between the layers, or residual blocks; clip the gradient "
        "(optimizers.clip_by_global_norm)."
    )
    if facts.bad_step == 0:
        return Finding("exploding", "the loss or the gradient of the first step is not finite", remedy, {"step": 0.0})
    sizes = {path: first(values) for path, values in facts.evidence.starts().items()}
    sizes = {path: size for path, size in sizes.items() if size > 0}
    if len(sizes) < 3:
        return None
    paths = list(sizes)
    begin, largest = paths[0], max(paths, key=sizes.__getitem__)
    growth = sizes[largest] / sizes[begin]
    if growth < 100:
        return None
    text = f"outputs grow {growth:.3g}-fold, from deviation {sizes[begin]:.3g} at {begin} "
    text += f"to {sizes[largest]:.3g} at {largest}"
    return Finding("exploding", text, remedy, {"growth": growth})


def _rate_too_high(facts: _Facts) -> Finding | None:
    ratio, alpha = facts.ratio(first), first(facts.evidence.curve("step_length"))
    begin, worst = first(facts.train), of_finite(np.max, facts.train)
    found: list[str] = []
    if facts.status == Status.NONFINITE_TRAINING and facts.bad_step != 0:
        found.append(f"the loss is not finite from step {facts.bad_step} on")
    if ratio > 0.3 or (ratio > 0.1 and facts.is_high):
        found.append(f"an update is {ratio:.2g} of the parameters (1e-3 is usual)")
    if len(facts.train) > 2 and begin > 0 and (last(facts.train) > 1.1 * begin or worst > 2 * begin):
        found.append(f"the loss has grown from {begin:.3g} to {worst:.3g}")
    if alpha > 1 and facts.is_high:
        found.append(f"a step ends behind the minimum along its direction, α = {alpha:.2g}, where the loss is no less")
    if not found:
        return None
    remedy = (
        "Lower the learning rate by a factor of 3 to 10 (training.learning_rate_range_test shows by how much), or warm "
        "it up (schedules.warmup)."
    )
    return Finding("rate too high", "; ".join(found), remedy, {"ratio": ratio, "alpha": alpha})


def _worst(values: Mapping[str, Any]) -> tuple[str, float]:
    """The path with the largest value of the last epoch; of equal ones the first."""
    ends = {path: last(curve) for path, curve in values.items()}
    ends = {path: value for path, value in ends.items() if np.isfinite(value)}
    path = max(ends, key=ends.__getitem__, default="")
    return path, ends.get(path, np.nan)


def _dead(facts: _Facts) -> Finding | None:
    path, dead = _worst(facts.evidence.layers("dead"))
    if not dead >= 0.4 or 0 < _shrinking(facts)[1] < 1e-3:  # a unit that only its bias reaches is easily dead
        return None
    text = f"{dead:.0%} of the units of {path} are 0 for all examples, so nothing behind them learns"
    remedy = (
        "Lower the learning rate; begin with biases of 0 and initializers.he_normal; scale the inputs; or use "
        "jax.nn.leaky_relu or jax.nn.gelu."
    )
    return Finding("dead ReLUs", text, remedy, {"dead": dead})


def _saturated(facts: _Facts) -> Finding | None:
    path, part = _worst(facts.evidence.layers("saturated"))
    if not part >= 0.6:
        return None
    text = f"{part:.0%} of the outputs of {path} are at a bound, where the slope is nearly 0"
    remedy = (
        "Begin with smaller weights (initializers.xavier_normal), scale the inputs, lower the learning rate, normalize "
        "before the activation (layers.batch_norm, layers.layer_norm), or use jax.nn.relu."
    )
    return Finding("saturated", text, remedy, {"saturated": part})


def _vanishing(facts: _Facts) -> Finding | None:
    gradients = {path: first(values) for path, values in facts.evidence.relative_gradients().items()}
    gradients = {path: value for path, value in gradients.items() if np.isfinite(value)}
    found, figures = list[str](), dict[str, float]()
    if len(gradients) > 3:
        *early, _, _ = gradients.values()
        path = next(iter(gradients))
        part = max(early[: max(len(early) // 2, 1)]) / max(*gradients.values(), 1e-38)
        if part < 1e-3:
            found.append(f"the gradient of {path}, for its size, is {part:.1g} of that of the last layers")
            figures["gradient"] = part
    begin, part = _shrinking(facts)
    if part < 1e-3:
        found.append(f"outputs shrink from deviation {begin:.2g} to {begin * part:.2g}")
        figures["shrink"] = part
    if not found:
        return None
    remedy = (
        "Use jax.nn.relu in place of sigmoid or tanh, initializers that keep the variance (he_normal, xavier_normal), "
        "layers.batch_norm or layers.layer_norm, residual blocks, or fewer layers."
    )
    return Finding("vanishing", "; ".join(found), remedy, figures)


def _shrinking(facts: _Facts) -> tuple[float, float]:
    """The deviation of the first layer's outputs before training, and what part of it the last layer's is."""
    sizes = [first(values) for values in facts.evidence.starts().values()]
    sizes = [size for size in sizes if np.isfinite(size)]
    if len(sizes) < 4 or not sizes[0] > 0:
        return np.nan, np.nan
    return sizes[0], sizes[-1] / sizes[0]


def _starved(facts: _Facts) -> Finding | None:
    ratios = {path: of_finite(np.median, values) for path, values in facts.evidence.leaves("ratio").items()}
    if len(ratios) < 2:
        return None
    (path, own), *others = ratios.items()
    usual = of_finite(np.median, [value for _, value in others])
    if not own < 0.01 * usual:
        return None
    text = f"an update of {path} is {own:.1g} of it, those of the other layers {usual:.1g}"
    remedy = (
        "Look at what reaches the first layer: the scale of the inputs, a learning rate or a freeze of its own, a "
        "narrow or saturated layer behind it; Adam evens out the sizes that gradients have in different layers."
    )
    return Finding("first layer starved", text, remedy, {"ratio": own, "usual": usual})


def _rate_too_low(facts: _Facts) -> Finding | None:
    ratio, alpha = facts.ratio(first), first(facts.evidence.curve("step_length"))
    if not (ratio < 2e-5 and facts.is_high):
        return None
    text = f"an update is {ratio:.1g} of the parameters (1e-3 is usual), and the loss is {last(facts.train):.3g}"
    text += "" if np.isnan(alpha) else f"; a step covers little of the way to the minimum, α = {alpha:.3g}"
    remedy = "Raise the learning rate by a factor of 10 or more; training.learning_rate_range_test shows how far."
    return Finding("rate too low", text, remedy, {"ratio": ratio, "alpha": alpha})


def _labels_shuffled(facts: _Facts) -> Finding | None:
    if len(facts.valid) < 3 or not np.isfinite(facts.valid).any():
        return None
    end, best = last(facts.train), of_finite(np.min, facts.valid)
    begin = of_finite(np.min, [first(facts.train), facts.chance])
    if not (end < 0.9 * begin and best > 0.97 * begin):
        return None
    text = f"training took the loss to {end:.3g}, and the validation loss is {best:.3g} at its best, "
    text += f"no better than {begin:.3g}, which needs no features"
    remedy = (
        "Look at examples with their labels: features and targets may be out of order, sorted apart or joined by the "
        "wrong column. If they are right, the features say nothing about the targets."
    )
    return Finding("labels shuffled", text, remedy, {"train_loss": end, "valid_loss": best})


def _overfitting(facts: _Facts) -> Finding | None:
    if len(facts.valid) < 4 or not np.isfinite(facts.valid).any():
        return None
    best, end = of_finite(np.min, facts.valid), last(facts.valid)
    at, train, begin = int(np.nanargmin(facts.valid)), last(facts.train), max(first(facts.train), first(facts.valid))
    risen = (end - best) / max(begin - best, 1e-12)
    if not (risen > 0.2 and train < 0.6 * end and train <= facts.train[at]):
        return None
    if facts.status == Status.STOPPED_EARLY:
        return None
    text = f"the validation loss was {best:.3g} in epoch {at} and is {end:.3g}; the training loss is {train:.3g}"
    remedy = (
        "Stop there (training.EarlyStopping), add data or augmentation, dropout or weight decay, or take a smaller "
        "network."
    )
    return Finding(
        "overfitting", text, remedy, {"best": best, "valid_loss": end, "train_loss": train, "epoch": float(at)}
    )


def _plateau(facts: _Facts) -> Finding | None:
    begin, now = facts.ratio(first), facts.ratio(last)
    if not (facts.is_flat and facts.is_high and now < 1e-2 * begin):
        return None
    text = f"the loss stays at {last(facts.train):.3g}, and an update is {now:.1g} of the parameters, after {begin:.1g}"
    remedy = "Let the learning rate fall later or less far, or restart it (schedules.cosine_restarts)."
    return Finding("plateau", text, remedy, {"train_loss": last(facts.train), "ratio": now})


def _underfitting(facts: _Facts) -> Finding | None:
    if not (facts.is_flat and facts.is_high):
        return None
    train, valid = last(facts.train), last(facts.valid)
    text = f"the training loss stays at {train:.3g}, after {first(facts.train):.3g} in the first epoch"
    text += "" if np.isnan(valid) else f"; validation {valid:.3g}"
    remedy = (
        "Take a wider or deeper network, or features that say more; less dropout, weight decay and augmentation. See "
        "first whether it can learn a single batch by heart. Targets may be noise that nothing can predict."
    )
    return Finding("underfitting", text, remedy, {"train_loss": train, "valid_loss": valid})


_RULES: tuple[Rule, ...] = (
    _inputs_not_scaled,
    _exploding,
    _rate_too_high,
    _dead,
    _saturated,
    _vanishing,
    _starved,
    _rate_too_low,
    _labels_shuffled,
    _overfitting,
    _plateau,
    _underfitting,
)


_FOLLOWS = {
    "exploding": {"rate too high", "dead ReLUs", "saturated", "vanishing", "first layer starved"},
    "rate too high": {"dead ReLUs", "saturated", "vanishing", "first layer starved", "labels shuffled"},
    "dead ReLUs": {"vanishing", "first layer starved", "rate too low"},
    "saturated": {"vanishing", "first layer starved", "rate too low"},
    "vanishing": {"first layer starved", "rate too low"},
    "labels shuffled": {"overfitting"},
}
"""What a finding explains. A loss that stays high is explained by any."""


def _with_consequences_left_out(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    kept: list[Finding] = []
    for finding in findings:
        stays_high = finding.name in ("plateau", "underfitting") and kept
        if not stays_high and not any(finding.name in _FOLLOWS.get(cause.name, ()) for cause in kept):
            kept.append(finding)
    return tuple(kept)
