"""Boundaries fall on their steps exactly, however a number of steps comes and a backend divides."""

import jax
import numpy as np
import pytest

from jaxopt_nn import schedules

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
