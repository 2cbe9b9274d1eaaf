"""Frozen leaves keep their bits, have no state, and cost no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, optimizers, training, trees
from jaxopt_nn.types import Batch

PARAMS = {
    "body": {"kernel": jnp.array([[-0.0, 1.0], [jnp.nan, 2.0]]), "bias": jnp.array([0.0, -0.0])},
    "head": {"kernel": jnp.array([[0.5], [-0.5]])},
}
GRADIENTS = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.3), PARAMS)

OPTIMIZERS = [
    ("decay", lambda: optimizers.adamw(0.1, weight_decay=0.5, mask=trees.every_leaf)),
    ("momentum", lambda: optimizers.sgd(0.1, momentum=0.9)),
    ("optax", lambda: optax.adamw(0.1, weight_decay=0.5)),
]
each = pytest.mark.parametrize("make", [row[1] for row in OPTIMIZERS], ids=[row[0] for row in OPTIMIZERS])


def _bits(tree):
    return [np.asarray(leaf).view(np.uint32) for leaf in jax.tree.leaves(tree)]


@each
def test_frozen_leaves_keep_their_bits_and_have_no_state(make):
    optimizer = optimizers.freeze(make(), "body/*")
    params, state = PARAMS, optimizer.init(PARAMS)
    update = jax.jit(lambda g, s, p: (lambda u, s: (optax.apply_updates(p, u), s))(*optimizer.update(g, s, p)))
    for _ in range(5):
        params, state = update(GRADIENTS, state, params)
    jax.tree.map(np.testing.assert_array_equal, _bits(params["body"]), _bits(PARAMS["body"]))
    assert optimizers.frozen_paths(state) == {"body/kernel", "body/bias"}
    assert {leaf.shape for leaf in jax.tree.leaves(state)} <= {(), (2, 1)}
    # what is not frozen moves as it would alone
    alone, head = make(), {"head": PARAMS["head"]}
    alone_state = alone.init(head)
    for _ in range(5):
        updates, alone_state = alone.update({"head": GRADIENTS["head"]}, alone_state, head)
        head = optax.apply_updates(head, updates)
    np.testing.assert_allclose(params["head"]["kernel"], head["head"]["kernel"], rtol=1e-6)


def _problem():
    model = layers.serial(layers.dense(64), jax.nn.relu, layers.dense(32), jax.nn.relu, layers.dense(3))
    x = jax.random.normal(jax.random.key(0), (16, 128))
    params, _ = model.init(jax.random.key(1), x)

    def loss_fn(params, model_state, batch, key):
        outputs, _ = model.apply(params, {}, batch.x, train=True, key=None, weight=None)
        return jnp.mean(losses.softmax_cross_entropy(outputs, batch.y)), (model_state, {})

    return params, loss_fn, Batch(x, jnp.arange(16) % 3)


def _products(optimizer, params, loss_fn, batch):
    """The matrix products that a compiled step really does, by shape of the result."""
    state = training.init_state(params, optimizer, jax.random.key(2))
    step = jax.jit(training.make_step(loss_fn, optimizer))
    text = step.lower(state, batch).compile().as_text()
    return sum(" dot(" in line for line in text.splitlines())


@pytest.mark.slow
def test_the_gradient_of_what_is_frozen_is_not_computed():
    params, loss_fn, batch = _problem()
    everything = _products(optimizers.sgd(0.1), params, loss_fn, batch)
    first_frozen = _products(optimizers.freeze(optimizers.sgd(0.1), "dense_0/*"), params, loss_fn, batch)
    only_last = _products(optimizers.freeze(optimizers.sgd(0.1), ["dense_0/*", "dense_1/*"]), params, loss_fn, batch)
    # Forward 3. Backward: a product for each kernel, and one for each layer's input but the first.
    assert (everything, first_frozen, only_last) == (3 + 3 + 2, 3 + 2 + 1, 3 + 1)


@pytest.mark.slow
def test_a_step_reports_the_norm_of_what_is_trained():
    params, loss_fn, batch = _problem()
    optimizer = optimizers.freeze(optimizers.sgd(0.1), "dense_0/*")
    state = training.init_state(params, optimizer, jax.random.key(2))
    new, metrics = jax.jit(training.make_step(loss_fn, optimizer))(state, batch)
    gradient = jax.grad(lambda p: loss_fn(p, {}, batch, None)[0])(params)
    gradient.pop("dense_0")
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(gradient), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, _bits(new.params["dense_0"]), _bits(params["dense_0"]))
    np.testing.assert_allclose(
        new.params["dense_2"]["kernel"], params["dense_2"]["kernel"] - 0.1 * gradient["dense_2"]["kernel"], rtol=1e-5
    )


def test_in_a_step_even_a_transform_outside_moves_nothing_frozen():
    params, loss_fn, batch = _problem()
    decay = optax.add_decayed_weights(0.5)
    optimizer = optax.chain(optimizers.freeze(optimizers.adam(0.1), "dense_0/*"), decay)
    state = training.init_state(params, optimizer, jax.random.key(2))
    new, _ = jax.jit(training.make_step(loss_fn, optimizer))(state, batch)
    jax.tree.map(np.testing.assert_array_equal, _bits(new.params["dense_0"]), _bits(params["dense_0"]))
    assert np.abs(new.params["dense_1"]["kernel"] - params["dense_1"]["kernel"]).max() > 0.01


@pytest.mark.slow
def test_a_whole_run_trains_the_rest():
    batch = _problem()[2]

    def recipe(hp):
        return training.Recipe(
            model=layers.serial(layers.dense(8), jax.nn.relu, layers.dense(3)),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.freeze(optimizers.adam(hp), "dense_0/*"),
            batch_size=8,
            epochs=3,
        )

    run = jax.jit(jax.vmap(training.make_run(recipe), (None, 0, None)))
    result = run(jax.random.key(0), jnp.array([0.1, 0.2]), batch)
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], result.params) for i in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, _bits(first["dense_0"]), _bits(second["dense_0"]))
    assert np.abs(first["dense_1"]["kernel"] - second["dense_1"]["kernel"]).max() > 0.01
    assert (result.history["train_loss"][:, -1] < result.history["train_loss"][:, 0]).all()


def _trained(optimizer, params, loss, steps=3):
    """The losses of some steps of optax's protocol, with all the functions that an optimizer may ask for."""
    state, values = optimizer.init(params), []
    for _ in range(steps):
        value, gradient = jax.value_and_grad(loss)(params)
        # optax's line searches refuse what value_fn does not take, as training.make_step's does.
        value_fn = lambda params, grad_fn=None: loss(params)  # noqa: E731
        extra = {"value": value, "grad": gradient, "value_fn": value_fn, "grad_fn": jax.grad(loss)}
        updates, state = optimizer.update(gradient, state, params, **extra)
        params, values = optax.apply_updates(params, updates), [*values, value]
    return jnp.array([*values, loss(params)]), params


