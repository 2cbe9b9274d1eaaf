"""``check_gradients``: a claimed gradient against float64 differences, with an error bar on everything.

The function is evaluated under ``jax.enable_x64`` and with matrix products at highest precision, whatever the caller's
settings, which are untouched afterwards. One point is checked, not the domain.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_bool, check_choice, check_key, check_number, check_positive_int, shown
from jaxopt_nn.checking._jaxpr import rule_stripped
from jaxopt_nn.checking._objective import casts
from jaxopt_nn.checking._objective.float64 import in_float64
from jaxopt_nn.checking._objective.hessian import second_order
from jaxopt_nn.checking._objective.key_reuse import check_distinct_keys, drawn_twice, drawn_unalike
from jaxopt_nn.checking._objective.objective import Objective, claimed_gradient, make_objective, split_arguments
from jaxopt_nn.checking._objective.own_precision import compare_own_dtype, round_off_of_claims
from jaxopt_nn.checking._report import GradientReport, Verdict, overall_verdict
from jaxopt_nn.checking._sampling.differences import ROUND_OFF_OF_F
from jaxopt_nn.checking._sampling.directions import seed_words
from jaxopt_nn.checking._sampling.lines import coordinate_units, natural_scale
from jaxopt_nn.checking._verdict import whole_tree
from jaxopt_nn.checking._verdict.comparison import Tolerance
from jaxopt_nn.checking._verdict.diagnoses import one_factor
from jaxopt_nn.checking._verdict.evidence import Claim, Evidence, Finding, Settings, gather
from jaxopt_nn.checking._verdict.explanation import Oracle, disputed
from jaxopt_nn.checking._verdict.references import counting_probe, make_oracles
from jaxopt_nn.checking._verdict.verdict import judge, not_finite, row
from jaxopt_nn.types import Key

__all__ = ["check_gradients"]

_OK = ("PASS", "KINK_OK", "DEAD")
_ROUND_OFF = 1e-11  # a gradient this small beside the largest one may be what round-off leaves of zero
_SAME_DRAWS = (
    "f draws the same random numbers twice from one key: right for locked dropout or antithetic sampling; where the "
    "draws should be independent, split the key"
)
_ROUNDINGS = 32.0  # or this many units of a shorter float


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
    each_leaf: bool = False,
    trusted_rules: Callable[..., Any] | str | Sequence[Callable[..., Any] | str] = (),
) -> GradientReport:
    """Compares a claimed gradient of ``f`` at ``args`` with differences of f in float64.

    Along random directions v of one leaf the claimed slope c·v is compared with the limit of
    (f(x + hv) − f(x − hv)) / 2h, extrapolated from six steps to a value ± σ. A direction passes if

        |c·v − numeric| <= z·σ + rtol·‖c‖

    There is no absolute tolerance, so a mean over many examples is checked as sharply as a sum. ``directions`` Gaussian
    and as many random-sign directions are drawn through all leaves at once, which claim equal shares of the slope.
    If they leave a doubt about a leaf, it is checked alone, along as many directions of its own; a leaf of up to 16
    numbers at every coordinate too. If it fails, its wrong coordinates are searched for. A leaf with kinks is split:
    its smooth coordinates have directions of their own, and at each kink the claim must lie between the one-sided
    slopes. Casts to shorter floats inside of f become float64.

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
        directions: the number of Gaussian, and of random-sign directions; >= 2.
        rtol: allowed difference, relative to the norm of the leaf's gradient.
        z: allowed difference in error bars.
        resolution: if a relative error above this could go unseen in a leaf, the leaf is INCONCLUSIVE and not PASS,
            unless AD without custom rules finds the same gradient. The limit is larger where a shorter float makes the
            claim inexact.
        miss_probability: the δ in the reported bound: an error of a norm beyond ``miss_bound`` escapes with probability
            at most δ.
        max_coordinates: leaves up to this size are searched coordinate by coordinate, larger ones by bisection. Of
            the kinks of larger ones a sample is checked.
        stop_gradient: ``"gap"``: a gradient that a ``stop_gradient`` in f blocks is BLOCKED, which is not ok.
            ``"constant"``: outputs of ``stop_gradient`` are meant as constants, and f is differentiated so.
        order: 2 compares products of the Hessian (``jax.grad`` twice) with a random vector too, in ``report.second``,
            and uᵀHv with vᵀHu.
        each_leaf: looks at every leaf alone from the start; its errors in the report are then its own.
        trusted_rules: functions with a ``custom_vjp`` or ``custom_jvp``, or their names, whose rule is deliberately
            not the derivative, as in the straight-through estimator. Each is replaced by the linear function that its
            rule defines at the point. Everything around it is checked.

    Returns:
        The report. Printing it prints a table; ``report.assert_ok()`` raises on anything but PASS, KINK_OK, DEAD.

    Raises:
        TypeError: no float leaf, a complex or traced leaf, an f or grad_fn that closes over a traced value, another
            output than one float array, a key that is none or is traced.
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
    for name, fn in (("f", f), ("grad_fn", f if grad_fn is None else grad_fn)):
        if isinstance(fn, type) or not callable(fn):
            raise TypeError(f"{name}: expected a function, got {shown(fn)} of type {type(fn).__name__}")
    check_key("key", key)
    check_positive_int("directions", directions)
    check_positive_int("max_coordinates", max_coordinates)
    check_number("rtol", rtol, 0.0)
    check_number("z", z, 0.0, open_low=True)
    check_number("resolution", resolution, 0.0, 1.0, open_low=True)
    check_number("miss_probability", miss_probability, 0.0, 0.5, open_low=True)
    if directions < 2:
        raise ValueError(f"directions: expected an int >= 2, got {directions}")
    check_choice("stop_gradient", stop_gradient, "gap", "constant")
    check_choice("order", order, 1, 2)
    check_bool("each_leaf", each_leaf)
    if order == 2 and trusted_rules:
        raise ValueError("order: expected 1 with trusted_rules, which say nothing of second derivatives; got 2")
    arguments = split_arguments(args, argnums)
    check_distinct_keys(args, key)
    # Each of the comparisons may be off by chance: all of them together are to be right.
    comparisons = 2 * directions * len(arguments.leaves)
    widened = math.sqrt(z * z + 2 * math.log(comparisons))
    tolerance = Tolerance(float(rtol), widened, float(resolution), float(miss_probability))
    words = seed_words(key)
    with in_float64():
        original, arguments = make_objective(f, arguments, words)
        original = rule_stripped.trust(original, trusted_rules)
        objective, narrow = casts.widened(original, arguments.leaves)
        if grad_fn is not None and objective.cotangent is not None:
            raise ValueError(
                f"grad_fn: expected a scalar output of f, got an output of shape {list(objective.cotangent.shape)}"
            )
        gradient = claimed_gradient(f, grad_fn, objective, arguments)
        first, second = (gradient(arguments.leaves) for _ in range(2))
        repeats = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))
        claimed = [leaf.astype(np.float64) for leaf in first]
        roundings = [
            max(inside, float(jnp.finfo(leaf.dtype).eps) if leaf.dtype.itemsize < 8 else 0.0)
            for inside, leaf in zip(original.reading.rounding, first, strict=True)
        ]
        frozen = stop_gradient == "constant"
        stripped = rule_stripped.Stripped(None, "")
        if objective.by_hand is None and (grad_fn is not None or rule_stripped.has_own_rules(objective)):
            stripped = rule_stripped.stripped_gradient(objective, arguments.leaves, frozen=frozen)
        stops = rule_stripped.stops_gradients(objective) and not frozen
        settings = Settings(directions, max_coordinates, tolerance, words)
        calls: list[int] = []
        reasons: dict[str, None] = {}
        # More than one move: round-off takes few values, and may happen to be the same one again.
        nearby_claims = functools.cache(
            lambda: [
                gradient(
                    [
                        leaf * (1 + by * max(2.0**-46, unit))
                        for leaf, unit in zip(arguments.leaves, roundings, strict=True)
                    ]
                )
                for by in (1, -1, 3, -5)
            ]
        )
        oracles = make_oracles(
            objective,
            arguments,
            stripped,
            gradient,
            nearby_claims,
            stops,
            grad_fn is None,
            2 * directions,
            calls,
            reasons,
            constant=frozen,
        )
        slack = round_off_of_claims(gradient, arguments, claimed, roundings)
        units = [coordinate_units(leaf) for leaf in arguments.leaves]
        claims = [
            Claim(i, np.where(np.isfinite(leaf), leaf, 0.0) * unit, rounding, *own, unit)
            for i, (leaf, unit, rounding, own) in enumerate(
                zip(claimed, units, objective.reading.rounding, slack, strict=True)
            )
        ]
        norms = [float(np.linalg.norm(claim.gradient)) for claim in claims]
        scales = [natural_scale(leaf) for leaf in arguments.leaves]
        vanishing = _vanishing(nearby_claims, claims, norms, scales, oracles, roundings)
        plain = [
            bool(np.all(np.isfinite(claimed[i])))
            and not (claim.rounding or claim.slack or np.ndim(claim.units))
            and not (vanishing[i] and norms[i])
            and not disputed(claim, oracles[i])
            for i, claim in enumerate(claims)
        ]
        groups = (
            []
            if each_leaf
            else [
                *whole_tree.influence_groups(norms, scales, plain),
                *whole_tree.zero_groups(norms, scales, plain),
            ]
        )
        probe = counting_probe(objective, arguments, 2 * directions, calls, frozen=frozen, groups=groups)
        quick = whole_tree.check_groups(probe, claims, groups, settings)
        evidence = [quick[i][0] if i in quick else gather(probe, claim, settings) for i, claim in enumerate(claims)]
        # Beside f itself too: all that there is of a gradient may be round-off.
        least = abs(evidence[0].sample.middle)
        vanishing = _vanishing(nearby_claims, claims, norms, scales, oracles, roundings, least)
        unrepeatable = _unrepeatable(objective, repeats, evidence)
        findings = [
            unrepeatable
            or (quick[i][1] if i in quick else None)
            or not_finite(claimed[i])
            or judge(probe, evidence[i], vanishing[i], settings, oracles[i])
            for i in range(len(claims))
        ]
        inputs = [*arguments.leaves, *objective.rest[0]]
        if drawn_unalike(objective.program, inputs):
            reason = "f draws random numbers twice from one key: split it"
            findings = [Finding("INCONCLUSIVE", reason) if one.verdict in _OK else one for one in findings]
        elif drawn_twice(objective.program, inputs):
            reasons[_SAME_DRAWS] = None
    own, notes = compare_own_dtype(f, grad_fn, arguments, objective, claimed, gradient, vanishing)
    if objective.trusted:
        notes = (f"taken as it is: {', '.join(str(site) for site in objective.trusted)}", *notes)
    if objective.note:
        notes = (objective.note, *notes)
    if stripped.reason:
        notes = (*notes, f"rule-stripped AD was not to be had: {stripped.reason}")
    if places := casts.casts(original.program) if any(original.reading.rounding) else []:
        throughout = "" if narrow else "; differences, and rule-stripped AD, are those of f in float64 throughout"
        notes = (*notes, f"f rounds to a shorter float: {', '.join(places)}{throughout}")
    notes = (*notes, *([narrow] if narrow else []), *reasons)
    leaves = [row(arguments, i, claimed[i], evidence[i], findings[i], own[i], oracles[i]) for i in range(len(claimed))]
    second = None
    if order == 2 and all(leaf.verdict == "DEAD" for leaf in leaves):  # what there is of a Hessian is round-off
        notes = (*notes, "no second order: f depends on no leaf here")
    elif order == 2 and overall_verdict([leaf.verdict for leaf in leaves]) in _OK:
        options = {"directions": directions, "rtol": rtol, "z": z, "stop_gradient": stop_gradient}
        second = second_order(check_gradients, f, arguments, objective, claimed, words, key, options)
    notes = (*notes, *one_factor(leaves))
    verdicts: list[Verdict] = [leaf.verdict for leaf in leaves]
    verdicts.extend("FAIL" for leaf in leaves if leaf.dtype_verdict == "FAIL")
    return GradientReport(
        verdict=overall_verdict(verdicts if second is None else [*verdicts, second.verdict]),
        leaves=tuple(leaves),
        skipped=arguments.skipped,
        notes=notes,
        value=evidence[0].sample.middle,
        evaluations=sum(calls),
        miss_probability=tolerance.miss_probability,
        second=second,
    )


