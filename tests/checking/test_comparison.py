"""Decisions on made-up samples: what fails, what a kink excuses, and whether the stated miss probability is true."""

import numpy as np
import pytest

from jaxopt_nn.checking._sampling.differences import Slopes
from jaxopt_nn.checking._sampling.lines import Curve, Sample
from jaxopt_nn.checking._verdict.comparison import (
    Tolerance,
    at_kink,
    compare,
    gaussian_miss_bound,
    leave_out_crossings,
    numeric_norm,
)

TOLERANCE = Tolerance(rtol=1e-6, z=5.0, resolution=1e-3, miss_probability=0.05)


def smooth(value, sigma=1e-9):
    value = np.asarray(value, float)
    bars = np.full_like(value, sigma)
    return Slopes(value, bars, bars, value, bars, value, bars)


def kink(left, right, sigma=1e-9):
    left, right = np.asarray(left, float), np.asarray(right, float)
    bars = np.full_like(left, sigma)
    return Slopes((left + right) / 2, bars, bars, left, bars, right, bars)


def sample(slopes, scale=1.0):
    count = len(slopes.value)
    nothing = np.zeros((count, 0))
    curve = Curve(np.zeros(0), nothing, nothing, nothing.astype(bool))
    return Sample(slopes, np.full(count, scale), 0.0, False, True, 1e-16, curve, 13 * count)


def test_the_bound_is_error_bars_plus_a_part_of_the_norm():
    claimed = 1 + np.array([0.0, 1.9e-6, 2.1e-6, -2.1e-6])
    assert compare(claimed, smooth(np.ones(4), sigma=0.0), 2.0, TOLERANCE).wrong.tolist() == [False, False, True, True]
    claimed = 1 + np.array([0.0, 4.9e-3, 5.1e-3])
    assert compare(claimed, smooth(np.ones(3), sigma=1e-3), 1e-9, TOLERANCE).wrong.tolist() == [False, False, True]


def test_a_slope_that_could_not_be_had_is_not_wrong():
    assert not np.any(compare(np.ones(2), smooth([np.nan, np.nan], sigma=np.inf), 1.0, TOLERANCE).wrong)


def test_at_a_kink_the_interval_of_one_sided_slopes_is_allowed():
    claimed = np.array([-1.1, -1.0, 0.3, 1.0, 1.1])
    found = compare(claimed, kink(-np.ones(5), np.ones(5)), 1.0, TOLERANCE)
    assert found.wrong.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(found.jump, 2.0)
    np.testing.assert_allclose(found.residual, [-0.1, 0.0, 0.0, 0.0, 0.1], atol=1e-12)
    swapped = compare(claimed, kink(np.ones(5), -np.ones(5)), 1.0, TOLERANCE)  # a concave kink
    assert swapped.wrong.tolist() == found.wrong.tolist()


def test_one_line_that_meets_a_kink_nearby_gives_no_evidence():
    one = compare(np.full(8, 5.0), kink([-1.0] + [0.0] * 7, [1.0] + [0.0] * 7), 1.0, TOLERANCE)
    assert not at_kink(one, 4)
    assert leave_out_crossings(one, 4).wrong.tolist() == [False] + [True] * 7
    every = compare(np.full(8, 5.0), kink([-1.0] * 8, [1.0] * 8), 1.0, TOLERANCE)
    assert at_kink(every, 4) and np.all(leave_out_crossings(every, 4).wrong)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_errors_escape_the_bound_with_the_stated_probability(count):
    generator = np.random.default_rng(0)
    missed = 0
    for _ in range(600):
        # An error of norm 1e-4, seen along Gaussian directions that were divided by a scale.
        claimed = 1e-4 * generator.standard_normal(count) / 1.7
        slopes = sample(smooth(np.zeros(count), sigma=0.0), scale=1.7)
        bound = gaussian_miss_bound(compare(claimed, slopes.slopes, 1.0, TOLERANCE), slopes, count, 1.0, TOLERANCE)
        missed += bound < 1e-4
    assert 0.02 < missed / 600 < 0.08


def test_lines_with_wide_bars_give_no_bound():
    slopes = sample(smooth(np.zeros(4), sigma=1.0))
    assert gaussian_miss_bound(compare(np.zeros(4), slopes.slopes, 1.0, TOLERANCE), slopes, 4, 1.0, TOLERANCE) == np.inf


def test_the_numeric_norm_is_that_of_the_gradient():
    gradient = np.random.default_rng(1).standard_normal(50)
    lines = np.random.default_rng(2).standard_normal((4000, 50))
    np.testing.assert_allclose(numeric_norm(sample(smooth(lines @ gradient))), np.linalg.norm(gradient), rtol=0.05)
    np.testing.assert_allclose(numeric_norm(sample(kink([0.0, 0.0], [3.0, -3.0], sigma=0.0))), 3.0)  # the larger side
