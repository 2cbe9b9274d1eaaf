import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn.optimizers import PlateauState, reduce_on_plateau


@functools.partial(jax.jit, static_argnames=("mode", "convention", "signed_threshold"))
def _scales(values, numbers, **choices):
    """The scale after each epoch: one program for all values and numbers."""
    plateau = reduce_on_plateau(**numbers, **choices)

    def step(state, value):
        state = plateau.update(value, state)
        return state, state.scale

    return jax.lax.scan(step, plateau.init(), jnp.asarray(values, jnp.float32))[1]


def _drops(values, numbers, **choices):
    """The epochs, counted from 1, after which the scale is less than before."""
    scales = _scales(np.asarray(values, np.float32), numbers, **choices)
    return (1 + np.flatnonzero(np.diff(np.concatenate([[1.0], scales])) < 0)).tolist()


# The epochs on which the libraries reduce on a flat metric with a patience of 2, as measured; by cooldown.
FLAT = {
    "torch": [[4, 7, 10], [4, 8, 12], [4, 9]],
    "optax": [[3, 5, 7, 9, 11], [3, 6, 9, 12], [3, 7, 11]],
    "keras": [[3, 5, 7, 9, 11], [3, 5, 7, 9, 11], [3, 6, 9, 12]],
}
each_convention = pytest.mark.parametrize("convention", list(FLAT))


