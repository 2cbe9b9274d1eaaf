"""Optimizers and learning rates by group of leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers

PARAMS = {
    "embed": jnp.ones(2),
    "dense_0": {"kernel": jnp.ones(2)},
    "dense_1": {"kernel": jnp.ones(2)},
    "head": jnp.ones(2),
}


def _update(optimizer, gradients=PARAMS):
    return optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)[0]


def test_each_group_has_its_optimizer_and_the_first_match_counts():
    optimizer = optimizers.parameter_groups(
        {"dense_1/*": optimizers.sgd(0.5), "dense_*": optimizers.adam(0.25), "*": optimizers.sgd(2.0)}
    )
    updates = _update(optimizer)
    np.testing.assert_allclose(updates["dense_1"]["kernel"], -0.5)
    np.testing.assert_allclose(updates["dense_0"]["kernel"], -0.25, rtol=1e-5)
    np.testing.assert_allclose(updates["embed"], -2.0)
    np.testing.assert_allclose(updates["head"], -2.0)


def _loss(params):
    return jnp.sum((params["a"] - 1) ** 4) + jnp.sum(params["a"] * params["b"]) + jnp.sum(jnp.cosh(params["b"]))


@pytest.mark.slow
def test_a_group_that_asks_for_functions_gets_those_of_its_part():
    """L-BFGS for one group, SAM for another: each moves as if the other group stood still for the step."""
    start = {"a": jnp.array([0.3, -0.4]), "b": jnp.array([1.0, 0.5])}
    make = {"a": optax.lbfgs, "b": lambda: optimizers.sam(optimizers.sgd(0.1), 0.1)}

    def extra(loss, params):
        gradient, value_fn = jax.grad(loss)(params), lambda params, grad_fn=None: loss(params)
        return gradient, {"value": loss(params), "grad": gradient, "value_fn": value_fn, "grad_fn": jax.grad(loss)}

    together = optimizers.parameter_groups({name: factory() for name, factory in make.items()})
    params, state = start, together.init(start)
    alone, states = start, {name: factory().init(start[name]) for name, factory in make.items()}
    for _ in range(3):
        gradient, told = extra(_loss, params)
        updates, state = together.update(gradient, state, params, **told)
        params = optax.apply_updates(params, updates)
        moved = {}
        for name, factory in make.items():
            gradient, told = extra(lambda part, name=name, alone=alone: _loss(alone | {name: part}), alone[name])
            updates, states[name] = factory().update(gradient, states[name], alone[name], **told)
            moved[name] = optax.apply_updates(alone[name], updates)
        alone = moved
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), params, alone)
    assert _loss(params) < _loss(start) - 1


def test_rates_of_groups_may_be_swept_in_one_trace():
    traces = []

    @jax.jit
    @jax.vmap
    def update(rates):
        traces.append(None)
        return _update(optimizers.parameter_groups({"head": optimizers.sgd(rates[0]), "*": optimizers.sgd(rates[1])}))

    for scale in (1.0, 2.0):
        updates = update(scale * jnp.array([[0.1, 0.2], [0.3, 0.4]]))
    np.testing.assert_allclose(updates["head"][:, 0], [-0.2, -0.6], rtol=1e-6)
    np.testing.assert_allclose(updates["embed"][:, 1], [-0.4, -0.8], rtol=1e-6)
    assert len(traces) == 1


def test_layerwise_rates_fall_from_the_output_to_the_input():
    updates = _update(optimizers.scale_by_depth(["embed", "dense_0/*", "dense_1/*", "head"], jnp.float32(0.5)))
    values = [updates["embed"], updates["dense_0"]["kernel"], updates["dense_1"]["kernel"], updates["head"]]
    np.testing.assert_allclose([value[0] for value in values], [0.125, 0.25, 0.5, 1.0])
    slope = jax.jacfwd(lambda decay: _update(optimizers.scale_by_depth(["embed", "head"], decay)))(0.0)
    np.testing.assert_allclose(slope["embed"], 1.0)
    np.testing.assert_allclose(slope["head"], 0.0)


def test_what_no_pattern_names_passes_and_low_precision_is_multiplied_in_float32():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    updates = optimizers.scale_by_path({"head": 0.3}).update(half, None)[0]
    assert updates["head"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(updates["head"], jnp.full(2, 0.3, jnp.bfloat16))
    np.testing.assert_array_equal(updates["embed"], half["embed"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.parameter_groups({}), r"^groups: expected at least one, got none"),
        (
            lambda: optimizers.parameter_groups({"head": optimizers.sgd(1.0)}),
            r"^groups: .* none matches 'dense_0/kernel'",
        ),
        (
            lambda: optimizers.parameter_groups({"*": optimizers.sgd(1.0), "head": optimizers.sgd(1.0)}),
            r"^groups: expected a leaf in each, but all of 'head' belong to an earlier one",
        ),
        (lambda: optimizers.scale_by_path({"tail": 1.0}), r"^factors: expected a pattern that matches one of .*tail"),
        (lambda: optimizers.scale_by_path({"head": -1.0}), r"^factors\[head\]: expected a finite number in .*, got -1"),
        (lambda: optimizers.scale_by_depth(["embed", "head"], 1.5), r"^decay: expected a finite number in"),
        (
            lambda: optimizers.scale_by_depth(["tail"], 0.5),
            r"^patterns: expected a pattern that matches one of .*'tail'",
        ),
        (
            lambda: optimizers.scale_by_depth(["head", "head"], 0.5),
            r"^patterns: expected each once, got",
        ),
    ],
)
def test_bad_groups_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        _update(make())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.parameter_groups({"*": 0.1}), r"^groups\[\*\]: expected an optimizer, .* got 0.1"),
        (
            lambda: optimizers.parameter_groups({"*": optimizers.sgd}),
            r"^groups\[\*\]: expected an optimizer, .* call it, such as sgd\(1e-3\)",
        ),
        (lambda: optimizers.parameter_groups(optax.sgd(0.1)), r"^groups: expected a mapping, \{pattern of paths: opt"),
        (lambda: optimizers.scale_by_path([("*", 0.1)]), r"^factors: expected a mapping, \{pattern of paths: factor\}"),
        (lambda: optimizers.scale_by_depth([1, 2], 0.1), r"^patterns: expected a pattern of paths, several"),
    ],
)
def test_what_is_no_group_is_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_one_string_is_no_sequence_of_patterns():
    with pytest.raises(TypeError, match=r"^patterns: expected a list of patterns, got 'head'"):
        optimizers.scale_by_depth("head", 0.5)
