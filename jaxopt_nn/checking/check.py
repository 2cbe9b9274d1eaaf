"""``check_gradients``: a claimed gradient against float64 differences, leaf by leaf, with an error bar on everything.

The function is evaluated under ``jax.enable_x64`` and with matrix products at highest precision, whatever the caller's
settings, which are untouched afterwards. One point is checked, not the domain.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._arguments import check_key, check_number, check_positive_int
from jaxopt_nn.checking.directions import Line, seed_words
from jaxopt_nn.checking.judge import Tolerance
from jaxopt_nn.checking.leaf import Claim, Evidence, Finding, Settings, gather, judge
from jaxopt_nn.checking.probe import Sample, make_probe, natural_scale
from jaxopt_nn.checking.problem import (
    Arguments,
    Objective,
    claimed_gradient,
    make_objective,
    own_dtype_gradient,
    split_arguments,
)
from jaxopt_nn.checking.report import GradientReport, LeafReport, overall_verdict
from jaxopt_nn.types import Key

__all__ = ["check_gradients"]

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

    Returns:
        The report. Printing it prints a table; ``report.assert_ok()`` raises on anything but PASS, KINK_OK, DEAD.

    Raises:
        TypeError: no float leaf, a complex or traced leaf, another output than one float array, a key that is none.
        ValueError: NaN or inf in a float leaf or in f at the point; a grad_fn that returns another tree or shape; a
            number out of range.

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
        'claimed/numeric is constant: ratio 100.0000 (± ...); worst at [99]: claimed 198, numeric 1.98'

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
    tolerance = Tolerance(float(rtol), float(z), float(resolution), float(miss_probability))
    arguments = split_arguments(args, argnums)
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
        sampler = make_probe(objective.fn, arguments.leaves, objective.rest, 2 * directions)
        calls: list[int] = []

        def probe(leaf: int, lines: list[Line], *, noise: float = 0.0, stretch: float = 1.0) -> Sample:
            sample = sampler(leaf, lines, noise=noise, stretch=stretch)
            calls.append(sample.evaluations)
            return sample

        settings = Settings(directions, max_coordinates, tolerance, words, objective.reading.stop_gradient)
        claims = [Claim(*parts) for parts in zip(itertools.count(), claimed, objective.reading.rounding, roundings)]
        finite = [
            claim._replace(gradient=np.where(np.isfinite(claim.gradient), claim.gradient, 0.0)) for claim in claims
        ]
        evidence = [gather(probe, claim, settings) for claim in finite]
        vanishing = _vanishing(gradient, arguments.leaves, [claim.gradient for claim in finite])
        unrepeatable = _unrepeatable(objective, repeats, evidence)
        findings = [
            unrepeatable or _not_finite(leaf) or judge(probe, item, reach, settings)
            for item, leaf, reach in zip(evidence, claimed, vanishing, strict=True)
        ]
    own, notes = _own_dtype_errors(f, grad_fn, arguments, objective, claimed)
    leaves = [_report(arguments, i, claimed[i], evidence[i], findings[i], own[i]) for i in range(len(claimed))]
    return GradientReport(
        verdict=overall_verdict([leaf.verdict for leaf in leaves]),
        leaves=tuple(leaves),
        skipped=arguments.skipped,
        notes=notes,
        value=evidence[0].sample.middle,
        evaluations=sum(calls),
        miss_probability=tolerance.miss_probability,
    )


def _own_dtype_errors(
    f: Callable[..., Any],
    grad_fn: Callable[..., Any] | None,
    arguments: Arguments,
    objective: Objective,
    claimed: list[Any],
) -> tuple[list[float | None], tuple[str, ...]]:
    """Relative errors of the claimed gradient in the caller's dtypes, and what there is to say about them."""
    shorter = [dtype != "float64" for dtype in arguments.dtypes]
    if not any(shorter):
        return [None] * len(claimed), ()
    if objective.reading.random:
        return [None] * len(claimed), (
            "f draws random numbers; other ones in another dtype, so the gradient in the own dtype is not compared",
        )
    own = own_dtype_gradient(f, grad_fn, arguments, objective)
    errors: list[float | None] = []
    for narrow, wide, short in zip(own, claimed, shorter, strict=True):
        with np.errstate(invalid="ignore"):  # inf - inf
            norm, difference = float(np.linalg.norm(wide)), float(np.linalg.norm(narrow - wide))
        errors.append(None if not short else difference / norm if norm else 0.0 if not difference else math.inf)
    return errors, ()


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
    arguments: Arguments, i: int, claimed: Any, evidence: Evidence, finding: Finding, own: float | None
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
        dtype_error=None if finding.verdict == "DEAD" else own,
    )
