"""What every factory refuses, and that the table knows every factory."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers
from jaxopt_nn.trees import Mask
from tests.optimizers.table import STORED, TABLE, WRAPPERS, each_transform, gradients_of, params_of, rows

# An argument for every parameter without a default, and those without which another is not used.
ARGUMENTS = {
    "clipping": 0.1,
    "decay": 0.9,
    "dtypes": {"*": jnp.bfloat16},
    "factors": {"*": 0.5},
    "frozen": "scale",
    "groups": {"*": optax.sgd(0.1)},
    "key": jax.random.key,
    "l1_strength": 0.1,
    "l2_strength": 0.1,
    "learning_rate": 0.1,
    "max_norm": 1.0,
    "max_value": 1.0,
    "momentum": 0.9,
    "optimizer": optimizers.sgd(0.1),
    "patterns": ["layer/*"],
    "strength": 0.1,
    "weight_decay": 0.1,
}


def _is_factory(function):
    made = getattr(function, "__annotations__", {}).get("return")
    return made in (optax.GradientTransformation, optax.GradientTransformationExtraArgs)


FACTORIES = {name: fn for name in optimizers.__all__ if _is_factory(fn := getattr(optimizers, name))}


def _made(name, **changed):
    wanted = inspect.signature(FACTORIES[name]).parameters
    given = {name: ARGUMENTS[name] for name in wanted if name in ARGUMENTS}
    if callable(given.get("key")):
        given["key"] = given["key"](0)
    return FACTORIES[name](**given | changed)


def _with_parameter(wanted):
    """Names of factories with a parameter for which ``wanted(parameter)``, each with the parameter's name."""
    return [
        (name, parameter.name)
        for name, factory in FACTORIES.items()
        for parameter in inspect.signature(factory).parameters.values()
        if wanted(parameter)
    ]


def test_no_factory_is_forgotten():
    """Its row has its name."""
    assert FACTORIES.keys() <= {row[0] for row in TABLE + WRAPPERS + STORED}


@pytest.mark.parametrize("name", [name for name, _ in _with_parameter(lambda p: p.name == "convention")])
def test_an_unknown_convention_is_refused(name):
    with pytest.raises(ValueError, match=r'^convention: expected "optax"(, "torch")? or "\w+", got \'jax\'$'):
        _made(name, convention="jax")


@pytest.mark.parametrize(
    ("name", "mask"), _with_parameter(lambda parameter: parameter.annotation in (Mask, Mask | None))
)
def test_a_mask_that_selects_nothing_is_refused_with_its_name(name, mask):
    for nothing in ("nothing", ["layer/*", "nothing"]):
        with pytest.raises(ValueError, match=rf"^{mask}: expected a pattern that matches .*'scale'.*'nothing'"):
            _made(name, **{mask: nothing}).init(params_of())
    with pytest.raises(ValueError, match=rf"^{mask}: expected to select a leaf of .*'scale'.* selected none"):
        _made(name, **{mask: lambda path, leaf: False}).init(params_of())


_STATEFUL = {"momentum", "decay", "b1", "initial_accumulator_value"}


@rows([row for row in TABLE if row[2].keys() & _STATEFUL])
def test_trees_that_do_not_fit_are_refused_with_the_path(factory, numbers):
    transform, params, gradients = factory(**numbers), params_of(), gradients_of()
    state = transform.init(params)
    with pytest.raises(ValueError, match=r"^updates: .* missing are \['scale'\], unexpected \['gain'\]"):
        transform.update({"layer": gradients["layer"], "gain": gradients["scale"]}, state, params)
    with pytest.raises(ValueError, match=r"^updates\[scale\]: expected shape \(\), got \(3,\)"):
        transform.update(gradients | {"scale": jnp.ones(3)}, state, params)
    for dtype in (jnp.int32, jnp.complex64):
        with pytest.raises(TypeError, match=rf"^params\[scale\]: expected real .* got {dtype.__name__}"):
            transform.init(params | {"scale": jnp.ones((), dtype)})


RANGES = {
    "learning_rate": [-0.1, np.inf, np.nan],
    "momentum": [-0.1, 1.0, np.nan],
    "momentum_decay": [-0.1, np.inf],
    "dampening": [-0.1, 1.1],
    "decay": [-0.1, 1.0],
    "decay_steps": [-1.0, 0.0, np.nan],
    "b1": [-0.1, 1.0],
    "b2": [-0.1, 1.5],
    "eps": [-1e-9, np.inf],
    "initial_accumulator_value": [-0.1],
    "threshold": [3.9, np.nan],
    "weight_decay": [-0.1, np.nan],
    "clipping": [-0.1, np.inf],
    "max_value": [-1.0],
    "max_norm": [-1.0, np.inf],
    "trust_coefficient": [-0.1, np.nan],
    "decay_exponent": [-0.1, np.inf],
    "clipping_threshold": [0.0],
    "min_scale": [-0.1],
    "slow_step_size": [-0.1, 1.1],
    "strength": [-0.1, np.nan],
    "l1_strength": [-0.1, np.inf],
    "l2_strength": [-0.1, np.nan],
}


