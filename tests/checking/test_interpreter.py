"""Programs run again: without their rules, with stop_gradients open or frozen, and with the branches they take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxopt_nn.checking._jaxpr.interpreter import Policy, is_jax_code, run, sites

X = np.random.default_rng(0).standard_normal(5) + 0.3


@jax.custom_vjp
def bad_sin(x):
    return jnp.sin(x)


bad_sin.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (2 * ct * jnp.cos(x),))

NESTS = {
    "plain": lambda s, x: s(x),
    "jit": lambda s, x: jax.jit(s)(x),
    "scan": lambda s, x: lax.scan(lambda c, t: (s(c) * t, c), x, jnp.arange(1.0, 4.0))[0],
    "cond": lambda s, x: lax.cond(jnp.sum(x) > 0, s, lambda x: x, x),
    "checkpoint": lambda s, x: jax.checkpoint(lambda x: s(x) * x)(x),
    "fori": lambda s, x: lax.fori_loop(0, 3, lambda i, c: jnp.abs(s(c)), x),
    "vmap": lambda s, x: jax.vmap(s)(x),
    "while": lambda s, x: lax.while_loop(lambda c: jnp.max(c) < 0, lambda c: s(c), x) + s(x),
}


def traced(f):
    return jax.make_jaxpr(f)(X)


@pytest.mark.parametrize("name", NESTS)
def test_rules_are_stripped_wherever_they_are(name):
    with jax.enable_x64(True):
        program = traced(lambda x: jnp.sum(NESTS[name](bad_sin, x)))
        plain = Policy(lambda _: True, lambda _: True)
        assert [site.kind for site in sites(program) if not is_jax_code(site)] == ["custom_vjp"]
        stripped = lambda x: run(program, plain, [x])[0][0]  # noqa: E731
        right = lambda x: jnp.sum(NESTS[name](jnp.sin, x))  # noqa: E731
        np.testing.assert_array_equal(stripped(X), right(X))
        tangent = np.ones(5)
        slopes = [jax.jvp(f, (X,), (tangent,))[1] for f in (stripped, right)]
        np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-12)
        if name != "while":
            kept = lambda x: run(program, Policy(lambda _: False, lambda _: True), [x])[0][0]  # noqa: E731
            assert np.max(np.abs(jax.grad(kept)(X) - jax.grad(right)(X))) > 0.1


def test_sites_say_where_they_are():
    found = sites(traced(lambda x: jax.nn.relu(bad_sin(lax.stop_gradient(x)))))
    assert [site.kind for site in found] == ["stop_gradient", "custom_vjp", "custom_jvp"]
    assert [is_jax_code(site) for site in found] == [False, False, True]
    assert str(found[0]).startswith("stop_gradient at test_interpreter.py:")
    assert str(found[1]).startswith("the custom_vjp rule of bad_sin at test_interpreter.py:")


def test_a_rule_that_defjvps_gives_a_function_of_jax_is_the_users():
    sin = jax.custom_jvp(jnp.sin)
    sin.defjvps(lambda t, out, x: 2 * t * jnp.cos(x))
    users, jax_own = sites(traced(lambda x: jax.nn.relu(sin(x))))
    assert (is_jax_code(users), is_jax_code(jax_own)) == (False, True)
    assert str(users).startswith("the custom_jvp rule of sin at test_interpreter.py:")


def test_stop_gradients_are_opened_and_frozen():
    with jax.enable_x64(True):
        program = traced(
            lambda x: jnp.sum(lax.scan(lambda c, _: (lax.stop_gradient(c) * x, None), x, None, length=2)[0])
        )

        def at(x, *, frozen):
            policy = Policy(lambda _: True, lambda _: False, frozen=frozen)
            return run(program, policy, *([[X], [x]] if frozen else [[x]]))[0][0]

        np.testing.assert_allclose(jax.grad(lambda x: at(x, frozen=False))(X), 3 * X**2, rtol=1e-12)
        np.testing.assert_allclose(at(1.1 * X, frozen=True), 1.1 * np.sum(X**3), rtol=1e-12)
        np.testing.assert_allclose(at(1.1 * X, frozen=False), 1.1**3 * np.sum(X**3), rtol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        *[jax.nn.relu, jnp.abs, jnp.sort, jnp.max, jnp.sign, jnp.floor, lambda x: jnp.clip(x, -0.1, 0.1)],
        *[lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), lambda x: lax.map(jax.nn.relu, x)],
    ],
)
def test_the_signature_changes_with_the_branch_and_only_then(f):
    with jax.enable_x64(True):
        program = traced(f)
        policy = Policy(lambda _: True, lambda _: False, signature=True)
        near, far = X * (1 + 1e-9), -X
        here, same, other = (int(run(program, policy, [x])[1]) for x in (X, near, far))
        assert here == same != other
