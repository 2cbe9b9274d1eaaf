import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, schedules
from jaxopt_nn.optimizers import current_learning_rate, scale_learning_rate

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


SCALED = [
    ("sgd", lambda rate: optimizers.sgd(rate)),
    ("adam", lambda rate: optimizers.adam(rate)),
    ("the rate inside the velocity", lambda rate: optimizers.rmsprop(rate, momentum=0.9)),
    ("a chain", lambda rate: optax.chain(optax.clip(1.0), optax.chain(optimizers.adam(rate), optax.identity()))),
    (
        "two rates",
        lambda rate: optax.partition(
            {"one": optimizers.sgd(rate), "other": optimizers.adam(rate)}, {"learning_rate": "one", "kernel": "other"}
        ),
    ),
]


@pytest.mark.parametrize("schedule", [None, schedules.cosine_decay(1.0, 9)], ids=["constant", "schedule"])
@pytest.mark.parametrize("make", [row[1] for row in SCALED], ids=[row[0] for row in SCALED])
def test_a_scaled_rate_is_a_rate_scaled_from_that_update_on(make, schedule):
    after = schedule or schedules.constant(1.0)
    base = make(after if schedule else 1.0)
    ours, state = jax.jit(base.update), base.init(PARAMS)
    factors = [1.0, 1.0, 0.25, 0.25, 0.5, 0.0]  # set and not multiplied
    expected = make(lambda count: after(count) * jnp.asarray(factors)[count])
    update, want_state = jax.jit(expected.update), expected.init(PARAMS)
    for step, factor in enumerate(factors):
        if step in (2, 4, 5):
            state = scale_learning_rate(state, factor)
        updates, state = ours(PARAMS, state, PARAMS)
        want, want_state = update(PARAMS, want_state, PARAMS)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, want)
        np.testing.assert_allclose(current_learning_rate(state), after(step) * factor, rtol=1e-6)


def test_the_record_tells_of_the_last_update_and_not_of_the_next():
    optimizer = optimizers.sgd(0.5)
    _, state = optimizer.update(PARAMS, optimizer.init(PARAMS))
    state = scale_learning_rate(state, 0.5)
    assert current_learning_rate(state) == 0.5
    assert current_learning_rate(optimizer.update(PARAMS, state)[1]) == 0.25


def test_a_scale_may_be_traced_swept_scanned_and_differentiated():
    optimizer = optimizers.adam(0.5)

    def end(factor):
        def epoch(state, _):
            updates, state = optimizer.update(PARAMS, state, PARAMS)
            return scale_learning_rate(state, factor * state[-1].scale), updates["kernel"][0]

        return jnp.sum(jax.lax.scan(epoch, optimizer.init(PARAMS), None, length=3)[1])

    ends = jax.jit(jax.vmap(end))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(ends, [-0.5 * 1.75, -0.5 * 3], rtol=1e-5)
    np.testing.assert_allclose(jax.grad(end)(0.5), -0.5 * (1 + 2 * 0.5), rtol=1e-5)


def test_lanes_are_scaled_together_or_each_by_its_own():
    states = jax.vmap(lambda rate: optimizers.adam(rate).init(PARAMS))(jnp.ones(3))
    for scale, want in ((0.5, [0.5, 0.5, 0.5]), (jnp.array([1.0, 2.0, 3.0]), [1.0, 2.0, 3.0])):
        np.testing.assert_array_equal(scale_learning_rate(states, scale)[-1].scale, want)
    with pytest.raises(ValueError, match=r"^scale\[1\]: expected a finite number >= 0, got -2"):
        scale_learning_rate(states, np.array([1.0, -2.0, 3.0]))
    with pytest.raises(ValueError, match=r"^scale: expected one, or one a lane, \(3,\), got shape \(2,\)"):
        scale_learning_rate(states, np.ones(2))


