"""Arrays in files, beside the library that defines them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxopt_nn import trees

TREE = {
    "dense_0": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)},
    "blocks": [jnp.int32(7), jnp.zeros((0, 4)), jnp.array([True, False])],
}


def test_a_tree_comes_back_with_the_same_bits(tmp_path):
    keys = {name: jax.random.split(jax.random.key(3, impl=name), 2) for name in ("threefry2x32", "rbg")}
    tree = {**TREE, "keys": keys, "transposed": np.arange(6.0, dtype=np.float32).reshape(2, 3).T}
    trees.save_arrays(tmp_path / "a.safetensors", tree)
    loaded = trees.load_arrays(tmp_path / "a.safetensors", jax.eval_shape(lambda: tree))
    assert jax.tree.structure(loaded) == jax.tree.structure(tree)
    for (path, ours), (_, theirs) in zip(trees.named_leaves(tree), trees.named_leaves(loaded), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, path
    draws = [jax.random.normal(each["keys"]["rbg"][1], (3,)) for each in (tree, loaded)]
    np.testing.assert_array_equal(*draws)
    flat = load_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(flat["transposed"], tree["transposed"])
    np.testing.assert_array_equal(flat["dense_0/kernel"], tree["dense_0"]["kernel"])
    np.testing.assert_array_equal(flat["keys/rbg"], jax.random.key_data(keys["rbg"]))


def test_a_map_of_paths_reads_and_writes_files_of_others(tmp_path):
    file = tmp_path / "theirs.safetensors"
    save_file({"fc1.weight": np.full((2, 3), 5, np.float32), "fc2.weight": np.zeros(1, np.float32)}, file)
    loaded = trees.load_arrays(file, TREE, {"dense_0/kernel": "fc1.weight"})
    assert loaded["dense_0"]["kernel"].tolist() == [[5.0] * 3] * 2 and loaded["blocks"][0] is TREE["blocks"][0]
    trees.save_arrays(file, TREE, {"blocks/0": "count"})
    assert {name: array.item() for name, array in load_file(file).items()} == {"count": 7}
    assert [each.name for each in tmp_path.iterdir()] == ["theirs.safetensors"]


@pytest.mark.parametrize(
    ("tree", "names", "match"),
    [
        ({"a": np.zeros(2)}, None, r"^a: expected float64\[2\], got float32\[3\] from the file"),
        ({"a": np.zeros(3, np.int32)}, None, r"^a: expected int32\[3\], got float32\[3\] from the file"),
        ({"b": np.zeros(3)}, None, r"expected an array 'b', got a file that has \['a'\]"),
        ({"b": np.zeros(3)}, {"c": "a"}, r"^names: expected paths of \['b'\], got 'c'"),
        (None, {"c": "a"}, r"^names: expected a tree"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, tree, names, match):
    trees.save_arrays(tmp_path / "a.safetensors", {"a": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=match):
        trees.load_arrays(tmp_path / "a.safetensors", tree, names)


def test_files_that_cannot_be_read_or_written(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"a\.safetensors: expected a safetensors file: "):
        trees.load_arrays(file)
    with pytest.raises(TypeError, match=r"^a: expected a dtype that a safetensors file can hold, got complex128"):
        trees.save_arrays(file, {"a": np.zeros(2, np.complex128)})
    with pytest.raises(OSError, match="No such file"):
        trees.save_arrays(tmp_path / "nowhere" / "a.safetensors", {"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"^tree: two leaves have the path 'a/b'"):
        trees.save_arrays(file, {"a": {"b": np.zeros(1)}, "a/b": np.zeros(1)})
    with pytest.raises(ValueError, match=r"^names: expected another name for each leaf, got \['x', 'x'\]"):
        trees.save_arrays(file, TREE, {"blocks/0": "x", "blocks/1": "x"})
    assert file.read_bytes() == b"half"
