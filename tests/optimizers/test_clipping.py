import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers

BY_NORM = [optimizers.clip_by_norm, optimizers.clip_by_global_norm]
EVERY = [*BY_NORM, optimizers.clip_by_value]


@functools.partial(jax.jit, static_argnums=0)
def _apply(transform, gradients):
    return transform.update(gradients, transform.init(gradients))[0]


def _gradients(scale=1.0, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(scale * rng.normal(size=n), dtype) for name, n in (("a", 5), ("b", 3))}


@pytest.mark.parametrize("bound", [0.1, 1.0, 100.0])
def test_equals_optax(bound):
    gradients = _gradients()
    for ours, theirs in (
        (optimizers.clip_by_global_norm(bound), optax.clip_by_global_norm(bound)),
        (optimizers.clip_by_value(bound), optax.clip(bound)),
    ):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), _apply(ours, gradients), _apply(theirs, gradients)
        )


@pytest.mark.parametrize("bound", [0.1, 1.0, 100.0])
def test_each_leaf_equals_optax_on_that_leaf(bound):
    clipped = _apply(optimizers.clip_by_norm(bound), _gradients())
    for name, gradient in _gradients().items():
        np.testing.assert_allclose(clipped[name], _apply(optax.clip_by_global_norm(bound), gradient), rtol=1e-6)


@pytest.mark.parametrize("clip", BY_NORM)
def test_below_the_limit_not_a_bit_changes(clip):
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        gradients = _gradients(dtype=dtype)
        jax.tree.map(np.testing.assert_array_equal, _apply(clip(50.0), gradients), gradients)


@pytest.mark.parametrize("clip", EVERY)
@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_zero_gradients_and_zero_limits_give_zero(clip, bound):
    scale = 0.0 if bound else 1.0
    for limit in (bound, jnp.float32(bound)):
        transform = clip(limit)
        for gradients in (_gradients(0.0), _gradients(scale)):
            for leaf in _apply(transform, gradients).values():
                np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


@pytest.mark.parametrize("clip", BY_NORM)
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_norm_that_is_not_finite_passes_unclipped(clip, bad):
    gradients = _gradients(10.0)
    gradients["a"] = gradients["a"].at[2].set(bad)
    clipped = _apply(clip(1.0), gradients)
    np.testing.assert_array_equal(clipped["a"], gradients["a"])
    if clip is optimizers.clip_by_norm:
        np.testing.assert_allclose(jnp.linalg.norm(clipped["b"]), 1.0, rtol=1e-6)
    else:
        np.testing.assert_array_equal(clipped["b"], gradients["b"])


@pytest.mark.parametrize("clip", BY_NORM)
@pytest.mark.parametrize("mapped", [False, True])
def test_a_finite_gradient_with_an_overflowing_square_is_clipped(clip, mapped):
    transform = clip(1.0)
    lanes = jax.jit(jax.vmap(functools.partial(_apply, transform)))
    expected = _apply(transform, _gradients(10.0))
    for scale in (1e25, 1e30, 1e37):
        gradients = _gradients(scale)
        if mapped:
            gradients = jax.tree.map(lambda g: np.stack([g, np.zeros_like(g)]), gradients)
            clipped = lanes(gradients)
            jax.tree.map(lambda x: np.testing.assert_array_equal(x[1], 0.0), clipped)
            clipped = jax.tree.map(lambda x: x[0], clipped)
        else:
            clipped = _apply(transform, gradients)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), clipped, expected)


