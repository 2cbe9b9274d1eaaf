import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, trees

PARAMS = {"dense_0": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}}
ZEROS = {"dense_0": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}, "norm": {"scale": jnp.zeros(2)}}


def _update(transform, params=PARAMS):
    return transform.update(ZEROS, transform.init(params), params)[0]


def test_by_default_kernels_decay_and_nothing_else():
    updates = _update(optimizers.add_decayed_weights(0.1))
    np.testing.assert_allclose(updates["dense_0"]["kernel"], 0.2)
    assert not updates["dense_0"]["bias"].any()
    assert not updates["norm"]["scale"].any()


def test_a_mask_may_be_any_function_of_path_and_leaf():
    updates = _update(
        optimizers.add_decayed_weights(0.1, mask=lambda path, leaf: path.startswith("norm") or leaf.ndim == 2)
    )
    np.testing.assert_allclose(updates["dense_0"]["kernel"], 0.2)
    np.testing.assert_allclose(updates["norm"]["scale"], 0.1)
    assert not updates["dense_0"]["bias"].any()


def test_every_leaf_equals_optax():
    ours, theirs = (
        _update(optimizers.add_decayed_weights(0.1, mask=trees.every_leaf)),
        _update(optax.add_decayed_weights(0.1)),
    )
    for (path, a), (_, b) in zip(trees.named_leaves(ours), trees.named_leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=path)


def test_decay_in_adamw_is_decoupled_from_the_gradient():
    """Its size is lr · λ · θ, whatever the gradient's moments are."""
    for size in (1e-3, 1e3):
        gradients = {"kernel": jnp.full(3, size)}
        params = {"kernel": jnp.full(3, 2.0)}
        plain, decayed = optimizers.adam(0.1), optimizers.adamw(0.1, weight_decay=0.5)
        a, _ = plain.update(gradients, plain.init(params), params)
        b, _ = decayed.update(gradients, decayed.init(params), params)
        np.testing.assert_allclose(b["kernel"] - a["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-5)


def test_a_mask_that_selects_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^mask: expected to select a leaf of \['weight'\], selected none"):
        optimizers.adamw(0.1).init({"weight": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"^mask: expected to select a leaf of \[''\], selected none"):
        optimizers.add_decayed_weights(0.1).init(jnp.ones(3))


def test_missing_or_other_params_are_refused():
    transform = optimizers.add_decayed_weights(0.1)
    with pytest.raises(ValueError, match=r"^params: expected the parameters, got None"):
        transform.update(ZEROS, transform.init(PARAMS))
    with pytest.raises(
        ValueError, match=r"^updates: expected the tree of the parameters, but missing are \['norm/scale'\]"
    ):
        transform.update({"dense_0": ZEROS["dense_0"]}, transform.init(PARAMS), PARAMS)
