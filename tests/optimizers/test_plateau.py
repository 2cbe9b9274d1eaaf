import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn.optimizers import PlateauState, reduce_on_plateau


def _scales(plateau, values):
    """The scale after each epoch, as a compiled scan."""

    def step(state, value):
        state = plateau.update(value, state)
        return state, state.scale

    return np.asarray(jax.jit(lambda v: jax.lax.scan(step, plateau.init(), v)[1])(jnp.asarray(values)))


def _drops(plateau, values):
    """The epochs, counted from 1, after which the scale is less than before."""
    return (1 + np.flatnonzero(np.diff(np.concatenate([[1.0], _scales(plateau, values)])) < 0)).tolist()


@pytest.mark.parametrize(("cooldown", "epochs"), [(0, [4, 7, 10]), (1, [4, 8, 12]), (2, [4, 9])])
@pytest.mark.parametrize("value", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_flat_metric_reduces_on_the_epochs_on_which_torch_does(cooldown, epochs, value, mode):
    plateau = reduce_on_plateau(patience=2, cooldown=cooldown, mode=mode)
    assert _drops(plateau, np.full(12, value, np.float32)) == epochs


def _reference(values, factor, patience, mode, rtol, atol, cooldown, min_scale):
    """PyTorch's rule, with this library's threshold, in plain Python."""
    sign, best, bad, left, scale, scales = (1 if mode == "min" else -1), None, 0, 0, 1.0, []
    for value in values:
        if np.isfinite(value) and (best is None or sign * (best - value) > rtol * abs(best) + atol):
            best, bad = value, 0
        else:
            bad += 1
        if left > 0:
            left, bad = left - 1, 0
        if bad > patience:
            scale, left, bad = max(scale * factor, min_scale), cooldown, 0
        scales.append(scale)
    return scales


@pytest.mark.parametrize("mode", ["min", "max"])
def test_random_metrics_and_settings_equal_a_plain_loop(mode):
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
            }
        )
        metric = rng.normal(size=30) + rng.choice([-3.0, 0.0, 3.0]) + np.linspace(0, rng.normal(), 30)
        metric[rng.random(30) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
        metrics.append(metric.astype(np.float32))

    def scales(given, values):
        plateau = reduce_on_plateau(mode=mode, **given)
        return jax.lax.scan(lambda s, v: (lambda n: (n, n.scale))(plateau.update(v, s)), plateau.init(), values)[1]

    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *settings)
    traced = jax.jit(jax.vmap(scales))(stacked, np.stack(metrics))
    for lane in range(lanes):
        expected = _reference(metrics[lane].astype(np.float64), mode=mode, **settings[lane])
        np.testing.assert_allclose(traced[lane], expected, rtol=1e-5)


def test_one_epoch_less_patience_equals_optax_on_a_positive_metric():
    values = np.abs(np.random.default_rng(0).normal(size=60)).astype(np.float32) + 1.0
    theirs = optax.contrib.reduce_on_plateau(0.5, patience=4)

    def step(state, value):
        _, state = theirs.update(jnp.ones(()), state, value=value)
        return state, state.scale

    _, scales = jax.jit(lambda v: jax.lax.scan(step, theirs.init(jnp.zeros(())), v))(values)
    np.testing.assert_allclose(_scales(reduce_on_plateau(0.5, patience=3), values), scales)


def test_nan_and_infinity_are_never_an_improvement():
    for bad in (np.nan, np.inf, -np.inf):
        assert _drops(reduce_on_plateau(patience=1), [1.0, bad, bad, bad, bad]) == [3, 5]
        assert _drops(reduce_on_plateau(patience=1), [bad, bad, 5.0, 4.0, bad]) == [2]
        assert _drops(reduce_on_plateau(patience=1, mode="max"), [bad, 5.0, 6.0, bad, bad]) == [5]


def test_the_scale_stops_at_its_floor():
    scales = _scales(reduce_on_plateau(0.5, patience=0, min_scale=0.3), np.ones(5, np.float32))
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
    ],
)
def test_a_number_out_of_range_is_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
        reduce_on_plateau(**arguments)


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match=r'^mode: expected "min" or "max", got \'auto\''):
        reduce_on_plateau(mode="auto")  # pyright: ignore
