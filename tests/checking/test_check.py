"""`check_gradients`: planted bugs are found where they are, correct gradients pass, and nothing is left behind."""

import json
import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import GradientReport, LeafReport, check_gradients

KEY = jax.random.key(0)


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def with_rule(backward):
    """The sine with a derivative of one's own."""
    sin = jax.custom_vjp(jnp.sin)
    sin.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (backward(x, ct),))
    return sin


def flip_seventh(x, ct):
    right = ct * jnp.cos(x)
    return right.at[7].multiply(-1.0)


def half_stopped(x):
    return jnp.sin(jnp.where(np.arange(x.size) < x.size // 2, jax.lax.stop_gradient(x), x))


def product(kernel, transposed):
    """tanh(A @ kernel) with a hand-written rule for the product."""
    a = jnp.asarray(draws(99, *kernel.shape))
    matmul = jax.custom_vjp(lambda k: a @ k)
    matmul.defvjp(lambda k: (a @ k, None), lambda _, ct: ((a.T @ ct).T if transposed else a.T @ ct,))
    return jnp.tanh(matmul(kernel))


RULES = {
    "double": with_rule(lambda x, ct: 2 * ct * jnp.cos(x)),
    "flipped": with_rule(flip_seventh),
    "negated": with_rule(lambda x, ct: -ct * jnp.cos(x)),
    "percent": with_rule(lambda x, ct: 1.01 * ct * jnp.cos(x)),
    "stopped": half_stopped,
    "transposed": partial(product, transposed=True),
}
TWINS = {name: with_rule(lambda x, ct: ct * jnp.cos(x)) for name in RULES}
TWINS["transposed"] = partial(product, transposed=False)


def planted(n: int) -> dict[str, np.ndarray]:
    """For every bug a leaf with it, and a twin without."""
    side = int(np.sqrt(n))
    point = {name: draws(i, *((side, side) if name == "transposed" else (n,))) for i, name in enumerate(RULES)}
    return {"bug": point, "right": point}


def planted_loss(params, reduce):
    return sum(reduce(RULES[name](x)) for name, x in params["bug"].items()) + sum(
        reduce(TWINS[name](x)) for name, x in params["right"].items()
    )


def by_path(report: GradientReport) -> dict[str, LeafReport]:
    return {leaf.path: leaf for leaf in report.leaves}


@pytest.mark.parametrize(
    ("reduce", "n", "x64"),
    [(jnp.sum, 100, False), (jnp.mean, 400, True), (jnp.mean, 4_900, False)],
    ids=["sum-100-f32", "mean-400-f64", "mean-4900-f32"],
)
def test_planted_bugs_are_found_at_their_leaves_and_the_twins_pass(reduce, n, x64):
    with jax.enable_x64(x64):
        params = jax.tree.map(lambda x: jnp.asarray(x, float), planted(n))
        leaves = by_path(check_gradients(partial(planted_loss, reduce=reduce), params, key=jax.random.key(n)))
    assert {path: leaf.verdict for path, leaf in leaves.items()} == {
        **{f"bug/{name}": "BLOCKED" if name == "stopped" else "FAIL" for name in RULES},
        **{f"right/{name}": "PASS" for name in RULES},
    }
    assert all(leaves[f"right/{name}"].miss_bound < 1e-6 for name in RULES)
    percent = leaves["bug/percent"]
    assert 0.2 * 0.01 < percent.relative_error < 3 * 0.01
    assert 0.01 / 1.01 < percent.miss_bound < 1
    assert percent.relative_sigma < 1e-6
    assert "ratio 2.0000" in leaves["bug/double"].hypothesis
    assert "ratio 1.0100" in leaves["bug/percent"].hypothesis
    assert "the sign is flipped" in leaves["bug/negated"].hypothesis
    assert "transpose" in leaves["bug/transposed"].hypothesis
    assert "stop_gradient" in leaves["bug/stopped"].hypothesis
    worst = leaves["bug/flipped"].worst[0]
    slope = np.cos(np.float64(params["bug"]["flipped"][7])) / (n if reduce is jnp.mean else 1)
    assert worst.place == (7,)
    np.testing.assert_allclose([worst.claimed, worst.numeric], [-slope, slope], rtol=1e-6)
    assert leaves["bug/stopped"].worst[0].place[0] < n // 2
    assert leaves["bug/stopped"].worst[0].claimed == 0
    if n <= 400:
        assert f"1 of {n} coordinates" in leaves["bug/flipped"].hypothesis
        assert f"{n // 2} of {n} coordinates are wrong; there claimed is zero" in leaves["bug/stopped"].hypothesis
    assert re.search(r"stop_gradient at test_check.py:\d+ blocks [01][.\d]* of it", leaves["bug/stopped"].hypothesis)
    assert re.search(r"the custom_vjp rule of sin at test_check.py:\d+ is wrong", leaves["bug/flipped"].hypothesis)


def test_no_false_alarm_over_many_cases_and_directions():
    """8 random layers in one function, 64 directions in each of 16 leaves: 1,024 comparisons."""
    activations = [jnp.tanh, jax.nn.relu, jax.nn.gelu, jax.nn.softplus, jnp.sin, lambda z: jnp.logaddexp(z, -z)]
    shapes = [(2, 3), (17, 4), (40, 25), (1, 9)]
    x = {str(i): draws(i, 16, shapes[i % 4][0]) for i in range(8)}
    params = {
        str(i): {"kernel": draws(i + 50, *shapes[i % 4]), "bias": np.zeros(shapes[i % 4][1], np.float32)}
        for i in range(8)
    }

    def loss(params, x):
        outputs = {i: activations[int(i) % 6](x[i] @ p["kernel"] + p["bias"][None]) for i, p in params.items()}
        return sum(jnp.mean(out**2) if int(i) % 2 else jnp.sum(out) for i, out in outputs.items())

    report = check_gradients(loss, params, x, argnums=0, directions=32, key=KEY)
    assert report.verdict == "PASS", report


def backpropagation(params, x, y):
    """Mean squared error of a net of two layers, by hand, in NumPy."""
    x, y = np.asarray(x), np.asarray(y)
    k1, b1, k2, b2 = (np.asarray(params[name]) for name in ("k1", "b1", "k2", "b2"))
    hidden = np.tanh(x @ k1 + b1)
    error = 2 * (hidden @ k2 + b2 - y) / y.size
    back = (error @ k2.T) * (1 - hidden**2)
    return {"k1": x.T @ back, "b1": back.sum(0), "k2": hidden.T @ error, "b2": error.sum(0)}


def net_loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["k1"] + params["b1"][None]) @ params["k2"] + params["b2"][None] - y) ** 2)