def test_a_scale_keeps_the_state_as_it_was_and_shares_no_buffer():
    scale = jnp.float32(0.5)
    optimizer = optax.partition(
        {"one": optimizers.sgd(0.5), "other": optimizers.sgd(0.25)}, {"learning_rate": "one", "kernel": "other"}
    )
    for x64 in (False, True):
        with jax.enable_x64(x64):
            before = optimizer.init(PARAMS)
            for given in (1, 0.5, np.float64(0.5), jnp.bfloat16(0.5), scale):
                after = scale_learning_rate(before, given)
                assert jax.tree.structure(after) == jax.tree.structure(before)
                for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
                    assert (a.shape, a.dtype, b.weak_type) == (b.shape, b.dtype, False)
    consume = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    consume(scale_learning_rate(optimizer.init(PARAMS), scale))
    assert not scale.is_deleted()


def test_a_double_is_scaled_in_double_precision():
    with jax.enable_x64(True):
        optimizer = optimizers.sgd(0.1)
        state = scale_learning_rate(optimizer.init(jnp.ones(2)), 0.1)
        np.testing.assert_allclose(optimizer.update(jnp.ones(2), state)[0], -0.1 * 0.1, rtol=1e-15)


def test_a_state_without_a_rate_of_ours_and_a_scale_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"^opt_state: expected a LearningRateState in it, .* found none"):
        scale_learning_rate(optax.adam(0.5).init(PARAMS), 0.5)
    for bad in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^scale: expected a finite number in \[0, inf\), got "):
            scale_learning_rate(optimizers.sgd(0.5).init(PARAMS), bad)


def _in_python(count):
    return 0.1 if count < 10 else 0.01


@pytest.mark.parametrize(
    "make",
    [
        optimizers.sgd,
        lambda schedule: optimizers.adagrad(schedule, lr_decay=0.1),
        lambda schedule: optimizers.schedule_free(optimizers.sgd(0.1), learning_rate=schedule),
        lambda schedule: optimizers.sgd(schedules.warmup(schedule, 3)),
        lambda schedule: optimizers.sgd(schedules.join([schedule, 0.1], [3])),
        lambda schedule: optimizers.sgd(schedules.by_epoch(schedule, 3)),
    ],
)
@pytest.mark.parametrize("schedule", [_in_python, lambda count: 0.1 * float(count), lambda count: 0.1 + np.sin(count)])
def test_a_schedule_that_computes_in_python_is_said(make, schedule):
    """It works as long as it is called with numbers, and says what to do where it is traced."""
    optimizer, params = make(schedule), jnp.ones(2)
    state = optimizer.init(params)
    optimizer.update(params, state, params)
    with pytest.raises(TypeError, match=r"^(learning_rate|schedules?): the schedule computes .* and jnp.where in the"):
        jax.jit(optimizer.update)(params, state, params)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (schedules.cosine_decay, r"^learning_rate: expected a number or a schedule, .* got cosine_decay: call it with"),
        (optimizers.sgd, r"^learning_rate: expected a schedule that returns a number, got Gradient"),
        (schedules.constant, r"^learning_rate: expected a schedule that returns a number, got <function"),
        (lambda count: None, r"^learning_rate: expected a schedule that returns a number, got None"),
        (lambda count: "0.1", r"^learning_rate: expected a schedule that returns a number, got '0.1'"),
        ("0.1", r"^learning_rate: expected a number, got '0.1'"),
        (None, r"^learning_rate: expected a number, got None"),
    ],
)
def test_what_is_no_schedule_is_named(schedule, message):
    with pytest.raises(TypeError, match=message):
        optimizers.sgd(schedule).init(jnp.ones(2))
    with pytest.raises(TypeError, match=message):
        optimizers.sgd(schedules.warmup(schedule, 10)).init(jnp.ones(2))


@pytest.mark.parametrize("bad", [0.1, "cosine", schedules.constant(0.1)])
def test_one_schedule_is_no_sequence_of_them(bad):
    with pytest.raises(TypeError, match=r"^schedules: expected a sequence of schedules, got "):
        schedules.join(bad, [1])
