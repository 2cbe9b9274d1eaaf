"""Models that other libraries define are trained by our optimizers, as theirs would be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, schedules, trees

OPTIMIZERS = {
    "nesterov": optimizers.sgd(schedules.cosine_decay(0.5, 200.0), 0.9, nesterov=True),
    "rmsprop": optimizers.rmsprop(0.02, convention="torch"),
    "adamw": optimizers.adamw(0.02, weight_decay=1e-4, mask=trees.no_biases_no_norms),
    "nadam": optimizers.nadam(0.02, convention="keras"),
    "lion": optax.chain(optax.clip_by_global_norm(1.0), optimizers.lion(0.02, weight_decay=None)),
}
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
STEPS = 200


def _data():
    """A circle within a ring: no line tells them apart."""
    x = np.random.default_rng(0).normal(size=(128, 2)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray((x**2).sum(axis=1) > 1.4, jnp.int32)


def _loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@each_optimizer
def test_a_flax_linen_model(optimizer):
    linen = pytest.importorskip("flax.linen")
    train_state = pytest.importorskip("flax.training.train_state")
    (x, y), model = _data(), linen.Sequential([linen.Dense(16), linen.tanh, linen.Dense(2)])
    state = train_state.TrainState.create(
        apply_fn=model.apply, params=model.init(jax.random.key(0), x)["params"], tx=optimizer
    )

    def loss(params):
        return _loss(model.apply({"params": params}, x), y)

    @jax.jit
    def fitted(state):
        return jax.lax.fori_loop(
            0, STEPS, lambda _, state: state.apply_gradients(grads=jax.grad(loss)(state.params)), state
        )

    state = fitted(state)
    assert state.step == STEPS
    assert loss(state.params) < 0.15  # from 0.7


@each_optimizer
def test_a_flax_nnx_model(optimizer):
    nnx = pytest.importorskip("flax.nnx")
    x, y = _data()
    model = nnx.Sequential(nnx.Linear(2, 16, rngs=nnx.Rngs(0)), nnx.tanh, nnx.Linear(16, 2, rngs=nnx.Rngs(1)))
    state = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    @nnx.jit
    def step(model, state):
        loss, gradients = nnx.value_and_grad(lambda model: _loss(model(x), y))(model)
        state.update(model, gradients)
        return loss

    for _ in range(STEPS + 1):
        loss = step(model, state)
    assert loss < 0.15  # from 0.7


@each_optimizer
def test_an_equinox_model(optimizer):
    equinox = pytest.importorskip("equinox")
    x, y = _data()
    model = equinox.nn.MLP(2, 2, 16, 1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = equinox.partition(model, equinox.is_inexact_array)  # its activation is a leaf, and no array

    def loss(params):
        return _loss(jax.vmap(equinox.combine(params, static))(x), y)

    def step(_, carry):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return equinox.apply_updates(params, updates), state

    params, _ = jax.jit(lambda carry: jax.lax.fori_loop(0, STEPS, step, carry))((params, optimizer.init(params)))
    assert loss(params) < 0.15  # from 0.7
