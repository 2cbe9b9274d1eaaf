"""What holds for every number of every optimizer: it may be traced, swept and differentiated, and may be zero."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.optimizers.table import assert_close, at, each_distinct, gradients_of, lion, run, scanned

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
    """The parameters after some steps on a quadratic, all in one scan; without curvature there is nothing to do."""
    transform = factory(**given)
    params = jnp.linspace(-1.0, 1.3, 4) if curvature else jnp.zeros(4)
    slopes = curvature * jnp.arange(1.0, 5.0)

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(slopes * params, state, params)
        if "learning_rate" not in given:
            updates = -0.1 * updates
        return (params + updates, state), None

    return jax.lax.scan(step, (params, transform.init(params)), None, length=steps)[0][0]


@each_distinct
def test_forward_equals_reverse_equals_finite_differences_through_ten_steps(factory, numbers):
    with jax.enable_x64(True):
        at = jnp.array([1e-3 if name == "eps" else number for name, number in numbers.items()])
        step = 1e-5 * at

        def end(vector):
            return _descend(factory, dict(zip(numbers, vector, strict=True)), 1.0)

        @jax.jit
        def evaluate(at):
            """One run of many lanes has the derivatives, one a number, and what they are compared with."""
            moves = jnp.diag(step)
            points = at[None] + jnp.concatenate([jnp.zeros_like(moves), moves, -moves])
            tangents = jnp.concatenate([jnp.eye(len(at)), *[jnp.zeros_like(moves)] * 2])
            ends, slopes = jax.vmap(lambda point, tangent: jax.jvp(end, (point,), (tangent,)))(points, tangents)
            _, above, below = jnp.split(ends, 3)
            forward = jnp.split(slopes, 3)[0]
            return forward.T, jax.jacrev(end)(at), ((above - below) / (2 * step[:, None])).T

        forward, reverse, difference = evaluate(at)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(forward, difference, rtol=1e-5, atol=1e-6)
        flat = {"b1", "b2"} if factory is lion else set()  # the sign has no slope
        moves = [name not in flat for name in numbers]
        np.testing.assert_array_equal(np.abs(forward).max(axis=0) > 1e-4, moves)


@each_distinct
def test_zero_gradients_give_zero_updates_with_finite_derivatives(factory, numbers):
    points = [numbers | dict.fromkeys(numbers.keys() & names, 0.0) for names in ZEROS]
    if "b2" in numbers:  # Adam's epsilon stands outside of the root, and must be positive
        points = [point | {"eps": 1e-8} for point in points]
    points = {name: jnp.array([point[name] for point in points], jnp.float32) for name in numbers}

    def end(point):
        params = _descend(factory, point, 0.0)
        return params, params

    @jax.jit
    @jax.vmap
    def evaluate(point):
        forward, ends = jax.jacfwd(end, has_aux=True)(point)
        return ends, forward, jax.jacrev(end, has_aux=True)(point)[0]

    ends, *slopes = evaluate(points)
    np.testing.assert_array_equal(ends, jnp.zeros_like(ends))
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
