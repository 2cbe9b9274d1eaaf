"""Half cosines: digits at the end, cycles of any growth."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import schedules
from tests.schedules.table import COUNTS, closed_restarts, restarts


def test_the_last_steps_of_a_cosine_keep_their_digits():
    steps = 100_000
    counts = steps - np.array([1, 2, 3, 10, 100])
    exact = np.sin(np.pi / 2 * (steps - counts) / steps) ** 2
    np.testing.assert_allclose(schedules.cosine_decay(1.0, steps)(counts), exact, rtol=1e-6)
    one = schedules.one_cycle(1.0, steps, div_factor=1.0, final_div_factor=1e30)(counts)
    np.testing.assert_allclose(one, np.sin(np.pi / 2 * (steps - counts) / (0.7 * steps)) ** 2, rtol=1e-6)


def test_cycles_may_be_a_little_longer_each_time():
    numbers = {"learning_rate": 0.3, "period": 3.37, "longer": 0.01, "m_mult": 1.0, "alpha": 0.0}
    for longer in (0.3, 0.01, 1e-4, 1e-9):
        numbers["longer"] = longer
        expected = closed_restarts(COUNTS, **numbers)
        np.testing.assert_allclose(restarts(**numbers)(COUNTS), expected, rtol=1e-3, atol=1e-4)
        with jax.enable_x64(True):
            np.testing.assert_allclose(restarts(**numbers)(COUNTS), expected, rtol=1e-10, atol=1e-12)


def test_the_slope_in_the_growth_of_cycles_is_right_at_a_growth_of_1():
    with jax.enable_x64(True):

        @jax.jit
        @jax.vmap
        def rate_and_slope(growth):
            def rate(growth):
                return schedules.cosine_restarts(0.3, 7.0, t_mult=growth)(np.array([3, 12, 33, 59]))

            return jax.jvp(rate, (growth,), (1.0,))

        (below, above), (slope, _) = rate_and_slope(jnp.array([1.0, 1 + 1e-6]))
        np.testing.assert_allclose(slope, (above - below) / 1e-6, rtol=1e-4, atol=1e-6)
