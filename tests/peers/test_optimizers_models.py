"""Models that other libraries define are trained by our optimizers, as theirs would be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, schedules, trees
from tests.optimizers.table import STORED, TABLE, WRAPPERS, params_of, rows

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


@pytest.fixture(scope="module")
def models():
    """One model, trained in each library's way: functions ``optimizer -> the parameters after two steps``."""
    linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
    train_state, equinox = pytest.importorskip("flax.training.train_state"), pytest.importorskip("equinox")
    frozen_dict = pytest.importorskip("flax.core").FrozenDict
    initial, x = params_of(), np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)

    def loss_of(y, scale):
        return jnp.mean((jnp.tanh(y) * scale - 0.3) ** 2)

    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x):
            scale = self.param("scale", lambda key: initial["scale"])
            return loss_of(linen.Dense(3, use_bias=False, name="layer")(x), scale)

    def in_linen(optimizer):
        state = train_state.TrainState.create(apply_fn=Linen().apply, params=frozen_dict(initial), tx=optimizer)
        for _ in range(2):
            state = state.apply_gradients(grads=jax.grad(state.apply_fn)({"params": state.params}, x)["params"])
        assert isinstance(state.params, frozen_dict)
        return jax.tree.leaves(state.params)

    class Nnx(nnx.Module):
        def __init__(self):
            self.layer = nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))
            self.layer.kernel[...], self.scale = initial["layer"]["kernel"], nnx.Param(initial["scale"])
            self.steps = nnx.Variable(jnp.zeros((), jnp.int32))  # no parameter

    def in_nnx(optimizer):
        model = Nnx()
        state = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
        for _ in range(2):
            gradients = nnx.grad(lambda model: loss_of(model.layer(x), model.scale[...]))(model)
            state.update(model, gradients)
        assert state.step[...].dtype == jnp.uint32
        return jax.tree.leaves(nnx.as_pure(nnx.state(model, nnx.Param)))

    class Layer(equinox.Module):
        kernel: jax.Array
        activation: object  # a function, and so no parameter: None where the parameters are alone

    class Equinox(equinox.Module):
        layer: Layer
        scale: jax.Array
        count: int

    def in_equinox(optimizer):
        model = Equinox(Layer(initial["layer"]["kernel"], jnp.tanh), initial["scale"], 3)
        params, static = equinox.partition(model, equinox.is_inexact_array)
        state = optimizer.init(params)
        for _ in range(2):
            model = equinox.combine(params, static)
            gradients = equinox.filter_grad(lambda model: loss_of(x @ model.layer.kernel, model.scale))(model)
            updates, state = optimizer.update(gradients, state, params)
            params = equinox.apply_updates(params, updates)
        assert (params.layer.activation, params.count) == (None, None)
        return jax.tree.leaves(params)

    def alone(optimizer):
        params = initial
        state = optimizer.init(params)
        for _ in range(2):
            gradients = jax.grad(lambda params: loss_of(x @ params["layer"]["kernel"], params["scale"]))(params)
            updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return jax.tree.leaves(params)

    return [alone, in_linen, in_nnx, in_equinox]


@rows(TABLE + WRAPPERS + STORED)
def test_every_transform_takes_the_trees_of_models(models, factory, numbers):
    """Theirs are a FrozenDict, a State, and a module in which what is no parameter is None."""
    optimizer = factory(**numbers)
    expected, *found = jax.jit(lambda: [fitted(optimizer) for fitted in models])()
    assert max(np.abs(a - b).max() for a, b in zip(expected, jax.tree.leaves(params_of()), strict=True)) > 1e-3
    for leaves in found:
        for got, want in zip(leaves, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_paths_are_the_same_with_the_boxes_of_flax_and_without():
    nnx = pytest.importorskip("flax.nnx")
    bare = {"layer": jnp.ones(1), "pair": {"a": jnp.ones(1), "b": jnp.ones(2)}}
    boxed = {name: nnx.Param(value) for name, value in bare.items()}
    for tree in (bare, boxed):
        assert [path for path, _ in trees.named_leaves(tree)] == ["layer", "pair/a", "pair/b"]
