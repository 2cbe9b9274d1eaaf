"""Models of other libraries, with batch normalization and dropout, trained by `make_run` like our own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import checking, layers, losses, metrics, optimizers, penalties, training
from jaxopt_nn.trees import every_leaf, named_leaves
from jaxopt_nn.types import Batch

KEY = jax.random.key(0)


def circle(size, seed):
    """A circle within a ring: no line tells them apart."""
    x = np.random.default_rng(seed).normal(size=(size, 2)).astype("f")
    return Batch(x, ((x**2).sum(1) > 1.4).astype("i"))


def from_apply():
    def init(key, x):
        first, second = jax.random.split(key)
        params = {
            "first": jax.random.normal(first, (x.shape[-1], 32)),
            "bias": jnp.linspace(-2.0, 2.0, 32),
            "second": jax.random.normal(second, (32, 2)) * 0.2,
        }
        return params, {"mean": jnp.zeros(32)}

    def apply(params, state, x, *, train, key, weight):
        h = x @ params["first"]
        if train:
            share = (weight / weight.sum())[:, None] if weight is not None else jnp.float32(1 / len(x))
            state = {"mean": 0.9 * state["mean"] + 0.1 * jnp.sum(share * h, 0)}
        h = jnp.tanh(h + jnp.broadcast_to(params["bias"] - state["mean"], h.shape))
        return (layers.dropout(0.1).apply({}, {}, h, train=train, key=key, weight=None)[0]) @ params["second"], state

    return layers.from_apply(init, apply, has_state=True)


def from_linen():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(linen.Dense(32)(x))
            return linen.Dense(2)(linen.Dropout(0.1, deterministic=not train)(linen.relu(x)))

    return layers.from_linen(Net())


def from_nnx():
    nnx = pytest.importorskip("flax.nnx")

    def build(rngs):
        return nnx.Sequential(
            nnx.Linear(2, 32, rngs=rngs),
            nnx.BatchNorm(32, momentum=0.9, rngs=rngs),
            nnx.relu,
            nnx.Dropout(0.1, rngs=rngs),
            nnx.Linear(32, 2, rngs=rngs),
        )

    return layers.from_nnx(build)


def from_equinox():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        drop: eqx.nn.Dropout
        second: eqx.nn.Linear

        def __init__(self, key):
            one, two = jax.random.split(key)
            self.first = eqx.nn.Linear(2, 32, key=one)
            self.norm = eqx.nn.BatchNorm(32, axis_name="batch", mode="batch")
            self.drop = eqx.nn.Dropout(0.1)
            self.second = eqx.nn.Linear(32, 2, key=two)

        def __call__(self, x, state, key=None):
            x, state = self.norm(self.first(x), state)
            return self.second(self.drop(jax.nn.relu(x), key=key)), state

    return layers.from_equinox(lambda key: eqx.nn.make_with_state(Net)(key))


def from_haiku():
    haiku = pytest.importorskip("haiku")

    def net(x, is_training):
        x = haiku.BatchNorm(True, True, 0.9)(haiku.Linear(32)(x), is_training)
        x = jax.nn.relu(x)
        x = haiku.dropout(haiku.next_rng_key(), 0.1, x) if is_training else x
        return haiku.Linear(2)(x)

    return layers.from_haiku(net)


MODELS = [from_apply, from_linen, from_nnx, from_equinox, from_haiku]
each_model = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


@pytest.mark.slow
@each_model
def test_a_model_is_trained_by_make_run(make):
    layer = make()

    def recipe(hp):
        return training.Recipe(
            model=layer,
            loss=losses.softmax_cross_entropy,
            penalty=penalties.l2(1e-5, every_leaf),
            optimizer=optimizers.adam(hp["learning_rate"]),
            metrics={"accuracy": metrics.accuracy},
            batch_size=32,
            epochs=25,
            early_stopping=training.EarlyStopping(patience=20),
        )

    run = jax.jit(training.make_run(recipe))
    result = run(KEY, {"learning_rate": 0.02}, circle(256, 0), circle(256, 1))
    assert int(result.status) in (training.Status.COMPLETED, training.Status.STOPPED_EARLY)
    assert float(jnp.nanmax(result.history["valid_accuracy"])) > 0.9  # guessing: 0.5
    before = layer.init(jax.random.key(1), jnp.ones((4, 2)))[1]
    assert jax.tree.structure(before) == jax.tree.structure(result.model_state)
    floats = [leaf for _, leaf in named_leaves(result.model_state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert floats and any(np.abs(leaf).max() > 0.01 for leaf in floats)  # its running statistics have run


@pytest.mark.slow
@each_model
def test_a_model_keeps_the_protocol(make):
    layer = make()
    x = jnp.asarray(circle(64, 2).x)
    params, state = jax.jit(layer.init)(KEY, x)
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(params))
    # Lanes are initialized with a key each: as alone, and not alike.
    lanes, _ = jax.jit(jax.vmap(layer.init, (0, None)))(jnp.stack([jax.random.key(1), KEY]), x)
    jax.tree.map(lambda lane, own: np.testing.assert_allclose(lane[1], own, rtol=1e-5, atol=1e-6), lanes, params)
    assert any((leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(lanes))
    assert jax.tree.map(jax.typeof, layer.init(KEY, jax.ShapeDtypeStruct(x.shape, x.dtype))) == jax.tree.map(
        jax.typeof, (params, state)
    )

    def apply(train, key, state=state):
        return jax.jit(lambda key: layer.apply(params, state, x, train=train, key=key, weight=None))(key)

    y, after = apply(True, KEY)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), after, state)
    assert any(jax.tree.leaves(changed))
    np.testing.assert_array_equal(y, apply(True, KEY)[0])  # its noise comes from the key alone
    assert not np.allclose(y, apply(True, jax.random.key(1))[0])
    z, same = apply(False, None)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, state))
    np.testing.assert_array_equal(z, apply(False, KEY)[0])
    np.testing.assert_array_equal(z, jax.jit(lambda: layer.apply(params, state, x)[0])())
    assert not np.allclose(z, apply(False, None, after)[0])  # in evaluation, the state is what it normalizes with
    # As a part of a model of ours, and as lanes of vmap.
    model = layers.serial(layer, layers.dense(3))
    whole = model.init(KEY, x)
    shape = jax.eval_shape(lambda: model.apply(*whole, x, train=True, key=KEY, weight=jnp.ones(64)))[0].shape
    assert shape == (64, 3)
    lanes = jax.vmap(lambda key: layer.apply(params, state, x, train=True, key=key, weight=None)[0])
    np.testing.assert_allclose(lanes(jnp.stack([KEY, KEY]))[1], y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [from_linen, from_nnx, from_equinox, from_haiku], ids=lambda make: make.__name__)
def test_no_key_in_training_is_an_error(make):
    layer = make()
    x = jnp.asarray(circle(8, 0).x)
    params, state = layer.init(KEY, x)
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)key|rng"):
        layer.apply(params, state, x, train=True, key=None, weight=None)


def test_a_stateless_linen_module_and_an_equinox_module_for_batches():
    linen, eqx = pytest.importorskip("flax.linen"), pytest.importorskip("equinox")
    x = jnp.asarray(circle(8, 0).x)
    dense = layers.from_linen(linen.Dense(3))
    params, state = dense.init(KEY, x)
    assert [path for path, _ in named_leaves(params)] == ["bias", "kernel"] and state == {} and dense.name == "dense"
    y, _ = dense.apply(params, state, x, train=True, key=None, weight=None)
    np.testing.assert_allclose(y, x @ params["kernel"], rtol=1e-5)
    for batched in (False, True):
        mlp = layers.from_equinox(lambda key: eqx.nn.Lambda(lambda x: 2 * x), batched=batched)
        assert mlp.init(KEY, x)[1] == {}
        np.testing.assert_array_equal(mlp.apply(*mlp.init(KEY, x), x, train=True, key=KEY, weight=None)[0], 2 * x)


# Not Equinox's batch normalization: its counter changes its dtype where x64 is on, as it is under a check.
@pytest.mark.parametrize("make", [from_apply, from_linen, from_nnx, from_haiku], ids=lambda make: make.__name__)
def test_the_gradient_of_a_model_can_be_checked(make):
    report = checking.check_layer(make(), circle(4, 0).x, key=jax.random.key(3))
    assert report.ok, report


@pytest.mark.parametrize("make", [from_linen, from_nnx, from_equinox, from_haiku], ids=lambda make: make.__name__)
def test_a_batch_without_weight_leaves_the_state_of_a_model(make):
    layer = make()
    x = jnp.asarray(circle(8, 0).x)
    params, state = layer.init(KEY, x)
    call = jax.jit(lambda weight: layer.apply(params, state, x, train=True, key=KEY, weight=weight)[1])
    jax.tree.map(np.testing.assert_array_equal, call(jnp.zeros(8)), state)
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), call(jnp.ones(8)), state)))


def test_modules_with_weights_are_no_plain_functions():
    nnx, linen, eqx = (pytest.importorskip(name) for name in ("flax.nnx", "flax.linen", "equinox"))
    ours, theirs = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), eqx.nn.Linear(2, 3, key=KEY)
    for module, adapter in (
        (ours, "nnx"), (lambda x: ours(x), "nnx"), (ours.__call__, "nnx"), (jax.jit(lambda x: ours(x)), "nnx"),
        (linen.Dense(3), "linen"), (theirs, "equinox"), (jax.vmap(theirs), "equinox"),
        (eqx.filter_jit(theirs), "equinox"), (jax.vmap(lambda x: theirs(x)), "equinox"),
    ):  # fmt: skip
        with pytest.raises(
            TypeError, match=rf"^layer: .* got a module \w+.* never be trained; .*layers\.from_{adapter}"
        ):
            layers.serial(module, jax.nn.relu, layers.dense(3))
    layers.serial(jax.vmap(eqx.nn.Lambda(jax.nn.relu)), eqx.nn.MaxPool1d(2))  # without weights


def test_an_instance_for_the_way_to_make_one_is_named():
    nnx, linen, eqx, haiku = (pytest.importorskip(name) for name in ("flax.nnx", "flax.linen", "equinox", "haiku"))
    for call, match in (
        (
            lambda: layers.from_nnx(nnx.Linear(2, 3, rngs=nnx.Rngs(0))),
            r"^build: expected a function .* lambda rngs: .* Lin",
        ),
        (lambda: layers.from_nnx(lambda rngs: 3), r"^build: expected a module, such as nnx\.Linear"),
        (
            lambda: layers.from_equinox(eqx.nn.Linear(2, 3, key=KEY)),
            r"^build: expected a function .* lambda key: .* Linear",
        ),
        (lambda: layers.from_linen(linen.Dense), r"^module: expected a module, .*, got the class Dense"),
        (
            lambda: layers.from_haiku(haiku.transform(lambda x: x)),
            r"^function: expected a function of x, not transformed",
        ),
    ):
        with pytest.raises(TypeError, match=match):
            call()


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_variables_of_nnx_in_a_loop_of_ones_own(micro_batches):
    """BatchNorm writes them, while the gradient is taken ("Cannot mutate BatchStat from a different trace level")."""
    nnx = pytest.importorskip("flax.nnx")
    module = nnx.Sequential(nnx.Linear(2, 8, rngs=nnx.Rngs(0)), nnx.BatchNorm(8, momentum=0.9, rngs=nnx.Rngs(0)))
    definition, params, others = nnx.split(module, nnx.Param, ...)

    def loss_fn(params, model_state, batch, key):
        module = nnx.merge(definition, params, model_state)
        loss = jnp.mean(losses.softmax_cross_entropy(module(batch.x), batch.y))
        return loss, (nnx.split(module, nnx.Param, ...)[2], {})

    optimizer = optimizers.adam(0.01)
    state = training.init_state(params, optimizer, KEY, others)
    step = jax.jit(training.make_step(loss_fn, optimizer, micro_batches=micro_batches))
    batch = circle(32, 0)
    first = step(state, batch)
    state, metrics = step(*first[:1], batch)
    assert float(metrics["loss"]) < float(first[1]["loss"])
    mean = np.asarray(jax.tree.leaves(first[0].model_state)[0])
    hidden = batch.x @ np.asarray(module.layers[0].kernel[...]) + np.asarray(module.layers[0].bias[...])
    if micro_batches == 1:
        np.testing.assert_allclose(mean, 0.1 * hidden.mean(0), atol=1e-6)
