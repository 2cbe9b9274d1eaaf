"""Small leaves in one vector: the same trajectory, fewer kernels and buffers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, optimizers, training, trees
from jaxopt_nn.types import Batch

PARAMS = {
    "dense": {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "bias": jnp.zeros(4)},
    "large": {"kernel": jnp.linspace(0.0, 2.0, 35).reshape(5, 7)},
    "scalar": jnp.float32(0.5),
    "half": jnp.linspace(-2.0, 0.0, 6).astype(jnp.bfloat16),
}
OPTIMIZERS = [
    ("adamw", lambda: optimizers.adamw(0.1, weight_decay=0.1, mask=trees.every_leaf)),
    ("nesterov", lambda: optimizers.sgd(0.1, momentum=0.9, nesterov=True)),
    ("global norm", lambda: optax.chain(optimizers.clip_by_global_norm(0.5), optimizers.rmsprop(0.1))),
    ("of optax", lambda: optax.adamw(0.1)),
]
each = pytest.mark.parametrize("make", [row[1] for row in OPTIMIZERS], ids=[row[0] for row in OPTIMIZERS])


def _run(optimizer, steps=5):
    def loss(params):
        return sum(jnp.sum((leaf.astype(jnp.float32) - 0.3) ** 2) for leaf in jax.tree.leaves(params))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (PARAMS, optimizer.init(PARAMS)), length=steps)[0]


@each
@pytest.mark.parametrize("at_most", [0, 12, 4096])
def test_the_trajectory_is_that_of_the_optimizer_alone(make, at_most):
    got, _ = _run(optimizers.flatten(make(), at_most=at_most))
    expected, _ = _run(make())
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), got) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    for (path, leaf), other in zip(trees.named_leaves(got), jax.tree.leaves(expected), strict=True):
        tolerance = 2**-7 if leaf.dtype == jnp.bfloat16 else 2e-6
        np.testing.assert_allclose(np.float32(leaf), np.float32(other), rtol=tolerance, atol=tolerance, err_msg=path)


def test_leaves_are_joined_by_dtype_up_to_a_size():
    def shapes(at_most):
        state = optimizers.flatten(optimizers.scale_by_adam(), at_most=at_most).init(PARAMS)
        return {name: moment.shape for name, moment in state.mu.items()}

    large = {"large/kernel": (5, 7)}
    assert shapes(12) == large | {"flattened float32": (4 + 12 + 1,), "flattened bfloat16": (6,)}
    assert shapes(11) == large | {"dense/kernel": (3, 4), "flattened float32": (5,), "flattened bfloat16": (6,)}
    assert shapes(35) == {"flattened float32": (35 + 12 + 4 + 1,), "flattened bfloat16": (6,)}
    assert shapes(0) == {path: leaf.shape for path, leaf in trees.named_leaves(PARAMS)}


def test_lanes_and_derivatives_pass():
    def last(rate):
        return _run(optimizers.flatten(optimizers.adam(rate)))[0]["dense"]["bias"].sum()

    def last_alone(rate):
        return _run(optimizers.adam(rate))[0]["dense"]["bias"].sum()

    slopes = jax.jit(lambda rates: [jax.vmap(jax.grad(end))(rates) for end in (last, last_alone)])
    np.testing.assert_allclose(*slopes(jnp.array([0.01, 0.1])), rtol=1e-5)


@pytest.mark.slow
def test_a_program_of_many_leaves_is_smaller():
    params = [jnp.zeros(size) for size in range(1, 31)]

    def buffers_and_kernels(optimizer):
        state = optimizer.init(params)
        text = jax.jit(optimizer.update).lower(params, state, params).compile().as_text()
        entry = text.split("\nENTRY ")[1]
        return entry.count(" parameter("), entry.count(" fusion(") + entry.count(" concatenate(")

    def adamw():
        return optimizers.adamw(0.1, mask=trees.every_leaf)

    leaves, joined = buffers_and_kernels(adamw()), buffers_and_kernels(optimizers.flatten(adamw()))
    assert joined[0] <= leaves[0] - 2 * 29  # two moments of 30 leaves, in one each
    assert joined[1] <= leaves[1] / 2


@pytest.mark.slow
def test_it_serves_in_a_run_with_what_looks_at_paths_outside():
    def recipe(rate):
        return training.Recipe(
            model=layers.serial(layers.dense(8), jax.nn.relu, layers.dense(2)),
            loss=losses.softmax_cross_entropy,
            optimizer=optax.chain(
                optimizers.flatten(optimizers.scale_by_adam()),
                optimizers.add_decayed_weights(0.1),
                optimizers.scale_by_learning_rate(rate),
            ),
            batch_size=8,
            epochs=3,
        )

    def alone(rate):
        return recipe(rate)._replace(optimizer=optimizers.adamw(rate, weight_decay=0.1))

    x = jax.random.normal(jax.random.key(0), (32, 3))
    train = Batch(x, (x[:, 0] > 0).astype(jnp.int32))
    got, expected = (
        jax.jit(training.make_run(form))(jax.random.key(1), 0.01, train, train) for form in (recipe, alone)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        got.state.params,
        expected.state.params,
    )
    assert got.history["learning_rate"][-1] == np.float32(0.01)


def test_gradients_and_functions_of_parameters_reach_inside_as_vectors():
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra)
        return updates, state

    spy = optax.GradientTransformationExtraArgs(lambda params: (), update)
    gradients = {"a": jnp.ones(3), "b": jnp.zeros(1)}
    extra = {"value": 2.0, "grad": gradients, "value_fn": lambda params: params["a"].sum(), "grad_fn": lambda at: at}
    optimizers.flatten(spy).update(gradients, (), gradients, **extra)
    vector = {"flattened float32": jnp.array([5.0, 6.0, 7.0, 8.0])}
    assert seen["value"] == 2.0
    assert seen["grad"]["flattened float32"].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert seen["value_fn"](vector) == 18.0
    assert seen["grad_fn"](vector)["flattened float32"].tolist() == [5.0, 6.0, 7.0, 8.0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at_most: expected 0 or more, got -1"):
        optimizers.flatten(optax.identity(), at_most=-1)
    with pytest.raises(ValueError, match="mask"):  # paths are gone inside
        optimizers.flatten(optimizers.adamw(0.1)).init({"dense": {"kernel": jnp.ones(2)}})
