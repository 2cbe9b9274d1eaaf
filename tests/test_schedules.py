import json
import math
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from jaxopt_nn import schedules

COUNTS = np.arange(60)
GOLDEN = json.loads((Path(__file__).parent / "golden_schedules" / "torch.json").read_text())


def _closed_restarts(t, learning_rate, period, longer, m_mult, alpha):
    """SGDR as a loop over cycles."""

    def at(count):
        begin, length, n = 0.0, period, 0
        while begin + length <= count:
            begin, length, n = begin + length, length * (1 + longer), n + 1
        cosine = (1 + math.cos(math.pi * (count - begin) / length)) / 2
        return learning_rate * (alpha + (1 - alpha) * m_mult**n * cosine)

    return np.array([at(count) for count in t])


def _restarts(learning_rate, period, longer, m_mult, alpha):
    return schedules.cosine_restarts(learning_rate, period, t_mult=1.0 + longer, m_mult=m_mult, alpha=alpha)


def _closed_phases(t, values, ends, anneal):
    """From each value to the next, by phases."""
    done = [np.clip((t - a) / (b - a), 0, 1) for a, b in pairwise(ends)]
    if anneal == "cosine":
        done = [(1 - np.cos(np.pi * x)) / 2 for x in done]
    return values[0] + sum((b - a) * x for a, b, x in zip(values[:-1], values[1:], done, strict=True))


def _closed_one_cycle(t, peak, total_steps, warmup_fraction, div_factor, final_div_factor):
    values = [peak / div_factor, peak, peak / div_factor / final_div_factor]
    return _closed_phases(t, values, [0, warmup_fraction * total_steps, total_steps], "cosine")