NET = {"k1": draws(1, 6, 5), "b1": draws(2, 5), "k2": draws(3, 5, 3), "b2": draws(4, 3)}
NET_DATA = (draws(5, 20, 6), draws(6, 20, 3))


def test_hand_written_backpropagation_passes():
    report = check_gradients(net_loss, NET, *NET_DATA, grad_fn=backpropagation, argnums=0, key=KEY)
    assert report.verdict == "PASS", report
    assert all(0 < leaf.dtype_error < 1e-5 for leaf in report.leaves)  # float32 against float64, recorded
    by_hand, own = backpropagation(NET, *NET_DATA), by_path(report)
    for name, gradient in by_hand.items():
        np.testing.assert_allclose(own[name].claimed_norm, np.linalg.norm(gradient), rtol=1e-5)
        np.testing.assert_allclose(own[name].numeric_norm, np.linalg.norm(gradient), rtol=1.0)


def test_hand_written_backpropagation_with_a_forgotten_derivative_fails_at_the_first_layer():
    def forgotten(params, x, y):  # the derivative of tanh is missing
        k1, b1, k2, b2 = (np.asarray(params[name]) for name in ("k1", "b1", "k2", "b2"))
        x, y = np.asarray(x), np.asarray(y)
        back = 2 * (np.tanh(x @ k1 + b1) @ k2 + b2 - y) / y.size @ k2.T
        return {**backpropagation(params, x, y), "k1": x.T @ back, "b1": back.sum(0)}

    report = check_gradients(net_loss, NET, *NET_DATA, grad_fn=forgotten, argnums=0, key=KEY)
    assert {path: leaf.verdict for path, leaf in by_path(report).items()} == {
        "b1": "FAIL",
        "b2": "PASS",
        "k1": "FAIL",
        "k2": "PASS",
    }
    with pytest.raises(AssertionError, match=r"(?s)gradient check: FAIL \(2 FAIL, 2 PASS\).*b1 .*FAIL"):
        report.assert_ok()


