"""The outputs of layers by path: with them a model computes what it computes without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers


def _graph():
    return layers.graph(
        {
            "left": (layers.dense(4), "input"),
            "right": (layers.shared("left"), "left"),
            "both": (layers.add, "left", "right"),
            "frozen": (layers.eval_mode(layers.serial(layers.dropout(0.5), layers.batch_norm())), "both"),
        },
        outputs="frozen",
    )


MODELS = {
    "serial": layers.serial(layers.dense(4), layers.batch_norm(), jax.nn.relu, layers.dropout(0.5)),
    "repeat": layers.repeat(layers.residual(layers.serial(layers.dense(4), layers.dropout(0.5))), 3),
    "graph": _graph(),
    "a layer": layers.dense(4),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_model_computes_the_same(name):
    model, x = MODELS[name], jax.random.normal(jax.random.key(0), (8, 4))
    params, state = model.init(jax.random.key(1), x)
    options = {"train": True, "key": jax.random.key(2), "weight": jnp.ones(8)}
    y, new_state = model.apply(params, state, x, **options)
    got, got_state, outputs = layers.apply_with_outputs(model, params, state, x, **options)
    np.testing.assert_array_equal(got, y)
    jax.tree.map(np.testing.assert_array_equal, got_state, new_state)

    assert {place.path for place in layers.places(model)} == outputs.keys()


def test_each_layer_has_its_inputs_and_outputs():
    model, x = MODELS["repeat"], jnp.ones((2, 4))
    params, state = model.init(jax.random.key(1), x)
    y, _, outputs = layers.apply_with_outputs(model, params, state, x)
    path = "residual_0/serial_0/dense_0"
    inputs, values = outputs[path]
    assert inputs.shape == values.shape == (3, 2, 4)
    np.testing.assert_array_equal(outputs["residual_0/add_0"][1][-1], y)
    own = params["residual_0"]["serial_0"]["dense_0"]
    np.testing.assert_allclose(values[1], inputs[1] @ own["kernel"][1] + own["bias"][1][None], rtol=1e-5)
    assert {place.path: (place.name, place.repeats) for place in layers.places(model)}[path] == ("dense", 1)


def test_an_error_has_the_path_of_its_layer():
    model = layers.serial(layers.dense(4), layers.residual(layers.dense(3)))
    params = {"dense_0": layers.dense(4).init(jax.random.key(0), jnp.ones((2, 3)))[0]}
    params["residual_0"] = {"dense_0": layers.dense(3).init(jax.random.key(0), jnp.ones((2, 4)))[0]}
    with pytest.raises(ValueError, match=r"^residual_0/add_0: expected the shape \[2, 4\]"):
        layers.apply_with_outputs(model, params, {}, jnp.ones((2, 3)))
