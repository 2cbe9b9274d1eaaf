"""What holds for every number of every optimizer: it may be traced, swept and differentiated, and may be zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn import optimizers
from tests.optimizers.table import (
    FLAT,
    WRAPPERS,
    assert_close,
    at,
    derivatives,
    each_distinct,
    each_distinct_and_wrapper,
    gradients_of,
    run,
    scanned,
)

LOOKS_AT_PATHS = {row[1] for row in WRAPPERS}
# Together with zero gradients, these numbers being zero is where a root or a quotient could be undefined.
ZEROS = [
    set(),
    {"max_value", "max_norm", "learning_rate"},
    {"b1", "b2", "decay", "momentum"},
    {"initial_accumulator_value"},
    {"initial_accumulator_value", "decay", "eps"},
]


@each_distinct
def test_ten_values_of_every_number_are_one_trace_and_equal_python_numbers(factory, numbers):
    traces, gradients = [], gradients_of(lead=(3,))

    @jax.jit
    def sweep(given):
        traces.append(None)
        return jax.vmap(lambda given: scanned(factory(**given), gradients))(given)

    for lane, values in ((0, np.linspace(0.8, 0.9, 5)), (4, np.linspace(0.9, 1.0, 5))):
        swept = {name: np.float32(number) * values.astype(np.float32) for name, number in numbers.items()}
        lanes = sweep(swept)
        alone = run(factory(**{name: float(number[lane]) for name, number in swept.items()}), gradients)
        assert_close(at(lanes, lane), alone)
    assert len(traces) == 1


def _descend(factory, given, curvature, steps=10):
    """Parameters after some steps on a quadratic, all in one scan; without curvature there is nothing to do.

    They are those that are trained and those to evaluate with, in one vector.
    """
    transform = optax.with_extra_args_support(factory(**given))
    params = {"layer": {"kernel": jnp.array([[-1.0, -0.3], [0.5, 1.3]])}}
    slopes = {"layer": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}}
    if factory in LOOKS_AT_PATHS:
        params["scale"], slopes["scale"] = jnp.array(0.7), jnp.array(2.5)
    params, slopes = jax.tree.map(lambda leaf: curvature * leaf, (params, slopes))

    def gradient(params):
        return jax.tree.map(jnp.multiply, slopes, params)

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(gradient(params), state, params, grad_fn=gradient)
        rate = 1.0 if "learning_rate" in given else -0.1
        return (jax.tree.map(lambda p, u: p + rate * u, params, updates), state), None

    params, state = jax.lax.scan(step, (params, transform.init(params)), None, length=steps)[0]
    both = jax.tree.leaves((params, optimizers.evaluation_params(state, params)))
    return jnp.concatenate([jnp.ravel(leaf) for leaf in both])


@each_distinct_and_wrapper
def test_forward_equals_reverse_equals_finite_differences_through_ten_steps(factory, numbers):
    with jax.enable_x64(True):
        at = jnp.array([1e-3 if name == "eps" else number for name, number in numbers.items()])
        step = 1e-5 * at

        def end(vector):
            return _descend(factory, dict(zip(numbers, vector, strict=True)), 1.0)

        forward, reverse, difference = derivatives(end, at, step)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(forward, difference, rtol=1e-5, atol=1e-6)
        moves = [name not in FLAT.get(factory, ()) for name in numbers]
        np.testing.assert_array_equal(np.abs(forward).max(axis=0) > 1e-4, moves)


POSITIVE = {"clipping_threshold", "decay_steps", "eps", "gamma", "max_norm"}  # eps where it is outside of a root


def _accepts(factory, numbers):
    try:
        factory(**numbers)
    except ValueError:
        return False
    return True


@each_distinct_and_wrapper
def test_zero_gradients_give_zero_updates_with_finite_derivatives(factory, numbers):
    may_be_zero = {name for name in numbers if _accepts(factory, numbers | {name: 0.0})}
    assert numbers.keys() - may_be_zero <= POSITIVE
    points = [numbers | dict.fromkeys(may_be_zero & names, 0.0) for names in ZEROS]
    points = jnp.array([[point[name] for name in numbers] for point in points], jnp.float32)

    @jax.jit
    @jax.vmap
    def evaluate(point):
        ends, push = jax.linearize(lambda point: _descend(factory, dict(zip(numbers, point, strict=True)), 0.0), point)
        pull = jax.linear_transpose(push, point)
        return ends, jax.vmap(push)(jnp.eye(len(point))), jax.vmap(pull)(jnp.eye(len(ends)))

    ends, *slopes = evaluate(points)
    np.testing.assert_array_equal(ends, jnp.zeros_like(ends))
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
