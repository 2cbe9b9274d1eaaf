import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, schedules
from jaxopt_nn.optimizers import current_learning_rate

PARAMS = {"learning_rate": jnp.ones(3), "kernel": jnp.ones(2)}  # a parameter of that name is not mistaken for it


def _rates(optimizer, steps):
    state = optimizer.init(PARAMS)
    rates = [current_learning_rate(state)]
    for _ in range(steps):
        _, state = optimizer.update(PARAMS, state, PARAMS)
        rates.append(current_learning_rate(state))
    return rates


def test_the_record_is_the_rate_of_the_last_update():
    schedule = schedules.step_decay(0.5, 2, 0.5)
    rates = _rates(optimizers.adam(schedule), 5)
    np.testing.assert_allclose(rates, [0.5, 0.5, 0.5, 0.25, 0.25, 0.125])
    np.testing.assert_allclose(_rates(optimizers.adam(0.5), 2), [0.5] * 3)


@pytest.mark.parametrize("rate", [0.5, np.float64(0.5), jnp.float32(0.5), jnp.bfloat16(0.5), 1])
def test_the_record_is_a_float32_scalar(rate):
    for optimizer in (optimizers.sgd(rate), optimizers.sgd(lambda count: rate)):
        for record in _rates(optimizer, 1):
            assert (record.shape, record.dtype, record.weak_type) == ((), jnp.float32, False)
            assert record == rate


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.rmsprop(0.5, momentum=0.9),  # the rate is not the last link
        optax.chain(optax.clip(1.0), optax.chain(optimizers.adam(0.5), optax.identity())),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.5),
        optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=0.5, momentum=0.9)),
        optax.inject_hyperparams(optimizers.adam)(learning_rate=0.5),
        optax.masked(optimizers.sgd(0.5, momentum=0.9), {"learning_rate": True, "kernel": False}),
        optax.apply_if_finite(optimizers.sgd(0.5), 3),
        optax.partition(
            {"frozen": optax.set_to_zero(), "trained": optimizers.sgd(0.5)},
            {"learning_rate": "frozen", "kernel": "trained"},
        ),
    ],
)
def test_the_record_is_found_wherever_it_is(optimizer):
    np.testing.assert_array_equal(_rates(optimizer, 1), [0.5, 0.5])


@pytest.mark.parametrize("optimizer", [optax.adam(0.5), optax.sgd(0.5, momentum=0.9), optimizers.scale_by_adam()])
def test_where_nothing_is_recorded_there_is_none(optimizer):
    assert _rates(optimizer, 1) == [None, None]


def test_lanes_record_a_rate_each():
    def run(rate):
        optimizer = optimizers.adam(schedules.step_decay(rate, 1, 0.5))
        _, state = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
        _, state = optimizer.update(PARAMS, state, PARAMS)
        return state

    state = jax.vmap(run)(jnp.array([0.5, 1.0]))
    np.testing.assert_array_equal(current_learning_rate(state), [0.25, 0.5])


def test_a_constant_rate_keeps_no_count_and_no_scheduled_state_is_mistaken_for_it():
    assert optimizers.scale_by_learning_rate(0.5).init(PARAMS).count is None
    with pytest.raises(ValueError, match=r"^state: expected that of a learning-rate schedule, got that of a constant"):
        state = optimizers.scale_by_learning_rate(0.5).init(PARAMS)
        optimizers.scale_by_learning_rate(schedules.constant(0.5)).update(PARAMS, state)


def test_a_schedule_that_returns_no_scalar_is_refused():
    with pytest.raises(
        ValueError, match=r"^learning_rate: expected a schedule that returns a scalar, got shape \(3,\)"
    ):
        optimizers.sgd(lambda count: jnp.ones(3)).init(PARAMS)


def test_low_precision_updates_are_multiplied_in_float32():
    rate = 1e-3 * (1 + 2.0**-12)  # in bfloat16, and in float16, another number
    for dtype in (jnp.bfloat16, jnp.float16):
        updates = jnp.linspace(1.0, 2.0, 200).astype(dtype)
        scaled, _ = optimizers.scale_by_learning_rate(rate).update(
            updates, optimizers.scale_by_learning_rate(rate).init(updates)
        )
        expected = (-np.float32(rate) * np.asarray(updates, np.float32)).astype(dtype)
        np.testing.assert_array_equal(scaled, expected)
