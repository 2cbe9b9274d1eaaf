"""What is wrong with a map of weights is named, and nothing is loaded. The numbers are compared in tests/peers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import interop, layers

MODEL = layers.serial(layers.conv(4, 3), layers.batch_norm(), jax.nn.relu, layers.flatten, layers.dense(2))
X = jnp.ones((1, 5, 5, 3))
VARIABLES = MODEL.init(jax.random.key(0), X)
NAMES = {"conv_0": "stem.0", "batch_norm_0": "stem.1", "dense_0": "fc"}


def _weights():
    rng = np.random.default_rng(0)
    shapes = {"stem.0.weight": (4, 3, 3, 3), "fc.weight": (2, 100), "fc.bias": (2,), "stem.0.bias": (4,)}
    shapes |= {f"stem.1.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()} | {"stem.1.num_batches_tracked": 3}


def test_there_and_back():
    weights = _weights()
    params, state = interop.from_torch(MODEL, VARIABLES, weights, NAMES)
    np.testing.assert_array_equal(params["conv_0"]["kernel"][1, 2, 0], weights["stem.0.weight"][:, 0, 1, 2].astype("f"))
    assert params["dense_0"]["kernel"].dtype == np.float32 and state["batch_norm_0"]["mean"].shape == (4,)
    back = interop.to_torch(MODEL, (params, state), NAMES)
    assert back.keys() == weights.keys() - {"stem.1.num_batches_tracked"}
    for name, array in back.items():
        np.testing.assert_array_equal(array, np.asarray(weights[name], np.float32))


@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        ({"conv_0": "stem.0", "dense_0": "fc"}, {}, r"^names: .*batch_norm_0 has parameters and no name"),
        (NAMES | {"dense_1": "x"}, {}, r"^names: .*dense_1 is no layer with parameters"),
        (NAMES | {"dense_0": "stem.0"}, {}, r"^names: .*stem\.0 stands for two layers"),
        (NAMES | {"dense_0": "head"}, {}, r"^weights: .*missing is head\.bias, for dense_0/bias; .*left over is fc"),
        (NAMES, {"fc.weight": np.ones((2, 99))}, r"^weights: .*kernel is \[100, 2\], fc\.weight makes it \[99, 2\]"),
        (NAMES, {"aux.weight": np.ones(3)}, r"^weights: .*left over is aux\.weight"),
    ],
)
def test_a_map_that_does_not_fit_is_named(names, change, message):
    with pytest.raises(ValueError, match=message):
        interop.from_torch(MODEL, VARIABLES, _weights() | change, names)


def test_what_is_not_wanted_is_said():
    interop.from_torch(MODEL, VARIABLES, _weights() | {"aux.weight": 1.0}, NAMES, ignore=["aux"])
    model = layers.serial(layers.dense(2), layers.prelu()) if hasattr(layers, "prelu") else None
    if model is not None:
        variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
        with pytest.raises(TypeError, match="has no counterpart"):
            interop.from_torch(model, variables, {}, {"dense_0": "a", "prelu_0": "b"})


def test_the_names_of_efficientnet_are_those_of_its_layers():
    model = interop.efficientnet_lite0(5)
    params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) == 4_652_008 - 995 * 1281  # as published, with 5 classes for 1,000
    names = interop.efficientnet_lite0_names(5)
    assert names["head"] == "_fc" and len(set(names.values())) == len(names) == 49 * 2 + 1
    interop.to_torch(model, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, state)), names)
