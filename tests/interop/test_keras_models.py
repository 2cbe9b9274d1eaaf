"""Without Keras: what is no model of Keras is named. The models are in tests/peers."""

import jax.numpy as jnp
import pytest

from jaxopt_nn import interop, layers


@pytest.mark.parametrize("model", [3, layers.dense(2), jnp.tanh, layers.serial])
def test_what_is_no_model_of_keras_is_named(model):
    for call in (interop.from_keras, lambda model: interop.into_keras(model, {}, {})):
        with pytest.raises(TypeError, match=r"^model: expected a Sequential or Functional model of Keras 3, got a"):
            call(model)
    with pytest.raises(TypeError, match=r"^module: expected a module of PyTorch, got a"):
        interop.from_torch_module(model, jnp.ones((1, 2)))


def test_no_example_input_for_an_export_is_named():
    with pytest.raises(ValueError, match=r"^x: expected an example input, got none"):
        interop.export_model(layers.dense(2), {}, {}, {})
    with pytest.raises(TypeError, match=r"^x\[a\]: expected an array \[batch, \.\.\.\] or its shape, got 3"):
        interop.export_model(layers.dense(2), {}, {}, {"a": 3})
