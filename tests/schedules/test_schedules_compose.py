"""Schedules made of schedules, and of boundaries: what each part is asked, and when."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import schedules
from tests.schedules.table import COUNTS


def test_boundaries_may_be_an_array_that_is_traced_and_swept():
    counts = jnp.arange(12)
    bounds = jnp.array([[2, 5], [3, 3], [0, 9]])
    factors = jnp.array([0.5, 0.1])
    steps = jax.jit(jax.vmap(lambda b: schedules.multi_step_decay(1.0, b, factors)(counts)))(bounds)
    parts = jax.jit(jax.vmap(lambda b: schedules.join([1.0, 2.0, 3.0], b)(counts)))(bounds)
    for lane, (first, second) in enumerate(np.asarray(bounds)):
        passed = np.arange(12)[:, None] >= [first, second]
        np.testing.assert_allclose(steps[lane], np.where(passed, [0.5, 0.1], 1.0).prod(1), rtol=1e-6)
        np.testing.assert_array_equal(parts[lane], 1 + passed.sum(1))


def test_a_join_hands_integer_counts_from_0_to_each_part():
    table = jnp.array([0.4, 0.3, 0.2, 0.1])
    schedule = schedules.join([lambda count: table[count], lambda count: 10 * table[count]], [3])
    expected = [0.4, 0.3, 0.2, 4.0, 3.0, 2.0, 1.0]
    np.testing.assert_allclose([schedule(jnp.int32(c)) for c in range(7)], expected, rtol=1e-6)
    by_epoch = schedules.by_epoch(lambda epoch: table[epoch], 2)
    np.testing.assert_allclose([by_epoch(c) for c in range(8)], np.repeat(table, 2), rtol=1e-6)


def test_warmup_of_no_steps_is_the_schedule_itself():
    after = schedules.cosine_decay(0.3, 40)
    for steps in (0, jnp.int32(0), jnp.float32(0)):
        np.testing.assert_array_equal(schedules.warmup(after, steps, 0.1)(COUNTS), after(COUNTS))
    assert np.isfinite(jax.grad(lambda steps: schedules.warmup(after, steps, 0.1)(0))(0.0))


def test_warmup_hands_integer_counts_to_the_schedule_after_it():
    table = jnp.array([0.4, 0.3, 0.2, 0.1])
    schedule = schedules.warmup(lambda count: table[count], 2)
    np.testing.assert_allclose([schedule(jnp.int32(c)) for c in range(6)], [0.0, 0.2, 0.4, 0.3, 0.2, 0.1], rtol=1e-6)
