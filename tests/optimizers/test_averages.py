"""The optimizers that keep a second set of weights, and what finds it: against NumPy, optax and one another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, schedules

STEPS = 40


def _params(dtype=jnp.float64):
    return {"kernel": jnp.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3), "bias": jnp.array([0.5, -2.0], dtype)}


def _noise(steps, dtype):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=(steps, *p.shape)), dtype), _params(dtype))


def _gradient(t, params):
    """That of a noisy quadratic: it depends on the parameters, so that a mistake in them shows."""
    noise = _noise(STEPS, np.asarray(params["bias"]).dtype)
    return jax.tree.map(lambda p, n: 2.0 * p + n[t], params, noise)


def _run(optimizer, dtype=jnp.float64):
    """The parameters after each step, and the weights to evaluate with then, stacked."""
    params = _params(dtype)

    def step(carry, noise):
        params, state = carry
        gradients = jax.tree.map(lambda p, n: 2.0 * p + n, params, noise)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, optimizers.evaluation_params(state, params))

    return jax.lax.scan(step, (params, optimizer.init(params)), _noise(STEPS, dtype))[1]


def _path(optimizer, dtype=jnp.float64, steps=STEPS):
    """The same as a list."""
    both = jax.tree.map(np.asarray, jax.jit(lambda: _run(optimizer, dtype))())
    return [jax.tree.map(lambda x, t=t: x[t], both) for t in range(steps)]


def _at(both, step):
    return jax.tree.map(lambda x: x[step], both)


def _assert_close(a, b, tolerance=1e-12):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


WRAPPERS = [
    ("weight_ema", lambda inner: optimizers.weight_ema(inner, 0.8)),
    ("weight_average", lambda inner: optimizers.weight_average(inner, start=2, every=3)),
    ("lookahead", lambda inner: optimizers.lookahead(inner, 3, 0.6)),
    ("schedule_free", lambda inner: optimizers.schedule_free(inner, 0.7, learning_rate=0.1)),
]
each_wrapper = pytest.mark.parametrize("wrap", [row[1] for row in WRAPPERS], ids=[row[0] for row in WRAPPERS])


# The average of the weights


def test_the_average_counts_each_weight_by_its_age_and_leaves_the_optimizer_be():
    with jax.enable_x64(True):
        path = _path(optimizers.weight_ema(optimizers.adam(0.1), 0.8))
        plain = _path(optimizers.adam(0.1))
        for t, (params, average) in enumerate(path):
            _assert_close(params, plain[t][0], 0)
            ages = 0.8 ** np.arange(t, -1, -1.0)
            expected = sum(age * np.asarray(p["kernel"]) for age, (p, _) in zip(ages, path, strict=False)) / ages.sum()
            np.testing.assert_allclose(average["kernel"], expected, rtol=1e-12)


def test_the_average_is_that_of_optax():
    with jax.enable_x64(True):
        ema = optax.ema(0.9)
        state = ema.init(_params())
        for params, average in _path(optimizers.weight_ema(optimizers.sgd(0.1, 0.9), 0.9)):
            expected, state = ema.update(params, state)
            _assert_close(average, expected)


@pytest.mark.parametrize("convention", ["torch", "keras"])
def test_the_average_of_torch_and_keras_begins_with_the_first_weights(convention):
    with jax.enable_x64(True):
        expected = None
        for params, average in _path(optimizers.weight_ema(optimizers.sgd(0.1), 0.9, convention=convention)):
            expected = params if expected is None else jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, expected, params)
            _assert_close(average, expected)


def test_the_plain_average_is_that_of_the_weights_at_its_steps():
    with jax.enable_x64(True):
        path = _path(optimizers.weight_average(optimizers.sgd(0.1), start=4, every=3), steps=12)
        counted = []
        for t, (params, average) in enumerate(path, start=1):
            counted += [np.asarray(params["kernel"])] if t in (5, 8, 11) else []
            expected = np.mean(counted, axis=0) if counted else params["kernel"]
            np.testing.assert_allclose(average["kernel"], expected, rtol=1e-12)


@pytest.mark.slow
def test_the_decay_may_be_swept_and_differentiated():
    def end(decay):
        return _at(_run(optimizers.weight_ema(optimizers.sgd(0.1), decay)), 5)[1]["bias"]

    with jax.enable_x64(True):
        decays = jnp.array([0.0, 0.5, 0.99])
        together = jax.jit(jax.vmap(end))(decays)
        _assert_close(together, jnp.stack([jax.jit(lambda d=d: end(float(d)))() for d in decays]))
        above, below = jax.jit(jax.vmap(end))(jnp.array([0.5 + 1e-6, 0.5 - 1e-6]))
        for differentiate in (jax.jacfwd, jax.jacrev):
            slopes = jax.jit(jax.vmap(differentiate(end)))(jnp.array([0.5, 0.0]))
            np.testing.assert_allclose(slopes[0], (above - below) / 2e-6, rtol=1e-7)
            assert np.isfinite(slopes).all()


def test_a_long_average_of_bfloat16_weights_loses_nothing():
    """A part of 1e-3 of the way is below the rounding of bfloat16, where an average would stand still."""
    optimizer, params = optimizers.weight_ema(optax.sgd(0.5), 0.999), jnp.zeros(1, jnp.bfloat16)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(params - 1, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=3000))((params, optimizer.init(params)))
    average = optimizers.evaluation_params(state, params)
    assert state.average.dtype == jnp.float32
    assert average.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(average), 1.0, rtol=4e-3)


# Look-ahead


def test_lookahead_is_that_of_optax():
    with jax.enable_x64(True):
        theirs = optax.lookahead(optax.adam(0.1), 5, 0.4)
        pair = optax.LookaheadParams.init_synced(_params())
        state = theirs.init(pair)
        for t, (params, slow) in enumerate(_path(optimizers.lookahead(optax.adam(0.1), 5, 0.4))):
            updates, state = theirs.update(_gradient(t, pair.fast), state, pair)
            pair = optax.apply_updates(pair, updates)
            _assert_close(params, pair.fast)
            _assert_close(slow, pair.slow)


def test_the_period_and_the_step_size_may_be_swept():
    def end(period, step_size):
        return _at(_run(optimizers.lookahead(optimizers.sgd(0.1), period, step_size)), 6)

    with jax.enable_x64(True):
        periods, sizes = jnp.array([1, 3, 9, 4, 100]), jnp.array([0.3, 0.5, 0.5, 1.0, 1.0])
        together = jax.jit(jax.vmap(end))(periods, sizes)
        for i, period in ((1, 3), (2, 9)):
            _assert_close(_at(together, i), jax.jit(lambda period=period: end(period, 0.5))())
        _assert_close(_at(together, 2)[1], _params())  # not yet synchronized: the slow weights are the initial ones
        _assert_close(*(_at(together, i)[0] for i in (3, 4)))  # α = 1 changes nothing


# Schedule-free


def test_schedule_free_is_that_of_optax():
    with jax.enable_x64(True):
        pairs = [
            (
                optimizers.schedule_free(optimizers.sgd(0.1), 0.7),
                optax.contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.7),
            ),
            (
                optimizers.schedule_free(optimizers.adam(0.1, b1=0.0)),
                optax.contrib.schedule_free_adamw(0.1),
            ),
            (
                optimizers.schedule_free(optax.sgd(0.1), learning_rate=0.1),
                optax.contrib.schedule_free_sgd(0.1),
            ),
        ]
        for ours, theirs in pairs:
            params = _params()
            state, update = theirs.init(params), jax.jit(theirs.update)
            for t, (mine, average) in enumerate(_path(ours)):
                updates, state = update(_gradient(t, params), state, params)
                params = optax.apply_updates(params, updates)
                _assert_close(mine, params, 1e-11)  # theirs computes x from y and z again and again
                _assert_close(average, optax.contrib.schedule_free_eval_params(state, params), 1e-11)


@pytest.mark.parametrize(("power", "warmup"), [(2.0, 4), (0.5, 4), (0.0, 0)])
def test_steps_count_by_the_largest_learning_rate_so_far(power, warmup):
    """Algorithm 1, with a rate that rises from 0, then falls."""
    rates = 0.1 * np.concatenate([np.arange(warmup) / 4, np.linspace(1, 0.2, STEPS - warmup)])
    with jax.enable_x64(True):
        schedule = lambda count: jnp.asarray(rates)[count]  # noqa: E731
        optimizer = optimizers.schedule_free(optimizers.sgd(schedule), 0.6, weight_power=power, learning_rate=schedule)
        z = x = y = np.asarray(_params()["bias"])
        total = 0.0
        for t, (params, average) in enumerate(_path(optimizer)):
            z = z - rates[t] * np.asarray(_gradient(t, {"kernel": np.zeros((2, 3)), "bias": y})["bias"])
            weight = rates[: t + 1].max() ** power
            total += weight
            x = x + (weight / total if total else 0.0) * (z - x)
            y = 0.4 * z + 0.6 * x
            np.testing.assert_allclose(average["bias"], x, rtol=1e-12)
            np.testing.assert_allclose(params["bias"], y, rtol=1e-12)


def test_the_recorded_learning_rate_is_the_one_that_counts():
    warm = schedules.warmup(0.1, 10)
    recorded = _path(optimizers.schedule_free(optimizers.adam(warm, b1=0.0)), jnp.float32)[-1]
    said = _path(optimizers.schedule_free(optimizers.adam(warm, b1=0.0), learning_rate=warm), jnp.float32)[-1]
    _assert_close(recorded, said, 1e-6)
    injected = optax.inject_hyperparams(optax.sgd)(learning_rate=warm)
    assert _path(optimizers.schedule_free(injected), jnp.float32, 3)
    with pytest.raises(ValueError, match=r"^learning_rate: expected the one of the optimizer inside, got None"):
        optimizers.schedule_free(optax.sgd(0.1)).init(_params(jnp.float32))


def test_schedule_free_does_not_average_less_as_float32_runs_full():
    """A sum of a million weights of 1e-6 in float32 is off by percents; the number of steps is exact."""
    optimizer = optimizers.schedule_free(optimizers.sgd(1e-3))
    state = optimizer.init(jnp.zeros(()))._replace(steps=jnp.float32(2**23), largest_rate=jnp.float32(1e-3))
    _, state = optimizer.update(jnp.zeros(()), state, jnp.zeros(()))
    assert state.steps == 2**23 + 1


def test_derivatives_of_schedule_free_are_finite_where_the_rate_is_zero():
    def end(numbers):
        optimizer = optimizers.schedule_free(
            optimizers.sgd(numbers["rate"]), numbers["b1"], weight_power=numbers["power"], learning_rate=numbers["rate"]
        )
        return _at(_run(optimizer, jnp.float32), 3)

    numbers = {"rate": [0.0, 0.0, 0.1], "power": [2.0, 0.0, 0.0], "b1": [0.5, 0.0, 0.0]}
    numbers = {name: jnp.array(values, jnp.float32) for name, values in numbers.items()}
    for differentiate in (jax.jacfwd, jax.jacrev):
        slopes = jax.jit(jax.vmap(differentiate(end)))(numbers)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


# All of them


@each_wrapper
def test_the_weights_are_found_wherever_they_are(wrap):
    params, optimizer = _params(jnp.float32), wrap(optax.sgd(0.1))
    state = optimizer.init(params)
    updates, state = optimizer.update(params, state, params)
    params = optax.apply_updates(params, updates)
    alone = optimizers.evaluation_params(state, params)
    for outside in (
        lambda inner: optax.chain(optax.identity(), inner),
        lambda inner: optax.apply_if_finite(optax.chain(inner, optax.identity()), 3),
        lambda inner: optax.MultiSteps(inner, 1).gradient_transformation(),
        lambda inner: optax.partition({"all": inner}, jax.tree.map(lambda _: "all", params)),
    ):
        other = outside(optimizer)
        start = _params(jnp.float32)
        _, found = other.update(start, other.init(start), start)
        _assert_close(optimizers.evaluation_params(found, params), alone, 1e-7)


@each_wrapper
def test_leaves_without_such_weights_are_those_that_are_trained(wrap):
    params = _params(jnp.float32)
    labels = {"kernel": "kept", "bias": "plain"}
    optimizer = optax.partition({"kept": wrap(optax.sgd(0.1)), "plain": optax.sgd(0.1)}, labels)
    state = optimizer.init(params)
    for _ in range(4):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    found = optimizers.evaluation_params(state, params)
    np.testing.assert_array_equal(found["bias"], params["bias"])
    assert np.abs(found["kernel"] - params["kernel"]).max() > 1e-3
    assert optimizers.evaluation_params(optax.adam(0.1).init(params), params) is params


def test_each_group_has_its_own_and_the_outermost_counts():
    params = {"kernel": jnp.zeros(2), "bias": jnp.zeros(2)}
    ema, slow = optimizers.weight_ema(optax.sgd(1.0), 0.5), optimizers.lookahead(optax.sgd(1.0), 9)
    optimizer = optax.partition({"ema": ema, "slow": slow}, {"kernel": "ema", "bias": "slow"})
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(jax.tree.map(lambda p: jnp.full_like(p, -3.0), params), state, params)
        params = optax.apply_updates(params, updates)
    found = optimizers.evaluation_params(state, params)
    np.testing.assert_allclose(found["kernel"], [5.0, 5.0], rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], [0.0, 0.0])

    nested = optimizers.weight_ema(optimizers.lookahead(optax.sgd(1.0), 2, 0.5), 0.5)
    params, state = jnp.zeros(()), nested.init(jnp.zeros(()))
    for _ in range(2):  # 1, then back to 1
        updates, state = nested.update(jnp.array(-1.0), state, params)
        params = optax.apply_updates(params, updates)
    assert optimizers.evaluation_params(state, params) == 1.0
    assert optimizers.evaluation_params(state.inner_state, params) == 1.0


@each_wrapper
def test_nothing_is_shared_with_the_parameters_so_both_may_be_donated(wrap):
    params = _params(jnp.float32)
    optimizer = wrap(optimizers.adam(0.1))
    step = jax.jit(lambda params, state: optimizer.update(params, state, params), donate_argnums=(0, 1))
    state = optimizer.init(params)
    for _ in range(2):
        params, state = step(params, state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@each_wrapper
def test_extra_arguments_reach_the_optimizer_inside(wrap):
    seen = []

    def update(updates, state, params=None, **extra):
        seen.append(extra)
        return updates, state

    optimizer = wrap(optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update))
    optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2), value=3.0)
    assert seen == [{"value": 3.0}]


@each_wrapper
def test_mistakes_are_refused_with_the_name(wrap):
    optimizer = wrap(optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"^params: expected the parameters, got None: .* needs update\("):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    with pytest.raises(TypeError, match=r"^params\[n\]: expected real floating-point numbers, got int32"):
        optimizer.init({"n": jnp.ones(2, jnp.int32)})
    with pytest.raises(ValueError, match=r"^updates: .* missing are \['b'\], unexpected \['a'\]"):
        optimizer.update({"a": jnp.ones(2)}, optimizer.init({"b": jnp.ones(2)}), {"b": jnp.ones(2)})


def test_numbers_out_of_their_range_are_refused():
    inner = optax.sgd(0.1)
    for name, bad, make in [
        ("decay", 1.0, lambda n: optimizers.weight_ema(inner, n)),
        ("start", -1, lambda n: optimizers.weight_average(inner, start=n)),
        ("every", 0, lambda n: optimizers.weight_average(inner, every=n)),
        ("sync_period", 0, lambda n: optimizers.lookahead(inner, n)),
        ("slow_step_size", 1.5, lambda n: optimizers.lookahead(inner, 5, n)),
        ("b1", 1.0, lambda n: optimizers.schedule_free(inner, n)),
        ("weight_power", -1.0, lambda n: optimizers.schedule_free(inner, weight_power=n)),
        ("learning_rate", -1.0, lambda n: optimizers.schedule_free(inner, learning_rate=n)),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
            make(bad)
    with pytest.raises(ValueError, match=r"^sync_period: expected an integer, got 2.5"):
        optimizers.lookahead(inner, 2.5)
    with pytest.raises(ValueError, match=r"^convention: expected .*, got 'timm'"):
        optimizers.weight_ema(inner, convention="timm")
