import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from jaxopt_nn import schedules

COUNTS = np.arange(60)

# name, factory, numbers, the same in NumPy's float64
TABLE = [
    ("constant", schedules.constant, {"learning_rate": 0.3}, lambda t, learning_rate: learning_rate + 0.0 * t),
    (
        "step_decay",
        schedules.step_decay,
        {"learning_rate": 0.3, "step_size": 7.0, "factor": 0.5},
        lambda t, learning_rate, step_size, factor: learning_rate * factor ** (t // step_size),
    ),
    (
        "exponential_decay",
        schedules.exponential_decay,
        {"learning_rate": 0.3, "decay_steps": 7.0, "factor": 0.5},
        lambda t, learning_rate, decay_steps, factor: learning_rate * factor ** (t / decay_steps),
    ),
    (
        "staircase",
        lambda **numbers: schedules.exponential_decay(**numbers, staircase=True),
        {"learning_rate": 0.3, "decay_steps": 7.0, "factor": 0.5},
        lambda t, learning_rate, decay_steps, factor: learning_rate * factor ** np.floor(t / decay_steps),
    ),
    (
        "cosine_decay",
        schedules.cosine_decay,
        {"learning_rate": 0.3, "decay_steps": 40.0, "alpha": 0.1},
        lambda t, learning_rate, decay_steps, alpha: np.where(
            t < decay_steps,
            learning_rate * (alpha + (1 - alpha) * 0.5 * (1 + np.cos(np.pi * t / decay_steps))),
            learning_rate * alpha,
        ),
    ),
    (
        "warmup",
        schedules.warmup,
        {"learning_rate": 0.3, "warmup_steps": 8.0, "init_value": 0.02},
        lambda t, learning_rate, warmup_steps, init_value: np.where(
            t < warmup_steps, init_value + (learning_rate - init_value) * t / warmup_steps, learning_rate
        ),
    ),
    (
        "warmup_cosine",
        lambda warmup_steps, **numbers: schedules.warmup(schedules.cosine_decay(**numbers), warmup_steps),
        {"learning_rate": 0.3, "decay_steps": 40.0, "warmup_steps": 8.0},
        lambda t, learning_rate, decay_steps, warmup_steps: np.where(
            t < warmup_steps,
            learning_rate * t / warmup_steps,
            learning_rate * 0.5 * (1 + np.cos(np.pi * np.clip((t - warmup_steps) / decay_steps, 0, 1))),
        ),
    ),
]
each_schedule = pytest.mark.parametrize(
    ("factory", "numbers", "closed"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)


@each_schedule
def test_values_equal_the_closed_form(factory, numbers, closed):
    expected = closed(COUNTS.astype(np.float64), **numbers)
    np.testing.assert_allclose(factory(**numbers)(COUNTS), expected, rtol=3e-6, atol=1e-8)
    with jax.enable_x64(True):
        np.testing.assert_allclose(factory(**numbers)(COUNTS), expected, rtol=1e-13, atol=1e-16)


@each_schedule
def test_one_count_at_a_time_equals_all_at_once(factory, numbers, closed):
    schedule = factory(**numbers)
    together = schedule(jnp.asarray(COUNTS))
    assert together.shape == COUNTS.shape
    for count in COUNTS[::9]:
        np.testing.assert_allclose(schedule(jnp.int32(count)), together[count], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(schedule(int(count)), together[count], rtol=1e-6, atol=1e-7)


@each_schedule
def test_the_result_is_the_default_float_and_not_weak(factory, numbers, closed):
    for given in (numbers, jax.tree.map(jnp.asarray, numbers), jax.tree.map(np.float64, numbers)):
        rate = factory(**given)(jnp.int32(3))
        assert (rate.shape, rate.dtype, rate.weak_type) == ((), jnp.float32, False)
        with jax.enable_x64(True):
            rate = factory(**given)(jnp.int32(3))
            assert (rate.dtype, rate.weak_type) == (jnp.float64, False)


@each_schedule
def test_numbers_may_be_traced_and_swept_in_one_trace(factory, numbers, closed):
    traces = []

    @jax.jit
    @jax.vmap
    def rates(given):
        traces.append(None)
        return factory(**given)(jnp.asarray(COUNTS))

    factors = np.linspace(0.6, 1.0, 5, dtype=np.float32)
    for shift in (0.0, 0.01):
        swept = jax.tree.map(lambda number, shift=shift: jnp.float32(number) * (factors - shift), numbers)
        lanes = rates(swept)
        for lane in range(len(factors)):
            alone = {name: float(values[lane]) for name, values in swept.items()}
            # a step size of floating point may put a count on either side of a step: allow for that count alone
            close = np.isclose(lanes[lane], closed(COUNTS.astype(np.float64), **alone), rtol=1e-5, atol=1e-7)
            assert close.sum() >= len(COUNTS) - 1
    assert len(traces) == 1


@each_schedule
def test_derivatives_in_every_number_equal_finite_differences(factory, numbers, closed):
    counts = np.array([0, 1, 5, 12, 33, 59])
    with jax.enable_x64(True):
        given = {name: jnp.float64(number) + 0.0312 for name, number in numbers.items()}  # off the boundaries
        check_grads(
            jax.jit(lambda g: factory(**g)(counts)), (given,), order=1, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (schedules.exponential_decay(0.3, 7, 0.5), optax.exponential_decay(0.3, 7, 0.5)),
        (
            schedules.exponential_decay(0.3, 7, 0.5, staircase=True),
            optax.exponential_decay(0.3, 7, 0.5, staircase=True),
        ),
        (schedules.step_decay(0.3, 7, 0.5), optax.exponential_decay(0.3, 7, 0.5, staircase=True)),
        (schedules.step_decay(0.3, 20, 0.5), optax.piecewise_constant_schedule(0.3, {20: 0.5, 40: 0.5})),
        (schedules.cosine_decay(0.3, 40), optax.cosine_decay_schedule(0.3, 40)),
        (schedules.cosine_decay(0.3, 40, alpha=0.2), optax.cosine_decay_schedule(0.3, 40, alpha=0.2)),
        (schedules.warmup(0.3, 8), optax.warmup_constant_schedule(0.0, 0.3, 8)),
        (schedules.warmup(0.3, 8, 0.1), optax.warmup_constant_schedule(0.1, 0.3, 8)),
        (
            schedules.warmup(schedules.cosine_decay(0.3, 40, alpha=0.1), 8, 0.05),
            optax.warmup_cosine_decay_schedule(0.05, 0.3, 8, 48, end_value=0.03),
        ),
        (
            schedules.warmup(schedules.exponential_decay(0.3, 7, 0.5), 8),
            optax.warmup_exponential_decay_schedule(0.0, 0.3, 8, 7, 0.5),
        ),
        (
            schedules.warmup(optax.cosine_decay_schedule(0.3, 40), 8),
            optax.warmup_cosine_decay_schedule(0.0, 0.3, 8, 48),
        ),
    ],
)
def test_values_equal_optax(ours, theirs):
    np.testing.assert_allclose(
        [ours(jnp.int32(c)) for c in COUNTS[::3]], [theirs(jnp.int32(c)) for c in COUNTS[::3]], rtol=3e-6, atol=1e-7
    )


def test_a_drop_falls_on_its_step_exactly():
    for step_size in (1, 3, 10, 64, 999):
        counts = np.arange(0, 200_000, 7)
        schedule = schedules.step_decay(1.0, step_size, 0.5)
        np.testing.assert_array_equal(schedule(counts) > 0.75, counts < step_size)
        edges = np.arange(1, 20) * step_size
        np.testing.assert_allclose(np.log2(schedule(edges)), -(edges // step_size), rtol=1e-5)
        np.testing.assert_allclose(np.log2(schedule(edges - 1)), -((edges - 1) // step_size), rtol=1e-5)


def test_warmup_of_no_steps_is_the_schedule_itself():
    after = schedules.cosine_decay(0.3, 40)
    for steps in (0, jnp.int32(0), jnp.float32(0)):
        np.testing.assert_array_equal(schedules.warmup(after, steps, 0.1)(COUNTS), after(COUNTS))
    assert np.isfinite(jax.grad(lambda steps: schedules.warmup(after, steps, 0.1)(0))(0.0))


def test_warmup_hands_integer_counts_to_the_schedule_after_it():
    table = jnp.array([0.4, 0.3, 0.2, 0.1])
    schedule = schedules.warmup(lambda count: table[count], 2)
    np.testing.assert_allclose([schedule(jnp.int32(c)) for c in range(6)], [0.0, 0.2, 0.4, 0.3, 0.2, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: schedules.constant(-0.1), "learning_rate"),
        (lambda: schedules.constant(float("nan")), "learning_rate"),
        (lambda: schedules.step_decay(0.1, 0), "step_size"),
        (lambda: schedules.step_decay(0.1, 10, 0.0), "factor"),
        (lambda: schedules.exponential_decay(float("inf"), 10, 0.5), "learning_rate"),
        (lambda: schedules.exponential_decay(0.1, -1, 0.5), "decay_steps"),
        (lambda: schedules.exponential_decay(0.1, 10, -0.5), "factor"),
        (lambda: schedules.cosine_decay(0.1, 0), "decay_steps"),
        (lambda: schedules.cosine_decay(0.1, 10, alpha=1.5), "alpha"),
        (lambda: schedules.warmup(-0.1, 10), "learning_rate"),
        (lambda: schedules.warmup(0.1, -1), "warmup_steps"),
        (lambda: schedules.warmup(0.1, 10, -1.0), "init_value"),
    ],
)
def test_a_number_out_of_range_is_named(make, name):
    with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
        make()


def test_what_is_no_number_is_named():
    with pytest.raises(TypeError, match=r"^factor: expected a number, got 'fast'"):
        schedules.exponential_decay(0.1, 10, "fast")  # pyright: ignore