@each_transform
def test_a_number_out_of_its_range_is_refused_at_once(factory, numbers):
    for name in numbers:
        for bad in RANGES[name]:
            for kind in (float, np.float32, jnp.float32):
                with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
                    factory(**numbers | {name: kind(bad)})
        for bad in ("much", np.str_("0.1"), np.complex64(0.1), np.array(["0.1"]), True):
            with pytest.raises(TypeError, match=f"^{name}: expected a number, got "):
                factory(**numbers | {name: bad})
        with pytest.raises(ValueError, match=rf"^{name}: expected one number, got an array of shape \(2,\)"):
            factory(**numbers | {name: jnp.full(2, numbers[name])})


def test_adam_refuses_an_epsilon_of_zero():
    with pytest.raises(ValueError, match=r"^eps: expected a finite number in \(0, inf\), got 0"):
        optimizers.adam(0.1, eps=0.0)


@pytest.mark.parametrize("factory", [optimizers.sgd, optimizers.rmsprop])
def test_nesterov_without_momentum_is_refused(factory):
    with pytest.raises(ValueError, match=r"^nesterov: expected False without momentum, got True"):
        factory(0.1, nesterov=True)


# optax.masked asks which leaves are matrices: a scalar is none.
@rows([row for row in TABLE + WRAPPERS + STORED if row[0] != "scale_by_muon"])
def test_integer_parameters_and_gradients_that_would_be_broadcast_are_refused(factory, numbers):
    transform, params, gradients = factory(**numbers), params_of(), gradients_of()
    with pytest.raises(TypeError, match=r"^params\[(layer/kernel|flattened int32)\]: expected real .*, got int32"):
        kernel = jnp.ones((2, 3), jnp.int32)
        state = transform.init(params | {"layer": {"kernel": kernel}})
        transform.update(params | {"layer": {"kernel": kernel}}, state, params)
    with pytest.raises(ValueError, match=r"^updates\[layer/kernel\]: expected shape \(2, 3\), got \(\)"):
        transform.update(gradients | {"layer": {"kernel": jnp.ones(())}}, transform.init(params), params)


def test_what_is_no_array_is_named_with_its_path():
    for leaf in (jnp.sin, "a name", None):
        params = {"layer": {"kernel": jnp.ones(2), "activation": leaf}}
        if leaf is None:
            optimizers.sgd(0.1).init(params)
        else:
            with pytest.raises(TypeError, match=r"^params\[layer/activation\]: expected real or complex .*, got "):
                optimizers.sgd(0.1).init(params)


@pytest.mark.parametrize("name", [name for name, _ in _with_parameter(lambda p: p.name in ("optimizer", "others"))])
def test_what_is_no_optimizer_is_refused_at_once(name):
    argument = "others" if name == "muon" else "optimizer"
    for bad in (0.1, "sgd", optimizers.reduce_on_plateau(), optax.GradientTransformation, jnp.sin, None):
        if bad is None and name == "muon":
            continue
        with pytest.raises(TypeError, match=rf"^{argument}: expected an optimizer, an optax.GradientTransformation"):
            _made(name, **{argument: bad})
    with pytest.raises(TypeError, match=rf"^{argument}: expected an optimizer, .* call it, such as adam\(1e-3\)$"):
        _made(name, **{argument: optimizers.adam})


def test_swapped_arguments_are_refused():
    for make in (
        lambda: optimizers.freeze("bias", optimizers.sgd(0.1)),
        lambda: optimizers.sam(0.05, optimizers.sgd(0.1)),
        lambda: optimizers.lookahead(0.1),
        lambda: optimizers.store_state({"*": jnp.bfloat16}, optimizers.sgd(0.1)),
    ):
        with pytest.raises(TypeError, match=r"^optimizer: expected an optimizer, .* got "):
            make()


@pytest.mark.parametrize(("name", "flag"), _with_parameter(lambda p: p.annotation is bool))
def test_a_string_is_no_flag(name, flag):
    with pytest.raises(TypeError, match=rf"^{flag}: expected True or False, got 'no'"):
        _made(name, **{flag: "no"})


@pytest.mark.parametrize("name", [name for name, _ in _with_parameter(lambda p: p.name == "weight_decay")])
def test_no_weight_decay_is_none_everywhere(name):
    """Its default is a number's business; None is always: parameters without a gradient stay."""
    if name == "add_decayed_weights":
        return
    optimizer, params = _made(name, weight_decay=None), {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params, grad_fn=lambda at: zeros)
    jax.tree.map(np.testing.assert_array_equal, optax.apply_updates(params, updates), params)


def test_adamw_takes_the_decay_of_its_convention_by_default():
    params = {"kernel": jnp.ones(2)}
    for convention, decay in (("optax", 1e-4), ("torch", 1e-2), ("keras", 4e-3)):
        optimizer = optimizers.adamw(0.5, convention=convention)
        updates, _ = optimizer.update({"kernel": jnp.zeros(2)}, optimizer.init(params), params)
        np.testing.assert_allclose(updates["kernel"], -0.5 * decay, rtol=1e-6)
    with pytest.raises(TypeError, match=r"^weight_decay: expected a number, got 'small'"):
        optimizers.adamw(0.5, weight_decay="small")
