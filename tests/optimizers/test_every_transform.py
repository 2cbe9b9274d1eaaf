"""What holds for every factory alike, whatever its numbers: types, precision, composition, gradients that are odd."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.optimizers.table import (
    assert_close,
    at,
    each_transform,
    each_transform_and_wrapper,
    gradients_of,
    params_of,
    run,
    scanned,
    types_of,
)


@each_transform_and_wrapper
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64], ids=lambda d: d.__name__)
def test_state_in_is_state_out_and_updates_have_the_dtype_of_gradients(factory, numbers, dtype):
    def types_with(given):
        transform = factory(**given)
        initial = transform.init(params)
        return initial, *transform.update(gradients, initial, params)

    with jax.enable_x64(dtype == jnp.float64):
        params, gradients = params_of(dtype), gradients_of(dtype)
        # A constant of the program; a traced number that is weakly typed, a NumPy double, one of low precision.
        results = [jax.eval_shape(lambda: types_with(numbers))]
        for kind in (lambda n: n, np.float64, lambda n: jnp.asarray(n, jnp.bfloat16)):
            results.append(jax.eval_shape(types_with, {name: kind(number) for name, number in numbers.items()}))
        for initial, updates, state in results:
            assert types_of(state) == types_of(initial)
            assert types_of(updates) == types_of(gradients)
            floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating) and x.shape]
            assert all(x.dtype == jnp.promote_types(dtype, jnp.float32) for x in floats)
            assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@each_transform
def test_low_precision_is_computed_in_float32(factory, numbers):
    transform = factory(**numbers)
    for dtype in (jnp.float16, jnp.bfloat16):
        params, gradients = params_of(dtype), gradients_of(dtype)
        exact = jax.tree.map(lambda x: x.astype(jnp.float32), (params, gradients))
        low, high = transform.init(params), transform.init(exact[0])
        for _ in range(2):
            low_updates, low = transform.update(gradients, low, params)
            high_updates, high = transform.update(exact[1], high, exact[0])
        if "learning_rate" not in numbers:  # one link: the very same numbers, rounded once
            jax.tree.map(np.testing.assert_array_equal, low, high)
            for x, y in zip(jax.tree.leaves(low_updates), jax.tree.leaves(high_updates), strict=True):
                np.testing.assert_array_equal(x, y.astype(dtype))
        low_updates, high_updates = jax.tree.map(lambda x: x.astype(jnp.float32), (low_updates, high_updates))
        assert_close(low_updates, high_updates, rtol=2.0**-6)


@each_transform_and_wrapper
def test_eager_equals_jit_equals_a_lane_of_vmap(factory, numbers):
    transform, gradients = factory(**numbers), gradients_of(lead=(2, 3))

    @jax.jit
    def compiled(gradients):
        return scanned(transform, at(gradients, 0)), jax.vmap(lambda lane: scanned(transform, lane))(gradients)

    single, lanes = compiled(gradients)
    eager = [run(transform, at(gradients, lane)) for lane in range(2)]
    assert_close(single, eager[0])
    for lane in range(2):
        assert_close(at(lanes, lane), eager[lane])


@each_transform
def test_a_gradient_that_is_not_finite_is_seen_in_the_updates(factory, numbers):
    transform, params, gradients = factory(**numbers), params_of(), gradients_of()
    initial = transform.init(params)
    for bad in (np.inf, -np.inf, np.nan):
        kernel = gradients["layer"]["kernel"].at[0, 1].set(bad)
        updates, state = transform.update({"layer": {"kernel": kernel}, "scale": gradients["scale"]}, initial, params)
        assert types_of(state) == types_of(initial)
        finite = np.isfinite(updates["layer"]["kernel"])
        if "max_value" in numbers and not np.isnan(bad):
            np.testing.assert_allclose(updates["layer"]["kernel"][0, 1], np.sign(bad) * numbers["max_value"])
        else:
            assert not finite[0, 1]
        assert np.isfinite(updates["scale"])
        assert finite.sum() >= 5  # the other elements of the leaf do not suffer


@each_transform_and_wrapper
def test_an_empty_tree_and_none_leaves_pass(factory, numbers):
    transform = factory(**numbers)
    for tree in ({}, {"frozen": None}):
        updates, state = transform.update(tree, transform.init(tree), tree)
        assert updates == tree
        assert jax.tree.structure(state) == jax.tree.structure(transform.init(tree))


@each_transform
def test_composes_with_optax_on_either_side(factory, numbers):
    params, gradients = params_of(), gradients_of()
    ours, before, after = factory(**numbers), optax.clip(0.8), optax.scale(0.25)
    chain = optax.chain(before, ours, optax.identity(), optax.chain(after))
    state = chain.init(params)
    updates, state = chain.update(gradients, state, params, value=1.0)
    clipped, _ = before.update(gradients, before.init(params))
    alone, alone_state = ours.update(clipped, ours.init(params), params)
    assert_close(updates, jax.tree.map(lambda u: 0.25 * u, alone))
    assert_close(state[1], alone_state)
    masked = optax.masked(ours, {"layer": True, "scale": False})
    updates, _ = masked.update(gradients, masked.init(params), params)
    layer = {"layer": params["layer"]}
    alone, _ = ours.update({"layer": gradients["layer"]}, ours.init(layer), layer)
    assert_close(updates, alone | {"scale": gradients["scale"]})


_consume = jax.jit(lambda leaf: leaf + 1, donate_argnums=0)


@each_transform_and_wrapper
def test_a_fresh_state_may_be_donated_and_takes_nothing_of_the_caller_with_it(factory, numbers):
    """Leaf after leaf: were two of them one buffer, the second would be gone."""
    params, gradients = params_of(), gradients_of()
    given = {name: jnp.float32(number) for name, number in numbers.items()}
    transform = factory(**given)
    jax.tree.map(_consume, transform.init(params))
    jax.tree.map(_consume, transform.update(gradients, transform.init(params), params)[1])
    assert not any(x.is_deleted() for x in jax.tree.leaves((given, params, gradients)))


@each_transform
def test_a_complex_leaf_is_refused_unless_it_is_the_same_to_its_parts(factory, numbers):
    turned = lambda tree: jax.tree.map(lambda x: x * (1 + 2j), tree)  # noqa: E731
    transform, params, gradients = factory(**numbers), turned(params_of()), turned(gradients_of())
    if numbers.keys() <= {"learning_rate", "decay_steps", "weight_decay"}:
        updates, _ = transform.update(gradients, transform.init(params), params)
        for part in (jnp.real, jnp.imag):
            own, other = jax.tree.map(part, gradients), jax.tree.map(part, params)
            alone, _ = transform.update(own, transform.init(other), other)
            assert_close(jax.tree.map(part, updates), alone)
        return
    with pytest.raises(TypeError, match=r"^(params|updates)\[layer/kernel\]: expected real .* got complex64"):
        transform.update(gradients, transform.init(params), params)


@each_transform
def test_integers_are_refused(factory, numbers):
    transform, params, gradients = factory(**numbers), params_of(), gradients_of() | {"scale": jnp.int32(3)}
    with pytest.raises(TypeError, match=r"^updates\[scale\]: expected .*floating-point numbers, got int32"):
        transform.update(gradients, transform.init(params), params)