def _vanishing(
    nearby_claims: Callable[[], list[list[Any]]],
    claims: Sequence[Claim],
    norms: Sequence[float],
    scales: Sequence[float],
    oracles: Sequence[Oracle],
    roundings: Sequence[float],
    least: float = 0.0,
) -> list[float | None]:
    """Which claimed gradients are zero but for round-off; ``nearby_claims`` gives those next to the point.

    Such a gradient, for example of a bias before a normalization, is tiny beside the others, or beside ``least``, and
    it changes completely when the point moves by a few units in the last place. A gradient that is only small keeps
    its digits, and rule-stripped AD finds it too.

    Returns:
        For each of these leaves the norm of a gradient that would move f as much as the most influential leaf does, or
        by ``least``; None for the others.
    """
    largest = max(norm * scale for norm, scale in zip(norms, scales, strict=True))
    reach: list[float | None] = []
    for norm, scale, oracle, rounding in zip(norms, scales, oracles, roundings, strict=True):
        exact = norm if oracle.stripped is None else max(norm, float(np.linalg.norm(oracle.stripped)))
        beside_f = least if norm and exact * scale <= ROUND_OFF_OF_F * least else 0.0
        share = max(_ROUND_OFF, _ROUNDINGS * rounding)
        whole = max(beside_f, largest if exact * scale <= share * largest else 0.0)
        reach.append(whole / scale if whole else None)
    return [
        limit if limit and _is_round_off(nearby_claims, claim, norm, oracle) else None
        for limit, claim, norm, oracle in zip(reach, claims, norms, oracles, strict=True)
    ]


def _is_round_off(nearby_claims: Callable[[], list[list[Any]]], claim: Claim, norm: float, oracle: Oracle) -> bool:
    """Whether a tiny gradient is another one next to the point; for a claim of zero, whether that of the oracle is."""
    if norm:
        with np.errstate(over="ignore"):  # in units that suit f a number may be huge; infinity is more than enough
            changes = [np.linalg.norm(again[claim.leaf] * claim.units - claim.gradient) for again in nearby_claims()]
        return float(max(changes)) >= 0.1 * norm
    if oracle.stripped is None:  # by a rule or by hand: then differences alone do not know better
        return oracle.plain
    exact, near = oracle.stripped.ravel(), oracle.near() if np.any(oracle.stripped) else None
    if near is None or not near.exact:
        return not np.any(exact)
    change = np.maximum(np.abs(near.high - exact), np.abs(near.low - exact))
    return float(np.linalg.norm(change)) >= 0.1 * float(np.linalg.norm(exact))


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
