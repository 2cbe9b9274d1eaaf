from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import trees


class Pair(NamedTuple):
    first: object
    second: object


TREE = {"dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "blocks": [Pair(jnp.ones(1), None), (2.0,)]}


def test_leaves_are_named_by_readable_paths_in_the_order_of_jax():
    named = trees.named_leaves(TREE)
    assert [path for path, _ in named] == ["blocks/0/first", "blocks/1/0", "dense_0/bias", "dense_0/kernel"]
    for (_, ours), theirs in zip(named, jax.tree.leaves(TREE), strict=True):
        assert ours is theirs
    assert trees.named_leaves({}) == []
    assert [path for path, _ in trees.named_leaves(1.0)] == [""]


def test_map_with_path_keeps_the_tree_and_passes_path_and_leaves():
    got = trees.map_with_path(lambda path, a, b: (path, a is b), TREE, TREE)
    assert got == {
        "dense_0": {"kernel": ("dense_0/kernel", True), "bias": ("dense_0/bias", True)},
        "blocks": [Pair(("blocks/0/first", True), None), (("blocks/1/0", True),)],
    }


def test_masks():
    leaf = jnp.zeros(3)
    paths = ["kernel", "dense_0/kernel", "dense_0/bias", "batch_norm_0/scale", "kernel/bias", "dense_0/my_kernel", ""]
    assert [trees.kernels_only(path, leaf) for path in paths] == [True, True, False, False, False, False, False]
    assert all(trees.every_leaf(path, leaf) for path in paths)


def test_equal_structures_pass():
    trees.check_same_structure("params", TREE, jax.tree.map(jnp.asarray, TREE))
    trees.check_same_structure("params", TREE, jax.eval_shape(lambda: TREE))
    jax.jit(lambda tree: trees.check_same_structure("params", TREE, tree))(TREE)
    trees.check_same_structure("params", {}, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"dense_0": {"kernel": jnp.ones((2, 3))}}, r"missing \['dense_0/bias'\], unexpected nothing"),
        (lambda t: t | {"dense_1": 1.0}, r"missing nothing, unexpected \['dense_1'\]"),
        (
            lambda t: t | {"dense_0": {"weight": jnp.ones((2, 3)), "bias": jnp.zeros(3)}},
            r"missing \['dense_0/kernel'\], unexpected \['dense_0/weight'\]",
        ),
    ],
)
def test_another_tree_is_refused_by_path(change, message):
    with pytest.raises(ValueError, match=rf"^params: the tree does not match: {message}$"):
        trees.check_same_structure("params", TREE, change(TREE))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (jnp.ones((3, 2)), r"expected float32\[2, 3\], got float32\[3, 2\]"),
        (jnp.ones((2, 3), jnp.bfloat16), r"expected float32\[2, 3\], got bfloat16\[2, 3\]"),
        (np.ones((2, 3), np.int32), r"expected float32\[2, 3\], got int32\[2, 3\]"),
        (1.0, r"expected float32\[2, 3\], got float32\[\]"),
    ],
)
def test_another_shape_or_dtype_is_refused_by_path(kernel, message):
    other = TREE | {"dense_0": {"kernel": kernel, "bias": jnp.zeros(3)}}
    with pytest.raises(ValueError, match=rf"^params\[dense_0/kernel\]: {message}$"):
        trees.check_same_structure("params", TREE, other)