@pytest.mark.parametrize("value", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("mode", ["min", "max"])
@each_convention
def test_a_flat_metric_reduces_on_the_epochs_on_which_the_library_does(convention, value, mode):
    values = np.full(12, value, np.float32)
    for cooldown, epochs in enumerate(FLAT[convention]):
        assert _drops(values, {"patience": 2, "cooldown": cooldown}, mode=mode, convention=convention) == epochs
    assert _drops(values, {"patience": 2}, mode=mode) == FLAT["torch"][0]


def _reference(
    values, convention, signed, factor, patience, mode, rtol, atol, cooldown, min_scale, min_lr=0.0, rate=1.0
):
    """The libraries' rules, line by line as they have them, with this library's threshold unless ``signed``."""
    sign, best, bad, left, scale, scales = (1 if mode == "min" else -1), None, 0, 0, 1.0, []
    for value in values:
        magnitude = 0.0 if best is None else best if signed else abs(best)
        better = np.isfinite(value) and (best is None or sign * (best - value) > rtol * magnitude + atol)
        best = value if better else best
        smaller = max(scale * factor, min_scale, min(min_lr / rate, scale))
        if convention == "torch":
            bad = 0 if better else bad + 1
            if left > 0:
                left, bad = left - 1, 0
            if bad > patience:
                scale, left, bad = smaller, cooldown, 0
        elif convention == "optax":
            bad = 0 if better else bad + 1
            if left > 0:
                left, bad = left - 1, 0
            elif bad == max(patience, 1):
                scale, left, bad = smaller, cooldown, 0
        else:
            if left > 0:
                left, bad = left - 1, 0
            if better:
                bad = 0
            elif left == 0:
                bad += 1
                if bad >= patience:
                    scale, left, bad = smaller, cooldown, 0
        scales.append(scale)
    return scales


@pytest.mark.parametrize("signed", [False, True])
@each_convention
@pytest.mark.parametrize("mode", ["min", "max"])
def test_random_metrics_and_settings_equal_a_plain_loop(mode, convention, signed):
    rng = np.random.default_rng(3)
    lanes, settings, metrics = 200, [], []
    for _ in range(lanes):
        settings.append(
            {
                "factor": np.float32(rng.choice([0.1, 0.5, 0.9])),
                "patience": np.int32(rng.integers(0, 4)),
                "rtol": np.float32(rng.choice([0.0, 1e-2, 0.3])),
                "atol": np.float32(rng.choice([0.0, 1e-2, 0.5])),
                "cooldown": np.int32(rng.integers(0, 4)),
                "min_scale": np.float32(rng.choice([0.0, 0.3])),
                "min_lr": np.float32(rng.choice([0.0, 0.1, 2.0])),
            }
        )
        metric = rng.normal(size=30) + rng.choice([-3.0, 0.0, 3.0]) + np.linspace(0, rng.normal(), 30)
        metric[rng.random(30) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
        metrics.append(metric.astype(np.float32))

    def scales(given, values):
        plateau = reduce_on_plateau(mode=mode, convention=convention, signed_threshold=signed, **given)

        def step(state, value):
            state = plateau.update(value, state, 0.5 * state.scale)
            return state, state.scale

        return jax.lax.scan(step, plateau.init(), values)[1]

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *settings)
    traced = jax.jit(jax.vmap(scales))(stacked, np.stack(metrics))
    for lane in range(lanes):
        expected = _reference(
            metrics[lane].astype(np.float64), convention, signed, mode=mode, rate=0.5, **settings[lane]
        )
        np.testing.assert_allclose(traced[lane], expected, rtol=1e-5)


@pytest.mark.parametrize("cooldown", [0, 1, 3])
def test_it_equals_optax(cooldown):
    theirs = optax.contrib.reduce_on_plateau(0.5, patience=3, rtol=0.1, atol=0.01, cooldown=cooldown, min_scale=0.01)

    def step(state, value):
        _, state = theirs.update(jnp.ones(()), state, value=value)
        return state, state.scale

    program = jax.jit(lambda values: jax.lax.scan(step, theirs.init(jnp.zeros(())), values)[1])
    numbers = {"factor": 0.5, "patience": 3, "rtol": 0.1, "atol": 0.01, "cooldown": cooldown, "min_scale": 0.01}
    for shift in (2.0, 0.0, -2.0):
        values = np.random.default_rng(0).normal(size=80).astype(np.float32) + np.float32(shift)
        ours = _scales(values, numbers, convention="optax", signed_threshold=True)
        np.testing.assert_allclose(ours, program(values))


def test_a_threshold_that_is_not_told_is_the_conventions():
    slow = 1.0 - 1e-5 * np.arange(8, dtype=np.float32)  # each epoch better, but less than the threshold in all
    for convention in FLAT:
        for values, drops in ((1.0 * slow, True), (100.0 * slow, convention != "keras"), (0.01 * slow, True)):
            assert bool(_drops(values, {"patience": 2}, convention=convention)) == drops
        for values in (1.0 * slow, 0.01 * slow):
            assert _drops(values, {"patience": 2, "rtol": 0.0, "atol": 0.0}, convention=convention) == []


def test_a_signed_threshold_takes_a_constant_negative_metric_for_an_improvement():
    for mode in ("min", "max"):
        for convention in ("optax", "torch"):
            choices = {"mode": mode, "convention": convention, "signed_threshold": True}
            assert _drops(np.full(12, -1.0), {"patience": 2}, **choices) == []
            assert _drops(np.full(12, 1.0), {"patience": 2}, **choices) == FLAT[convention][0]


def test_no_patience_is_one_bad_epoch():
    for convention in FLAT:
        assert _drops([3.0, 2.0, 2.0, 1.0, 1.0, 1.0], {"patience": 0}, convention=convention) == [3, 5, 6]


def _rates(plateau, values, rate):
    """The learning rate after each epoch, told to the plateau before."""
    state, rates = plateau.init(), []
    for value in values:
        state = plateau.update(value, state, rate * state.scale)
        rates.append(float(rate * state.scale))
    return rates


def test_the_learning_rate_stops_at_its_floor_and_is_not_lifted_to_it():
    plateau = reduce_on_plateau(0.5, patience=0, min_lr=0.3)
    np.testing.assert_allclose(_rates(plateau, np.ones(5), 2.0), [2.0, 1.0, 0.5, 0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(_rates(plateau, np.ones(3), 0.2), [0.2, 0.2, 0.2], rtol=1e-6)
    assert _rates(plateau, np.ones(3), 0.0) == [0.0, 0.0, 0.0]
    # a relative floor above it
    plateau = reduce_on_plateau(0.5, patience=0, min_lr=0.3, min_scale=0.4)
    np.testing.assert_allclose(_rates(plateau, np.ones(4), 2.0), [2.0, 1.0, 0.8, 0.8], rtol=1e-6)


def test_a_change_that_is_too_small_is_not_made():
    plateau = reduce_on_plateau(0.5, patience=0, min_change=0.3)
    np.testing.assert_allclose(_rates(plateau, np.ones(5), 2.0), [2.0, 1.0, 0.5, 0.5, 0.5], rtol=1e-6)


def test_a_floor_of_the_learning_rate_wants_the_learning_rate():
    for numbers in ({"min_lr": 0.1}, {"min_change": 0.1}):
        plateau = reduce_on_plateau(**numbers)
        with pytest.raises(ValueError, match=r"^learning_rate: expected the current one, .* got None"):
            plateau.update(1.0, plateau.init())


def test_the_scale_may_be_differentiated():
    def end(numbers):
        plateau = reduce_on_plateau(numbers[0], patience=0, min_lr=numbers[1])
        state = plateau.init()
        for value in [1.0, 1.0, np.inf, 1.0]:
            state = plateau.update(value, state, 2.0 * state.scale)
        return state.scale

    np.testing.assert_allclose(jax.grad(end)(jnp.array([0.5, 0.0])), [3 * 0.5**2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(end)(jnp.array([0.5, 0.7])), [0.0, 0.5], atol=1e-6)


def test_nan_and_infinity_are_never_an_improvement():
    for bad in (np.nan, np.inf, -np.inf):
        for convention in ("optax", "keras"):
            assert _drops([bad, 1.0, bad, bad, 0.9, bad], {"patience": 2}, convention=convention) == [4]
        assert _drops([1.0, bad, bad, bad, bad], {"patience": 1}) == [3, 5]
        assert _drops([bad, bad, 5.0, 4.0, bad], {"patience": 1}) == [2]
        assert _drops([bad, 5.0, 6.0, bad, bad], {"patience": 1}, mode="max") == [5]


def test_the_scale_stops_at_its_floor():
    scales = _scales(np.ones(5, np.float32), {"factor": 0.5, "patience": 0, "min_scale": 0.3})
    np.testing.assert_allclose(scales, [1.0, 0.5, 0.3, 0.3, 0.3])


def test_state_in_is_state_out():
    for x64 in (False, True):
        with jax.enable_x64(x64):
            for mode in ("min", "max"):
                plateau = reduce_on_plateau(np.float64(0.5), np.float64(2.0), mode=mode, cooldown=jnp.int32(1))
                initial = plateau.init()
                for value in (1, 1.0, np.float64(1.0), jnp.bfloat16(1.0)):
                    state = plateau.update(value, initial)
                    assert isinstance(state, PlateauState)
                    for a, b in zip(initial, state, strict=True):
                        assert (
                            (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type) == ((), a.dtype, False)
                        )
                assert initial.scale.dtype == initial.best.dtype == (jnp.float64 if x64 else jnp.float32)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"factor": 0.0}, "factor"),
        ({"factor": 1.0}, "factor"),
        ({"patience": -1}, "patience"),
        ({"rtol": -1e-4}, "rtol"),
        ({"rtol": float("nan")}, "rtol"),
        ({"atol": -1.0}, "atol"),
        ({"cooldown": -1}, "cooldown"),
        ({"min_scale": 1.5}, "min_scale"),
        ({"min_lr": -0.1}, "min_lr"),
        ({"min_change": -0.1}, "min_change"),
    ],
)
def test_a_number_out_of_range_is_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
        reduce_on_plateau(**arguments)


def test_an_unknown_mode_or_convention_is_named():
    with pytest.raises(ValueError, match=r'^convention: expected "optax", "torch" or "keras", got \'jax\''):
        reduce_on_plateau(convention="jax")  # pyright: ignore
    with pytest.raises(ValueError, match=r'^mode: expected "min", "max" or None, got \'auto\''):
        reduce_on_plateau(mode="auto")  # pyright: ignore


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 2.5}, "patience: expected an integer, got 2.5"),
        ({"cooldown": 0.5}, "cooldown: expected an integer, got 0.5"),
        ({"factor": np.full(2, 0.5)}, r"factor: expected one number, got an array of shape \(2,\)"),
        ({"min_lr": jnp.zeros(3)}, r"min_lr: expected one number, got an array of shape \(3,\)"),
    ],
)
def test_what_is_no_integer_or_no_number_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        reduce_on_plateau(**arguments)