def _closed_three_phases(t, peak, total_steps, warmup_fraction, final_fraction, div_factor, final_div_factor):
    values = [peak / div_factor, peak, peak / div_factor, peak / div_factor / final_div_factor]
    ends = [0, warmup_fraction * total_steps - 1, final_fraction * total_steps - 2, total_steps - 1]
    return _closed_phases(t, values, ends, "linear")


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
    (
        "multi_step_decay",
        lambda learning_rate, first, second, third, factor: schedules.multi_step_decay(
            learning_rate, [first, second, third], factor
        ),
        {"learning_rate": 0.3, "first": 5.0, "second": 20.0, "third": 41.0, "factor": 0.5},
        lambda t, learning_rate, first, second, third, factor: (
            learning_rate * factor ** (1.0 * (t >= first) + (t >= second) + (t >= third))
        ),
    ),
    (
        "multi_step_decay_by_many",
        lambda learning_rate, first, second, high, low: schedules.multi_step_decay(
            learning_rate, [first, second], [high, low]
        ),
        {"learning_rate": 0.3, "first": 5.0, "second": 20.0, "high": 1.5, "low": 0.1},
        lambda t, learning_rate, first, second, high, low: (
            learning_rate * np.where(t >= first, high, 1.0) * np.where(t >= second, low, 1.0)
        ),
    ),
    (
        "exponential_decay_to_an_end",
        schedules.exponential_decay,
        {"learning_rate": 0.3, "decay_steps": 7.0, "factor": 0.5, "end_value": 0.02},
        lambda t, learning_rate, decay_steps, factor, end_value: np.maximum(
            learning_rate * factor ** (t / decay_steps), end_value
        ),
    ),
    (
        "exponential_growth_to_an_end",
        schedules.exponential_decay,
        {"learning_rate": 0.01, "decay_steps": 7.0, "factor": 1.5, "end_value": 0.2},
        lambda t, learning_rate, decay_steps, factor, end_value: (np.minimum if factor > 1 else np.maximum)(
            learning_rate * factor ** (t / decay_steps), end_value
        ),
    ),
    (
        "polynomial_decay",
        schedules.polynomial_decay,
        {"learning_rate": 0.3, "decay_steps": 40.0, "power": 2.5, "end_value": 0.01},
        lambda t, learning_rate, decay_steps, power, end_value: (
            end_value + (learning_rate - end_value) * np.clip(1 - t / decay_steps, 0, 1) ** power
        ),
    ),
    (
        "polynomial_root",
        schedules.polynomial_decay,
        {"learning_rate": 0.3, "decay_steps": 40.0, "power": 0.5},
        lambda t, learning_rate, decay_steps, power: learning_rate * np.clip(1 - t / decay_steps, 0, 1) ** power,
    ),
    (
        "linear",
        schedules.linear,
        {"init_value": 0.3, "end_value": 0.02, "steps": 33.0},
        lambda t, init_value, end_value, steps: init_value + (end_value - init_value) * np.clip(t / steps, 0, 1),
    ),
    (
        "inverse_sqrt_decay",
        schedules.inverse_sqrt_decay,
        {"learning_rate": 0.3, "timescale": 9.0},
        lambda t, learning_rate, timescale: learning_rate / np.sqrt(1 + t / timescale),
    ),
    (
        "transformer",
        lambda learning_rate, steps: schedules.warmup(schedules.inverse_sqrt_decay(learning_rate, steps), steps),
        {"learning_rate": 0.3, "steps": 9.0},
        lambda t, learning_rate, steps: learning_rate * np.minimum(t / steps, np.sqrt(steps / np.maximum(t, 1e-9))),
    ),
    (
        "cosine_restarts",
        _restarts,
        {"learning_rate": 0.3, "period": 7.0, "longer": 1.0, "m_mult": 0.7, "alpha": 0.1},
        _closed_restarts,
    ),
    (
        "cosine_restarts_of_one_length",
        _restarts,
        {"learning_rate": 0.3, "period": 7.0, "longer": 0.0, "m_mult": 1.1, "alpha": 0.0},
        _closed_restarts,
    ),
    (
        "one_cycle",
        schedules.one_cycle,
        {"peak": 0.3, "total_steps": 50.0, "warmup_fraction": 0.3, "div_factor": 10.0, "final_div_factor": 100.0},
        _closed_one_cycle,
    ),
    (
        "one_cycle_in_three_phases",
        lambda **numbers: schedules.one_cycle(**numbers, anneal="linear", convention="torch"),
        {
            "peak": 0.3,
            "total_steps": 50.0,
            "warmup_fraction": 0.3,
            "final_fraction": 0.7,
            "div_factor": 10.0,
            "final_div_factor": 100.0,
        },
        _closed_three_phases,
    ),
    (
        "join",
        lambda low, high, up, down, rate: schedules.join(
            [schedules.linear(low, high, up), high, schedules.exponential_decay(high, 3, rate)], [up, down]
        ),
        {"low": 0.02, "high": 0.3, "up": 10.0, "down": 25.0, "rate": 0.5},
        lambda t, low, high, up, down, rate: np.where(
            t < up, low + (high - low) * t / up, high * np.where(t < down, 1.0, rate ** ((t - down) / 3))
        ),
    ),
    (
        "by_epoch",
        lambda steps_per_epoch, **numbers: schedules.by_epoch(schedules.cosine_decay(**numbers), steps_per_epoch),
        {"learning_rate": 0.3, "decay_steps": 8.0, "steps_per_epoch": 6.0},
        lambda t, learning_rate, decay_steps, steps_per_epoch: (
            learning_rate * (1 + np.cos(np.pi * np.clip(np.floor(t / steps_per_epoch) / decay_steps, 0, 1))) / 2
        ),
    ),
    (
        "by_epoch_smoothly",
        lambda steps_per_epoch, **numbers: schedules.by_epoch(
            schedules.cosine_decay(**numbers), steps_per_epoch, staircase=False
        ),
        {"learning_rate": 0.3, "decay_steps": 8.0, "steps_per_epoch": 6.0},
        lambda t, learning_rate, decay_steps, steps_per_epoch: (
            learning_rate * (1 + np.cos(np.pi * np.clip(t / steps_per_epoch / decay_steps, 0, 1))) / 2
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
            jax.jit(lambda g: factory(**g)(counts)),
            (given,),
            order=1,
            modes=("fwd", "rev"),
            eps=1e-5,
            rtol=1e-6,
            atol=1e-6,
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
        (
            schedules.exponential_decay(0.3, 7, 0.5, end_value=0.02),
            optax.exponential_decay(0.3, 7, 0.5, end_value=0.02),
        ),
        (schedules.exponential_decay(0.1, 7, 1.5, end_value=0.4), optax.exponential_decay(0.1, 7, 1.5, end_value=0.4)),
        (
            schedules.multi_step_decay(0.3, [4, 33], [0.5, 3.0]),
            optax.piecewise_constant_schedule(0.3, {4: 0.5, 33: 3.0}),
        ),
        (schedules.polynomial_decay(0.3, 40, 2.5, end_value=0.1), optax.polynomial_schedule(0.3, 0.1, 2.5, 40)),
        (schedules.linear(0.1, 0.3, 40), optax.linear_schedule(0.1, 0.3, 40)),
        (
            schedules.join([schedules.cosine_decay(0.3, 20), schedules.cosine_decay(0.2, 30, alpha=0.1)], [20]),
            optax.sgdr_schedule(
                [
                    {"init_value": 0.3, "peak_value": 0.3, "warmup_steps": 0, "decay_steps": 20, "end_value": 0.0},
                    {"init_value": 0.2, "peak_value": 0.2, "warmup_steps": 0, "decay_steps": 30, "end_value": 0.02},
                ]
            ),
        ),
        (schedules.one_cycle(0.3, 50), optax.cosine_onecycle_schedule(50, 0.3)),
        (
            schedules.one_cycle(0.3, 40, warmup_fraction=0.25, div_factor=5.0, final_div_factor=10.0),
            optax.cosine_onecycle_schedule(40, 0.3, 0.25, 5.0, 10.0),
        ),
        (
            schedules.one_cycle(0.3, 40, warmup_fraction=0.25, final_fraction=0.75, anneal="linear"),
            optax.linear_onecycle_schedule(40, 0.3, 0.25, 0.75),
        ),
        (
            schedules.join(
                [optax.linear_schedule(0.1, 0.3, 9), 0.3, schedules.exponential_decay(0.3, 7, 0.5)], [9, 20]
            ),
            optax.join_schedules(
                [
                    optax.linear_schedule(0.1, 0.3, 9),
                    optax.constant_schedule(0.3),
                    optax.exponential_decay(0.3, 7, 0.5),
                ],
                [9, 20],
            ),
        ),
    ],
)
def test_values_equal_optax(ours, theirs):
    np.testing.assert_allclose(
        [ours(jnp.int32(c)) for c in COUNTS[::3]], [theirs(jnp.int32(c)) for c in COUNTS[::3]], rtol=3e-6, atol=1e-7
    )


