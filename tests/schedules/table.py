"""Every schedule with numbers that may all be traced, and the same in NumPy's float64."""

import math
from itertools import pairwise

import numpy as np
import pytest

from jaxopt_nn import schedules

COUNTS = np.arange(60)


def closed_restarts(t, learning_rate, period, longer, m_mult, alpha):
    """SGDR as a loop over cycles."""

    def at(count):
        begin, length, n = 0.0, period, 0
        while begin + length <= count:
            begin, length, n = begin + length, length * (1 + longer), n + 1
        cosine = (1 + math.cos(math.pi * (count - begin) / length)) / 2
        return learning_rate * (alpha + (1 - alpha) * m_mult**n * cosine)

    return np.array([at(count) for count in t])


def restarts(learning_rate, period, longer, m_mult, alpha):
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
        restarts,
        {"learning_rate": 0.3, "period": 7.0, "longer": 1.0, "m_mult": 0.7, "alpha": 0.1},
        closed_restarts,
    ),
    (
        "cosine_restarts_of_one_length",
        restarts,
        {"learning_rate": 0.3, "period": 7.0, "longer": 0.0, "m_mult": 1.1, "alpha": 0.0},
        closed_restarts,
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