def test_one_wrong_coordinate_of_a_large_leaf_is_found_by_bisection():
    n, bad = 100_000, 77_777
    wrong = lambda x: (2 * x / n).at[bad].multiply(1.5)  # noqa: E731
    leaf = check_gradients(lambda x: jnp.mean(x**2), draws(0, n), grad_fn=wrong, key=KEY).leaves[0]
    assert (leaf.verdict, leaf.worst[0].place) == ("FAIL", (bad,))


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


def test_array_outputs_are_checked_through_a_random_cotangent():
    x = draws(1, 300)
    assert check_gradients(jnp.sin, x, key=KEY).verdict == "PASS"
    report = check_gradients(RULES["flipped"], x, key=KEY)
    assert report.leaves[0].worst[0].place == (7,)


def test_the_precision_of_the_process_is_untouched():
    x = draws(1, 10)
    seen = []

    def f(x):
        seen.append((x.dtype, jax.config.jax_default_matmul_precision))
        return jnp.sum(x**2)

    with jax.enable_x64(False):
        check_gradients(f, x, key=KEY)
        assert jnp.ones(()).dtype == jnp.float32
        assert jax.config.jax_default_matmul_precision is None
        with pytest.raises(ValueError, match="f: expected a finite value"):
            check_gradients(lambda x: jnp.log(-jnp.sum(x**2)), x, key=KEY)
        assert jnp.ones(()).dtype == jnp.float32
    assert (jnp.float64, "highest") in seen


@pytest.mark.parametrize("factor", [1.0, 1.0001])
def test_float32_inside_f_is_inconclusive_never_a_pass(factor):
    def f(x):
        return jnp.mean(jnp.sin(x.astype(jnp.float32)))

    report = check_gradients(f, draws(1, 1000), grad_fn=lambda x: factor * jnp.cos(x) / 1000, key=KEY)
    assert not report.ok
    if factor == 1.0:
        assert report.verdict == "INCONCLUSIVE"
        assert "rounds to a shorter float (unit 1.2e-07)" in report.leaves[0].hypothesis
    else:  # what differences cannot see, the exact oracle can
        assert report.verdict == "FAIL"
        assert "by rule-stripped AD alone" in report.leaves[0].hypothesis


def test_a_staircase_is_not_taken_for_a_constant():
    """Every step is smaller than a float32 stair here, so all differences are zero, and the claim is right."""
    report = check_gradients(lambda x: (1 + 1e-6 * x).astype(jnp.float32), 1.0, key=KEY)
    assert report.verdict == "INCONCLUSIVE", report


def test_round_off_that_hides_the_gradient_is_inconclusive():
    report = check_gradients(lambda x: 1e12 + jnp.mean(jnp.sin(x)), draws(1, 100), key=KEY)
    assert (report.verdict, report.leaves[0].miss_bound) == ("INCONCLUSIVE", np.inf)
    assert "any error could escape" in report.leaves[0].hypothesis


@pytest.mark.parametrize(
    "f", [lambda x: 1e6 + jnp.mean(jnp.sin(x)), lambda x: jnp.mean(jnp.sin(1e4 * x))], ids=["offset", "short_waves"]
)
def test_a_ladder_that_does_not_fit_is_moved(f):
    report = check_gradients(f, draws(1, 1000), key=KEY)
    assert report.verdict == "PASS", report


def test_bfloat16_leaves_are_widened_and_their_own_error_is_recorded():
    x = jnp.asarray(draws(1, 500), jnp.bfloat16)
    leaf = check_gradients(lambda x: jnp.sum(jnp.tanh(x)), x, key=KEY).leaves[0]
    assert (leaf.verdict, leaf.dtype) == ("PASS", "bfloat16")
    assert 1e-4 < leaf.dtype_error < 0.1


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

    leaves = by_path(check_gradients(f, {"large": draws(1, 9), "small": draws(2, 9)}, key=KEY))
    assert {path: leaf.verdict for path, leaf in leaves.items()} == {"large": "PASS", "small": "INCONCLUSIVE"}


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


def test_integers_keys_and_python_values_are_left_alone_and_named():
    def f(params, labels, key, train, power):
        assert train is True
        mask = jax.random.bernoulli(key, 0.5, params["w"].shape)
        return jnp.mean(jnp.where(mask, params["w"], 0.0)[labels] ** power)

    args = ({"w": draws(1, 30), "n": np.int32(3)}, np.arange(4), jax.random.key(1), True, 2)
    report = check_gradients(f, *args, key=KEY)
    assert report.verdict == "PASS"
    assert report.skipped == ("0/n (int32)", "1 (int64)", "2 (key<fry>)", "3 (bool)", "4 (int64)")
    assert report.leaves[0].dtype_error is None  # other random numbers in float32
    assert any("random numbers" in note for note in report.notes)
    assert check_gradients(f, *args, argnums=0, key=KEY).skipped == ("n (int32)",)


