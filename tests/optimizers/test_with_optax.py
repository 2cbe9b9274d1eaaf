"""Optimizers of optax that are as good here as our own, by one table: what the guide says of them is tested here.

Each of them has four properties here: it is what its paper says, each of its numbers may be swept and differentiated,
its state has the digits of float32, and it runs in a training run like any other.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch

STEPS = 20
GUIDE = Path(__file__).parents[2] / "docs" / "optimizers" / "index.md"


def _adabelief(g, p, memory, t, learning_rate, b1, b2, eps, eps_root):
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    s = memory["s"] = b2 * memory.get("s", 0.0) + (1 - b2) * (g - m) ** 2 + eps_root
    return p - learning_rate * m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps)


def _sign_sgd(g, p, memory, t, learning_rate):
    return p - learning_rate * np.sign(g)


def _optimistic(g, p, memory, t, learning_rate, alpha, beta):
    before, memory["g"] = memory.get("g", g), g
    return p - learning_rate * (alpha * g + beta * (g - before))


def _fromage(g, p, memory, t, learning_rate):
    return (p - learning_rate * np.linalg.norm(p) / np.linalg.norm(g) * g) / np.sqrt(1 + learning_rate**2)


# name, optax's factory, the formula of the paper, its numbers
OPTIMIZERS = [
    (
        "adabelief",
        optax.adabelief,
        _adabelief,
        {"learning_rate": 0.05, "b1": 0.8, "b2": 0.9, "eps": 1e-16, "eps_root": 1e-16},
    ),
    ("sign_sgd", optax.sign_sgd, _sign_sgd, {"learning_rate": 0.05}),
    (
        "optimistic_gradient_descent",
        optax.optimistic_gradient_descent,
        _optimistic,
        {"learning_rate": 0.05, "alpha": 0.9, "beta": 0.7},
    ),
    ("fromage", optax.fromage, _fromage, {"learning_rate": 0.05}),
]
each_optimizer = pytest.mark.parametrize(
    ("make", "formula", "numbers"), [row[1:] for row in OPTIMIZERS], ids=[row[0] for row in OPTIMIZERS]
)


def _params(dtype=jnp.float32):
    return {"kernel": jnp.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3), "bias": jnp.array([0.5, -2.0], dtype)}


def _gradients(dtype):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=(STEPS, *p.shape)), dtype), _params())


def _end(optimizer, dtype=jnp.float32, scale=1.0):
    params = _params(dtype)

    def step(carry, gradients):
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(lambda g: scale * g, gradients), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), _gradients(dtype))[0][0]


@each_optimizer
def test_an_optimizer_of_optax_is_what_its_paper_says(make, formula, numbers):
    with jax.enable_x64(True):
        ours = _end(make(**numbers), jnp.float64)
        for name, gradients in _gradients(jnp.float64).items():
            p, memory = np.asarray(_params(jnp.float64)[name]), {}
            for t, g in enumerate(np.asarray(gradients), start=1):
                p = formula(g, p, memory, t, **numbers)
            np.testing.assert_allclose(ours[name], p, rtol=1e-12, atol=1e-12)


@each_optimizer
def test_every_number_of_an_optimizer_of_optax_may_be_swept(make, formula, numbers):
    swept = {name: np.float32(number) * np.linspace(0.8, 1.0, 4, dtype=np.float32) for name, number in numbers.items()}
    lanes = jax.jit(jax.vmap(lambda given: _end(make(**given))))(swept)
    alone = jax.jit(lambda: _end(make(**{name: float(values[2]) for name, values in swept.items()})))()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[2], y, rtol=1e-5, atol=1e-6), lanes, alone)


@each_optimizer
def test_derivatives_of_an_optimizer_of_optax_are_finite_at_zero_gradients(make, formula, numbers):
    @jax.jit
    def evaluate(given):
        def end(given):
            return _end(make(**given), scale=0.0)

        return jax.jacfwd(end)(given), jax.jacrev(end)(given)

    slopes = evaluate(jax.tree.map(jnp.float32, numbers))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@each_optimizer
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_the_state_in_float32_has_the_digits_of_float32(make, formula, numbers, dtype):
    optimizer, params = optimizers.in_float32(make(**numbers)), _params(dtype)
    state = optimizer.init(params)
    updates, new = jax.eval_shape(lambda state: optimizer.update(params, state, params), state)
    types = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree) for tree in (state, new)]
    assert types[0] == types[1]
    floats = [x.dtype for x in jax.tree.leaves(new) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(kind == jnp.float32 for kind in floats)
    assert all(update.dtype == dtype for update in jax.tree.leaves(updates))


def test_in_float32_is_the_optimizer_itself_with_its_digits():
    """The same numbers as with float32 parameters, rounded once; of float32 parameters, the very same."""
    plain, wrapped = optax.adabelief(0.1), optimizers.in_float32(optax.adabelief(0.1))
    for dtype in (jnp.bfloat16, jnp.float32):
        params = _params(dtype)
        exact = jax.tree.map(lambda p: p.astype(jnp.float32), params)
        updates, _ = wrapped.update(params, wrapped.init(params), params)
        expected, _ = plain.update(exact, plain.init(exact), exact)
        jax.tree.map(lambda u, e, dtype=dtype: np.testing.assert_array_equal(u, e.astype(dtype)), updates, expected)
    assert wrapped.update(params, wrapped.init(params))[0]["bias"].dtype == jnp.float32
    with pytest.raises(TypeError, match=r"^params\[n\]: expected real floating-point numbers, got int32"):
        wrapped.init({"n": jnp.ones(2, jnp.int32)})


# In a training run: those of optax, and what asks for more of it than a gradient or evaluates with other weights.
RUNS = [(name, lambda rate, make=make: make(rate)) for name, make, _, _ in OPTIMIZERS]
RUNS += [
    ("wrapped", lambda rate: optimizers.in_float32(optax.adabelief(rate))),
    ("lamb", optimizers.lamb),
    ("lars", lambda rate: optimizers.lars(rate, trust_coefficient=0.5)),
    ("adafactor", optimizers.adafactor),
    ("muon", optimizers.muon),
    ("sophia", lambda rate: optimizers.sophia(rate, key=jax.random.key(1), update_interval=2)),
    ("sam", lambda rate: optimizers.sam(optimizers.adam(rate))),
    ("weight_ema", lambda rate: optimizers.weight_ema(optimizers.adam(rate), 0.8)),
    ("lookahead", lambda rate: optimizers.lookahead(optimizers.sam(optax.adam(rate)), 3)),
    ("schedule_free", lambda rate: optimizers.schedule_free(optimizers.adam(rate, b1=0.0))),
]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [row[1] for row in RUNS], ids=[row[0] for row in RUNS])
def test_a_training_run_takes_it_and_learns(optimizer):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 4)).astype(np.float32)
    train = Batch(jnp.asarray(x), jnp.asarray(x @ rng.normal(size=(4, 1)).astype(np.float32)))
    run = training.make_run(
        lambda hp: training.Recipe(
            model=layers.serial(layers.dense(8), jnp.tanh, layers.dense(1)),
            loss=losses.mean_squared_error,
            optimizer=optimizer(hp["learning_rate"]),
            batch_size=8,
            epochs=6,
        )
    )
    rates = jnp.array([0.02, 0.03])
    result = jax.jit(jax.vmap(lambda rate: run(jax.random.key(0), {"learning_rate": rate}, train)))(rates)
    loss = result.history["train_loss"]
    assert np.isfinite(loss).all()
    assert (loss[:, -1] < 0.9 * loss[:, 0]).all()
    assert np.abs(loss[0] - loss[1]).max() > 1e-6


def test_the_guide_names_each_optimizer_and_each_of_ours():
    text = GUIDE.read_text()
    listed = re.findall(r"^\| `optax\.(\w+)` \| (?:with|keeps)", text, re.MULTILINE)
    assert sorted(listed) == sorted(row[0] for row in OPTIMIZERS)
    for ours in re.findall(r"^\| [^|]+ \| `(\w+)`", text, re.MULTILINE):
        assert hasattr(optimizers, ours)


def _after_three_steps(optimizer, curvature, *, functions=True):
    params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    optimizer = optax.with_extra_args_support(optimizer)
    state = optimizer.init(params)
    for _ in range(3):
        grad_fn = lambda params, *_: jax.tree.map(lambda leaf: curvature * leaf, params)  # noqa: E731
        extra = {"value": curvature * jnp.sum(params["kernel"] ** 2) / 2} if functions else {"grad_fn": grad_fn}
        updates, state = optimizer.update(grad_fn(params), state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params["kernel"]


_NOT_A_NUMBER = {
    "adam": optax.adam,
    "lamb": optax.lamb,
    "lars": optax.lars,
    "adafactor": optax.adafactor,
    "muon": optax.contrib.muon,
    "novograd": optax.novograd,
    "adopt": optax.contrib.adopt,
    "ademamix": optax.contrib.ademamix,
    "prodigy": optax.contrib.prodigy,
    "dadapt_adamw": optax.contrib.dadapt_adamw,
    "polyak_sgd": optax.polyak_sgd,
    "sam": lambda rate: optax.contrib.sam(
        optax.sgd(rate), optax.chain(optax.contrib.normalize(), optax.sgd(0.05)), opaque_mode=True
    ),
}


@pytest.mark.parametrize("name", _NOT_A_NUMBER)
def test_the_derivatives_that_the_guide_says_are_nan_are(name):
    """At zero gradients, in reverse mode, through three steps; ours are finite: see test_every_number."""
    slope = jax.jacrev(lambda c: _after_three_steps(_NOT_A_NUMBER[name](0.1), c, functions=name != "sam"))(0.0)
    assert not np.isfinite(slope).all()
    assert f"{name}`" in GUIDE.read_text() or f"`{name}" in GUIDE.read_text() or name == "adam"


@pytest.mark.slow
def test_the_other_limits_that_the_guide_states():
    start = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    assert np.abs(_after_three_steps(optax.yogi(0.1), 0.0) - start).max() > 0  # at a gradient of 0
    assert optax.adam(0.1).init(start.astype(jnp.bfloat16))[0].nu.dtype == jnp.bfloat16
    assert optimizers.adam(0.1).init(start.astype(jnp.bfloat16))[0].nu.dtype == jnp.float32
    assert optimizers.current_learning_rate(optax.adabelief(0.1).init(start)) is None
    recorded = optax.inject_hyperparams(optax.adabelief)(learning_rate=0.1).init(start)
    np.testing.assert_allclose(optimizers.current_learning_rate(recorded), 0.1)

    def end(curvature):
        value_fn = lambda params: curvature * jnp.sum(params**2)  # noqa: E731
        gradient, state = jax.grad(value_fn)(start), optax.lbfgs().init(start)
        extra = {"value": value_fn(start), "grad": gradient, "value_fn": value_fn}
        return optax.lbfgs().update(gradient, state, start, **extra)[0]

    with pytest.raises(ValueError, match=r"^Reverse-mode differentiation does not work for lax\.while_loop"):
        jax.jacrev(end)(1.0)
