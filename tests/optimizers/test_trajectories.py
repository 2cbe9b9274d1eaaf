"""Steps equal those that torch, keras and optax took (golden/), and those of NumPy loops written from the formulas."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, schedules, trees

STEPS = 200
GOLDEN = json.loads((Path(__file__).parent / "golden" / "trajectories.json").read_text())


def _numpy_sgd(g, t, s, p, lr, mu=0.0, nesterov=False):
    s["v"] = g + mu * s.get("v", 0.0)
    return p - lr * (g + mu * s["v"] if nesterov else s["v"])


def _numpy_adagrad(g, t, s, p, lr, start=0.1, eps=1e-7):
    s["a"] = s.get("a", start) + g**2
    return p - lr * g / np.sqrt(s["a"] + eps)


def _numpy_rmsprop(g, t, s, p, lr, rho=0.9, eps=1e-8, centered=False, mu=0.0, nesterov=False):
    s["v"] = rho * s.get("v", 0.0) + (1 - rho) * g**2
    s["m"] = rho * s.get("m", 0.0) + (1 - rho) * g
    step = lr * g / np.sqrt(s["v"] - (s["m"] ** 2 if centered else 0.0) + eps)
    s["b"] = step + mu * s.get("b", 0.0)
    return p - (step + mu * s["b"] if nesterov else s["b"])


def _numpy_adam(g, t, s, p, lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    return p - lr * (s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps) + decay * p)


def _optimizer(name, **numbers):
    return lambda library: getattr(library, name)(**numbers)


# name, the optimizer of either library, one step in NumPy, its numbers. Every learning rate is 0.01.
TABLE = [
    ("sgd", _optimizer("sgd", learning_rate=0.01), _numpy_sgd, {}),
    ("momentum", _optimizer("sgd", learning_rate=0.01, momentum=0.9), _numpy_sgd, {"mu": 0.9}),
    (
        "nesterov",
        _optimizer("sgd", learning_rate=0.01, momentum=0.9, nesterov=True),
        _numpy_sgd,
        {"mu": 0.9, "nesterov": True},
    ),
    ("adagrad", _optimizer("adagrad", learning_rate=0.01), _numpy_adagrad, {}),
    (
        "adagrad_from_0",
        _optimizer("adagrad", learning_rate=0.01, initial_accumulator_value=0.0, eps=1e-5),
        _numpy_adagrad,
        {"start": 0.0, "eps": 1e-5},
    ),
    ("rmsprop", _optimizer("rmsprop", learning_rate=0.01), _numpy_rmsprop, {}),
    (
        "rmsprop_centered",
        _optimizer("rmsprop", learning_rate=0.01, decay=0.8, eps=1e-2, centered=True),
        _numpy_rmsprop,
        {"rho": 0.8, "eps": 1e-2, "centered": True},
    ),
    (
        "rmsprop_momentum",
        _optimizer("rmsprop", learning_rate=0.01, eps=1e-6, momentum=0.9),
        _numpy_rmsprop,
        {"eps": 1e-6, "mu": 0.9},
    ),
    (
        "rmsprop_nesterov",
        _optimizer("rmsprop", learning_rate=0.01, momentum=0.9, nesterov=True),
        _numpy_rmsprop,
        {"mu": 0.9, "nesterov": True},
    ),
    ("adam", _optimizer("adam", learning_rate=0.01), _numpy_adam, {}),
    (
        "adam_without_memory",
        _optimizer("adam", learning_rate=0.01, b1=0.0, b2=0.0),
        _numpy_adam,
        {"b1": 0.0, "b2": 0.0},
    ),
    (
        "adam_long_memory",
        _optimizer("adam", learning_rate=0.01, b1=0.99, b2=0.99999, eps=1e-3),
        _numpy_adam,
        {"b1": 0.99, "b2": 0.99999, "eps": 1e-3},
    ),
    (
        "adamw",
        lambda library: library.adamw(
            0.01, weight_decay=0.1, **({} if library is optax else {"mask": trees.every_leaf})
        ),
        _numpy_adam,
        {"decay": 0.1},
    ),
]
each_optimizer = pytest.mark.parametrize(("make", "step", "numbers"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE])


def _gradients():
    rng = np.random.default_rng(7)
    sizes = 10.0 ** rng.uniform(-4, 2, size=6)  # elements of many scales, with a mean and noise
    return (rng.normal(size=(STEPS, 6)) + 0.5) * sizes


def _params():
    return np.random.default_rng(8).normal(size=6)


def _trajectory(optimizer, dtype):
    """The parameters after each step, as one compiled scan."""
    params = {"a": jnp.asarray(_params()[:2], dtype), "b": jnp.asarray(_params()[2:], dtype)}

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update({"a": gradient[:2], "b": gradient[2:]}, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.concatenate([params["a"], params["b"]])

    carry = (params, optimizer.init(params))
    return np.asarray(jax.jit(lambda g: jax.lax.scan(step, carry, g)[1])(jnp.asarray(_gradients(), dtype)))


def _numpy_trajectory(step, numbers, rate=lambda t: 0.01):
    params, memory, path = _params(), {}, []
    for t, gradient in enumerate(_gradients(), start=1):
        params = step(gradient, t, memory, params, rate(t - 1), **numbers)
        path.append(params)
    return np.stack(path)


def _distance(a, b):
    return np.max(np.abs(a - b) / (1.0 + np.abs(b)))


@each_optimizer
def test_float64_equals_optax_and_the_formula(make, step, numbers):
    with jax.enable_x64(True):
        ours, theirs = _trajectory(make(optimizers), jnp.float64), _trajectory(make(optax), jnp.float64)
    assert ours.dtype == np.float64
    assert _distance(ours, theirs) <= 1e-12
    assert _distance(ours, _numpy_trajectory(step, numbers)) <= 1e-12


@each_optimizer
def test_float32_stays_close_to_the_formula_in_float64(make, step, numbers):
    assert _distance(_trajectory(make(optimizers), jnp.float32), _numpy_trajectory(step, numbers)) <= 5e-6


@pytest.mark.parametrize("traced", [False, True])
def test_long_memory_costs_float32_no_digits(traced):
    """The bound of what a float32 β itself is worth: 1 - β loses nothing, and 1 - βᵗ does not cancel."""
    b2 = np.float32(0.99999)
    make = optimizers.adam(0.01, b2=jnp.float32(b2) if traced else float(b2))
    exact = _numpy_trajectory(_numpy_adam, {"b2": float(b2)})
    assert _distance(_trajectory(make, jnp.float32), exact) <= 5e-6


def test_a_python_number_is_a_double_until_it_meets_a_leaf():
    """1 - 0.9999999 in float32 is 1.19e-7; in a double, and then in float32, it is 1e-7."""
    state = optimizers.scale_by_adam(b2=0.9999999).init(jnp.zeros(()))
    _, state = optimizers.scale_by_adam(b2=0.9999999).update(jnp.float32(1.0), state)
    np.testing.assert_allclose(state.nu, 1e-7, rtol=1e-6)


def test_one_minus_the_dampening_keeps_its_digits():
    transform = optimizers.add_momentum(0.0, dampening=0.9999999)
    _, state = transform.update(jnp.float32(1.0), transform.init(jnp.zeros(())))
    np.testing.assert_allclose(transform.update(jnp.float32(1.0), state)[0], 1e-7, rtol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs", "step", "numbers"),
    [
        (optimizers.sgd, optax.sgd, _numpy_sgd, {}),
        (optimizers.adam, optax.adam, _numpy_adam, {}),
        (optimizers.rmsprop, optax.rmsprop, _numpy_rmsprop, {}),
    ],
)
def test_a_scheduled_rate_equals_optax_and_the_formula(ours, theirs, step, numbers):
    mine = schedules.warmup(schedules.cosine_decay(0.02, 150), 20)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.02, 20, 170)

    def rate(t):
        return 0.02 * t / 20 if t < 20 else 0.01 * (1 + np.cos(np.pi * min((t - 20) / 150, 1)))

    exact = _numpy_trajectory(step, numbers, rate)
    assert _distance(_trajectory(ours(mine), jnp.float32), exact) <= 5e-6
    assert _distance(_trajectory(ours(schedule), jnp.float32), exact) <= 5e-6
    assert _distance(_trajectory(theirs(mine), jnp.float32), exact) <= 5e-6
    with jax.enable_x64(True):
        assert _distance(_trajectory(ours(mine), jnp.float64), exact) <= 1e-12


def test_a_centered_variance_does_not_cancel():
    """A gradient that hardly varies: v - m² is lost in the rounding of v, and optax's root with it."""
    rng = np.random.default_rng(0)
    gradients = (100.0 + 0.01 * rng.normal(size=300)).astype(np.float32)
    state = optimizers.scale_by_rms(0.9, 1e-12, centered=True).init(jnp.zeros(()))

    def step(state, gradient):
        update, state = optimizers.scale_by_rms(0.9, 1e-12, centered=True).update(gradient, state)
        return state, update

    _, updates = jax.jit(lambda state: jax.lax.scan(step, state, gradients))(state)
    mean = variance = 0.0
    for gradient in gradients.astype(np.float64):
        variance = 0.9 * (variance + 0.1 * (gradient - mean) ** 2)
        mean = 0.9 * mean + 0.1 * gradient
    np.testing.assert_allclose(updates[-1], gradients[-1] / np.sqrt(variance), rtol=1e-2)


