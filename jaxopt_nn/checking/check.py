"""``check_gradients``: a claimed gradient against float64 differences, leaf by leaf, with an error bar on everything.

The function is evaluated under ``jax.enable_x64`` and with matrix products at highest precision, whatever the caller's
settings, which are untouched afterwards. One point is checked, not the domain.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_key, check_number, check_positive_int
from jaxopt_nn.checking import rules
from jaxopt_nn.checking.directions import Line, seed_words
from jaxopt_nn.checking.evidence import Claim, Evidence, Finding, Settings, gather
from jaxopt_nn.checking.explain import Oracle
from jaxopt_nn.checking.interpret import Policy
from jaxopt_nn.checking.judge import Tolerance
from jaxopt_nn.checking.keys import check_distinct_keys, drawn_twice
from jaxopt_nn.checking.leaf import judge
from jaxopt_nn.checking.precision import OwnDtype, compare_own_dtype
from jaxopt_nn.checking.probe import Probe, Sample, make_probe, natural_scale
from jaxopt_nn.checking.problem import Arguments, Objective, claimed_gradient, make_objective, split_arguments
from jaxopt_nn.checking.report import Curve, GradientReport, LeafReport, overall_verdict
from jaxopt_nn.checking.second import second_order
from jaxopt_nn.types import Key

__all__ = ["check_gradients"]

_OK = ("PASS", "KINK_OK", "DEAD")
_ROUND_OFF = 1e-11  # a gradient this small beside the largest one may be what round-off leaves of zero


def check_gradients(
    f: Callable[..., Any],
    *args: Any,
    key: Key,
    grad_fn: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    directions: int = 4,
    rtol: float = 1e-6,
    z: float = 6.0,
    resolution: float = 1e-3,
    miss_probability: float = 1e-3,
    max_coordinates: int = 4096,
    stop_gradient: Literal["gap", "constant"] = "gap",
    order: int = 1,
) -> GradientReport:
    """Compares a claimed gradient of ``f`` at ``args`` with differences of f in float64.

    Along random directions v of one leaf the claimed slope c·v is compared with the limit of
    (f(x + hv) − f(x − hv)) / 2h, extrapolated from six steps to a value ± σ. A direction passes if

        |c·v − numeric| <= z·σ + rtol·‖c‖

    There is no absolute tolerance, so a mean over many examples is checked as sharply as a sum. ``directions`` Gaussian
    and as many random-sign directions are drawn per leaf; on leaves of up to 16 numbers every coordinate is compared
    too. A leaf that fails is searched for its wrong coordinates.

    Args:
        f: a pure function of pytrees with one float array as its output. It must accept float64 arrays and be traceable
            by ``jax.jit``. An array output is reduced by a random cotangent.
        *args: its arguments. Float leaves are differentiated; integers, booleans, keys and Python objects are left
            alone and listed in the report.
        key: a PRNG key for directions and cotangent. A fresh one makes a fresh check.
        grad_fn: the claimed gradient of a scalar f: ``grad_fn(*args)`` returns the tree of its argument, or for several
            arguments (or a sequence ``argnums``) the tuple of trees, as ``jax.grad(f, argnums)`` does. It may be
            written in NumPy. Default: ``jax.grad``.
        argnums: which arguments are differentiated; default all. As for ``jax.grad``, an int means a bare tree.
        directions: Gaussian directions per leaf, and random-sign directions per leaf; >= 2.
        rtol: allowed difference, relative to the norm of the leaf's gradient.
        z: allowed difference in error bars.
        resolution: a leaf of which a relative error above this could escape is INCONCLUSIVE instead of PASS.
        miss_probability: the δ in the reported bound: an error of a norm beyond ``miss_bound`` escapes with probability
            at most δ.
        max_coordinates: leaves up to this size are searched coordinate by coordinate, larger ones by bisection.
        stop_gradient: ``"gap"``: a gradient that a ``stop_gradient`` in f blocks is BLOCKED, which is not ok.
            ``"constant"``: outputs of ``stop_gradient`` are meant as constants, and f is differentiated so.
        order: 2 compares products of the Hessian with a random vector too, in ``report.second``.

    Returns:
        The report. Printing it prints a table; ``report.assert_ok()`` raises on anything but PASS, KINK_OK, DEAD.

    Raises:
        TypeError: no float leaf, a complex or traced leaf, an f that closes over a traced value, another output than
            one float array, a key that is none.
        ValueError: NaN or inf in a float leaf or in f at the point; a grad_fn that returns another tree or shape; two
            equal keys among ``args`` and ``key``; a number out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda w: jnp.mean(w["a"] ** 2) + jnp.sum(jnp.abs(w["b"]))
        >>> w = {"a": jnp.arange(100.0), "b": jnp.zeros(3)}
        >>> report = check_gradients(f, w, key=jax.random.key(0))
        >>> [leaf.verdict for leaf in report.leaves]  # the slope of |b| at 0 is any number from -1 to 1
        ['PASS', 'KINK_OK']
        >>> forgot_the_mean = lambda w: {"a": 2 * w["a"], "b": jnp.sign(w["b"])}
        >>> report = check_gradients(f, w, grad_fn=forgot_the_mean, key=jax.random.key(0))
        >>> report.leaves[0].hypothesis
        'ratio 100.0000±... on a: B with B = 100: a sum for a mean; worst at [99]: claimed 198, numeric 1.98'

    Differs from ``jax.test_util.check_grads`` and ``torch.autograd.gradcheck`` in that tolerances follow the size of
    the gradient and the measured error of the differences, directions come from ``key``, kinks have their own verdict,
    and any function can be the claimed gradient.
    """
    check_key("key", key)
    check_positive_int("directions", directions)
    check_positive_int("max_coordinates", max_coordinates)
    check_number("rtol", rtol, 0.0)
    check_number("z", z, 0.0, open_low=True)
    check_number("resolution", resolution, 0.0, 1.0, open_low=True)
    check_number("miss_probability", miss_probability, 0.0, 0.5, open_low=True)
    if directions < 2:
        raise ValueError(f"directions: expected an int >= 2, got {directions}")
    if stop_gradient not in ("gap", "constant"):
        raise ValueError(f'stop_gradient: expected "gap" or "constant", got {stop_gradient!r}')
    if order not in (1, 2):
        raise ValueError(f"order: expected 1 or 2, got {order!r}")
    arguments = split_arguments(args, argnums)
    check_distinct_keys(args, key)
    # Each of the comparisons may be off by chance: all of them together are to be right.
    comparisons = 2 * directions * len(arguments.leaves)
    widened = math.sqrt(z * z + 2 * math.log(comparisons))
    tolerance = Tolerance(float(rtol), widened, float(resolution), float(miss_probability))
    words = seed_words(key)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        objective = make_objective(f, arguments, words)
        if grad_fn is not None and objective.cotangent is not None:
            raise ValueError(
                f"grad_fn: expected a scalar output of f, got an output of shape {list(objective.cotangent.shape)}"
            )
        gradient = claimed_gradient(f, grad_fn, objective, arguments)
        first, second = (gradient(arguments.leaves) for _ in range(2))
        repeats = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))
        claimed = [leaf.astype(np.float64) for leaf in first]
        roundings = [float(jnp.finfo(leaf.dtype).eps) if leaf.dtype.itemsize < 8 else 0.0 for leaf in first]
        frozen = stop_gradient == "constant"
        calls: list[int] = []
        probe = _counting(objective, arguments, 2 * directions, calls, frozen=frozen)
        stripped = rules.Stripped(None, "")
        if grad_fn is not None or rules.has_own_rules(objective):
            stripped = rules.stripped_gradient(objective, arguments.leaves, frozen=frozen)
        stops = objective.reading.stop_gradient and not frozen
        settings = Settings(directions, max_coordinates, tolerance, words, stops)
        oracles = _oracles(objective, arguments, stripped, stops, grad_fn is None, 2 * directions, calls)
        claims = [Claim(*parts) for parts in zip(itertools.count(), claimed, objective.reading.rounding, roundings)]
        finite = [
            claim._replace(gradient=np.where(np.isfinite(claim.gradient), claim.gradient, 0.0)) for claim in claims
        ]
        evidence = [gather(probe, claim, settings) for claim in finite]
        vanishing = _vanishing(gradient, arguments.leaves, [claim.gradient for claim in finite])
        unrepeatable = _unrepeatable(objective, repeats, evidence)
        findings = [
            unrepeatable or _not_finite(leaf) or judge(probe, item, reach, settings, oracle)
            for item, leaf, reach, oracle in zip(evidence, claimed, vanishing, oracles, strict=True)
        ]
        if drawn_twice(objective.program):
            reason = "f draws random numbers twice from one key: split it"
            findings = [Finding("INCONCLUSIVE", reason) if one.verdict in _OK else one for one in findings]
    own, notes = compare_own_dtype(f, grad_fn, arguments, objective, claimed, gradient, vanishing)
    if stripped.reason:
        notes = (*notes, f"rule-stripped AD was not to be had: {stripped.reason}")
    leaves = [
        _report(arguments, i, claimed[i], evidence[i], findings[i], own[i], oracles[i]) for i in range(len(claimed))
    ]
    second = None
    if order == 2 and overall_verdict([leaf.verdict for leaf in leaves]) in _OK:
        second = second_order(
            check_gradients, f, arguments, words, key, {"directions": directions, "rtol": rtol, "z": z}, stop_gradient
        )
    return GradientReport(
        verdict=overall_verdict([leaf.verdict for leaf in leaves]),
        leaves=tuple(leaves),
        skipped=arguments.skipped,
        notes=notes,
        value=evidence[0].sample.middle,
        evaluations=sum(calls),
        miss_probability=tolerance.miss_probability,
        second=second,
    )


def _counting(objective: Objective, arguments: Arguments, block: int, calls: list[int], *, frozen: bool) -> Probe:
    """Samples f, with frozen or transparent stop_gradients, and notes how often it was evaluated."""
    policy = Policy(strip=lambda _: True, opaque=lambda _: False, frozen=frozen, signature=True)
    sampler = make_probe(
        lambda leaves, rest: objective.value(leaves, rest, policy), arguments.leaves, objective.rest, block
    )

    def probe(leaf: int, lines: list[Line], *, noise: float = 0.0, stretch: float = 1.0) -> Sample:
        sample = sampler(leaf, lines, noise=noise, stretch=stretch)
        calls.append(sample.evaluations)
        return sample

    return probe


def _oracles(
    objective: Objective,
    arguments: Arguments,
    stripped: rules.Stripped,
    stops: bool,
    automatic: bool,
    block: int,
    calls: list[int],
) -> list[Oracle]:
    """What else is known about each leaf; what costs a compilation is put off until somebody asks, and kept."""
    points = arguments.leaves
    frozen = functools.cache(lambda: _counting(objective, arguments, block, calls, frozen=True))
    terms = functools.cache(lambda: rules.terms(objective, points))
    single_rules = functools.cache(lambda: rules.single_rules(objective, points))
    through_stops = functools.cache(lambda: rules.through_stops(objective, points))
    axes = [length for leaf in jax.tree.leaves(arguments.args) for length in np.shape(leaf)]

    def oracle(i: int) -> Oracle:
        gradient = stripped.gradient[i] if stripped.gradient is not None else None
        return Oracle(
            path=arguments.paths[i],
            value=points[i],
            stripped=gradient if gradient is not None and np.all(np.isfinite(gradient)) else None,
            frozen=(lambda lines: frozen()(i, lines)) if stops else None,
            rules=lambda: rules.blame(single_rules(), i) if automatic else [],
            stops=lambda: rules.blame(through_stops(), i),
            terms=lambda: [(place, gradients[i]) for place, gradients in terms()],
            sizes=sorted(set(axes)),
        )

    return [oracle(i) for i in range(len(points))]


def _vanishing(
    gradient: Callable[[Sequence[Any]], list[Any]], leaves: Sequence[Any], claimed: list[Any]
) -> list[float | None]:
    """Which claimed gradients are zero but for round-off.

    Such a gradient, that of a bias before a normalization say, is tiny beside the others, and another one altogether
    when the point moves by a few units in the last place. Of a gradient that is only small the digits stay.

    Returns:
        For each of these leaves the norm of a gradient that would move f as much as the most influential leaf does;
        None for the others.
    """
    scales = [natural_scale(leaf) for leaf in leaves]
    norms = [float(np.linalg.norm(leaf)) for leaf in claimed]
    largest = max(norm * scale for norm, scale in zip(norms, scales, strict=True))
    reach = [
        largest / scale if norm <= _ROUND_OFF * largest / scale else None
        for norm, scale in zip(norms, scales, strict=True)
    ]
    if not largest or not any(norm for norm, limit in zip(norms, reach, strict=True) if limit):
        return reach if largest else [None] * len(norms)
    moved = gradient([leaf * (1 + 2.0**-46) for leaf in leaves])
    changes = [float(np.linalg.norm(a - b)) for a, b in zip(moved, claimed, strict=True)]
    return [limit if change >= 0.1 * norm else None for limit, change, norm in zip(reach, changes, norms, strict=True)]


def _unrepeatable(objective: Objective, repeats: bool, evidence: list[Evidence]) -> Finding | None:
    """Why there is no function to differentiate, if there is none."""
    samples = [item.sample for item in evidence]
    if not objective.deterministic:
        reason = "two traces of f give two programs: it depends on something besides its arguments"
    elif len({sample.middle for sample in samples}) > 1 or not all(sample.repeatable for sample in samples):
        reason = "two calls of f with equal arguments differ"
    elif not repeats:
        reason = "two calls of grad_fn with equal arguments differ"
    else:
        return None
    return Finding("NONDETERMINISTIC", reason)


def _not_finite(gradient: Any) -> Finding | None:
    bad = np.argwhere(~np.isfinite(gradient))
    if not len(bad):
        return None
    first = [int(axis) for axis in bad[0]]
    return Finding("FAIL", f"claimed is not finite at {len(bad)} of {np.size(gradient)} coordinates, first at {first}")


def _report(
    arguments: Arguments, i: int, claimed: Any, evidence: Evidence, finding: Finding, own: OwnDtype, oracle: Oracle
) -> LeafReport:
    # Of a dead leaf there is nothing that an error could be relative to.
    unit = math.nan if finding.verdict == "DEAD" else evidence.norm or 1.0
    comparisons = [evidence.comparison, *([evidence.places.comparison] if evidence.places else [])]
    return LeafReport(
        path=arguments.paths[i],
        shape=np.shape(claimed),
        size=int(np.size(claimed)),
        dtype=arguments.dtypes[i],
        verdict=finding.verdict,
        hypothesis=finding.hypothesis,
        claimed_norm=float(np.linalg.norm(claimed)),
        numeric_norm=evidence.numeric_norm,
        relative_error=evidence.error_norm / unit,
        relative_sigma=evidence.sigma / unit,
        miss_bound=evidence.miss_bound / unit,
        step=float(np.median(evidence.sample.slopes.step)),
        directions=sum(len(comparison.jump) for comparison in comparisons),
        kinks=sum(int(np.count_nonzero(comparison.jump)) for comparison in comparisons),
        worst=finding.worst,
        dtype_error=None if finding.verdict == "DEAD" else own.error,
        dtype_verdict=None if finding.verdict == "DEAD" else own.verdict,
        rule_error=None if oracle.stripped is None else float(np.linalg.norm(claimed - oracle.stripped)) / unit,
        curve=_curve(evidence),
    )


def _curve(evidence: Evidence) -> Curve:
    """Median differences at each step from the claimed slopes, relative to the gradient, over the random lines."""
    curve, unit = evidence.sample.curve, evidence.norm or 1.0
    claimed = evidence.claimed[:, None]
    with np.errstate(all="ignore"):
        errors = [np.median(np.abs(found - claimed), axis=0) / unit for found in (curve.two_sided, curve.forward)]
    return Curve(
        steps=tuple(float(step) for step in curve.steps),
        two_sided=tuple(float(error) for error in errors[0]),
        one_sided=tuple(float(error) for error in errors[1]),
        crossed=tuple(float(share) for share in np.mean(curve.crossed, axis=0)),
    )
