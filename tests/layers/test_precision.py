"""A model that computes in another dtype than its parameters are kept in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers

BF16 = jnp.bfloat16
KEY = jax.random.key(0)
X = jax.random.normal(KEY, (6, 4))


def model():
    block = layers.residual(layers.serial(layers.dense(4), jnp.tanh, layers.dropout(0.3)))
    return layers.serial(layers.repeat(block, 2), layers.batch_norm(), layers.dense(3))


def test_it_is_the_model_at_cast_parameters_with_outputs_and_gradients_cast_back():
    plain, mixed = model(), layers.with_precision(model(), BF16)
    params, state = mixed.init(KEY, X)
    jax.tree.map(np.testing.assert_array_equal, (params, state), plain.init(KEY, X))
    half = jax.tree.map(lambda leaf: leaf.astype(BF16), params)
    options = {"train": True, "key": KEY}
    expected, new_state = plain.apply(half, state, X.astype(BF16), **options)
    y, got_state = mixed.apply(params, state, X, **options)
    assert y.dtype == jnp.float32
    np.testing.assert_array_equal(y, expected.astype(jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, got_state, new_state)
    gradient = jax.grad(lambda params: mixed.apply(params, state, X, **options)[0].sum())(params)
    assert {leaf.dtype for leaf in jax.tree.leaves((gradient, got_state))} == {jnp.dtype(jnp.float32)}
    # Layer by layer it is the same, with the blocks that are repeated.
    _, _, outputs = layers.apply_with_outputs(mixed, params, state, X, **options)
    np.testing.assert_array_equal(outputs["dense_0"][1].astype(jnp.float32), y)
    assert {values.dtype for _, values in outputs.values()} == {jnp.dtype(BF16)}


def test_parameters_are_kept_as_is_said_and_ids_stay_integers():
    low = layers.with_precision(layers.serial(layers.embedding(9, 4), layers.dense(2)), BF16, params=BF16)
    ids = jnp.array([[1, 2], [3, 8]])
    params, state = low.init(KEY, ids)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(BF16)}
    assert low.apply(params, state, ids)[0].dtype == jnp.float32
    wide, _ = layers.with_precision(layers.dense(2), BF16).init(KEY, X.astype(BF16))
    assert wide["kernel"].dtype == jnp.float32 and (wide["kernel"] != wide["kernel"].astype(BF16)).any()
    held = layers.eval_mode(layers.with_precision(layers.batch_norm(), BF16))
    params, state = held.init(KEY, X)
    assert held.apply(params, state, X, train=True)[1] is state


def test_the_summary_prints_what_is_kept_in_which_dtype(capsys):
    mixed = layers.serial(layers.with_precision(model(), BF16, params=BF16), layers.dense(1))
    rows = {row.path: (row.output.dtype.name, row.kept) for row in layers.describe(mixed, X).rows}
    assert rows["serial_0/repeat_0/residual_0/serial_0/dense_0"] == ("bfloat16", ("bfloat16",))
    assert rows["serial_0/batch_norm_0"] == ("bfloat16", ("bfloat16", "float32"))
    assert rows["dense_0"] == ("float32", ("float32",)) and rows["serial_0/repeat_0/residual_0/add_0"][1] == ()
    layers.summary(mixed, X)
    lines = capsys.readouterr().out.splitlines()
    assert "bf16, f32" in next(line for line in lines if "batch_norm" in line)
    params, state = jax.eval_shape(mixed.init, KEY, X)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((params, state)))
    assert layers.describe(mixed, X).bytes == kept


def test_a_bad_dtype_is_named():
    with pytest.raises(TypeError, match=r"^compute: expected a floating-point dtype, such as jnp.bfloat16, got int8"):
        layers.with_precision(layers.dense(1), jnp.int8)
    with pytest.raises(TypeError, match=r"^params: expected a dtype"):
        layers.with_precision(layers.dense(1), BF16, params="low")
