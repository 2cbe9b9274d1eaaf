"""The step: what it computes, and that its state never changes its type."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch


def loss_fn(params, model_state, batch, key):
    noise = jax.random.normal(key, batch.x.shape, batch.x.dtype)
    outputs = (batch.x + 0.1 * noise) @ params["kernel"] + params["bias"].reshape(1, -1)
    loss = jnp.mean((outputs - batch.y) ** 2)
    return loss, ({"calls": model_state["calls"] + 1}, {"largest": jnp.max(outputs)})


def problem(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"kernel": jax.random.normal(keys[0], (5, 2), dtype), "bias": jnp.zeros(2, dtype)}
    batch = Batch(jax.random.normal(keys[1], (8, 5), dtype), jax.random.normal(keys[2], (8, 2), dtype))
    return params, batch


OPTIMIZERS = [
    ("sgd", lambda: optimizers.sgd(0.1)),
    ("nesterov", lambda: optimizers.sgd(0.1, momentum=0.9, nesterov=True)),
    ("adam", lambda: optimizers.adam(0.1)),
    ("adamw", lambda: optimizers.adamw(0.1)),
    ("rmsprop", lambda: optimizers.rmsprop(0.1)),
    ("adagrad", lambda: optimizers.adagrad(0.1)),
    ("optax adam", lambda: optax.adam(0.1)),
    ("optax plateau (takes value=)", lambda: optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau())),
]


def _twice():
    """Plain descent whose state holds the last gradient, the last parameters, and the same new leaf in two places."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {"gradient": zeros, "params": zeros, "one": zeros, "other": jax.tree.map(jnp.ones_like, params)}

    def update(gradient, state, params):
        moved = jax.tree.map(lambda g, one: 0.1 * g + one, gradient, state["one"])
        state = {"gradient": gradient, "params": params, "one": moved, "other": moved}
        return jax.tree.map(jnp.negative, moved), state

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("factory", [case[1] for case in OPTIMIZERS], ids=[case[0] for case in OPTIMIZERS])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_state_in_equals_state_out(factory, dtype):
    with jax.enable_x64(dtype == "float64"):
        params, batch = problem(dtype)
        optimizer = factory()
        state = training.init_state(params, optimizer, jax.random.key(1), {"calls": jnp.int32(0)})
        step = jax.jit(training.make_step(loss_fn, optimizer))
        after, _ = step(state, batch)
        assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)  # shape, dtype and weak type
        step(after, batch)
        assert step._cache_size() == 1
        assert int(after.step) == 1 and int(after.model_state["calls"]) == 1


def test_step_is_gradient_then_update():
    params, batch = problem()
    key = jax.random.key(1)
    state = training.init_state(params, optimizers.sgd(0.1), key, {"calls": jnp.int32(0)})
    after, metrics = training.make_step(loss_fn, optimizers.sgd(0.1))(state, batch)
    (loss, _), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        params, {"calls": 0}, batch, jax.random.fold_in(key, 0)
    )
    for name in params:
        np.testing.assert_allclose(after.params[name], params[name] - 0.1 * gradient[name], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in gradient.values()))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-6)
    assert set(metrics) == {"loss", "gradient_norm", "largest"}


def test_noise_differs_from_step_to_step_and_repeats_after_a_restart():
    params, batch = problem()
    step = jax.jit(training.make_step(loss_fn, optimizers.sgd(0.0)))
    start = training.init_state(params, optimizers.sgd(0.0), jax.random.key(1), {"calls": jnp.int32(0)})
    losses, state = [], start
    for _ in range(3):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3  # the parameters do not move: only the noise does
    resumed = start._replace(step=jnp.int32(2))
    assert float(step(resumed, batch)[1]["loss"]) == losses[2]


def test_a_state_that_changes_its_type_is_refused_by_path():
    def widening(params, model_state, batch, key):
        return jnp.sum(params["kernel"]), ({"calls": model_state["calls"] * 1.5}, {})

    params, batch = problem()
    state = training.init_state(params, optimizers.sgd(0.1), jax.random.key(1), {"calls": jnp.int32(0)})
    with pytest.raises(ValueError, match=r"^state\[model_state/calls\]: expected int32\[\], got float32\[\]"):
        training.make_step(widening, optimizers.sgd(0.1))(state, batch)

    def growing(params, model_state, batch, key):
        return jnp.sum(params["kernel"]), ({**model_state, "more": jnp.zeros(())}, {})

    with pytest.raises(ValueError, match=r"^state: .* unexpected \['model_state/more'\]"):
        training.make_step(growing, optimizers.sgd(0.1))(state, batch)


def test_an_integer_seed_is_no_key():
    with pytest.raises(
        TypeError, match=r"^key: expected a PRNG key, got 7 of type int; make one with jax\.random\.key\(7\)"
    ):
        training.init_state({"kernel": jnp.ones(2)}, optimizers.sgd(0.1), 7)