def test_the_count_stops_at_the_largest_integer():
    optimizer, params = optimizers.adam(schedules.constant(0.1)), jnp.zeros(())
    state = jax.tree.map(lambda x: jnp.int32(2**31 - 1) if x.dtype == jnp.int32 else x, optimizer.init(params))
    updates, state = optimizer.update(jnp.float32(1.0), state)
    assert state[0].count == state[1].count == 2**31 - 1
    assert np.isfinite(updates)


def _golden_name(case):
    numbers = ", ".join(f"{name} {number:.3g}" for name, number in case["numbers"].items())
    return f"{case['algorithm']}-{case['library']}-{numbers or 'defaults'}"


def _golden_distance(case, dtype):
    """How far our steps are from the library's, in parts of the largest value that a parameter has had."""
    rates, gradients, params = (jnp.asarray(GOLDEN[name], dtype) for name in ("rates", "gradients", "start"))
    convention = {} if case["ours"] in ("adadelta", "lion") else {"convention": case["library"]}
    mask = {"mask": trees.every_leaf} if case["ours"] in ("adamw", "lion") else {}
    factory = getattr(optimizers, case["ours"])
    optimizer = factory(lambda count: rates[count], **case["numbers"], **case["static"], **convention, **mask)
    state, path = optimizer.init(params), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params, np.float64))
    ours, theirs = np.stack(path)[GOLDEN["shown"]], np.asarray(case["path"])
    return np.max(np.abs(ours - theirs).max(axis=0) / np.abs(theirs).max(axis=0))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=_golden_name)
