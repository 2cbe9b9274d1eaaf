"""What holds for every schedule alike: its values, traced and swept numbers, derivatives, types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import schedules
from tests.schedules.table import COUNTS, TABLE, each_schedule


def test_no_schedule_is_forgotten():
    assert set(schedules.__all__) - {"Schedule"} <= {row[0] for row in TABLE}


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
        at = jnp.array(list(numbers.values())) + 0.0312  # off the boundaries

        def rates(vector):
            return factory(**dict(zip(numbers, vector, strict=True)))(counts)

        @jax.jit
        def evaluate(at):
            moves = 1e-5 * jnp.eye(len(at))
            above, below = jnp.split(jax.vmap(rates)(at[None] + jnp.concatenate([moves, -moves])), 2)
            return jax.jacfwd(rates)(at), jax.jacrev(rates)(at), ((above - below) / 2e-5).T

        forward, reverse, difference = evaluate(at)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(forward, difference, rtol=1e-6, atol=1e-6)
        assert (np.abs(forward).max(axis=0) > 0).any()


def test_derivatives_are_finite_at_every_count_and_at_ends_that_have_none():
    rows = [
        (lambda p: schedules.polynomial_decay(0.3, p[0], p[1]), [7.0, 0.5]),
        (lambda p: schedules.linear(0.3, p[1], p[0]), [0.0, 0.5]),
        (lambda p: schedules.cosine_restarts(0.3, p[0], t_mult=p[1]), [7.0, 1.0]),
        (lambda p: schedules.cosine_restarts(0.3, p[0], t_mult=p[1]), [1.0, 2.0]),
        (lambda p: schedules.one_cycle(0.3, p[0], warmup_fraction=p[1]), [50.0, 0.0]),
        (lambda p: schedules.one_cycle(0.3, p[0], warmup_fraction=p[1]), [50.0, 1.0]),
        (lambda p: schedules.warmup(schedules.step_decay(0.3, 3), p[0], p[1]), [0.0, 0.1]),
        (lambda p: schedules.join([schedules.exponential_decay(0.1, 1, p[1]), 0.2], [p[0]]), [5.0, 1e6]),
    ]
    counts = np.array([0, 1, 6, 7, 8, 25, 50, 51, 10**6])

    @jax.jit
    def evaluate(points):
        pairs = [(lambda p, make=make: make(p)(counts), point) for (make, _), point in zip(rows, points, strict=True)]
        return [(jax.jacfwd(rates)(point), jax.jacrev(rates)(point)) for rates, point in pairs]

    for forward, reverse in evaluate([jnp.array(numbers) for _, numbers in rows]):
        np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-6)
        assert np.isfinite(forward).all()


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
        (lambda: schedules.multi_step_decay(0.1, [1, -1]), r"boundaries\[1\]"),
        (lambda: schedules.multi_step_decay(0.1, [1, 2], 0.0), "factor"),
        (lambda: schedules.multi_step_decay(0.1, [1, 2], [0.1, -0.1]), r"factor\[1\]"),
        (lambda: schedules.exponential_decay(0.1, 1, 0.5, end_value=-1.0), "end_value"),
        (lambda: schedules.polynomial_decay(0.1, 1, 0.0), "power"),
        (lambda: schedules.polynomial_decay(0.1, 0), "decay_steps"),
        (lambda: schedules.polynomial_decay(0.1, 1, end_value=-1), "end_value"),
        (lambda: schedules.linear(-0.1, 0.1, 1), "init_value"),
        (lambda: schedules.linear(0.1, -0.1, 1), "end_value"),
        (lambda: schedules.linear(0.1, 0.1, -1), "steps"),
        (lambda: schedules.inverse_sqrt_decay(0.1, 0), "timescale"),
        (lambda: schedules.cosine_restarts(0.1, 0), "period"),
        (lambda: schedules.cosine_restarts(0.1, 1, t_mult=0.5), "t_mult"),
        (lambda: schedules.cosine_restarts(0.1, 1, m_mult=0.0), "m_mult"),
        (lambda: schedules.cosine_restarts(0.1, 1, alpha=1.5), "alpha"),
        (lambda: schedules.one_cycle(-1.0, 10), "peak"),
        (lambda: schedules.one_cycle(1.0, 0), "total_steps"),
        (lambda: schedules.one_cycle(1.0, 10, warmup_fraction=1.5), "warmup_fraction"),
        (lambda: schedules.one_cycle(1.0, 10, final_fraction=1.5), "final_fraction"),
        (lambda: schedules.one_cycle(1.0, 10, div_factor=0), "div_factor"),
        (lambda: schedules.one_cycle(1.0, 10, final_div_factor=0), "final_div_factor"),
        (lambda: schedules.join([0.1, 0.2], [-1]), r"boundaries\[0\]"),
        (lambda: schedules.join([0.1, -0.2], [1]), "learning_rate"),
        (lambda: schedules.by_epoch(0.1, 0), "steps_per_epoch"),
    ],
)
def test_a_number_out_of_range_is_named(make, name):
    with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: schedules.warmup(1000, 0.1), "warmup_steps"),  # swapped
        (lambda: schedules.cosine_decay(1000, 0.1), "decay_steps"),
        (lambda: schedules.step_decay(0.1, 0.9), "step_size"),
        (lambda: schedules.exponential_decay(0.1, 0.9, 100), "decay_steps"),
        (lambda: schedules.polynomial_decay(1000, 0.1), "decay_steps"),
        (lambda: schedules.linear(0.1, 100.0, 0.5), "steps"),
        (lambda: schedules.inverse_sqrt_decay(1000, 0.1), "timescale"),
        (lambda: schedules.cosine_restarts(1000, 0.1), "period"),
        (lambda: schedules.one_cycle(1000, 0.1), "total_steps"),
        (lambda: schedules.by_epoch(0.1, 0.5), "steps_per_epoch"),
        (lambda: schedules.multi_step_decay(0.1, [0.5, 0.75]), r"boundaries\[0\]"),  # fractions of a training
    ],
)
def test_a_part_of_a_step_is_no_number_of_steps(make, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected a number of steps, (0 or )?1 or more, got 0\.\d"):
        make()


@each_schedule
def test_promotions_are_said_where_jax_asks_for_that(factory, numbers, closed):
    with jax.numpy_dtype_promotion("strict"):
        for count in (jnp.int32(3), np.int64(3), jnp.float32(3), 3):
            jax.eval_shape(lambda given, count=count: factory(**given)(count), numbers)
            jax.eval_shape(factory(**numbers), count)


def test_what_is_no_number_is_named():
    for bad in ("fast", np.str_("0.5"), np.complex64(0.5), True, None, [0.5]):
        with pytest.raises(TypeError, match=r"^factor: expected a number, got "):
            schedules.exponential_decay(0.1, 10, bad)  # pyright: ignore
        with pytest.raises(TypeError, match=r"^decay_steps: expected a number, got "):
            schedules.cosine_decay(0.1, bad)  # pyright: ignore


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.multi_step_decay(0.1, [5, 4]), r"^boundaries\[1\]: expected no less than .*, 5, got 4"),
        (lambda: schedules.constant(np.ones(2)), r"^learning_rate: expected one number, got an array of shape \(2,\)"),
        (lambda: schedules.join([0.1, 0.2], [np.ones(2)]), r"^boundaries\[0\]: expected one number, got an array of"),
        (
            lambda: schedules.one_cycle(0.1, 9, final_fraction=0.2),
            "^final_fraction: expected no less than warmup_fraction, 0.3, got 0.2",
        ),
        (lambda: schedules.multi_step_decay(0.1, 5), r"^boundaries: expected a sequence of numbers of steps, got 5"),
        (lambda: schedules.multi_step_decay(0.1, [1, 2], [0.5]), "^factor: expected one, or one a boundary, 2, got 1"),
        (lambda: schedules.join([0.1, 0.2], [1, 2]), "^boundaries: expected one less than .* there are 2, got 2"),
        (lambda: schedules.join([], []), "^boundaries: expected one less than schedules, of which there are 0, got 0"),
        (lambda: schedules.one_cycle(0.1, 9, anneal="cos"), '^anneal: expected "cosine" or "linear", got \'cos\''),
        (lambda: schedules.one_cycle(0.1, 9, convention="keras"), '^convention: expected "optax" or "torch", got'),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()
