"""Verdicts other than a plain PASS: kinks, round-off, dead leaves, what is blocked or not finite, and when."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import GradientReport, LeafReport, check_gradients

KEY = jax.random.key(0)


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def looped(f, x):
    """The same in a loop that has no derivative in reverse mode: differences alone can judge it."""
    return jax.lax.while_loop(lambda c: c[1] < 1, lambda c: (f(x), c[1] + 1), (jnp.zeros(()), 0))[0]


def by_path(report: GradientReport) -> dict[str, LeafReport]:
    return {leaf.path: leaf for leaf in report.leaves}


@pytest.mark.parametrize(
    ("f", "point"),
    [
        (lambda x: jnp.sum(jax.nn.relu(x)), np.zeros(5)),
        (lambda x: jnp.sum(jnp.abs(x)), 0.0),
        (lambda x: jnp.max(x), np.ones(6)),
        (lambda x: jnp.sum(jnp.clip(x, 0.0, 1.0)), np.array([0.0, 1.0, 0.5, 2.0])),
        # Kinks of both signs cancel along some lines; the coordinates tell them apart.
        (lambda x: jax.nn.relu(x) @ np.where(np.arange(40) % 2, 1.0, -1.0), np.zeros(40)),
    ],
    ids=["relu", "abs", "max_tie", "clip", "mixed"],
)
def test_a_kink_at_the_point_is_told_apart(f, point):
    report = check_gradients(f, point, key=KEY)
    assert (report.verdict, report.ok) == ("KINK_OK", True), report
    assert report.leaves[0].kinks


@pytest.mark.parametrize("slope", [1.5, -0.5])
def test_a_claim_outside_the_one_sided_slopes_fails(slope):
    report = check_gradients(
        lambda x: jnp.sum(jax.nn.relu(x)), np.zeros(5), grad_fn=lambda x: jnp.full_like(x, slope), key=KEY
    )
    assert report.verdict == "FAIL"
    assert report.leaves[0].worst[0].claimed == slope
    np.testing.assert_allclose(report.leaves[0].worst[0].numeric, round(slope / 2 + 0.1))  # the nearest side: 1 or 0


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "KINK_OK"), (1.0, "FAIL")])
def test_a_tie_that_gets_the_cotangent_twice_is_found_in_a_large_leaf(share, verdict):
    """At each coordinate the claim lies between the one-sided slopes; together they are too large."""
    f = lambda x: jnp.mean(jnp.max(x.reshape(-1, 2), -1))  # noqa: E731
    x = np.repeat(draws(1, 5000), 2)
    report = check_gradients(f, x, grad_fn=lambda x: jnp.full_like(x, share / 5000), key=KEY)
    assert report.verdict == verdict, report


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "PASS"), (1.0001, "FAIL")])
def test_float32_inside_f_is_judged_in_float64(factor, verdict):
    def f(x):
        return jnp.mean(jnp.sin(x.astype(jnp.float32)))

    report = check_gradients(f, draws(1, 1000), grad_fn=lambda x: factor * jnp.cos(x) / 1000, key=KEY)
    assert report.verdict == verdict
    assert any(re.search(r"rounds to a shorter float: float32 at test_verdicts.py:\d+;", note) for note in report.notes)


def test_a_staircase_is_not_taken_for_a_constant():
    """Every step is smaller than a float32 stair here: there all differences are zero."""
    report = check_gradients(lambda x: (1 + 1e-6 * x).astype(jnp.float32), 1.0, key=KEY)
    assert report.verdict == "PASS", report


def test_where_round_off_hides_the_gradient_the_exact_one_alone_decides():
    f = lambda x: 1e12 + jnp.mean(jnp.sin(x))  # noqa: E731
    leaf = check_gradients(f, draws(1, 100), key=KEY).leaves[0]
    assert (leaf.verdict, leaf.miss_bound) == ("PASS", np.inf)
    assert leaf.hypothesis == "by rule-stripped AD alone: differences are too coarse here"
    blind = check_gradients(lambda x: looped(f, x), draws(1, 100), grad_fn=jax.grad(f), key=KEY)
    assert blind.verdict == "INCONCLUSIVE"
    assert "any error could escape" in blind.leaves[0].hypothesis


@pytest.mark.parametrize(
    "f", [lambda x: 1e6 + jnp.mean(jnp.sin(x)), lambda x: jnp.mean(jnp.sin(1e4 * x))], ids=["offset", "short_waves"]
)
def test_a_ladder_that_does_not_fit_is_moved(f):
    report = check_gradients(f, draws(1, 1000), key=KEY)
    assert report.verdict == "PASS", report


def test_leaves_without_influence_are_dead():
    def f(p):
        x = (
            p["x"] * p["scale"][None] + p["bias"][None]
        )  # the bias before a normalization has a gradient of round-off only
        return jnp.mean(jnp.tanh((x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-5)) ** 3)

    point = {"x": draws(1, 50, 4) ** 2, "scale": draws(2, 4), "bias": draws(3, 4), "unused": draws(4, 3)}
    verdicts = {path: leaf.verdict for path, leaf in by_path(check_gradients(f, point, key=KEY)).items()}
    assert verdicts == {"bias": "DEAD", "scale": "PASS", "unused": "DEAD", "x": "PASS"}


def test_a_gradient_that_is_too_small_to_be_seen_is_not_taken_for_zero():
    def f(p):
        return 1e13 * jnp.mean(p["large"] ** 2) + jnp.mean(jnp.sin(p["small"]))

    point = {"large": draws(1, 9), "small": draws(2, 9)}
    for factor, verdict in ((1.0, "PASS"), (0.0, "FAIL"), (2.0, "FAIL")):
        claim = lambda p, factor=factor: {**jax.grad(f)(p), "small": factor * jax.grad(f)(p)["small"]}  # noqa: E731
        leaves = by_path(check_gradients(f, point, key=KEY, grad_fn=claim))
        assert {path: leaf.verdict for path, leaf in leaves.items()} == {"large": "PASS", "small": verdict}
    assert check_gradients(f, point, key=KEY).ok


def test_a_function_without_slope_is_dead_as_a_whole():
    report = check_gradients(lambda x: jnp.sum(jnp.round(x)), np.array([0.1, 1.2]), key=KEY)
    assert (report.verdict, report.ok) == ("DEAD", True)


def test_a_zero_claim_for_a_live_leaf_fails():
    leaf = check_gradients(lambda x: jnp.mean(jnp.sin(x)), draws(1, 500), grad_fn=jnp.zeros_like, key=KEY).leaves[0]
    assert (leaf.verdict, leaf.hypothesis.split(",")[0]) == ("FAIL", "claimed is zero on args[0]")


def test_a_gradient_that_is_not_finite_fails_and_says_where():
    report = check_gradients(
        lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0)), np.array([[1.0, 2.0], [0.0, 3.0]]), key=KEY
    )
    assert report.verdict == "FAIL"
    assert report.leaves[0].hypothesis == "claimed is not finite at 1 of 4 coordinates, first at [1, 0]"
    json.dumps(report.to_dict(), allow_nan=False)


def test_stop_gradient_may_be_meant():
    f = lambda x: jnp.mean((x - jax.lax.stop_gradient(jnp.sin(x))) ** 2)  # noqa: E731
    assert check_gradients(f, draws(1, 30), key=KEY).verdict == "BLOCKED"
    assert check_gradients(f, draws(1, 30), key=KEY, stop_gradient="constant").verdict == "PASS"
    other = lambda x: jax.grad(f)(x) * 1.01  # noqa: E731
    assert check_gradients(f, draws(1, 30), key=KEY, grad_fn=other, stop_gradient="constant").verdict == "FAIL"


def test_what_is_no_function_is_nondeterministic():
    calls = []

    def stateful(x):
        calls.append(1)
        return jnp.sum(x) * len(calls)

    def noisy(x):
        noise = jax.pure_callback(lambda: np.float32(np.random.rand()), jax.ShapeDtypeStruct((), np.float32))
        return jnp.sum(x) + jax.lax.stop_gradient(noise)

    noise = np.random.default_rng(0)
    for f, grad_fn, reason in [
        (stateful, None, "two traces of f"),
        (noisy, lambda x: jnp.ones_like(x), "two calls of f"),
        (jnp.sum, lambda x: noise.random(x.shape), "two calls of grad_fn"),
    ]:
        report = check_gradients(f, draws(1, 20), grad_fn=grad_fn, key=KEY)
        assert report.verdict == "NONDETERMINISTIC", report
        assert reason in report.leaves[0].hypothesis


def test_a_zero_claim_that_round_off_hides_is_not_dead():
    """All values of f are equal here, bit for bit, or nearly, but its gradient is not zero: no differences can tell."""
    offset = lambda by: check_gradients(  # noqa: E731
        lambda x: by + jnp.sum(jnp.sin(x)), np.ones(20), grad_fn=jnp.zeros_like, key=KEY
    )
    found = offset(1e12)
    assert found.verdict == "FAIL", found
    assert offset(1e17).verdict == "INCONCLUSIVE"  # as large as round-off of f where its terms cancel
    stairs = check_gradients(lambda x: (1 + 1e-6 * x).astype(jnp.float32), 1.0, grad_fn=lambda x: 0 * x, key=KEY)
    assert not stairs.ok


def test_the_own_dtype_is_not_compared_with_a_gradient_of_which_nothing_is_known():
    def gradient(x):
        return (jnp.cos(x) + 1e6 - 1e6) / 100  # in float32 half of the digits are lost

    offsets = {0.0: "FAIL", 1e12: None}
    for offset, expected in offsets.items():
        f = lambda x, by=offset: looped(lambda x: by + jnp.mean(jnp.sin(x)), x)  # noqa: E731
        report = check_gradients(f, draws(1, 100), grad_fn=gradient, key=KEY)
        assert report.leaves[0].dtype_error > 1e-3
        assert report.leaves[0].dtype_verdict == expected, report
    assert report.verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("distance", [2e-8, 5e-7, 1e-6])
@pytest.mark.parametrize("size", [1e-4, 1e-1])
def test_a_kink_near_the_point_is_no_error(size, distance):
    """Most steps reach over it, and agree on a slope that is not the one at the point."""
    weights = draws(0, 7).astype(np.float64)
    with jax.enable_x64(True):
        for seed in range(3):
            report = check_gradients(
                lambda w: jnp.sum(jnp.sin(w) * weights) + size * jnp.abs(w[0] - 1.0 - distance),
                np.ones(7),
                key=jax.random.key(seed),
            )
            assert report.ok, report


def test_at_a_minimum_round_off_is_no_slope():
    """F's values are few multiples of a unit of round-off there: some lines show the same ones at several steps."""
    with jax.enable_x64(True):
        for seed in range(6):
            x = np.random.default_rng(seed).choice((-1.0, 0.0, 1.0), 2)
            report = check_gradients(
                lambda p, x=x: jnp.sum(900 * (x @ p[0] + p[1] - 1.0) ** 2),
                (np.zeros(2), np.ones(1)),
                key=jax.random.key(seed),
            )
            assert report.verdict == "INCONCLUSIVE", report
            assert "no gradient to compare with" in str(report)


