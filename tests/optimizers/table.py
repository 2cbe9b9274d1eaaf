"""Every factory of gradient transforms with numbers that may all be traced, and what the tests of all of them share.

A row is ``(name, factory, numbers)``; ``factory(**numbers)`` is the transform.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, schedules, trees


def _with(factory, **static):
    return lambda **numbers: factory(**numbers, **static)


def _scheduled(learning_rate, decay_steps):
    return optimizers.scale_by_learning_rate(schedules.cosine_decay(learning_rate, decay_steps))


def _averaged(learning_rate, momentum, decay):
    return optimizers.weight_ema(optimizers.sgd(learning_rate, momentum), decay)


def _plainly_averaged(learning_rate, momentum, start):
    return optimizers.weight_average(optimizers.sgd(learning_rate, momentum), start=start)


def _looking_ahead(learning_rate, slow_step_size):
    return optimizers.lookahead(optimizers.sgd(learning_rate), 3, slow_step_size)


def _schedule_free(learning_rate, b1):
    # Said again: the record of it in the state is float32, and its derivative with it.
    return optimizers.schedule_free(optimizers.sgd(learning_rate), b1, learning_rate=learning_rate)


def _proximal_l1(learning_rate, strength):
    inner = optimizers.sgd(learning_rate)
    rate = None if callable(learning_rate) else learning_rate
    return optimizers.proximal_l1(inner, strength, mask=trees.every_leaf, learning_rate=rate)


def _proximal_elastic_net(learning_rate, b1, l1_strength, l2_strength):
    inner = optimizers.adam(learning_rate, b1)
    rate = None if callable(learning_rate) else learning_rate
    return optimizers.proximal_elastic_net(inner, l1_strength, l2_strength, mask=trees.every_leaf, learning_rate=rate)


def _is_matrix(leaf):
    return jnp.ndim(leaf) == 2


def _told(optimizer):
    """The optimizer, told the gradient function it asks for: that of the test, or one for tests that have none."""

    def update(updates, state, params, *, grad_fn=lambda at: jax.tree.map(jnp.sin, at)):
        return optimizer.update(updates, state, params, grad_fn=grad_fn)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def _sophia(**numbers):
    return _told(optimizers.sophia(**numbers, key=jax.random.key(0), mask=trees.every_leaf))


def _scale_by_sophia(**numbers):
    return _told(optimizers.scale_by_sophia(**numbers, key=jax.random.key(0)))


def _stored(learning_rate):
    dtypes = {"*/mu/*": jnp.bfloat16, "*/nu/*": jnp.bfloat16}
    return optimizers.store_state(optimizers.adam(learning_rate), dtypes, key=jax.random.key(0))


def _rounded(learning_rate):
    return optimizers.round_stochastically(optimizers.adam(learning_rate), key=jax.random.key(0))


_lion = _with(optimizers.lion, mask=trees.every_leaf)
_ADAM = {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8}
_ADAM_KERAS = _ADAM | {"eps": 1e-7}
_MOMENTUM = {"learning_rate": 0.1, "momentum": 0.7}
_ADAGRAD = {"learning_rate": 0.3, "initial_accumulator_value": 0.1, "eps": 1e-7}
_RMSPROP = {"learning_rate": 0.05, "decay": 0.8, "eps": 1e-8}
_LARS = {"learning_rate": 0.1, "weight_decay": 0.01, "trust_coefficient": 0.5, "eps": 1e-3, "momentum": 0.5}
_ADAFACTOR = {
    "learning_rate": 0.02,
    "decay_exponent": 0.8,
    "eps": 1e-30,
    "clipping_threshold": 0.6,
    "min_scale": 2.0,
    "momentum": 0.5,
    "weight_decay": 0.01,
}

OPTIMIZERS = [
    ("sgd", optimizers.sgd, {"learning_rate": 0.1}),
    ("momentum", optimizers.sgd, _MOMENTUM),
    ("nesterov", _with(optimizers.sgd, nesterov=True), _MOMENTUM),
    ("adagrad", optimizers.adagrad, _ADAGRAD),
    ("rmsprop", optimizers.rmsprop, _RMSPROP),
    ("rmsprop_centered", _with(optimizers.rmsprop, centered=True), _RMSPROP | {"learning_rate": 0.02, "eps": 1e-3}),
    ("rmsprop_momentum", optimizers.rmsprop, _RMSPROP | {"learning_rate": 0.03, "momentum": 0.5}),
    ("adam", optimizers.adam, _ADAM),
    ("adamw", _with(optimizers.adamw, mask=trees.every_leaf), _ADAM | {"weight_decay": 0.01}),
    # What another convention computes in another way.
    ("momentum_keras", _with(optimizers.sgd, convention="keras"), _MOMENTUM),
    ("momentum_dampened", optimizers.sgd, _MOMENTUM | {"dampening": 0.3}),
    ("adagrad_torch", _with(optimizers.adagrad, convention="torch"), _ADAGRAD),
    (
        "rmsprop_momentum_torch",
        _with(optimizers.rmsprop, convention="torch"),
        _RMSPROP | {"learning_rate": 0.03, "momentum": 0.5},
    ),
    (
        "rmsprop_centered_torch",
        _with(optimizers.rmsprop, centered=True, convention="torch"),
        _RMSPROP | {"learning_rate": 0.02, "eps": 1e-2},
    ),
    ("adam_keras", _with(optimizers.adam, convention="keras"), _ADAM_KERAS),
    ("amsgrad", _with(optimizers.adam, amsgrad=True), _ADAM),
    ("amsgrad_torch", _with(optimizers.adam, amsgrad=True, convention="torch"), _ADAM),
    ("amsgrad_keras", _with(optimizers.adam, amsgrad=True, convention="keras"), _ADAM_KERAS),
    ("adadelta", optimizers.adadelta, {"learning_rate": 1.0, "decay": 0.8, "eps": 1e-3}),
    ("nadam", optimizers.nadam, _ADAM),
    ("nadam_torch", _with(optimizers.nadam, convention="torch"), _ADAM | {"momentum_decay": 0.5}),
    ("adamax", optimizers.adamax, _ADAM),
    ("adamax_keras", _with(optimizers.adamax, convention="keras"), _ADAM_KERAS),
    ("radam", optimizers.radam, _ADAM),
    ("radam_torch", _with(optimizers.radam, convention="torch"), _ADAM),
    ("lion", _lion, {"learning_rate": 0.02, "b1": 0.8, "b2": 0.95, "weight_decay": 0.01}),
    (
        "lamb",
        _with(optimizers.lamb, mask=trees.every_leaf),
        _ADAM | {"learning_rate": 0.05, "eps": 1e-6, "weight_decay": 0.01},
    ),
    ("lars", _with(optimizers.lars, mask=trees.every_leaf), _LARS),
    ("lars_paper", _with(optimizers.lars, mask=trees.every_leaf, convention="paper"), _LARS),
    ("adafactor", _with(optimizers.adafactor, mask=trees.every_leaf), _ADAFACTOR),
    ("weight_ema", _averaged, _MOMENTUM | {"decay": 0.8}),
    ("weight_average", _plainly_averaged, _MOMENTUM | {"start": 2}),
    ("lookahead", _looking_ahead, {"learning_rate": 0.1, "slow_step_size": 0.6}),
    ("schedule_free", _schedule_free, {"learning_rate": 0.3, "b1": 0.7}),
    ("proximal_l1", _proximal_l1, {"learning_rate": 0.1, "strength": 0.03}),
    (
        "proximal_elastic_net",
        _proximal_elastic_net,
        {"learning_rate": 0.1, "b1": 0.8, "l1_strength": 0.03, "l2_strength": 0.02},
    ),
]
_DIRECTION = {name: _ADAM[name] for name in ("b1", "b2", "eps")}
PARTS = [
    ("add_momentum", optimizers.add_momentum, {"momentum": 0.7}),
    ("scale_by_adagrad", optimizers.scale_by_adagrad, {"initial_accumulator_value": 0.1, "eps": 1e-7}),
    ("scale_by_rms", optimizers.scale_by_rms, {"decay": 0.8, "eps": 1e-8}),
    ("scale_by_rms_centered", _with(optimizers.scale_by_rms, centered=True), {"decay": 0.8, "eps": 1e-3}),
    ("scale_by_adam", optimizers.scale_by_adam, _DIRECTION),
    ("scale_by_adadelta", optimizers.scale_by_adadelta, {"decay": 0.8, "eps": 1e-3}),
    ("scale_by_nadam", optimizers.scale_by_nadam, _DIRECTION),
    ("scale_by_adamax", optimizers.scale_by_adamax, _DIRECTION),
    ("scale_by_radam", optimizers.scale_by_radam, _DIRECTION | {"threshold": 4.5}),
    ("scale_by_lion", optimizers.scale_by_lion, {"b1": 0.8, "b2": 0.95}),
    ("scale_by_factored_rms", optimizers.scale_by_factored_rms, {"decay_exponent": 0.8, "eps": 1e-30}),
    ("scale_by_trust_ratio", optimizers.scale_by_trust_ratio, {"trust_coefficient": 0.5, "eps": 1e-3}),
    ("scale_by_learning_rate", optimizers.scale_by_learning_rate, {"learning_rate": 0.1}),
    ("scale_by_schedule", _scheduled, {"learning_rate": 0.1, "decay_steps": 30.0}),
    ("add_decayed_weights", _with(optimizers.add_decayed_weights, mask=trees.every_leaf), {"weight_decay": 0.01}),
    ("clip_by_value", optimizers.clip_by_value, {"max_value": 0.47}),
    ("clip_by_norm", optimizers.clip_by_norm, {"max_norm": 0.47}),
    ("clip_by_global_norm", optimizers.clip_by_global_norm, {"max_norm": 0.47}),
    ("clip_adaptively", optimizers.clip_adaptively, {"clipping": 0.31}),
    ("constrain_max_norm", optimizers.constrain_max_norm, {"max_norm": 0.47}),
]
TABLE = OPTIMIZERS + PARTS
# What part of a tree they change is a number's, a path's or a shape's business: fewer tests fit them.
WRAPPERS = [
    ("flatten", lambda **numbers: optimizers.flatten(optimizers.adam(**numbers)), _ADAM),
    ("freeze", lambda **numbers: optimizers.freeze(optimizers.adam(**numbers), "scale*"), _ADAM),
    (
        "in_float32",
        lambda learning_rate: optimizers.in_float32(optax.adam(learning_rate, eps_root=1e-6)),  # 0: no slope at 0
        {"learning_rate": 0.1},
    ),
    ("muon", optimizers.muon, {"learning_rate": 0.1, "momentum": 0.9, "eps": 1e-8, "weight_decay": 0.1}),
    (
        "scale_by_muon",
        lambda **numbers: optax.masked(optimizers.scale_by_muon(**numbers), lambda p: jax.tree.map(_is_matrix, p)),
        {"momentum": 0.9, "eps": 1e-8},
    ),
    (
        "parameter_groups",
        lambda learning_rate, momentum: optimizers.parameter_groups(
            {"layer/*": optimizers.sgd(learning_rate, momentum), "*": optimizers.adam(learning_rate)}
        ),
        _MOMENTUM,
    ),
    ("scale_by_path", lambda factor: optimizers.scale_by_path({"layer/*": factor}), {"factor": 0.5}),
    ("scale_by_depth", lambda decay: optimizers.scale_by_depth(["layer/*", "scale*"], decay), {"decay": 0.5}),
    (
        "sam",
        lambda learning_rate, rho: _told(optimizers.sam(optimizers.sgd(learning_rate), rho)),
        {"learning_rate": 0.1, "rho": 0.05},
    ),
    (
        "sophia",
        _sophia,
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.9, "gamma": 0.5, "eps": 1e-3, "weight_decay": 0.1},
    ),
    (
        "scale_by_sophia",
        _scale_by_sophia,
        {"b1": 0.9, "b2": 0.9, "gamma": 0.5, "eps": 1e-3},
    ),
]
# Its state is in other dtypes than the arithmetic.
STORED = [
    ("store_state", _stored, {"learning_rate": 0.1}),
    ("round_stochastically", _rounded, {"learning_rate": 0.1}),
]
# The numbers whose sign or whose bound alone counts: a step has no slope in them.
FLAT = {_lion: {"b1", "b2"}, _sophia: {"eps"}, _scale_by_sophia: {"eps"}}
# Where compiling is what costs, what is a part of another row is left out.
PARTIAL = {"momentum", "momentum_keras", "rmsprop", "rmsprop_momentum_torch"}
PARTIAL |= {"adam", "adam_keras", "amsgrad", "amsgrad_torch", "nadam", "adamax", "radam_torch"}
DISTINCT = [row for row in OPTIMIZERS if row[0] not in PARTIAL]
DISTINCT += [row for row in PARTS if row[0].startswith(("scale_by_schedule", "clip", "constrain"))]


def rows(table):
    return pytest.mark.parametrize(("factory", "numbers"), [row[1:] for row in table], ids=[row[0] for row in table])


each_transform, each_distinct, each_optimizer = rows(TABLE), rows(DISTINCT), rows(OPTIMIZERS)
each_transform_and_wrapper, each_distinct_and_wrapper = rows(TABLE + WRAPPERS), rows(DISTINCT + WRAPPERS)
each_optimizer_and_wrapper = rows([row for row in OPTIMIZERS + WRAPPERS + STORED if "learning_rate" in row[2]])


def params_of(dtype=np.float32):
    kernel = np.linspace(-1, 1, 6).reshape(2, 3).astype(dtype)
    return {"layer": {"kernel": jnp.asarray(kernel)}, "scale": jnp.asarray(0.5, dtype)}


def gradients_of(dtype=np.float32, lead=()):
    """Random ones; ``lead`` are axes in front of those of the parameters."""
    rng = np.random.default_rng(0)
    draw = lambda p: jnp.asarray(rng.normal(size=(*lead, *p.shape)).astype(dtype))  # noqa: E731
    return jax.tree.map(draw, params_of())


def at(tree, *index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def run(transform, gradients):
    """The updates and the state of the last of some steps, one after the other, with the parameters where they are."""
    params, updates = params_of(), None
    state = transform.init(params)
    for step in range(len(gradients["scale"])):
        updates, state = transform.update(at(gradients, step), state, params)
    return updates, state


def scanned(transform, gradients):
    """:func:`run`, as a loop of the program."""
    params = params_of()

    def step(carry, gradient):
        updates, state = transform.update(gradient, carry[1], params)
        return (updates, state), None

    return jax.lax.scan(step, (jax.tree.map(jnp.zeros_like, params), transform.init(params)), gradients)[0]


def types_of(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def derivatives(end, at, step):
    """Of a vector-valued ``end`` by each number of ``at``, the last axis: forward, reverse, and two-sided differences.

    All are lanes of one program, which compiles once.
    """

    @jax.jit
    def evaluate(at):
        moves = jnp.diag(step)
        points = at[None] + jnp.concatenate([jnp.zeros_like(moves), moves, -moves])
        tangents = jnp.concatenate([jnp.eye(len(at)), *[jnp.zeros_like(moves)] * 2])
        ends, slopes = jax.vmap(lambda point, tangent: jax.jvp(end, (point,), (tangent,)))(points, tangents)
        _, above, below = jnp.split(ends, 3)
        return jnp.split(slopes, 3)[0].T, jax.jacrev(end)(at), ((above - below) / (2 * step[:, None])).T

    return evaluate(at)