OF_LANES = [
    *OPTIMIZERS,
    ("schedule-free", lambda: optimizers.schedule_free(optimizers.adam(0.1), 0.9, learning_rate=0.1)),
    ("lookahead", lambda: optimizers.lookahead(optimizers.sgd(0.1), sync_period=2)),
    ("sam", lambda: optimizers.sam(optimizers.sgd(0.1), 0.05)),
    ("in one vector", lambda: optimizers.flatten(optimizers.adam(0.1))),
    ("frozen", lambda: optimizers.freeze(optimizers.adam(0.1), "bias")),
    ("optax lbfgs (takes value_fn=)", lambda: optax.lbfgs()),
    ("what is both leaves of a state", _twice),
]


@pytest.mark.parametrize("factory", [case[1] for case in OF_LANES], ids=[case[0] for case in OF_LANES])
def test_each_lane_has_its_new_state_or_its_old_one(factory):
    """Whatever the optimizer: leaf by leaf what an unguarded step gives, and nothing where the batch is bad."""
    optimizer = factory()
    params, batch = problem()
    state = training.init_state(params, optimizer, jax.random.key(1), {"calls": jnp.int32(0)})
    step = training.make_step(loss_fn, optimizer)
    guarded = training.make_step(loss_fn, optimizer, nonfinite_limit=9)
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf.at[3].set(jnp.nan), 2 * leaf]), batch)
    carry = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    every = jax.jit(jax.vmap(guarded))
    for expected_step in ([1, 0, 1], [2, 0, 2]):
        before = carry
        carry, metrics = every(carry, batches)
        assert metrics["applied"].tolist() == [True, False, True]
        assert carry.step.tolist() == expected_step
        for lane in range(3):
            old, new, own = (jax.tree.map(lambda leaf, at=lane: leaf[at], tree) for tree in (before, carry, batches))
            expected = old if lane == 1 else step(old, own)[0]
            check = np.testing.assert_array_equal if lane == 1 else _nearly
            jax.tree.map(check, *(jax.tree.leaves(tree._replace(key=0, notfinite=None)) for tree in (new, expected)))


def _nearly(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_norm_is_that_of_all_leaves_small_and_large():
    """Leaves of any size and dtype, one without numbers, under grad and in lanes too."""
    shapes = {"scalar": (), "empty": (0, 3), "row": (5,), "matrix": (7, 300), "large": (300, 130)}
    keys = jax.random.split(jax.random.key(0), len(shapes))
    tree = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    tree["half"] = jnp.full(9, 300.0, jnp.float16)  # its squares are no float16
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    exact = np.sqrt(sum(np.sum(leaf**2) for leaf in leaves))

    def norm(scale):
        def loss_fn(params, model_state, batch, key):
            del batch, key
            products = jax.tree.map(lambda p, g: jnp.sum(p.astype(jnp.float32) * g), params, tree)
            return scale * sum(jax.tree.leaves(products)), (model_state, {})

        state = training.init_state(tree, optimizers.sgd(0.1), jax.random.key(1))
        batch = Batch(jnp.zeros((1, 1)), jnp.zeros(1))
        return training.make_step(loss_fn, optimizers.sgd(0.1))(state, batch)[1]["gradient_norm"]

    np.testing.assert_allclose(jax.jit(norm)(2.0), 2 * exact, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(norm))(jnp.array([1.0, 3.0])), [exact, 3 * exact], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(norm)(2.0), exact, rtol=1e-3)  # a cotangent is float16


@pytest.mark.parametrize(
    "jit", [lambda step: step, lambda step: jax.jit(step, donate_argnums=0)], ids=["eager", "donated"]
)
def test_a_limit_skips_and_counts_steps_that_are_not_finite(jit):
    """Counts as ``optax.apply_if_finite`` has them, but at the limit it is over."""
    params, batch = problem()
    bad = batch._replace(x=batch.x.at[3].set(jnp.nan))
    optimizer = optimizers.adam(0.1)
    step = jit(training.make_step(loss_fn, optimizer, nonfinite_limit=2))
    state = training.init_state(params, optimizer, jax.random.key(1), {"calls": jnp.int32(0)})
    reference = optax.apply_if_finite(optax.sgd(0.1), 9)
    guarded, seen = reference.init(params), []
    for each in (batch, bad, batch, bad, bad, batch):
        before = jax.tree.map(np.asarray, state._replace(key=0))
        state, metrics = step(state, each)
        applied = bool(metrics["applied"])
        seen.append(applied)
        if not applied:
            after = state._replace(key=0, notfinite=before.notfinite)
            jax.tree.map(np.testing.assert_array_equal, after, before)
        if len(seen) < 6:
            gradient = jax.tree.map(lambda p, bad=each is bad: jnp.full_like(p, jnp.nan if bad else 1.0), params)
            guarded = reference.update(gradient, guarded, params)[1]
            for name in ("notfinite_count", "total_notfinite", "last_finite"):
                assert getattr(state.notfinite, name) == getattr(guarded, name), name
    assert seen == [True, False, True, False, False, False]  # two in a row: the end
    assert int(state.step) == int(state.model_state["calls"]) == 2