def _like_torch(name, options, rate):
    """Our schedule for the options of one of PyTorch's schedulers."""
    match name:
        case "StepLR":
            return schedules.step_decay(rate, options["step_size"], options["gamma"])
        case "MultiStepLR":
            return schedules.multi_step_decay(rate, options["milestones"], options["gamma"])
        case "ExponentialLR":
            return schedules.exponential_decay(rate, 1, options["gamma"])
        case "PolynomialLR":
            return schedules.polynomial_decay(rate, options["total_iters"], options["power"])
        case "LinearLR":
            ends = (rate * options[key] for key in ("start_factor", "end_factor"))
            return schedules.linear(*ends, options["total_iters"])
        case "CosineAnnealingWarmRestarts":
            alpha = options["eta_min"] / rate
            return schedules.cosine_restarts(rate, options["T_0"], t_mult=options["T_mult"], alpha=alpha)
        case "OneCycleLR":
            numbers = {"warmup_fraction": options.get("pct_start", 0.3)}
            if options.get("three_phase"):
                numbers["final_fraction"] = 2 * numbers["warmup_fraction"]
            numbers |= {key: options[key] for key in ("div_factor", "final_div_factor") if key in options}
            anneal = options.get("anneal_strategy", "cos").replace("cos", "cosine")
            return schedules.one_cycle(rate, options["total_steps"], **numbers, anneal=anneal, convention="torch")
        case "SequentialLR":
            parts = [schedules.linear(0.1 * rate, rate, options["warmup"])]
            parts.append(schedules.exponential_decay(rate, 1, options["gamma"]))
            return schedules.join(parts, [options["warmup"]])


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=[f"{i}-{row['name']}" for i, row in enumerate(GOLDEN["rows"])])
def test_values_equal_torch(row):
    make = lambda: _like_torch(row["name"], row["options"], GOLDEN["learning_rate"])(COUNTS)  # noqa: E731
    np.testing.assert_allclose(make(), row["rates"], rtol=1e-5, atol=1e-8)
    with jax.enable_x64(True):
        np.testing.assert_allclose(make(), row["rates"], rtol=1e-13, atol=1e-16)


