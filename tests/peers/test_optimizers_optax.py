"""Two hundred settings of what looks at whole leaves, or at other weights than the last: the steps that optax takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, trees

COUNT, STEPS = 200, 24
SHAPES = {"bias": (3,), "tall": (5, 3), "wide": (3, 4)}
# Ranges of the numbers that a setting is drawn from, evenly in the logarithm.
RANGES = {
    "learning_rate": (1e-3, 0.1),
    "b1": (0.3, 0.95),
    "b2": (0.5, 0.999),
    "momentum": (0.3, 0.95),
    "decay": (0.3, 0.99),
    "eps": (1e-8, 1e-3),
    "weight_decay": (1e-4, 0.1),
    "trust_coefficient": (1e-3, 1.0),
    "decay_exponent": (0.5, 1.0),
    "clipping_threshold": (0.3, 2.0),
    "slow_step_size": (0.1, 1.0),
}


def _lamb(given):
    rate, b1, b2, eps, decay = given
    ours = optimizers.lamb(rate, b1, b2, eps, decay, mask=trees.every_leaf)
    return ours, optax.lamb(rate, b1, b2, eps, weight_decay=decay)


def _lars(given):
    rate, decay, trust, eps, momentum = given
    ours = optimizers.lars(rate, decay, trust, eps, momentum, mask=trees.every_leaf)
    return ours, optax.lars(rate, decay, trust_coefficient=trust, eps=eps, momentum=momentum)


def _adafactor(given):
    rate, exponent, threshold, momentum, decay = given
    ours = optimizers.adafactor(
        rate, exponent, 1e-20, threshold, 1e-3, momentum, decay, min_size_to_factor=3, mask=trees.every_leaf
    )
    theirs = optax.adafactor(
        rate, 3, exponent, clipping_threshold=threshold, momentum=momentum, weight_decay_rate=decay, eps=1e-20
    )
    return ours, theirs


def _muon(given):
    rate, momentum, eps, decay = given
    ours = optimizers.muon(rate, momentum, eps, decay, others=optax.nadam(rate, eps=eps))
    return ours, optax.contrib.muon(rate, beta=momentum, eps=eps, weight_decay=decay, adam_weight_decay=0.0)


def _schedule_free(given):
    rate, b1 = given
    ours = optimizers.schedule_free(optimizers.sgd(rate), b1, learning_rate=rate)
    return ours, optax.contrib.schedule_free(optax.sgd(rate), rate, b1=b1)


# name, (ours, theirs), the numbers, the largest errors in float64 and float32 in parts of the largest value of a leaf:
# optax has Adafactor's β in float32 whatever the parameters; Muon's iteration makes small singular values, and their
# rounding, 3.4 times as large five times over.
CASES = [
    ("lamb", _lamb, "learning_rate b1 b2 eps weight_decay", 1e-12, 5e-6),
    ("lars", _lars, "learning_rate weight_decay trust_coefficient eps momentum", 1e-12, 5e-6),
    ("adafactor", _adafactor, "learning_rate decay_exponent clipping_threshold momentum weight_decay", 1e-6, 5e-6),
    ("muon", _muon, "learning_rate momentum eps weight_decay", 1e-12, 5e-5),
    ("schedule_free", _schedule_free, "learning_rate b1", 1e-12, 5e-6),
]


def _drawn(names, rng):
    bounds = np.log([RANGES[name] for name in names.split()])
    return np.exp(rng.uniform(*bounds.T, size=(COUNT, len(bounds)))).astype(np.float32)


def _problem(rng):
    """Start, noise of the gradients and their sizes, for every setting."""
    draw = lambda *lead: {name: rng.normal(size=(COUNT, *lead, *shape)) for name, shape in SHAPES.items()}  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), (draw(), draw(STEPS)))


def _path(optimizer, start, noise):
    """The parameters after each step on a noisy quadratic: a mistake goes on."""

    def step(carry, noise):
        params, state = carry
        gradients = jax.tree.map(lambda p, n: p + n, params, noise)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (start, optimizer.init(start)), noise)[1]


def _worst(ours, theirs):
    sizes = jax.tree.map(lambda leaf: np.abs(leaf).max(axis=tuple(range(1, leaf.ndim)), keepdims=True), theirs)
    errors = jax.tree.map(lambda a, b, size: (np.abs(a - b) / size).max(), ours, theirs, sizes)
    return max(jax.tree.leaves(errors))


@pytest.mark.parametrize(("pair", "names", "exact", "rounded"), [row[1:] for row in CASES], ids=[r[0] for r in CASES])
def test_two_hundred_settings_take_the_steps_of_optax(pair, names, exact, rounded):
    rng = np.random.default_rng(0)
    arguments = _drawn(names, rng), *_problem(rng)
    with jax.enable_x64(True):
        paths = jax.jit(jax.vmap(lambda given, *problem: [_path(each, *problem) for each in pair(given)]))
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), arguments)
        ours, theirs = jax.tree.map(np.asarray, paths(*wide))
    assert _worst(ours, theirs) <= exact
    mine = jax.jit(jax.vmap(lambda given, *problem: _path(pair(given)[0], *problem)))(*arguments)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(mine))
    assert _worst(jax.tree.map(np.asarray, mine), theirs) <= rounded


def test_two_hundred_averages_and_slow_weights_are_those_of_optax():
    rng = np.random.default_rng(1)
    given, (start, noise) = _drawn("learning_rate decay slow_step_size", rng), _problem(rng)

    def theirs_of(given, start, noise):
        rate, decay, alpha = given
        ema, look = optax.ema(decay), optax.lookahead(optax.sgd(rate), 5, alpha)

        def step(carry, noise):
            params, averaged, pair, state = carry
            gradients = jax.tree.map(lambda p, n: p + n, params, noise)
            params = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
            average, averaged = ema.update(params, averaged)
            gradients = jax.tree.map(lambda p, n: p + n, pair.fast, noise)
            updates, state = look.update(gradients, state, pair)
            pair = optax.apply_updates(pair, updates)
            return (params, averaged, pair, state), (average, pair.slow)

        pair = optax.LookaheadParams.init_synced(start)
        return jax.lax.scan(step, (start, ema.init(start), pair, look.init(pair)), noise)[1]

    def ours_of(given, start, noise):
        rate, decay, alpha = given

        def path(optimizer):
            def step(carry, noise):
                params, state = carry
                gradients = jax.tree.map(lambda p, n: p + n, params, noise)
                updates, state = optimizer.update(gradients, state, params)
                params = optax.apply_updates(params, updates)
                return (params, state), optimizers.evaluation_params(state, params)

            return jax.lax.scan(step, (start, optimizer.init(start)), noise)[1]

        sgd = optimizers.sgd(rate)
        return path(optimizers.weight_ema(sgd, decay)), path(optimizers.lookahead(sgd, 5, alpha))

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (given, start, noise))
        ours, theirs = jax.jit(jax.vmap(lambda *at: (ours_of(*at), theirs_of(*at))))(*wide)
    ours, theirs = jax.tree.map(np.asarray, (ours, theirs))
    assert _worst(ours, theirs) <= 1e-12
    mine = jax.tree.map(np.asarray, jax.jit(jax.vmap(ours_of))(given, start, noise))
    assert _worst(mine, theirs) <= 5e-6
