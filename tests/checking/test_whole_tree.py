"""All leaves at once: few evaluations where all is right, and no leaf that the others drown."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients
from jaxopt_nn.checking._verdict.whole_tree import influence_groups, zero_groups

KEY = jax.random.key(0)


def draws(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_units_make_the_shares_of_the_slope_equal_and_move_no_leaf_further_than_alone():
    norms, scales = [10.0, 0.0, 0.2, 3e-7, 5e-7, 1.0], [2.0, 1.0, 0.5, 1.0, 1.0, 9.0]
    chosen = [True, True, True, True, True, False]
    first, second = influence_groups(norms, scales, chosen)
    np.testing.assert_allclose(first * norms, [0.1, 0, 0.1, 0, 0, 0])
    np.testing.assert_allclose(second * norms, [0, 0, 0, 3e-7, 3e-7, 0])
    assert np.all(first <= scales) and np.all(second <= scales)
    assert not influence_groups([1.0, 1e-9], [1.0, 1.0], [True, True])  # one leaf each: nothing to take together
    np.testing.assert_array_equal(zero_groups([0.0, 1.0, 0.0], [2.0, 2.0, 3.0], [True] * 3), [[2, 0, 3]])
    assert not zero_groups([0.0, 1.0, 0.0], [2.0, 2.0, 3.0], [True, True, False])


def net(params, x):
    """A net whose leaves differ in size by 10,000 and in influence by 300, with leaves that do nothing."""
    h = jnp.tanh(x @ params["large"] + params["bias"][None])
    return jnp.mean((h @ params["small"]) ** 2) + 1e-2 * jnp.sum(jnp.sin(params["scalar"])) + 3.0


NET = {"large": draws(1, 100, 100) / 10, "bias": draws(2, 100), "small": draws(3, 100), "scalar": draws(4, 1)[0]}
NET |= {"unused": draws(5, 7), "too": draws(6, 3)}
X = draws(7, 8, 100)


def test_a_right_gradient_costs_few_evaluations_and_the_report_says_what_is_known_of_a_leaf():
    report = check_gradients(net, NET, X, argnums=0, key=KEY)
    verdicts = {leaf.path: leaf.verdict for leaf in report.leaves}
    assert verdicts == {name: "DEAD" if name in ("unused", "too") else "PASS" for name in NET}
    assert report.evaluations <= 208  # 8 lines for those that matter, 8 for those that do not, 13 points on each
    live = [leaf for leaf in report.leaves if leaf.verdict == "PASS"]
    assert all(leaf.miss_bound < 1e-5 and leaf.directions == 8 and math.isnan(leaf.numeric_norm) for leaf in live)
    alone = check_gradients(net, NET, X, argnums=0, key=KEY, each_leaf=True)
    assert {leaf.path: leaf.verdict for leaf in alone.leaves} == verdicts
    assert alone.evaluations > 3 * report.evaluations
    for leaf in alone.leaves:
        assert leaf.verdict == "DEAD" or 0.2 < leaf.numeric_norm / leaf.claimed_norm < 5
        assert leaf.verdict == "DEAD" or leaf.miss_bound < 1e-6


@pytest.mark.parametrize(
    ("name", "factor"),
    [("scalar", 1 + 4e-5), ("bias", 1 + 4e-5), ("large", 1e-8), ("small", 1e8), ("unused", 1.0)],
    ids=["a_little_in_the_smallest", "a_little_in_a_bias", "almost_zero", "far_too_large", "not_zero"],
)
def test_no_leaf_is_drowned_by_the_others(name, factor):
    """By differences alone: the loop has no derivative in reverse mode, so there is no other oracle."""
    f = lambda p, x: jax.lax.while_loop(lambda c: c[1] < 1, lambda c: (net(p, x), 1), (jnp.zeros(()), 0))[0]  # noqa: E731

    def wrong(params, x):
        claim = jax.grad(net)(params, x)
        return {**claim, name: claim[name] * factor + (1e-6 if name == "unused" else 0)}

    report = check_gradients(f, NET, X, grad_fn=wrong, argnums=0, key=KEY)
    assert [leaf.path for leaf in report.leaves if leaf.verdict == "FAIL"] == [name], report


def test_leaves_of_equal_shape_that_changed_places_are_found():
    f = lambda a, b: jnp.sum(jnp.sin(a) * jnp.cos(2 * b))  # noqa: E731
    swapped = lambda a, b: jax.grad(f, (0, 1))(a, b)[::-1]  # noqa: E731
    report = check_gradients(f, draws(1, 20), draws(2, 20), grad_fn=swapped, key=KEY)
    assert [leaf.verdict for leaf in report.leaves] == ["FAIL", "FAIL"]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_kink_in_one_leaf_is_looked_at_alone(share):
    f = lambda p: jnp.mean(jnp.max(p["ties"].reshape(-1, 2), -1)) + jnp.mean(jnp.sin(p["smooth"]))  # noqa: E731
    point = {"ties": np.repeat(draws(1, 20), 2), "smooth": draws(2, 50)}
    claim = partial(lambda share, p: {**jax.grad(f)(p), "ties": jnp.full(40, share / 20)}, share)
    report = check_gradients(f, point, grad_fn=claim, key=KEY)
    assert {leaf.path: leaf.verdict for leaf in report.leaves} == {
        "ties": "KINK_OK" if share == 0.5 else "FAIL",
        "smooth": "PASS",
    }