RATES = np.array([0.04, 3e7, 1e4])


def saturated(k):
    """Rates of a stiff reaction: what is left of each after a step of implicit Euler."""
    return jnp.sum(jnp.array([3.0, 1.0, -2.0]) / (1.0 + k / RATES)) + jnp.prod(k / RATES)


SCALES = np.tile([1e-4, 1e4], 20)


@pytest.mark.parametrize(
    ("f", "point"),
    [
        (saturated, RATES),
        (lambda w: jnp.sum(jnp.sin(w / SCALES)), SCALES * draws(1, 40)),
        (lambda w: jnp.sum(jnp.sin(w / SCALES[:2])), SCALES[:2] * draws(1, 2)),
    ],
    ids=["rates", "sine_40", "sine_2"],
)
def test_numbers_of_far_different_scale_in_one_leaf_have_steps_of_their_own(f, point):
    with jax.enable_x64(True):
        assert check_gradients(f, point, key=KEY).verdict == "PASS"
        wrong = lambda w: jax.grad(f)(w).at[0].multiply(1.5)  # noqa: E731
        leaf = check_gradients(f, point, grad_fn=wrong, key=KEY).leaves[0]
        assert (leaf.verdict, leaf.worst[0].place) == ("FAIL", (0,))
        np.testing.assert_allclose(leaf.worst[0].claimed / leaf.worst[0].numeric, 1.5, rtol=1e-5)


