import jax
import jax.numpy as jnp
import pytest

from jaxopt_nn.types import Batch, Layer, Static, TrainState


def test_a_batch_is_a_tree_of_arrays_with_weights_or_without():
    assert Batch(1, 2).weight is None
    assert len(jax.tree.leaves(Batch(jnp.ones(2), jnp.ones(2)))) == 2
    batch = jax.tree.map(lambda leaf: leaf[:1], Batch({"a": jnp.ones((3, 2))}, jnp.ones(3), jnp.ones(3)))
    assert isinstance(batch, Batch) and batch.x["a"].shape == (1, 2) and batch.weight.shape == (1,)


def test_a_training_state_is_a_tree_that_scans():
    state = TrainState(jnp.int32(0), {"w": jnp.ones(2)}, {}, (), jax.random.key(0))
    last, _ = jax.lax.scan(lambda s, _: (s._replace(step=s.step + 1), None), state, length=3)
    assert isinstance(last, TrainState) and last.step == 3 and jax.tree.structure(last) == jax.tree.structure(state)


def test_a_layer_unpacks_as_a_pair_with_a_name():
    init, apply, name, wiring = Layer(lambda key, x: ({}, {}), lambda params, state, x, **_: (x, state))
    assert init(None, 1.0) == ({}, {}) and apply({}, {}, 1.0) == (1.0, {})
    assert name == "layer" and wiring is None


def test_a_static_value_is_no_leaf_and_reaches_a_compiled_function_as_it_is():
    tree = {"width": Static(64), "learning_rate": 0.1}
    assert jax.tree.leaves(tree) == [0.1]
    assert jax.tree.map(lambda leaf: leaf + 1, tree)["width"] == Static(64)
    traces = []

    @jax.jit
    def width(hparams):
        traces.append(1)
        assert type(hparams["width"].value) is int
        return jnp.zeros(hparams["width"].value) * hparams["learning_rate"]

    for size, rate in ((3, 0.1), (3, 0.2), (5, 0.1)):
        assert width({"width": Static(size), "learning_rate": rate}).shape == (size,)
    assert len(traces) == 2  # a new static value is a new trace, a new number is not
    assert jax.vmap(width, in_axes=({"width": None, "learning_rate": 0},))(
        {"width": Static(3), "learning_rate": jnp.ones(7)}
    ).shape == (7, 3)


def test_a_static_value_that_could_change_is_refused():
    with pytest.raises(TypeError, match=r"^Static: expected a hashable value .*got \[3\]"):
        Static([3])
