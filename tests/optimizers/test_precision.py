"""State in low precision: stored so, computed in float32, rounded without bias."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers

BF16 = jnp.bfloat16
KEY = jax.random.key(0)
PARAMS = {"kernel": jnp.linspace(-1.0, 1.0, 400).reshape(20, 20), "bias": jnp.zeros(20)}


def _neighbours(x):
    """The bfloat16 numbers below and above, in float64, by the bits: written apart from the code under test."""
    bits = np.float32(x).view(np.uint32)
    toward_zero = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    away = ((bits & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(np.float32)
    return sorted([np.float64(toward_zero), np.float64(away)])


@pytest.mark.parametrize("x", [1.0 + 1e-3, -1.0 - 3e-3, 3.14159e-20, -2.5e30, 0.999, 1e-40])
def test_rounding_is_unbiased(x):
    n = 200_000
    exact = np.float32(x)
    rounded = np.asarray(optimizers.stochastic_round(KEY, jnp.full(n, exact), BF16).astype(jnp.float32), np.float64)
    below, above = _neighbours(exact)
    assert set(np.unique(rounded)) <= {below, above}
    chance = (np.float64(exact) - below) / (above - below)
    sigma = np.sqrt(chance * (1 - chance) / n)
    assert abs((rounded == above).mean() - chance) < 4.5 * sigma  # one in 150,000 right ones would fail


def test_what_bfloat16_has_stays_and_what_is_not_finite_too():
    x = jnp.array([0.0, -0.0, 1.0, -2.5, jnp.inf, -jnp.inf, jnp.nan])
    for seed in range(20):
        np.testing.assert_array_equal(optimizers.stochastic_round(jax.random.key(seed), x, BF16).astype(jnp.float32), x)


def _ema(steps, dtypes, key=None):
    """Adam's second moment of a constant gradient: 1 - β₂ᵗ."""
    optimizer = (
        optimizers.store_state(optimizers.adam(0.0, b2=0.999), dtypes, key=key) if dtypes else optimizers.adam(0.0)
    )
    gradient = {"kernel": jnp.ones((30, 30))}

    def step(state, _):
        return optimizer.update(gradient, state)[1], None

    return jax.jit(lambda: jax.lax.scan(step, optimizer.init(gradient), None, length=steps)[0])()


def test_rounding_to_the_nearest_stalls_where_stochastic_rounding_goes_on():
    exact = float(_ema(1500, None)[0].nu["kernel"][0, 0])
    nearest = _ema(1500, {"*/nu/*": BF16}).inner[0].nu["kernel"].astype(jnp.float32)
    random = _ema(1500, {"*/nu/*": BF16}, KEY).inner[0].nu["kernel"].astype(jnp.float32)
    np.testing.assert_allclose(exact, 1 - 0.999**1500, rtol=1e-4)
    assert abs(float(nearest.mean()) - exact) > 0.2  # below a half of a step, nothing is added any more
    assert abs(float(random.mean()) - exact) < 0.01


