"""Reading jaxprs: where a leaf leaves float64, and whether two traces are one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxopt_nn import layers
from jaxopt_nn._jaxprs.identity import fingerprint, identity
from jaxopt_nn._ops import any_over_vmapped_axis
from jaxopt_nn.checking import check_gradients
from jaxopt_nn.checking._jaxpr.analysis import read

F32 = float(jnp.finfo(jnp.float32).eps)
BF16 = float(jnp.finfo(jnp.bfloat16).eps)


def trace(f, *shapes):
    with jax.enable_x64(True):
        return jax.make_jaxpr(f)(*(np.ones(shape) for shape in shapes))


def narrow(x, dtype=jnp.float32):
    return x.astype(dtype).astype(jnp.float64)


CASES = [
    ("plain", lambda a, b: a * b, (0.0, 0.0)),
    ("one", lambda a, b: narrow(a) * b, (F32, 0.0)),
    ("coarsest", lambda a, b: narrow(narrow(a), jnp.bfloat16) + narrow(b), (BF16, F32)),
    ("thrown away", lambda a, b: (a * b, narrow(a))[0], (0.0, 0.0)),
    ("jit", lambda a, b: jax.jit(lambda x, y: narrow(x) + y)(b, a), (0.0, F32)),
    ("custom_jvp", lambda a, b: jax.nn.relu(narrow(a)) + jax.nn.silu(b), (F32, 0.0)),
    ("checkpoint", lambda a, b: jax.checkpoint(lambda x: narrow(jnp.sin(x)))(b) + a, (0.0, F32)),
    ("scan_xs", lambda a, b: lax.scan(lambda c, x: (c + narrow(x), None), jnp.sum(a), b)[0], (0.0, F32)),
    # a reaches the rounded place only in the second round
    (
        "scan_carry",
        lambda a, b: lax.scan(lambda c, _: ((c[1], narrow(c[0])), None), (jnp.sum(b), jnp.sum(a)), None, 3)[0],
        (F32, F32),
    ),
    ("while", lambda a, b: lax.while_loop(lambda c: jnp.sum(c) < 9, lambda c: c + narrow(b), a), (0.0, F32)),
    ("cond", lambda a, b: lax.cond(jnp.sum(a) > 0, lambda x: narrow(x), lambda x: x, b), (0.0, F32)),
    # A mask in float32 is exact, and depends on a in steps only.
    ("mask", lambda a, b: (a > 0).astype(jnp.float32) * b, (0.0, 0.0)),
    ("step", lambda a, b: narrow(jnp.where(a > 0, 1.0, 0.0)) * b, (0.0, 0.0)),
    ("constant", lambda a, b: a * jnp.ones(3, jnp.float32) + b, (0.0, 0.0)),
    ("dot", lambda a, b: lax.dot(a, b, preferred_element_type=jnp.float32).astype(jnp.float64), (F32, F32)),
    ("reduce_precision", lambda a, b: lax.reduce_precision(a, 8, 23) + b, (2.0**-23, 0.0)),
]


@pytest.mark.parametrize(("f", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_rounding_is_found_for_the_leaves_that_pass_through_it(f, expected):
    assert read(trace(f, (3,), (3,))).rounding == expected


def test_random_numbers_are_seen():
    quiet = read(trace(jnp.sin, (3,)))
    assert not quiet.random
    noisy = read(trace(lambda x: x * jax.random.normal(jax.random.key(0), x.shape), (3,)))
    assert noisy.random


def test_two_traces_of_one_function_have_one_fingerprint_and_other_functions_another():
    kernel = np.arange(9.0).reshape(3, 3)

    def layer(x, scale=2.0, matrix=kernel):
        return jax.nn.relu(lax.scan(lambda c, _: (jnp.tanh(matrix @ c) * scale, None), x, None, length=2)[0])

    def variant(**changes):
        return fingerprint(trace(lambda x: layer(x, **changes), (3,)))

    assert variant() == variant()
    assert variant() != variant(scale=2.0 + 1e-15)
    assert variant() != variant(matrix=kernel + np.eye(3))
    assert fingerprint(trace(lambda a, b: a - b, (3,), (3,))) != fingerprint(trace(lambda a, b: b - a, (3,), (3,)))
    assert fingerprint(trace(lambda a: jnp.sum(a, 0), (3, 3))) != fingerprint(trace(lambda a: jnp.sum(a, 1), (3, 3)))


def test_a_custom_vmap_is_what_it_computes():
    """It has a rule of its own in each trace, and no transpose: neither may keep a check from what is inside."""
    model, x = layers.serial(layers.dense(4), jnp.tanh, layers.dense(2)), jnp.ones((3, 5))
    params, state = model.init(jax.random.key(0), x)

    def loss(params):
        y = model.apply(params, state, x)[0]
        return jnp.sum(y**2) * jnp.where(any_over_vmapped_axis(y[0, 0] == y[0, 0]), 1.0, 2.0)

    traces = [jax.make_jaxpr(lambda params: loss(params))(params).jaxpr for _ in range(2)]
    assert "custom_vmap_call" in str(traces[0])
    assert identity(traces[0]) == identity(traces[1])
    report = check_gradients(loss, params, key=jax.random.key(1))
    assert report.verdict == "PASS" and report.notes == ()
