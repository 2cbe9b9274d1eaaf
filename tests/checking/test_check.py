"""`check_gradients`: planted bugs are found where they are, correct gradients pass, and nothing is left behind."""

import re
from functools import partial

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


@pytest.mark.slow
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

    report = check_gradients(loss, params, x, argnums=0, directions=32, key=KEY, each_leaf=True)
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


def test_array_outputs_are_checked_through_a_random_cotangent():
    x = draws(1, 300)
    assert check_gradients(jnp.sin, x, key=KEY).verdict == "PASS"
    report = check_gradients(RULES["flipped"], x, key=KEY)
    assert report.leaves[0].worst[0].place == (7,)


def test_one_coordinate_that_is_a_little_wrong_in_a_large_leaf_is_found_by_the_exact_oracle():
    n, bad = 100_000, 77_777
    wrong = lambda x: (2 * x / n).at[bad].multiply(1 + 1e-5)  # noqa: E731
    with jax.enable_x64(True):
        x = np.float64(draws(0, n))
        leaf = check_gradients(lambda x: jnp.mean(x**2), x, grad_fn=wrong, key=KEY).leaves[0]
    assert (leaf.verdict, leaf.worst[0].place) == ("FAIL", (bad,))
    assert leaf.rule_error < 1e-6