def test_golden_steps_of_the_libraries(case):
    with jax.enable_x64(True):
        assert _golden_distance(case, jnp.float64) <= 1e-12
    assert _golden_distance(case, jnp.float32) <= 5e-6


def test_golden_data_have_every_convention():
    have = {(case["ours"], case["library"]) for case in GOLDEN["cases"]}
    every = {"sgd", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "adamax", "nadam"}
    assert {(name, library) for name in every for library in ("optax", "torch", "keras")} <= have
    assert {("radam", "optax"), ("radam", "torch"), ("lion", "optax"), ("lion", "keras")} <= have


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.radam(0.1, convention="keras"), 'convention: expected "optax" or "torch", got \'keras\''),
        (lambda: optimizers.radam(0.1, threshold=3.9), r"threshold: expected a finite number in \[4, inf\), got 3.9"),
        (lambda: optimizers.nadam(0.1, momentum_decay=1.0), "momentum_decay: expected None .* has none, got 1.0"),
        (lambda: optimizers.sgd(0.1, dampening=0.1), "dampening: expected None without momentum, got 0.1"),
        (
            lambda: optimizers.sgd(0.1, 0.9, dampening=0.1, nesterov=True),
            "nesterov: expected False with dampening, got True",
        ),
        (
            lambda: optimizers.rmsprop(0.1, momentum=0.9, nesterov=True, convention="keras"),
            'nesterov: expected False with convention="keras", which has none, got True',
        ),
        (lambda: optimizers.adagrad(0.1, lr_decay=-0.1), "lr_decay: expected a finite number in .* got -0.1"),
        (lambda: optimizers.adamax(0.1, eps=0.0), r"eps: expected a finite number in \(0, inf\), got 0"),
    ],
)
def test_what_no_library_has_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def _momentum_path(convention, rate, scale_after=None):
    """The parameter after each of six equal pushes, the scale of the learning rate set after three."""
    optimizer, params = optimizers.sgd(rate, 0.5, convention=convention), jnp.zeros(())
    state, path = optimizer.init(params), []
    for step in range(6):
        if step == 3 and scale_after is not None:
            state = optimizers.scale_learning_rate(state, scale_after)
        updates, state = optimizer.update(jnp.ones(()), state)
        params = params + updates
        path.append(float(params))
    return path


def test_keras_has_the_learning_rate_inside_of_the_velocity():
    np.testing.assert_allclose(_momentum_path("keras", 0.5), _momentum_path("optax", 0.5), rtol=1e-6)
    falling = [_momentum_path(which, lambda count: jnp.where(count < 3, 0.5, 0.0)) for which in ("optax", "keras")]
    assert len(set(falling[0][2:])) == 1  # stands still at once
    np.testing.assert_allclose(np.diff(falling[1])[2:], np.diff(falling[1])[1] * 0.5 ** np.arange(1, 4))
    for which, path in zip(("optax", "keras"), falling, strict=True):
        np.testing.assert_allclose(_momentum_path(which, 0.5, scale_after=0.0), path, rtol=1e-6)


def test_an_infinite_gradient_has_no_sign():
    transform = optimizers.scale_by_lion()
    updates, _ = transform.update(jnp.array([jnp.inf, -jnp.inf, jnp.nan, 2.0]), transform.init(jnp.zeros(4)))
    np.testing.assert_array_equal(updates, [jnp.inf, -jnp.inf, jnp.nan, 1.0])


def test_nadam_counts_its_momenta_in_float32_to_the_last_digit():
    """1 - μ₁·…·μₜ with momenta near 1, where a product would have lost it."""
    b1, decay = np.float32(1 - 1e-4), 30.0  # the momentum has grown after a step or two
    transform = optimizers.scale_by_nadam(jnp.float32(b1), momentum_decay=decay, convention="torch")
    state, missing = transform.init(jnp.zeros(())), 1.0
    for t in range(1, 40):
        _, state = transform.update(jnp.float32(1.0), state)
        mu = float(b1) * (1 - 0.5 * 0.96 ** (t * decay))
        missing *= mu
        np.testing.assert_allclose(state.weight, 1 - missing, rtol=1e-6)
