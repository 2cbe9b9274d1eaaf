"""Slopes and their error bars against closed forms; the quantile against SciPy."""

import numpy as np
import pytest
from scipy import stats

from jaxopt_nn.checking._sampling.differences import LADDER, chi_square_quantile, round_off, slopes_at_zero

STEPS = np.array(LADDER)


def slopes(fn, noise=2.0**-53):
    """Slopes of a few equal lines."""
    row = np.array([fn(0.0), *fn(STEPS), *fn(-STEPS)])
    block = np.tile(row, (4, 1))
    return slopes_at_zero(block[:, 0], block[:, 1:7], block[:, 7:], STEPS, noise)


@pytest.mark.parametrize(
    ("fn", "slope"),
    [
        (np.exp, 1.0),
        (lambda t: np.sin(3 * t + 1), 3 * np.cos(1)),
        (lambda t: 1 / (1 + np.exp(-(t - 2))), 0.10499358540350652),
        (lambda t: (1 + t) ** 5, 5.0),
        (lambda t: np.sin(1e3 * t), 1e3),
        # A whole number of periods lies between the largest steps: they agree on a slope of zero.
        (lambda t: np.sin(2 * np.pi * 1e3 * t), 2e3 * np.pi),
        # A kink beyond the third step.
        (lambda t: np.maximum(t, 3e-5), 0.0),
    ],
)
def test_the_error_bar_holds_the_true_slope_and_is_tight(fn, slope):
    found = slopes(fn)
    assert np.all(np.abs(found.value - slope) <= 6 * found.sigma)
    assert np.all(found.sigma <= 1e-6 * max(abs(slope), 1.0))
    for side, sigma in [(found.left, found.left_sigma), (found.right, found.right_sigma)]:
        assert np.all(np.abs(side - slope) <= 6 * sigma)
        assert np.all(sigma <= 2e-6 * max(abs(slope), 1.0))


def test_one_sided_slopes_part_at_a_kink_and_only_there():
    kink = slopes(lambda t: np.sin(t) + 2 * np.abs(t))
    np.testing.assert_allclose(kink.left, -1.0, atol=1e-7)
    np.testing.assert_allclose(kink.right, 3.0, atol=1e-7)
    smooth = slopes(lambda t: np.exp(5 * t))
    assert np.all(np.abs(smooth.right - smooth.left) <= 6 * (smooth.left_sigma + smooth.right_sigma))


def test_noise_widens_the_bar_and_the_bar_still_holds():
    generator = np.random.default_rng(0)
    for level in (1e-12, 1e-8, 1e-4):
        values = np.sin(np.concatenate([[0.0], STEPS, -STEPS])) + level * generator.standard_normal((500, 13))
        middle, above, below = values[:, 0], values[:, 1:7], values[:, 7:]
        noise = round_off(middle, above, below, STEPS)
        assert 0.5 * level < noise < 10 * level
        found = slopes_at_zero(middle, above, below, STEPS, noise)
        assert np.all(np.abs(found.value - 1) <= 6 * found.sigma)
        assert np.median(found.sigma) <= 3e4 * level


def test_a_staircase_of_float32_is_not_taken_for_a_slope_of_zero():
    found = slopes(lambda t: np.float64(np.float32(1 + 1e-3 * t)), noise=2.0**-24)
    assert np.all(np.abs(found.value - 1e-3) <= 6 * found.sigma)


def test_values_that_are_not_finite_end_in_an_infinite_bar():
    with np.errstate(invalid="ignore"):
        found = slopes(np.sqrt)
    assert np.all(np.isnan(found.value)) and np.all(np.isinf(found.sigma))
    with np.errstate(all="ignore"):
        partly = slopes(lambda t: np.log(5e-4 + t))  # the two largest steps leave the domain
    np.testing.assert_allclose(partly.value, 2000, rtol=1e-6)


@pytest.mark.parametrize("degrees", [1, 2, 4, 7, 64])
@pytest.mark.parametrize("probability", [1e-9, 1e-3, 0.05, 0.5])
def test_the_quantile_is_scipys(probability, degrees):
    np.testing.assert_allclose(
        chi_square_quantile(probability, degrees), stats.chi2.ppf(probability, degrees), rtol=1e-9
    )
