"""Programs that draw random numbers twice from one key, and those that do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, random

from jaxopt_nn.checking._objective.key_reuse import drawn_twice

X = np.ones(3, np.float32)


def normal(key):
    return random.normal(key, X.shape)


def halves(key, left, right):
    """A draw from one part of a split, and one from a part of another split of the same key."""
    return normal(random.split(key)[left]) * normal(random.split(key)[right])


def carried(key):
    def body(carry, _):
        y, key = carry
        key, own = random.split(key)
        return (y * normal(own), key), None

    return lax.scan(body, (X, key), None, 3)[0][0]


def either(key, other):
    """Of two branches, which draw both, one runs; then perhaps another draw."""
    branches = (normal, lambda key: normal(random.split(key)[0]))
    return lax.cond(jnp.sum(random.key_data(key)) > 0, *branches, key) * (normal(key) if other else 1.0)


CASES = [
    ("once", normal, False),
    ("twice", lambda key: normal(key) * normal(key), True),
    ("two halves", lambda key: halves(key, 0, 1), False),
    ("one half twice", lambda key: halves(key, 1, 1), True),
    ("in two calls", lambda key: jax.jit(normal)(random.split(key)[0]) * normal(random.split(key)[0]), True),
    ("a split key", lambda key: normal(random.split(key)[0]) * normal(key), True),
    ("folded", lambda key: normal(random.fold_in(key, 1)) * normal(random.fold_in(key, 2)), False),
    ("folded in one way", lambda key: normal(random.fold_in(key, 1)) * normal(random.fold_in(key, 1)), True),
    ("made in f", lambda _: normal(random.key(0)) * normal(random.key(1)), False),
    ("made in f twice", lambda _: normal(random.key(0)) * normal(random.key(0)), True),
    ("scan", lambda key: lax.scan(lambda c, k: (c * normal(k), None), X, random.split(key, 3))[0], False),
    ("scan, carried", carried, False),
    ("scan, one key", lambda key: lax.scan(lambda c, _: (c * normal(key), None), X, None, 3)[0], True),
    (
        "scan, folded in one way",
        lambda key: lax.scan(lambda c, _: (c * normal(random.fold_in(key, 1)), None), X, None, 3)[0],
        True,
    ),
    ("while", lambda key: lax.while_loop(lambda c: c[0] < 9, lambda c: c * normal(key), X), True),
    (
        "fori, folded",
        lambda key: lax.fori_loop(0, jnp.int32(X[0]), lambda i, c: c * normal(random.fold_in(key, i)), X),
        False,
    ),
    ("vmap", lambda key: jax.vmap(normal)(random.split(key, 3)), False),
    ("branches", lambda key: either(key, False), False),
    ("branches, then another", lambda key: either(key, True), True),
    ("rejection", lambda key: random.gamma(key, 2.0, (3,)), False),
    ("checkpoint", lambda key: jax.grad(jax.checkpoint(lambda x: jnp.sum(jnp.sin(x) * normal(key))))(X), False),
]


@pytest.mark.parametrize("make", [random.key, random.PRNGKey])
@pytest.mark.parametrize(("f", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_draws(f, expected, make):
    assert drawn_twice(jax.make_jaxpr(f)(make(3)), [make(3)]) == expected


def test_two_inputs_with_one_key():
    program = jax.make_jaxpr(lambda a, b: normal(a) * normal(b))(random.key(0), random.key(0))
    assert drawn_twice(program, [random.key(5), random.key(5)])
    assert not drawn_twice(program, [random.key(5), random.key(6)])
    raw = jax.make_jaxpr(lambda a, b: normal(a) * normal(b))(random.PRNGKey(0), random.PRNGKey(0))
    assert drawn_twice(raw, [np.asarray(random.PRNGKey(5)), np.asarray(random.PRNGKey(5))])