def _rosenbrock(params):
    x = jnp.concatenate([params["body"], params["head"]])
    return jnp.sum(10 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


START = {"body": jnp.array([-0.5, 0.3]), "head": jnp.array([0.7, -0.2])}
ASKING = {
    "sam": lambda: optimizers.sam(optimizers.sgd(0.01), 0.1),
    "sam, averaged": lambda: optimizers.weight_ema(optimizers.sam(optimizers.sgd(0.01, 0.9), 0.1)),
    "sophia": lambda: optimizers.sophia(0.05, key=jax.random.key(0)),
    "L-BFGS": optax.lbfgs,
    "a line search": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)),
}


@pytest.mark.parametrize("make", ASKING.values(), ids=ASKING.keys())
def test_an_optimizer_that_asks_for_functions_gets_those_of_the_rest(make):
    """As alone on a problem in which the frozen leaves are constants."""
    wrapped = optimizers.freeze(make(), "body")
    values, params = _trained(wrapped, START, _rosenbrock)
    expected, _ = _trained(make(), START["head"], lambda head: _rosenbrock(START | {"head": head}))
    # Sophia's probes are those of one leaf as well.
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_array_equal(params["body"], START["body"])
    assert values[-1] < 0.999 * values[0]

    def loss_fn(params, model_state, batch, key):
        return _rosenbrock(params), (model_state, {})

    state = training.init_state(START, wrapped, jax.random.key(0))
    step = jax.jit(training.make_step(loss_fn, wrapped))
    for value in values[:-1]:
        state, metrics = step(state, Batch(jnp.zeros((1, 1)), jnp.zeros(1)))
        np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)


@pytest.mark.parametrize("name", ["sam", "L-BFGS"])
@pytest.mark.parametrize("wrap", [optimizers.flatten, optimizers.in_float32])
def test_other_wrappers_hand_on_the_functions_too(name, wrap):
    values, _ = _trained(wrap(ASKING[name]()), START, _rosenbrock)
    np.testing.assert_allclose(values, _trained(ASKING[name](), START, _rosenbrock)[0], rtol=1e-5)


def test_a_gradient_function_sees_the_dtypes_of_the_parameters():
    half, seen = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), START), []

    def gradient(params):
        seen.extend(leaf.dtype for leaf in jax.tree.leaves(params))
        return params

    optimizer = optimizers.in_float32(ASKING["sam"]())
    updates, _ = optimizer.update(half, optimizer.init(half), half, grad_fn=gradient)
    assert {*seen, updates["head"].dtype} == {jnp.dtype(jnp.bfloat16)}


def test_sam_around_and_inside_are_the_same():
    inside, _ = _trained(optimizers.freeze(ASKING["sam"](), "body"), START, _rosenbrock)
    around = optimizers.sam(optimizers.freeze(optimizers.sgd(0.01), "body"), 0.1)
    loss = lambda params: _rosenbrock(params | {"body": jax.lax.stop_gradient(params["body"])})  # noqa: E731
    np.testing.assert_allclose(inside, _trained(around, START, loss)[0], rtol=1e-6)


def test_an_integer_may_be_frozen():
    params = {"count": jnp.int32(3), "w": jnp.ones(2)}
    optimizer = optimizers.freeze(optimizers.sgd(0.5), "count")
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert optax.apply_updates(params, updates)["count"] == 3


def test_the_number_of_a_layer_is_whole():
    params = {f"dense_{i}": {"kernel": jnp.ones(1)} for i in range(12)}
    state = optimizers.freeze(optimizers.sgd(0.1), "dense_1*").init(params)
    assert optimizers.frozen_paths(state) == {"dense_1/kernel"}


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        ([], r"^frozen: expected a pattern of paths, got none, \[\], which selects nothing"),
        ("tail/*", r"^frozen: expected a pattern that matches one of \['body/bias', .*\], got 'tail/\*'"),
        ("*", r"^frozen: expected to leave a leaf to train, freezes all: '\*'"),
        (lambda path, leaf: False, r"^frozen: expected to select a leaf"),
    ],
)
def test_what_freezes_nothing_or_all_is_refused(frozen, message):
    with pytest.raises(ValueError, match=message):
        optimizers.freeze(optimizers.sgd(0.1), frozen).init(PARAMS)
