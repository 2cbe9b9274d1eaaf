"""What checks share of their compiled programs, and what they must not."""

import logging

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn._jaxprs.cache import share
from jaxopt_nn.checking import check_gradients

KEY = jax.random.key(0)
DATA = np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32)


def net(x, scale=1.0):
    """A new function at each call, that closes over its data."""
    return lambda w: scale * jnp.mean(jnp.tanh(x @ w["kernel"] + w["bias"][None]) ** 2)


def weights(seed):
    rng = np.random.default_rng(seed)
    return {"kernel": rng.standard_normal((4, 3)).astype("f"), "bias": rng.standard_normal(3).astype("f")}


def compilations(caplog, f, point, key):
    caplog.clear()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        assert check_gradients(f, point, key=key).verdict == "PASS"
    return [record.message for record in caplog.records if record.message.startswith("Compiling")]


def test_other_data_and_weights_compile_nothing(caplog):
    check_gradients(net(DATA[0]), weights(0), key=KEY).assert_ok()
    assert not compilations(caplog, net(DATA[1]), weights(1), jax.random.key(1))
    # What is another program compiles, so that this test can see it.
    assert compilations(caplog, net(DATA[1], 2.0), weights(1), jax.random.key(1))


def test_rules_that_differ_alone_are_not_taken_for_one_another():
    def sine(factor):
        op = jax.custom_vjp(jnp.sin)
        op.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (factor * ct * jnp.cos(x),))
        return lambda x: jnp.sum(op(x))

    x = DATA[0, 0]
    verdicts = [check_gradients(sine(factor), x, key=KEY).verdict for factor in (1.0, 2.0, 1.0)]
    assert verdicts == ["PASS", "FAIL", "PASS"]


def test_callbacks_that_differ_alone_are_not_taken_for_one_another():
    def called(fn):
        def f(x):
            y = jax.pure_callback(lambda x: fn(x).astype(x.dtype), jax.ShapeDtypeStruct(x.shape, x.dtype), x)
            return jnp.sum(y)

        return f

    x = DATA[0, 0]
    verdicts = [check_gradients(called(fn), x, grad_fn=jnp.cos, key=KEY).verdict for fn in (np.sin, np.cos, np.sin)]
    assert verdicts == ["PASS", "FAIL", "PASS"]


def program(f, *args):
    return share(jax.make_jaxpr(f)(*args))[0]


def test_programs_are_equal_exactly_if_they_compute_the_same():
    x, matrix = np.ones(3, np.float32), np.eye(3, dtype=np.float32)
    one = program(lambda x: jnp.sum(x @ jnp.asarray(matrix)) * 2.0, x)
    assert one == program(lambda x: jnp.sum(x @ jnp.asarray(2 * matrix)) * 2.0, x)
    assert hash(one) == hash(program(lambda x: jnp.sum(x @ jnp.asarray(2 * matrix)) * 2.0, x))
    for other in (
        program(lambda x: jnp.sum(x @ jnp.asarray(matrix)) * 3.0, x),
        program(lambda x: jnp.sum(x @ jnp.asarray(matrix[:, :2])) * 2.0, x),
        program(lambda x: jnp.sum(x @ jnp.asarray(matrix)) / 2.0, x),
    ):
        assert one != other
    assert program(jnp.sum, x) != program(jnp.sum, np.ones(4, np.float32))  # one program but for the shape
    assert program(lambda x: x * 0.0, x) != program(lambda x: x * -0.0, x)
    assert program(lambda x: jax.lax.reduce_precision(x, 8, 7), x) != program(
        lambda x: jax.lax.reduce_precision(x, 8, 8), x
    )


class Times:
    """A callback whose class takes all of its kind for equal."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * np.asarray(x)

    def __eq__(self, other):
        return isinstance(other, Times)

    def __hash__(self):
        return 0


def test_callbacks_that_say_they_are_equal_are_not_taken_for_one_another():
    def called(fn):
        return lambda x: jax.pure_callback(fn, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    x = np.ones(3, np.float32)
    assert Times(1) == Times(2)
    assert program(called(Times(1)), x) != program(called(Times(2)), x)


def test_functions_of_jax_with_rules_are_shared_and_contexts_are_not():
    x, key = np.ones(3, np.float32), jax.random.key(0)
    assert program(lambda x: jax.nn.relu(x), x) == program(lambda x: jax.nn.relu(x), x)
    draw = lambda key: jax.random.normal(key, (3,))  # noqa: E731
    plain = program(draw, key)
    with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):
        assert program(draw, key) != plain
    with jax.default_matmul_precision("highest"):
        assert program(lambda x: x @ x, x) != program(lambda x: jax.lax.dot(x, x, precision="default"), x)


def test_a_program_that_an_operation_leaves_out_is_no_obstacle():
    """A linear solve without a transposed one has nothing in the places of two of its programs."""

    def solve(divisor):
        return lambda x: jax.lax.custom_linear_solve(lambda v: 2 * v, x, lambda _, b: b / divisor)

    x = np.ones(3, np.float32)
    assert program(solve(2), x) == program(solve(2), x) != program(solve(3), x)
    check_gradients(lambda x: jnp.sum(solve(2)(x) ** 2), x, grad_fn=lambda x: x / 2, key=KEY).assert_ok()


def test_constants_are_the_last_inputs():
    matrix = np.arange(9.0, dtype=np.float32).reshape(3, 3)
    made, consts = share(jax.make_jaxpr(lambda x: x @ jnp.asarray(matrix))(np.ones(3, np.float32)))
    assert not made.closed.consts
    np.testing.assert_array_equal(consts[0], matrix)
    found = jax.core.eval_jaxpr(made.closed.jaxpr, (), np.ones(3, np.float32), *consts)
    np.testing.assert_array_equal(found[0], matrix.sum(0))
