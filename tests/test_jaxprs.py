"""Every higher-order primitive is read by what it means, and each reader of programs looks inside of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxopt_nn._jaxprs import equations
from jaxopt_nn._jaxprs.flops import count_flops
from jaxopt_nn._jaxprs.identity import fingerprint, identity
from jaxopt_nn.checking import check_gradients
from jaxopt_nn.checking._jaxpr.analysis import read
from jaxopt_nn.checking._jaxpr.interpreter import Policy, is_jax_code, run, sites
from jaxopt_nn.checking._objective.key_reuse import drawn_twice

X = np.random.default_rng(0).standard_normal(6) + 0.3
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
SPEC = jax.sharding.PartitionSpec("i")


def noisy(sin, x):
    """What each primitive holds: a rule that is wrong, a branch, a float32, two draws from one key."""
    noise = jax.random.uniform(jax.random.key(1), x.shape) + jax.random.uniform(jax.random.key(1), x.shape)
    return jnp.abs(sin(x)) + 1e-3 * (noise * x).astype(jnp.float32).astype(x.dtype)


def wrapped(wrap, inner):
    custom = wrap(inner)
    if wrap is jax.custom_jvp:
        custom.defjvp(lambda primals, tangents: jax.jvp(inner, primals, tangents))
    elif wrap is jax.custom_vjp:
        custom.defvjp(lambda x: (inner(x), x), lambda x, ct: jax.vjp(inner, x)[1](ct))
    else:
        custom.def_vmap(lambda size, batched, x: (jax.vmap(inner)(x), True))
    return custom


HOLDERS = {
    "scan": (lambda f, x: lax.scan(lambda c, t: (f(c) * t + x, c), x, jnp.arange(1.0, 4.0))[0], equations.Scan),
    "reverse": (
        lambda f, x: lax.scan(lambda c, t: (c * t, f(x) * t), x, jnp.arange(1.0, 4.0), reverse=True)[1][0],
        equations.Scan,
    ),
    "while": (
        lambda f, x: lax.while_loop(lambda c: c[1] < jnp.size(x) - 3, lambda c: (f(c[0]) + x, c[1] + 1), (x, 0))[0],
        equations.While,
    ),
    "cond": (lambda f, x: lax.cond(jnp.sum(x) > 0, f, lambda x: x, x), equations.Cond),
    "platform_dependent": (lambda f, x: lax.platform_dependent(x, tpu=jnp.cos, default=f), equations.Cond),
    "jit": (lambda f, x: jax.jit(f)(x), equations.Call),
    "checkpoint": (lambda f, x: jax.checkpoint(f)(x), equations.Call),
    "custom_jvp": (lambda f, x: wrapped(jax.custom_jvp, f)(x), equations.Call),
    "custom_vjp": (lambda f, x: wrapped(jax.custom_vjp, f)(x), equations.Call),
    "custom_vmap": (lambda f, x: wrapped(jax.custom_batching.custom_vmap, f)(x), equations.Call),
    "shard_map": (
        lambda f, x: jax.shard_map(
            lambda x: lax.scan(lambda c, _: (f(c), None), x, None, 2)[0], mesh=MESH, in_specs=SPEC, out_specs=SPEC
        )(x),
        equations.ShardMap,
    ),
}


def nested(f, x):
    inner = jax.checkpoint(lambda c: wrapped(jax.custom_jvp, f)(c))
    return jax.jit(lax.scan, static_argnums=(0, 3))(
        lambda c, _: (lax.cond(c[0] > -9, inner, jnp.cos, c), None), x, None, 2
    )[0]


HOLDERS["all of them"] = (nested, equations.Call)


@jax.custom_vjp
def doubled_sin(x):
    return jnp.sin(x)


doubled_sin.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (2 * ct * jnp.cos(x),))


@pytest.mark.parametrize("name", HOLDERS)
def test_every_reader_looks_inside_of_every_primitive(name):
    hold, kind = HOLDERS[name]
    f = lambda sin: lambda x: jnp.sum(hold(lambda x: noisy(sin, x), x))  # noqa: E731
    with jax.enable_x64(True):
        program, again = (jax.make_jaxpr(lambda x: f(doubled_sin)(x))(X) for _ in range(2))
        assert kind in [type(equations.inner_programs(equation)) for equation in program.jaxpr.eqns]
        assert "doubled_sin" in {site.name for site in sites(program) if not is_jax_code(site)}
        assert read(program) == ((float(jnp.finfo(jnp.float32).eps),), True)
        assert drawn_twice(program, [X])
        assert fingerprint(program) == fingerprint(again)
        if name != "shard_map":  # a mesh context may differ
            assert identity(program.jaxpr) == identity(again.jaxpr)
        policy = Policy(lambda _: True, lambda _: True, signature=True)

        def stripped(x):
            (value,), signature = run(program, policy, [x])
            return value, signature

        right, (value, here) = f(jnp.sin), jax.jit(stripped)(X)
        near, other = (jax.jit(stripped)(x)[1] for x in (X * (1 + 1e-9), X * [-1, 1, 1, 1, 1, 1]))
        np.testing.assert_allclose(value, jax.jit(right)(X), rtol=1e-14)
        assert here == near != other
        if name not in ("while", "custom_vmap"):  # these have no reverse mode
            gradients = [jax.jit(jax.grad(f))(X) for f in (lambda x: stripped(x)[0], right)]
            np.testing.assert_allclose(*gradients, rtol=1e-10)
    assert count_flops(f(jnp.sin), X)[0] > count_flops(lambda x: noisy(jnp.sin, x), X[:3])[0] // 2


@pytest.mark.parametrize("name", ["platform_dependent", "shard_map", "all of them"])
def test_a_rule_that_is_wrong_is_found_inside_of_every_primitive(name):
    f = lambda sin: lambda x: jnp.sum(HOLDERS[name][0](sin, x))  # noqa: E731
    x = X.astype(np.float32)
    assert check_gradients(f(jnp.sin), x, key=jax.random.key(0)).verdict == "PASS"
    report = check_gradients(f(doubled_sin), x, key=jax.random.key(0))
    assert report.verdict == "FAIL" and "doubled_sin at test_jaxprs.py" in str(report)


def test_what_is_not_known_is_opaque():
    solve = lambda x: lax.custom_linear_solve(lambda v: 2 * v, x, lambda _, b: b / 2, symmetric=True)  # noqa: E731
    reduced = lambda x: lax.reduce(x, np.float32(1), lambda a, b: a * b, (0,))  # noqa: E731
    for f in (solve, reduced):
        program = jax.make_jaxpr(f)(X.astype(np.float32))
        assert equations.Held in [type(equations.inner_programs(equation)) for equation in program.jaxpr.eqns]
        got = run(program, Policy(lambda _: True, lambda _: True), [X.astype(np.float32)])[0][0]
        np.testing.assert_allclose(got, f(X.astype(np.float32)), rtol=1e-6)
    root = lambda x: lax.custom_root(lambda y: y * y - x, x, lambda f, y: jnp.sqrt(x), lambda g, y: y / g(1.0))  # noqa: E731
    assert check_gradients(root, jnp.float32(2.0), key=jax.random.key(0)).verdict == "PASS"