# How a number of steps comes: as an argument of the program or as a constant of it, an integer or a float.
each_kind = pytest.mark.parametrize("kind", [np.int32, np.float32], ids=["int32", "float32"])
each_way = pytest.mark.parametrize("way", ["argument", "constant", "eager"])


def _evaluations(make, sizes, kind, way):
    """``make(size, counts)`` for each size with its counts, compiled as few times as may be."""
    traced = jax.jit(make)
    for size, counts in sizes.items():
        if way == "argument":
            yield size, counts, traced(kind(size), counts)
        elif way == "eager":
            yield size, counts, make(kind(size).item(), counts)
        elif size in (7, 41, 49):  # where a float32 times its reciprocal is less than 1
            yield size, counts, jax.jit(lambda counts, size=size: make(kind(size).item(), counts))(counts)


@each_kind
@each_way
def test_a_drop_falls_on_its_step_exactly(kind, way):
    def rates(size, counts):
        return {
            "epoch": schedules.by_epoch(lambda epoch: epoch, size)(counts),
            "step_decay": schedules.step_decay(1.0, size, 0.999)(counts),
            "multi_step_decay": schedules.multi_step_decay(1.0, [size, 3 * size], 0.5)(counts),
            "join": schedules.join([0.0, lambda count: 1.0 + count, lambda count: -1.0], [size, 2 * size])(counts),
        }

    sizes = {}
    for size in (1, 3, 7, 41, 49, 999, 46_811) if way == "argument" else (3, 49):
        edges = np.concatenate([np.arange(1, 41), np.linspace(41, 2**24 // size, 160).astype(int)]) * size
        sizes[size] = np.concatenate([edges - 1, edges])
    for size, counts, found in _evaluations(rates, sizes, kind, way):
        assert counts.max() <= 2**24
        np.testing.assert_array_equal(found["epoch"], counts // size)
        few = counts < 400 * size
        drops = np.log(found["step_decay"][few]) / np.log(0.999)
        np.testing.assert_allclose(drops, counts[few] // size, atol=0.01)
        expected = 0.5 ** ((counts >= size) * 1.0 + (counts >= 3 * size))
        np.testing.assert_array_equal(found["multi_step_decay"], expected)
        second = (counts >= size) & (counts < 2 * size)
        np.testing.assert_array_equal(found["join"], np.select([counts < size, second], [0, 1 + counts - size], -1))


def test_integers_are_exact_beyond_what_a_float32_can_tell():
    for edge in (2**24 + 1, 2**30 + 7):
        counts = np.array([edge - 1, edge])
        np.testing.assert_array_equal(schedules.multi_step_decay(1.0, [edge], 0.5)(counts), [1.0, 0.5])
        np.testing.assert_array_equal(schedules.step_decay(1.0, edge, 0.5)(counts), [1.0, 0.5])
        np.testing.assert_array_equal(schedules.join([1.0, lambda count: 2.0 + count], [edge])(counts), [1.0, 2.0])
        np.testing.assert_array_equal(schedules.warmup(lambda count: 2.0 + count, edge)(counts)[1], 2.0)
    assert schedules.step_decay(1.0, 10**12)(2**31 - 1) == 1.0  # for ever, in effect


@each_kind
@each_way
@pytest.mark.parametrize("growth", [1, 2, 3, 7])
def test_a_restart_falls_on_its_step_exactly(growth, kind, way):
    sizes = {}
    for period in (1, 3, 7, 41, 49, 100) if way == "argument" else (1, 49):
        begins, length = [], period
        while len(begins) < 1000 and sum(begins[-1:]) + length <= min(2**18 * period, 2**23):
            begins.append(sum(begins[-1:]) + length)
            length *= growth
        begins = np.resize(begins, 1000)  # of one length: compiled once
        sizes[period] = np.concatenate([begins - 1, begins])

    def rates(period, counts):
        return schedules.cosine_restarts(1.0, period, t_mult=growth)(counts)

    for _, counts, found in _evaluations(rates, sizes, kind, way):
        peaks = (np.arange(2000) >= 1000) | (counts == 0) | np.isin(counts, counts[1000:])
        np.testing.assert_array_equal(found == 1.0, peaks)


def test_the_end_of_a_decay_is_its_end_exactly():
    counts = np.array([6, 7, 8, 10**6])
    for steps in (6, 7):
        for make, end in (
            (lambda steps: schedules.cosine_decay(0.3, steps, alpha=0.5), 0.15),
            (lambda steps: schedules.cosine_decay(0.3, steps), 0.0),
            (lambda steps: schedules.polynomial_decay(0.3, steps, 0.7, end_value=0.1), 0.1),
            (lambda steps: schedules.linear(0.3, 0.1, steps), 0.1),
            (lambda steps: schedules.warmup(0.1, steps, 0.3), 0.1),
        ):
            np.testing.assert_array_equal(make(steps)(counts) == np.float32(end), counts >= steps)


def test_the_last_steps_of_a_cosine_keep_their_digits():
    steps = 100_000
    counts = steps - np.array([1, 2, 3, 10, 100])
    exact = np.sin(np.pi / 2 * (steps - counts) / steps) ** 2
    np.testing.assert_allclose(schedules.cosine_decay(1.0, steps)(counts), exact, rtol=1e-6)
    one = schedules.one_cycle(1.0, steps, div_factor=1.0, final_div_factor=1e30)(counts)
    np.testing.assert_allclose(one, np.sin(np.pi / 2 * (steps - counts) / (0.7 * steps)) ** 2, rtol=1e-6)


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
    for make, numbers in rows:
        forward = jax.jacfwd(lambda p, make=make: make(p)(counts))(jnp.array(numbers))
        reverse = jax.jacrev(lambda p, make=make: make(p)(counts))(jnp.array(numbers))
        np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-6)
        assert np.isfinite(forward).all()


def test_cycles_may_be_a_little_longer_each_time():
    numbers = {"learning_rate": 0.3, "period": 3.37, "longer": 0.01, "m_mult": 1.0, "alpha": 0.0}
    for longer in (0.3, 0.01, 1e-4, 1e-9):
        numbers["longer"] = longer
        expected = _closed_restarts(COUNTS, **numbers)
        np.testing.assert_allclose(_restarts(**numbers)(COUNTS), expected, rtol=1e-3, atol=1e-4)
        with jax.enable_x64(True):
            np.testing.assert_allclose(_restarts(**numbers)(COUNTS), expected, rtol=1e-10, atol=1e-12)


def test_the_slope_in_the_growth_of_cycles_is_right_at_a_growth_of_1():
    with jax.enable_x64(True):
        rate = lambda growth: schedules.cosine_restarts(0.3, 7.0, t_mult=growth)(np.array([3, 12, 33, 59]))  # noqa: E731
        above, below = rate(jnp.float64(1 + 1e-6)), rate(jnp.float64(1.0))
        np.testing.assert_allclose(jax.jacfwd(rate)(jnp.float64(1.0)), (above - below) / 1e-6, rtol=1e-4, atol=1e-6)


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


def test_what_is_no_number_is_named():
    with pytest.raises(TypeError, match=r"^factor: expected a number, got 'fast'"):
        schedules.exponential_decay(0.1, 10, "fast")  # pyright: ignore


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.multi_step_decay(0.1, [5, 4]), r"^boundaries\[1\]: expected no less than .*, 5, got 4"),
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
