"""What holds for every optimizer: it converges, and takes a schedule where it takes a learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_nn import optimizers, schedules
from tests.optimizers.table import assert_close, each_optimizer, each_optimizer_and_wrapper, gradients_of, run


@each_optimizer_and_wrapper
def test_converges_on_a_quadratic_and_on_rosenbrock(factory, numbers):
    """A bowl, in 400 steps with its own rate; a curved valley from (-1.2, 1) to (1, 1) with the best of six.

    They are lanes of one program. The scale is not in it, and stays. What would keep the weights from the end of the
    valley is 0 there, or small: the penalties and SAM's radius.
    """
    free = numbers | dict.fromkeys(numbers.keys() & {"weight_decay", "strength", "l1_strength", "l2_strength"}, 0.0)
    free |= {"rho": 0.005} if "rho" in numbers else {}
    changed = [name for name in numbers if free[name] != numbers[name]]

    def height(params, valley):
        ((x, y),) = params["layer"]["kernel"]
        return jnp.where(valley, 100 * (y - x**2) ** 2 + (1 - x) ** 2, 0.15 * x**2 + 0.6 * y**2)

    def end(valley, learning_rate):
        def rate(count):
            in_valley = schedules.cosine_decay(learning_rate, 5000.0)(count)
            in_bowl = jnp.where(count < 400, 1.0, 0.0) * learning_rate
            return jnp.where(valley, in_valley, in_bowl)

        given = numbers | {name: jnp.where(valley, free[name], numbers[name]) for name in changed}
        transform = optax.with_extra_args_support(factory(**given | {"learning_rate": rate}))

        def gradient(params):
            return jax.grad(height)(params, valley)

        def step(carry, _):
            params, state = carry
            updates, state = transform.update(gradient(params), state, params, grad_fn=gradient)
            return (optax.apply_updates(params, updates), state), None

        start = jnp.where(valley, jnp.array([[-1.2, 1.0]]), jnp.array([[-1.0, 1.3]]))
        params = {"layer": {"kernel": start}, "scale": jnp.zeros(())}
        params, _ = jax.lax.scan(step, (params, transform.init(params)), None, length=5000)[0]
        return params, height(params, valley)

    rates = numbers["learning_rate"] * jnp.array([1.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
    ends, heights = jax.jit(jax.vmap(end))(jnp.arange(7) > 0, rates)
    assert np.abs(ends["layer"]["kernel"][0]).max() < 0.05
    np.testing.assert_array_equal(ends["scale"], jnp.zeros(7))
    assert jnp.nanmin(heights[1:]) < 0.02  # from 24


@each_optimizer
def test_a_schedule_is_as_good_as_a_number(factory, numbers):
    numbers, gradients = dict(numbers), gradients_of(lead=(3,))
    rate = numbers.pop("learning_rate")
    scheduled = run(factory(learning_rate=schedules.constant(rate), **numbers), gradients)
    constant = run(factory(learning_rate=rate, **numbers), gradients)
    assert_close(scheduled[0], constant[0], rtol=1e-6)
    for state in (scheduled[1], constant[1]):
        np.testing.assert_allclose(optimizers.current_learning_rate(state), rate, rtol=1e-6)
