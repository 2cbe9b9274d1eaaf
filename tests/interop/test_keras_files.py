"""Files and weights of Keras, read and written without Keras. Those that Keras wrote are in tests/peers."""

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import interop, layers

NAMES = {"conv_0": "layers/conv2d", "batch_norm_0": "layers/batch_normalization", "dense_0": "layers/dense"}
MODEL = layers.serial(layers.conv(4, 3), layers.batch_norm(), jax.nn.relu, layers.flatten, layers.dense(2))
VARIABLES = MODEL.init(jax.random.key(0), jnp.ones((1, 5, 5, 3)))


def _weights():
    rng = np.random.default_rng(0)
    shapes = {"layers/conv2d/vars/0": (3, 3, 3, 4), "layers/dense/vars/0": (100, 2), "layers/dense/vars/1": (2,)}
    shapes |= {"layers/conv2d/vars/1": (4,)} | {f"layers/batch_normalization/vars/{i}": (4,) for i in range(4)}
    return {name: rng.standard_normal(shape).astype("f") for name, shape in shapes.items()}


def test_there_and_back():
    weights = _weights()
    others = {"optimizer/vars/0": np.ones(3), "layers/dropout/seed_generator/vars/0": np.ones(2)}
    params, state = interop.from_keras_weights(MODEL, VARIABLES, weights | others, NAMES)
    np.testing.assert_array_equal(params["conv_0"]["kernel"], weights["layers/conv2d/vars/0"])
    np.testing.assert_array_equal(state["batch_norm_0"]["var"], weights["layers/batch_normalization/vars/3"])
    back = interop.to_keras_weights(MODEL, (params, state), NAMES, weights)
    assert back.keys() == weights.keys()
    for name, array in back.items():
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        ({"conv_0": "layers/conv2d"}, {}, r"^names: .*batch_norm_0 has parameters and no name"),
        (NAMES | {"dense_1": "x"}, {}, r"^names: .*dense_1 is no layer with parameters"),
        (NAMES | {"dense_0": "layers/conv2d"}, {}, r"^names: .*layers/conv2d stands for two layers"),
        (NAMES | {"dense_0": "head"}, {}, r"missing is head/vars/1, for dense_0/bias; .*left over is layers/dense"),
        (NAMES, {"layers/dense/vars/0": np.ones((99, 2))}, r"kernel is \[100, 2\], layers/dense/vars/0 makes it \[99,"),
        (NAMES, {"layers/aux/vars/0": np.ones(3)}, r"^weights: .*left over is layers/aux/vars/0"),
    ],
)
def test_a_map_that_does_not_fit_is_named(names, change, message):
    with pytest.raises(ValueError, match=message):
        interop.from_keras_weights(MODEL, VARIABLES, _weights() | change, names)
    interop.from_keras_weights(MODEL, VARIABLES, _weights() | {"layers/aux/vars/0": 1.0}, NAMES, ignore=["layers/aux"])


def test_shapes_in_keras_are_those_of_its_file():
    layer = layers.multi_head_attention(2)
    variables = layer.init(jax.random.key(0), jnp.ones((1, 3, 4)))
    names, parts = {"multi_head_attention": "layers/mha"}, ("query", "key", "value")
    like = {f"layers/mha/{part}_dense/vars/{i}": np.ones(((4, 2, 2), (2, 2))[i]) for part in parts for i in (0, 1)}
    like |= {"layers/mha/output_dense/vars/0": np.ones((2, 2, 4)), "layers/mha/output_dense/vars/1": np.ones(4)}
    arrays = interop.to_keras_weights(layer, variables, names, like)
    assert {name: array.shape for name, array in arrays.items()} == {name: each.shape for name, each in like.items()}
    again, _ = interop.from_keras_weights(layer, variables, arrays, names)
    jax.tree.map(np.testing.assert_array_equal, again, variables[0])
    with pytest.raises(ValueError, match=r"^like: .*query_dense/vars/0 is \[4, 3, 2\], query/kernel makes it \[4, 4\]"):
        interop.to_keras_weights(layer, variables, names, like | {"layers/mha/query_dense/vars/0": np.ones((4, 3, 2))})
    with pytest.raises(ValueError, match=r"^like: .*missing is layers/mha/query_dense/vars/0, of query/kernel"):
        interop.to_keras_weights(layer, variables, names, {})


def test_a_layer_without_counterpart_is_named():
    odd = layers.weight_norm(layers.dense(2))
    with pytest.raises(TypeError, match=r"has no counterpart among"):
        interop.from_keras_weights(odd, odd.init(jax.random.key(0), jnp.ones((1, 3))), {}, {odd.name: "layers/dense"})


def _written(h5py, path, weights):
    with h5py.File(path, "w") as file:
        for name, array in weights.items():
            file[name] = array
    return path


def test_files_are_read_and_written(tmp_path):
    h5py = pytest.importorskip("h5py")
    weights = _weights()
    plain = _written(h5py, tmp_path / "a.weights.h5", weights)
    whole = tmp_path / "a.keras"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", plain.read_bytes())
    changed = {"layers/dense/vars/1": np.array([5.0, 6.0], "f")}
    for path in (plain, whole):
        np.testing.assert_equal(interop.load_keras(path), weights)
        new = tmp_path / f"new{path.suffix}"
        interop.save_keras(new, changed, like=path)
        np.testing.assert_equal(interop.load_keras(new), weights | changed)
        np.testing.assert_equal(interop.load_keras(path), weights)
    assert zipfile.ZipFile(tmp_path / "new.keras").read("config.json") == b"{}"
    for arrays, message in (
        ({"x": 1.0}, "x is not in"),
        ({"layers/dense/vars/1": np.ones(3)}, r"is \[2\] in .* \[3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            interop.save_keras(tmp_path / "no.keras", arrays, like=whole)
    with pytest.raises(ValueError, match=r"^path: expected a file '\.keras', as"):
        interop.save_keras(tmp_path / "no.weights.h5", {}, like=whole)
    assert not (tmp_path / "no.keras").exists()


def test_damaged_files_and_links_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(4.0).tobytes())
    linked, outside, endless = (tmp_path / f"{name}.h5" for name in ("linked", "outside", "endless"))
    _written(h5py, tmp_path / "other.h5", {"w": np.ones(3)})
    with h5py.File(linked, "w") as file:
        file["w"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "w")
    with h5py.File(outside, "w") as file:
        file.create_dataset("w", (4,), "f8", external=[(str(secret), 0, 32)])
    with h5py.File(endless, "w") as file:
        group = file.create_group("a")
        group["a"] = group
    whole = _written(h5py, tmp_path / "whole.h5", {"w": np.ones(3)})
    empty, cut, text = tmp_path / "empty.h5", tmp_path / "cut.h5", tmp_path / "text.keras"
    h5py.File(empty, "w").close()
    cut.write_bytes(whole.read_bytes()[:-1000])
    text.write_text("hello")
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    (tmp_path / "no.keras").write_bytes(buffer.getvalue())
    for path, message in (
        (linked, "w is a link, which is refused"),
        (outside, "w has its numbers in another file, which is refused"),
        (endless, "damaged: groups within groups without end"),
        (empty, "expected a file of Keras with arrays"),
        (cut, "expected a file that Keras 3 wrote"),
        (text, "expected a file that Keras 3 wrote"),
        (tmp_path / "no.keras", "expected a file that Keras 3 wrote"),
    ):
        with pytest.raises(ValueError, match=message):
            interop.load_keras(path)
    with pytest.raises(OSError, match="nowhere"):
        interop.load_keras(tmp_path / "nowhere")