def test_what_exact_derivatives_say_does_not_fail():
    """Sigmoids of a slope that most steps reach over."""
    f = lambda w: jnp.sum(jax.nn.sigmoid(3e6 * (w - 0.5)))  # noqa: E731
    with jax.enable_x64(True):
        point = 0.5 + 1e-7 * draws(1, 100).astype(np.float64)
        assert check_gradients(f, point, key=KEY).ok
        assert check_gradients(lambda w: looped(f, w), point, grad_fn=jax.grad(f), key=KEY).verdict != "FAIL"
        twice = lambda w: 2 * jax.grad(f)(w)  # noqa: E731
        assert check_gradients(lambda w: looped(f, w), point, grad_fn=twice, key=KEY).verdict == "FAIL"


@pytest.mark.slow
def test_samples_whose_derivative_is_implicit_are_not_wrong():
    f = lambda shape, key: jnp.mean(jax.random.gamma(key, shape))  # noqa: E731
    report = check_gradients(f, np.array([0.7, 1.5]), jax.random.key(3), argnums=0, key=KEY)
    assert report.verdict == "INCONCLUSIVE"
    assert "implicit reparametrization" in report.leaves[0].hypothesis
    double = lambda shape, key: 2 * jax.grad(f)(shape, key)  # noqa: E731
    assert (
        check_gradients(f, np.array([0.7, 1.5]), jax.random.key(3), argnums=0, grad_fn=double, key=KEY).verdict
        == "FAIL"
    )


def test_equal_draws_from_one_key_are_a_note():
    """One mask for all time steps, as in locked dropout; to draw another shape from that key is a mistake."""

    def f(w, key, shape):
        mask = lambda shape: jax.random.bernoulli(key, 0.8, shape)  # noqa: E731
        return jnp.sum(jnp.sin(w) * mask((20,))) + jnp.sum(w**2) * jnp.mean(mask(shape))

    locked, other = (
        check_gradients(lambda w, key, shape=shape: f(w, key, shape), draws(1, 20), key, argnums=0, key=KEY)
        for key, shape in ((jax.random.key(3), (20,)), (jax.random.key(3), (4, 20)))
    )
    assert locked.ok and any("locked dropout" in note for note in locked.notes)
    assert other.verdict == "INCONCLUSIVE" and "split it" in other.leaves[0].hypothesis