def test_argnums_and_trees_of_the_claim_follow_jax_grad():
    a, b = draws(1, 20), draws(2, 20)
    f = lambda a, b: jnp.sum(jnp.sin(a) * b)  # noqa: E731
    for argnums, asked in [(None, (0, 1)), (0, 0), ((1, 0), (1, 0))]:
        report = check_gradients(f, a, b, grad_fn=jax.grad(f, asked), argnums=argnums, key=KEY)
        assert report.verdict == "PASS", report


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


def test_the_same_key_gives_the_same_report_and_another_key_another():
    f = lambda x: jnp.mean(jnp.sin(x))  # noqa: E731
    first, again, other = (check_gradients(f, draws(1, 50), key=jax.random.key(seed)) for seed in (1, 1, 2))
    chex.assert_trees_all_equal(first.to_dict(), again.to_dict())
    assert first.leaves[0].relative_error != other.leaves[0].relative_error


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: check_gradients(jnp.sum, np.arange(3), key=KEY),
            TypeError,
            r"args: .*float leaf.* args\[0\] \(int64\)",
        ),
        (lambda: check_gradients(jnp.sum, np.ones(3), key=3), TypeError, "key: expected a PRNG key, got 3"),
        (lambda: check_gradients(jnp.log, -np.ones(3), key=KEY), ValueError, "f: expected a finite value"),
        (lambda: check_gradients(jnp.sum, {"w": np.array([np.nan])}, key=KEY), ValueError, "w: expected finite values"),
        (
            lambda: check_gradients(jnp.sum, np.ones(3, complex), key=KEY),
            TypeError,
            r"args\[0\]: expected a real array",
        ),
        (lambda: check_gradients(lambda x: (x, x), np.ones(3), key=KEY), TypeError, "f: expected one real float array"),
        (lambda: check_gradients(lambda x: x > 0, np.ones(3), key=KEY), TypeError, r"f: expected one real .*bool\[3\]"),
        (
            lambda: check_gradients(lambda p: jnp.sum(p["a"]), {"a": np.ones(3)}, grad_fn=lambda p: p["a"], key=KEY),
            ValueError,
            r"grad_fn: the tree does not match: missing \['a'\]",
        ),
        (
            lambda: check_gradients(
                lambda p: jnp.sum(p["a"]), {"a": np.ones(3)}, grad_fn=lambda _: {"a": 1.0}, key=KEY
            ),
            ValueError,
            r"grad_fn\[a\]: expected float64\[3\], got float64\[\]",
        ),
        (
            lambda: check_gradients(jnp.sin, np.ones(3), grad_fn=jnp.cos, key=KEY),
            ValueError,
            r"grad_fn: expected a scalar output of f, got an output of shape \[3\]",
        ),
        (
            lambda: jax.jit(lambda x: check_gradients(jnp.sum, x, key=KEY).value)(np.ones(3)),
            TypeError,
            r"args\[0\]: expected a concrete array, got a traced one",
        ),
        (lambda: check_gradients(jnp.sum, np.ones(3), argnums=1, key=KEY), ValueError, "argnums: expected integers"),
        (
            lambda: check_gradients(jnp.sum, np.ones(3), directions=1, key=KEY),
            ValueError,
            "directions: expected an int",
        ),
        (
            lambda: check_gradients(jnp.sum, np.ones(3), rtol=-1.0, key=KEY),
            ValueError,
            "rtol: expected a finite number",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_function_that_rejects_float64_says_that_it_got_float64():
    def f(x):
        return jax.lax.scan(lambda c, a: (c + a, None), jnp.zeros((), jnp.float32), x)[0]

    with pytest.raises(TypeError, match="carry") as caught:
        check_gradients(f, draws(1, 5), key=KEY)
    assert any("float64" in note for note in caught.value.__notes__)


@jax.custom_vjp
def sin_with_a_constant_slope(x):
    return jnp.sin(x)


sin_with_a_constant_slope.defvjp(
    lambda x: (jnp.sin(x), jax.lax.stop_gradient(jnp.cos(x))), lambda cos, ct: (ct * jax.lax.stop_gradient(cos),)
)


def test_a_right_gradient_with_a_wrong_hessian_fails_in_the_second_order():
    f = lambda x: jnp.mean(sin_with_a_constant_slope(x) ** 2)  # noqa: E731
    assert check_gradients(f, draws(1, 30), key=KEY).ok
    report = check_gradients(f, draws(1, 30), key=KEY, order=2)
    assert (report.verdict, report.ok, report.second.ok) == ("PASS", False, False)
    assert "second order" in str(report)
    json.dumps(report.to_dict(), allow_nan=False)
    assert check_gradients(lambda x: jnp.mean(jnp.sin(x) ** 2), draws(1, 30), key=KEY, order=2).ok


def test_stop_gradient_may_be_meant():
    f = lambda x: jnp.mean((x - jax.lax.stop_gradient(jnp.sin(x))) ** 2)  # noqa: E731
    assert check_gradients(f, draws(1, 30), key=KEY).verdict == "BLOCKED"
    assert check_gradients(f, draws(1, 30), key=KEY, stop_gradient="constant").verdict == "PASS"
    other = lambda x: jax.grad(f)(x) * 1.01  # noqa: E731
    assert check_gradients(f, draws(1, 30), key=KEY, grad_fn=other, stop_gradient="constant").verdict == "FAIL"


def test_a_gradient_that_is_wrong_in_float32_only_has_a_verdict_of_its_own():
    def normalized(x, two_pass):
        centre = jnp.mean(x)
        variance = jnp.mean((x - centre) ** 2) if two_pass else jnp.mean(x**2) - centre**2
        return jnp.mean(((x - centre) / jnp.sqrt(variance + 1e-5)) ** 3)

    bad, good = (check_gradients(partial(normalized, two_pass=two), draws(1, 50) + 2000, key=KEY) for two in (0, 1))
    assert (bad.verdict, bad.dtype_verdict, bad.ok) == ("PASS", "FAIL", False)
    assert "in the own dtype: FAIL" in str(bad)
    assert (good.verdict, good.dtype_verdict, good.ok) == ("PASS", "PASS", True)


def test_one_coordinate_that_is_a_little_wrong_in_a_large_leaf_is_found_by_the_exact_oracle():
    n, bad = 100_000, 77_777
    wrong = lambda x: (2 * x / n).at[bad].multiply(1 + 1e-5)  # noqa: E731
    with jax.enable_x64(True):
        x = np.float64(draws(0, n))
        leaf = check_gradients(lambda x: jnp.mean(x**2), x, grad_fn=wrong, key=KEY).leaves[0]
    assert (leaf.verdict, leaf.worst[0].place) == ("FAIL", (bad,))
    assert leaf.rule_error < 1e-6


def test_keys_that_are_used_twice_are_named():
    one, two = jax.random.split(jax.random.key(3))
    noisy = lambda x, a, b: jnp.sum(x * (jax.random.normal(a, x.shape) + jax.random.uniform(b, x.shape)))  # noqa: E731
    assert check_gradients(noisy, draws(1, 4), one, two, key=KEY).ok
    with pytest.raises(ValueError, match=r"args\[2\]: expected a key of its own, got that of args\[1\]"):
        check_gradients(noisy, draws(1, 4), one, one, key=KEY)
    with pytest.raises(ValueError, match=r"args\[1\]: expected a key of its own, got that of key"):
        check_gradients(noisy, draws(1, 4), KEY, two, key=KEY)
    report = check_gradients(lambda x, key: noisy(x, key, key), draws(1, 4), one, key=KEY)
    assert report.verdict == "INCONCLUSIVE"
    assert "twice from one key" in report.leaves[0].hypothesis


def test_a_function_that_closes_over_a_traced_value_is_named():
    def inner(y):
        return check_gradients(lambda x: jnp.sum(x * y), np.ones(3), key=KEY).value

    with pytest.raises(TypeError, match="f: it closes over a traced value"):
        jax.jit(inner)(np.ones(3))


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "KINK_OK"), (1.0, "FAIL")])
def test_a_tie_that_gets_the_cotangent_twice_is_found_in_a_large_leaf(share, verdict):
    """At each coordinate the claim lies between the one-sided slopes; together they are too large."""
    f = lambda x: jnp.mean(jnp.max(x.reshape(-1, 2), -1))  # noqa: E731
    x = np.repeat(draws(1, 5000), 2)
    report = check_gradients(f, x, grad_fn=lambda x: jnp.full_like(x, share / 5000), key=KEY)
    assert report.verdict == verdict, report