@pytest.mark.parametrize("clip", BY_NORM)
def test_zero_lanes_have_finite_derivatives(clip):
    """Derivative of vmap, the other way round than usual: the branch not taken is computed, and differentiated."""
    slope = jax.jit(jax.grad(lambda g: jnp.sum(jax.vmap(lambda g: _apply(clip(1.0), g))(g))))
    slopes = slope(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(slopes, 1.0)


def test_the_norm_of_low_precision_is_summed_in_float32():
    gradient = jnp.full(100_000, 1.0, jnp.float16)  # the sum of squares is beyond float16
    clipped = _apply(optimizers.clip_by_global_norm(1.0), gradient)
    assert clipped.dtype == jnp.float16
    np.testing.assert_allclose(clipped, 1 / np.sqrt(100_000), rtol=1e-3)


def test_mixed_precisions_share_one_factor():
    with jax.enable_x64(True):
        gradients = {"a": jnp.full(8, 3.0, jnp.bfloat16), "b": jnp.full(8, 4.0, jnp.float64)}
        clipped = _apply(optimizers.clip_by_global_norm(1.0), gradients)
        assert clipped["a"].dtype == jnp.bfloat16
        np.testing.assert_allclose(clipped["b"], 4 / np.sqrt(200), rtol=1e-15)
        np.testing.assert_allclose(clipped["a"].astype(jnp.float64), 3 / np.sqrt(200), rtol=2.0**-8)


def test_the_norm_before_clipping_is_recorded():
    for scale in (1.0, 1e30):
        gradients = _gradients(scale)
        flat = np.concatenate([np.asarray(g, np.float64) for g in gradients.values()])
        for transform in (*(clip(0.5) for clip in BY_NORM), optimizers.clip_adaptively(0.5)):
            state = transform.init(gradients)
            assert float(state.norm) == 0.0
            _, state = transform.update(gradients, state, gradients)
            np.testing.assert_allclose(state.norm, np.linalg.norm(flat), rtol=1e-6)


def test_torch_adds_a_millionth_to_the_norm():
    gradient = jnp.array([3e-6, 4e-6])
    ours = _apply(optimizers.clip_by_global_norm(1e-6, convention="torch"), gradient)
    np.testing.assert_allclose(ours, gradient * 1e-6 / (5e-6 + 1e-6), rtol=1e-6)
    barely = _apply(optimizers.clip_by_global_norm(5e-6, convention="torch"), gradient)  # torch: min(1, 5/6)
    np.testing.assert_allclose(barely, gradient * 5 / 6, rtol=1e-6)
    for name in ("optax", "keras"):
        plain = _apply(optimizers.clip_by_global_norm(1e-6, convention=name), gradient)
        np.testing.assert_allclose(plain, gradient / 5, rtol=1e-6)
    with pytest.raises(ValueError, match=r'^convention: expected "optax", "torch" or "keras", got \'jax\''):
        optimizers.clip_by_global_norm(1.0, convention="jax")


@pytest.mark.parametrize("clipping", [0.01, 0.1, 10.0])
def test_adaptive_clipping_equals_optax(clipping):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (6, 4), "conv": (3, 3, 2, 5), "bias": (4,), "scale": ()}
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    params["bias"] = jnp.zeros(4)
    gradients = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    ours, theirs = optimizers.clip_adaptively(clipping), optax.adaptive_grad_clip(clipping)
    update = jax.jit(lambda: [t.update(gradients, t.init(params), params)[0] for t in (ours, theirs)])
    got, expected = update()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), got, expected)


def test_adaptive_clipping_of_overflowing_squares_and_of_what_is_not_finite():
    transform = optimizers.clip_adaptively(0.5)
    params = jnp.ones((4, 3))
    gradient = jnp.ones((4, 3)).at[:, 0].set(1e30).at[1, 1].set(jnp.inf)
    clipped = transform.update(gradient, transform.init(params), params)[0]
    np.testing.assert_allclose(clipped[:, 0], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(clipped[:, 1], gradient[:, 1])
    np.testing.assert_allclose(clipped[:, 2], 0.5, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^params: expected the parameters, got None"):
        transform.update(gradient, transform.init(params))


def test_the_floor_of_adaptive_clipping_may_be_swept_and_differentiated():
    def clipped(eps):
        transform = optimizers.clip_adaptively(0.5, eps)
        return transform.update(jnp.array([3.0, 4.0]), transform.init(None), jnp.zeros(2))[0]

    floors = jnp.array([0.1, 1.0, 100.0])
    expected = [[0.03, 0.04], [0.3, 0.4], [3.0, 4.0]]
    np.testing.assert_allclose(jax.jit(jax.vmap(clipped))(floors), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(clipped)(1.0), [0.3, 0.4], rtol=1e-6)
