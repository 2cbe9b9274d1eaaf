"""Activity penalties: in the layer, and in a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, penalties, training
from jaxopt_nn.types import Batch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("f")
Y = RNG.normal(size=(12, 1)).astype("f")
WEIGHT = np.array([1, 2, 0] * 4, "f")


def penalty_of(x, weight=None, train=True, **strengths):
    layer = layers.activity_penalty(**strengths)
    _, state = layer.init(None, x)
    return layer.apply({}, state, x, train=train, key=None, weight=weight)[1]["activity_penalty"]


def test_it_is_the_weighted_mean_over_examples():
    sizes = 0.3 * np.abs(X).sum(1) + 0.2 * (X**2).sum(1)
    np.testing.assert_allclose(penalty_of(X, l1=0.3, l2=0.2), sizes.mean(), rtol=1e-6)
    garbage = np.where(WEIGHT[:, None] > 0, X, np.nan)
    np.testing.assert_allclose(penalty_of(garbage, WEIGHT, l1=0.3, l2=0.2), (sizes * WEIGHT).sum() / 12, rtol=1e-6)
    slope = jax.grad(lambda x: penalty_of(x, WEIGHT, l1=0.3))(jnp.asarray(np.where(WEIGHT[:, None] > 0, X, 0)))
    np.testing.assert_allclose(slope, 0.3 * np.sign(X) * WEIGHT[:, None] / 12, rtol=1e-6)
    assert penalty_of(X, train=False, l1=0.3) == 0
    swept = jax.vmap(lambda n: penalty_of(X, l1=n))(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(swept[1], 2 * swept[0], rtol=1e-6)
    assert penalty_of(X.astype(jnp.bfloat16), l2=1.0).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"^l1: expected a finite number in \[0, inf\), got -1"):
        layers.activity_penalty(l1=-1.0)


@pytest.mark.slow
def test_a_run_descends_on_the_loss_with_it_and_reports_it():
    """One full-batch step of gradient descent against the sum written out; a repeated layer counts for each block."""
    model = layers.serial(
        layers.dense(4), layers.activity_penalty(l2=0.5), jnp.tanh, layers.repeat(layers.activity_penalty(l1=0.1), 2),
        layers.dense(1),
    )  # fmt: skip

    def recipe(hp):
        return training.Recipe(
            model=model, loss=losses.mean_squared_error, penalty=penalties.l2(0.01) if hp else None,
            optimizer=optimizers.sgd(0.1), batch_size=12, epochs=1,
        )  # fmt: skip

    train = Batch(X, Y, WEIGHT)
    keys = training.RunKeys(*jax.random.split(jax.random.key(0), 3))
    params, _ = model.init(keys.init, X)

    def parts(params, with_l2):
        first, second = params["dense_0"], params["dense_1"]
        share = WEIGHT / WEIGHT.sum()
        a = X @ first["kernel"] + first["bias"][None]
        h = jnp.tanh(a)
        y = h @ second["kernel"] + second["bias"][None]
        loss = share @ (y[:, 0] - Y[:, 0]) ** 2
        extra = share @ (0.5 * (a**2).sum(1) + 2 * 0.1 * (h * jnp.sign(h)).sum(1))
        if with_l2:
            extra = extra + 0.01 * ((first["kernel"] ** 2).sum() + (second["kernel"] ** 2).sum())
        return loss + extra, (loss, extra)

    for with_l2 in (True, False):
        result = jax.jit(training.make_run(lambda hp, on=with_l2: recipe(on)))(keys, {}, train, train)
        slope, (loss, extra) = jax.grad(parts, has_aux=True)(params, with_l2)
        np.testing.assert_allclose(result.history["train_loss"][0], loss, rtol=1e-5)
        np.testing.assert_allclose(result.history["penalty"][0], extra, rtol=1e-5)
        want = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), result.params, want)
        after = parts(result.params, with_l2)[1][0]
        np.testing.assert_allclose(result.history["valid_loss"][0], after, rtol=1e-5)  # without penalties
    assert layers.total_activity_penalty({}) is None