def test_dtypes_are_by_path_and_arithmetic_is_in_float32():
    optimizer = optimizers.store_state(optimizers.adam(0.1), {"*/mu/kernel": BF16, "*/nu/*": jnp.float16})
    plain = optimizers.adam(0.1)
    state, plain_state = optimizer.init(PARAMS), plain.init(PARAMS)
    gradient = jax.tree.map(lambda p: jnp.cos(7 * p), PARAMS)
    updates, state = jax.jit(optimizer.update)(gradient, state, PARAMS)
    expected, plain_state = plain.update(gradient, plain_state, PARAMS)
    for name in PARAMS:  # the first update sees no rounding
        np.testing.assert_allclose(updates[name], expected[name], rtol=1e-6)
    mu, nu = state.inner[0].mu, state.inner[0].nu
    assert (mu["kernel"].dtype, mu["bias"].dtype) == (BF16, jnp.float32)
    assert nu["kernel"].dtype == nu["bias"].dtype == jnp.float16
    # β stays a float32: 1 - β₂ᵗ would be 0 if 0.999 had become 1
    np.testing.assert_allclose(nu["bias"].astype(jnp.float32), plain_state[0].nu["bias"], rtol=2.0**-10)
    wide = plain_state[0]
    exact = np.concatenate([np.ravel(wide.mu["kernel"]), *[np.ravel(x) for x in wide.nu.values()]])
    kept = np.concatenate([np.ravel(x).astype(np.float32) for x in (mu["kernel"], *nu.values())])
    drift = np.linalg.norm(np.float64(kept) - exact) / np.linalg.norm(np.float64(exact))
    assert drift > 1e-4
    np.testing.assert_allclose(state.drift, drift, rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.sgd(0.1, momentum=0.9),
        lambda: optax.adamw(0.1),
        lambda: optimizers.freeze(optimizers.adam(0.1), "bias"),
    ],
    ids=["momentum", "optax", "frozen"],
)
@pytest.mark.parametrize("key", [None, KEY], ids=["nearest", "stochastic"])
def test_any_optimizer_keeps_its_state_type_and_learns(make, key):
    optimizer = optimizers.store_state(make(), {"*kernel": BF16}, key=key)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(lambda p: 2 * p, params), state, params)
        return (optax.apply_updates(params, updates), state), state.drift

    initial = optimizer.init(PARAMS)
    (params, state), drifts = jax.jit(lambda: jax.lax.scan(step, (PARAMS, initial), None, length=300))()
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, initial)
    assert float(jnp.abs(params["kernel"]).max()) < 0.05
    assert bool(jnp.all(drifts < 2.0**-7)) and float(drifts[0]) > 0


def test_bfloat16_parameters_move_by_the_mean_of_the_updates_and_float32_ones_exactly():
    params = {"low": jnp.linspace(0.5, 2.0, 4000).astype(BF16), "wide": jnp.linspace(0.5, 2.0, 4)}
    optimizer = optimizers.round_stochastically(optimizers.sgd(1e-3), key=KEY)
    gradient = jax.tree.map(jnp.ones_like, params)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(BF16), jnp.dtype(jnp.float32)}
        return (optax.apply_updates(params, updates), state), None

    (after, _), _ = jax.jit(lambda: jax.lax.scan(step, (params, optimizer.init(params)), None, length=20))()
    moved = after["low"].astype(jnp.float32) - params["low"].astype(jnp.float32)
    sigma = 20**0.5 * 0.004 / 4000**0.5  # a rounding has a deviation of half a step of 2^-7 at the most
    assert abs(float(moved.mean()) + 0.02) < 4.5 * sigma and float(moved.std()) > 1e-3
    np.testing.assert_allclose(after["wide"], params["wide"] - 0.02, rtol=1e-5)
    with pytest.raises(TypeError, match=r"^params\[a\]: expected bfloat16, to be rounded stochastically, got float16"):
        optimizer.init({"a": jnp.ones(2, jnp.float16)})
    with pytest.raises(TypeError, match=r"^key: expected a PRNG key, got 3"):
        optimizers.round_stochastically(optimizers.sgd(1e-3), key=3)


def test_the_same_dtype_changes_no_bit():
    gradient = jax.tree.map(jnp.sin, PARAMS)
    stored = optimizers.store_state(optimizers.adam(0.1), {"*": jnp.float32}, key=KEY)
    plain = optimizers.adam(0.1)
    updates, state = stored.update(gradient, stored.init(PARAMS), PARAMS)
    expected, plain_state = plain.update(gradient, plain.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, (updates, state.inner), (expected, plain_state))
    assert float(state.drift) == 0.0


@pytest.mark.parametrize(
    ("dtypes", "key", "error", "message"),
    [
        ({"*/momentum/*": BF16}, None, ValueError, r"^dtypes: expected a pattern that matches one of \['0/mu/bias'"),
        ({"*": jnp.int8}, None, TypeError, r"^dtypes\[\*\]: expected a floating-point dtype, got int8"),
        ({"*": BF16}, 3, TypeError, r"^key: expected a PRNG key, got 3"),
        ({"*": jnp.float16}, KEY, TypeError, r"^dtype: expected float32 to be rounded stochastically to bfloat16"),
    ],
)
def test_bad_requests_are_named(dtypes, key, error, message):
    with pytest.raises(error, match=message):
        optimizer = optimizers.store_state(optimizers.adam(0.1), dtypes, key=key)
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
