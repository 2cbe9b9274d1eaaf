"""Directions: their windows, their scale, and the slopes that a gradient claims along them."""

import jax
import numpy as np

from jaxopt_nn.checking._sampling.directions import coordinate, direction, part, project, random_lines, seed_words


def test_random_lines_are_gaussian_and_signs_and_differ():
    lines = random_lines((1, 2), 400, 3)
    moves, scales = zip(*(direction(line, 400) for line in lines), strict=True)
    for move in moves:
        np.testing.assert_allclose(np.mean(move**2), 1.0)
        assert abs(np.mean(move)) < 0.3 and np.any(move < 0)
    assert scales[3:] == (1.0, 1.0, 1.0) and all(0.8 < scale < 1.2 for scale in scales[:3])
    assert [set(np.abs(move)) == {1.0} for move in moves] == [False] * 3 + [True] * 3
    assert np.max(np.abs(np.corrcoef(moves) - np.eye(6))) < 0.3
    again, _ = direction(lines[0], 400)
    np.testing.assert_array_equal(again, moves[0])


def test_windows_are_kept():
    move, _ = direction(part((7,), 10, 13), 20)
    np.testing.assert_array_equal(np.abs(move), (np.arange(20) >= 10) & (np.arange(20) < 13))
    np.testing.assert_array_equal(direction(coordinate(4), 6)[0], np.eye(6)[4])


def test_projections_are_inner_products():
    gradient = np.random.default_rng(0).standard_normal((4, 5))
    lines = [*random_lines((3,), 20, 2), part((3,), 5, 9), coordinate(7)]
    expected = [direction(line, 20)[0] @ gradient.ravel() for line in lines]
    np.testing.assert_allclose(project(gradient, lines), expected)


def test_typed_and_raw_keys_give_the_same_words():
    assert seed_words(jax.random.key(5)) == seed_words(jax.random.PRNGKey(5)) != seed_words(jax.random.key(6))