def test_without_a_limit_every_step_is_taken():
    params, batch = problem()
    state = training.init_state(params, optimizers.sgd(0.1), jax.random.key(1), {"calls": jnp.int32(0)})
    after, metrics = training.make_step(loss_fn, optimizers.sgd(0.1))(state, Batch(batch.x * jnp.nan, batch.y))
    assert "applied" not in metrics and int(after.step) == 1 and np.isnan(after.params["kernel"]).all()


def test_what_is_given_to_init_state_survives_a_donated_step():
    """Also where the optimizer's state holds the parameters themselves, as look-ahead's does."""
    params, batch = problem()
    key, model_state = jax.random.key(1), {"calls": jnp.int32(0)}
    for optimizer in (optimizers.sgd(0.1), optimizers.lookahead(optimizers.sgd(0.1), sync_period=2)):
        state = training.init_state(params, optimizer, key, model_state)
        jax.jit(training.make_step(loss_fn, optimizer), donate_argnums=0)(state, batch)
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, key, model_state)))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((loss_fn, "sgd"), {}, TypeError, r"^optimizer: expected an optax-protocol \(init, update\) pair, got 'sgd'"),
        ((loss_fn, optimizers.sgd), {}, TypeError, r"^optimizer: expected an optax-protocol"),
        (("mse", optimizers.sgd(0.1)), {}, TypeError, r"^loss_fn: expected a function .*got 'mse'"),
        ((loss_fn, optimizers.sgd(0.1)), {"nonfinite_limit": 0}, ValueError, r"^nonfinite_limit: expected .*got 0"),
        ((loss_fn, optimizers.sgd(0.1)), {"micro_batches": 0}, ValueError, r"^micro_batches: expected"),
    ],
)
def test_what_makes_no_step(arguments, options, error, match):
    with pytest.raises(error, match=match):
        training.make_step(*arguments, **options)


@pytest.mark.parametrize(
    ("returned", "error", "match"),
    [
        (lambda loss, state: loss, TypeError, r"^loss_fn: expected it to return \(loss, \(model_state, metrics\)\)"),
        (lambda loss, state: (loss, state), TypeError, r"^loss_fn: expected it to return"),
        (lambda loss, state: (loss[None], (state, {})), TypeError, r"^loss_fn: expected a loss that is .*float32\[1\]"),
        (lambda loss, state: (loss > 0, (state, {})), TypeError, r"^loss_fn: expected a loss that is .*got bool\[\]"),
        (
            lambda loss, state: (loss, (state, {"loss": loss})),
            ValueError,
            r"^loss_fn: expected other names .*\['loss'\]",
        ),
    ],
)
def test_what_is_no_loss(returned, error, match):
    def wrong(params, model_state, batch, key):
        return returned(loss_fn(params, model_state, batch, key)[0], model_state)

    params, batch = problem()
    state = training.init_state(params, optimizers.sgd(0.1), jax.random.key(1), {"calls": jnp.int32(0)})
    with pytest.raises(error, match=match):
        training.make_step(wrong, optimizers.sgd(0.1))(state, batch)


def test_a_bfloat16_model_trains_the_same_where_promotion_is_strict():
    """Dense, convolution, two norms, dropout, LSTM: the very same program, in which all that is widened is named."""
    model = layers.serial(
        layers.conv(4, 3),
        layers.batch_norm(),
        jax.nn.relu,
        layers.dropout(0.3),
        layers.reshape(8, 4),
        layers.lstm(4, return_sequences=False),
        layers.layer_norm(),
        layers.dense(3),
    )
    optimizer = optimizers.adamw(0.1)

    def loss_fn(params, model_state, batch, key):
        outputs, model_state = model.apply(params, model_state, batch.x, train=True, key=key, weight=batch.weight)
        return losses.weighted_mean(losses.softmax_cross_entropy(outputs, batch.y), batch.weight), (model_state, {})

    def trained(key, batch):
        params, model_state = model.init(key, batch.x)
        state = training.init_state(params, optimizer, key, model_state)
        state, metrics = training.make_step(loss_fn, optimizer)(state, batch)
        return state.params, metrics

    batch = Batch(jnp.zeros((6, 8, 2), jnp.bfloat16), jnp.arange(6) % 3, jnp.ones(6, jnp.bfloat16))
    expected = jax.make_jaxpr(trained)(jax.random.key(0), batch)
    with jax.numpy_dtype_promotion("strict"):
        program, (params, _) = jax.make_jaxpr(trained, return_shape=True)(jax.random.key(0), batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    plain = [re.sub(r"0x[0-9a-f]+", "", str(each)) for each in (program, expected)]
    assert plain[0] == plain[1]
