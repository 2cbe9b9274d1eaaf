"""Training in low precision: bfloat16 that does not stall, float16 with a loss scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import data, layers, losses, optimizers, training
from jaxopt_nn.training import _loss_scale, _step
from jaxopt_nn.types import Batch

BF16 = jnp.bfloat16
KEY = jax.random.key(1)


@pytest.mark.slow
def test_bfloat16_parameters_learn_as_float32_ones_do_where_they_are_rounded_stochastically():
    digits = data.load_digits()
    digits = Batch(digits.x / 16, digits.y)

    def last_loss(dtype, rounded):
        def recipe(rate):
            model = layers.serial(layers.dense(32), jax.nn.relu, layers.dense(10))
            optimizer = optimizers.adam(rate)
            return training.Recipe(
                model=model if dtype is None else layers.with_precision(model, dtype, params=dtype),
                loss=losses.softmax_cross_entropy,
                optimizer=optimizers.round_stochastically(optimizer, key=jax.random.key(7)) if rounded else optimizer,
                batch_size=64,
                epochs=12,
            )

        result = training.make_run(recipe)(KEY, 1e-4, digits)
        kept = jnp.float32 if dtype is None else dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {jnp.dtype(kept)}
        return float(result.history["train_loss"][-1])

    exact, nearest, random = last_loss(None, False), last_loss(BF16, False), last_loss(BF16, True)
    assert abs(random / exact - 1) < 0.05 < nearest / exact - 1


def product(loss_scale=None, dtype=jnp.float16, **options):
    """One step of a linear model whose gradient is about 1e-8 in the dtype."""

    def loss_fn(params, model_state, batch, key):
        outputs = (batch.x.astype(dtype) @ params["kernel"].astype(dtype)).astype(jnp.float32)
        return jnp.mean(outputs) * batch.weight, (model_state, {})

    optimizer = optimizers.sgd(1.0)
    state = training.init_state({"kernel": jnp.ones((2, 1))}, optimizer, KEY, loss_scale=loss_scale)
    return state, training.make_step(loss_fn, optimizer, loss_scale=loss_scale, **options)


X = jnp.array([[1.0, 2.0], [3.0, 4.0]])


def test_a_static_scale_keeps_small_gradients_and_changes_no_other():
    tiny = Batch(X, None, jnp.float32(1e-8))
    norms = []
    for scale in (None, 2.0**14):
        state, step = product(scale)
        norms.append(float(jax.jit(step)(state, tiny)[1]["gradient_norm"]))
    assert norms[0] == 0 and abs(norms[1] / (1e-8 * np.hypot(2, 3)) - 1) < 1e-2
    ordinary = Batch(X, None, jnp.float32(0.5))
    ends = [jax.jit(step)(state, ordinary) for state, step in (product(s, jnp.float32) for s in (None, 2.0**14))]
    assert (ends[0][0].params["kernel"] == ends[1][0].params["kernel"]).all() and ends[0][1] == ends[1][1]


def test_a_dynamic_scale_follows_its_rule_and_an_overflow_is_no_failure():
    """Divided at once where a gradient overflows, multiplied after three finite steps, as torch.amp.GradScaler does."""
    dynamic = training.DynamicLossScale(initial=2.0**14, factor=4.0, growth_interval=3)
    state, step = product(dynamic, nonfinite_limit=1)
    step = jax.jit(step)
    scales, counts = [], []
    for size in (*[1.0] * 3, *[8.0] * 6, jnp.nan):  # 2^16 / 2 · (1 + 3) overflows in float16
        before = state
        state, metrics = step(state, Batch(X, None, jnp.float32(size)))
        scales.append(int(np.log2(state.loss_scale.scale)))
        counts.append((int(state.notfinite.notfinite_count), int(state.notfinite.total_notfinite), int(state.step)))
        if not metrics["applied"]:
            jax.tree.map(np.testing.assert_array_equal, before.params, state.params)
    assert scales == [14, 14, 16, 14, 12, 10, 10, 10, 12, 10]
    taken, overflowed = [(0, 0, n) for n in (1, 2, 3)], [(0, n, 3) for n in (1, 2, 3)]
    assert counts == [*taken, *overflowed, *((0, 3, n) for n in (4, 5, 6)), (1, 4, 6)]


def test_a_gradient_that_no_scale_makes_finite_is_a_failure_at_last():
    state, step = product(training.DynamicLossScale(initial=4.0), nonfinite_limit=1)
    step, steep = jax.jit(step), Batch(X.at[0, 0].set(60000.0), None, jnp.float32(30.0))
    for count in (0, 0, 1, 1):
        state, _ = step(state, steep)
        assert int(state.notfinite.notfinite_count) == count and int(state.step) == 0
    assert float(state.loss_scale.scale) == 1


def test_what_is_not_asked_for_is_not_in_the_program(monkeypatch):
    def raises(*args):
        raise AssertionError

    for name in ("scaled_value_and_grad", "update_scale"):
        monkeypatch.setattr(_step, name, raises)
    state, step = product(None, nonfinite_limit=1)
    jax.eval_shape(step, state, Batch(X, None, jnp.float32(1.0)))
    assert state.loss_scale is None
    with pytest.raises(AssertionError):
        jax.eval_shape(product(8.0)[1], state, Batch(X, None, jnp.float32(1.0)))
    assert _loss_scale.init_loss_scale(8.0) is None


def test_bad_scales_are_named():
    with pytest.raises(ValueError, match=r"^loss_scale: expected a finite number"):
        product(0.0)
    with pytest.raises(ValueError, match=r"^loss_scale.factor: expected"):
        product(training.DynamicLossScale(factor=1.0), nonfinite_limit=1)
    with pytest.raises(ValueError, match=r"^nonfinite_limit: expected an integer >= 1, as a dynamic loss scale"):
        product(training.DynamicLossScale())
    with pytest.raises(TypeError, match=r"^loss_scale: expected a number or training.DynamicLossScale\(\), got"):
        product(training.DynamicLossScale)
