from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_map_with_path_hands_nothing_else_to_the_containers_of_a_tree():
    @jax.tree_util.register_pytree_node_class
    class Strict:
        def __init__(self, x):
            assert isinstance(x, float)
            self.x = x

        def tree_flatten(self):
            return (self.x,), None

        @classmethod
        def tree_unflatten(cls, _, children):
            return cls(*children)

    assert trees.map_with_path(lambda path, leaf: leaf + 1, [Strict(1.0)])[0].x == 2


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


def test_patterns_select_leaves_by_path():
    tree = {"dense_0": {"kernel": 1.0, "bias": 0.0}, "dense_1": {"kernel": 1.0, "bias": 0.0}, "scale": 1.0}
    paths = [path for path, _ in trees.named_leaves(tree)]

    def chosen(mask):
        return [path for path, is_in in zip(paths, trees.select("mask", mask, tree), strict=True) if is_in]

    assert chosen("dense_0/*") == ["dense_0/bias", "dense_0/kernel"]
    assert chosen(["*/bias", "scale"]) == ["dense_0/bias", "dense_1/bias", "scale"]
    assert chosen("dense_[1-9]/kernel") == ["dense_1/kernel"]
    assert chosen(lambda path, leaf: path == "scale") == ["scale"]
    assert chosen("*") == paths
    assert trees.select("mask", "dense_0/*", {}) == []


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("dense_1*", {1}),
        ("dense_1/*", {1}),
        ("dense_?/*", set(range(10))),
        ("dense_[0-9]*", set(range(10))),
        ("dense_1?/*", {10, 11}),
        ("dense_1[1-9]*", {11}),
        ("*0/kernel", {0}),
        ("*1*", {1}),
        ("*_*", set(range(12))),
    ],
)
def test_a_star_splits_no_number(pattern, numbers):
    tree = {f"dense_{i}": {"kernel": 1.0} for i in range(12)}
    chosen = zip(trees.named_leaves(tree), trees.select("mask", pattern, tree), strict=True)
    assert {path for (path, _), is_in in chosen if is_in} == {f"dense_{i}/kernel" for i in numbers}


@given(pattern=st.text("ab/*?[]!-.^\\", max_size=6), path=st.text("ab/*?[]!-.^\\", max_size=5))
def test_without_numbers_patterns_are_those_of_a_shell(pattern, path):
    if fnmatchcase(path, pattern):
        assert trees.select("mask", pattern, {path: 1.0}) == [True]
    else:
        with pytest.raises(ValueError, match=r"^mask: expected a pattern that matches one of"):
            trees.select("mask", pattern, {path: 1.0})


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([], ValueError, r"^frozen: expected a pattern of paths, got none, \[\], which selects nothing"),
        (
            lambda params: params,
            TypeError,
            r"^frozen: expected a function \(path, leaf\) -> bool, got one of other arg",
        ),
        ("dense", ValueError, r"^frozen: expected a pattern that matches one of \['dense_0/bias'\], got 'dense'"),
        (["*", "Dense_0/*"], ValueError, r"^frozen: .*, got 'Dense_0/\*'"),
        (
            lambda path, leaf: False,
            ValueError,
            r"^frozen: expected to select a leaf of \['dense_0/bias'\], selected none",
        ),
        (3, TypeError, r"^frozen: expected a pattern of paths, several, or \(path, leaf\) -> bool, got 3"),
        ([3], TypeError, r"^frozen: .*, got \[3\]"),
    ],
)
def test_a_mask_that_selects_nothing_or_is_none_is_named(mask, error, message):
    with pytest.raises(error, match=message):
        trees.select("frozen", mask, {"dense_0": {"bias": 0.0}})


def test_the_ready_made_mask_for_models_with_other_names():
    matrix, vector = jnp.ones((2, 3)), jnp.ones(3)
    assert trees.no_biases_no_norms("layers/0/weight", matrix)
    assert trees.no_biases_no_norms("conv/kernel", jnp.ones((3, 3, 1, 8)))
    assert not trees.no_biases_no_norms("layers/0/weight", vector)
    assert not trees.no_biases_no_norms("norm/scale", matrix)
    assert not trees.no_biases_no_norms("dense/bias", matrix)
