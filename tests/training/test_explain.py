"""What a program costs, before it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch

X = np.random.default_rng(0).standard_normal((64, 8)).astype("f")
TRAIN = Batch(X, X[:, :1])


def recipe(hp):
    return training.Recipe(
        model=layers.serial(layers.dense(16), jax.nn.relu, layers.dense(1)),
        loss=losses.mean_squared_error,
        optimizer=optimizers.sgd(hp),
        batch_size=16,
        epochs=10,
    )


@pytest.mark.slow
def test_a_run_of_lanes_is_explained_and_not_run():
    run = training.make_run(recipe)
    one = training.explain(run, jax.random.key(0), 0.1, TRAIN)
    lanes = training.explain(jax.vmap(run, (None, 0, None)), jax.random.key(0), jnp.full(4, 0.1), TRAIN)
    weights = 8 * 16 + 16 + 16 + 1
    assert one.parameters == weights and lanes.parameters == 4 * weights
    # Three products of each kernel with 64 rows, in 10 epochs, but none for the gradient of the features.
    products = 10 * 64 * 2 * (2 * 8 * 16 + 3 * 16)
    assert products < one.flops < 1.3 * products and 3.5 * one.flops < lanes.flops < 4.5 * one.flops
    assert one.fits and one.argument_bytes >= X.nbytes + X[:, :1].nbytes
    assert one.result_bytes < lanes.result_bytes and one.equations > 0 and one.instructions > 0


def test_bytes_and_the_parameters_of_a_step():
    def loss_fn(params, model_state, batch, key):
        return jnp.sum(jnp.square(batch.x @ params["kernel"])), (model_state, {})

    optimizer = optimizers.sgd(0.1)
    state = training.init_state({"kernel": jnp.ones((8, 4))}, optimizer, jax.random.key(0))
    cost = training.explain(training.make_step(loss_fn, optimizer), state, TRAIN)
    assert cost.parameters == 32
    # x, kernel and outputs of the product, both factors and result of its gradient, and sums of 64 x 4 and 8 x 4.
    products = 2 * (64 * 8 + 8 * 4 + 64 * 4)
    assert 4 * products < cost.bytes_moved <= 4 * (products + 64 * 4 + 1 + 32 + 1)
    assert "FLOPs a byte" in str(cost)

    def loop(x):
        return jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=10)[0]

    assert training.explain(loop, jnp.ones((8, 8))).bytes_moved == 10 * 4 * 3 * 64


def test_what_does_not_fit_is_refused_in_one_sentence():
    huge = jax.ShapeDtypeStruct((1 << 45,), jnp.float32)
    cost = training.explain(lambda x: x[0], huge)
    assert not cost.fits and "DOES NOT FIT" in str(cost)
    with pytest.raises(MemoryError, match=r"needs 128.0 TiB and the device has .*; most of it are arguments"):
        cost.assert_fits()
    training.explain(jax.jit(jnp.sin), 1.0).assert_fits()


def test_no_function_is_named():
    with pytest.raises(TypeError, match=r"run: expected a function, as make_run\(recipe\) returns, got 3"):
        training.explain(3)
