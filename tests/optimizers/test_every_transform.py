"""What holds for every factory alike, driven by one table. The numbers of a row may all be traced."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, schedules, trees


def _scheduled(learning_rate, decay_steps):
    return optimizers.scale_by_learning_rate(schedules.cosine_decay(learning_rate, decay_steps))


def _with(factory, **static):
    return lambda **numbers: factory(**numbers, **static)


def _averaged(learning_rate, momentum):
    return optimizers.weight_ema(optimizers.sgd(learning_rate, momentum), decay=0.9)


def _looking_ahead(learning_rate, slow_step_size):
    return optimizers.lookahead(optimizers.sgd(learning_rate), 3, slow_step_size)


def _schedule_free(learning_rate, b1):
    # Said again: the record of it in the state is float32, and its derivative with it.
    return optimizers.schedule_free(optimizers.sgd(learning_rate), b1, learning_rate=learning_rate)


_lion = _with(optimizers.lion, mask=trees.every_leaf)

OPTIMIZERS = [
    ("sgd", optimizers.sgd, {"learning_rate": 0.1}),
    ("momentum", optimizers.sgd, {"learning_rate": 0.1, "momentum": 0.7}),
    ("nesterov", _with(optimizers.sgd, nesterov=True), {"learning_rate": 0.1, "momentum": 0.7}),
    ("adagrad", optimizers.adagrad, {"learning_rate": 0.3, "initial_accumulator_value": 0.1, "eps": 1e-7}),
    ("rmsprop", optimizers.rmsprop, {"learning_rate": 0.05, "decay": 0.8, "eps": 1e-8}),
    ("rmsprop_centered", _with(optimizers.rmsprop, centered=True), {"learning_rate": 0.02, "decay": 0.8, "eps": 1e-3}),
    ("rmsprop_momentum", optimizers.rmsprop, {"learning_rate": 0.03, "decay": 0.8, "eps": 1e-8, "momentum": 0.5}),
    ("adam", optimizers.adam, {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8}),
    (
        "adamw",
        _with(optimizers.adamw, mask=trees.every_leaf),
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.01},
    ),
    # What another convention computes in another way.
    ("momentum_keras", _with(optimizers.sgd, convention="keras"), {"learning_rate": 0.1, "momentum": 0.7}),
    ("momentum_dampened", optimizers.sgd, {"learning_rate": 0.1, "momentum": 0.7, "dampening": 0.3}),
    (
        "adagrad_torch",
        _with(optimizers.adagrad, convention="torch"),
        {"learning_rate": 0.3, "initial_accumulator_value": 0.1, "eps": 1e-7},
    ),
    (
        "rmsprop_momentum_torch",
        _with(optimizers.rmsprop, convention="torch"),
        {"learning_rate": 0.03, "decay": 0.8, "eps": 1e-8, "momentum": 0.5},
    ),
    (
        "rmsprop_centered_torch",
        _with(optimizers.rmsprop, centered=True, convention="torch"),
        {"learning_rate": 0.02, "decay": 0.8, "eps": 1e-2},
    ),
    (
        "adam_keras",
        _with(optimizers.adam, convention="keras"),
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-7},
    ),
    ("amsgrad", _with(optimizers.adam, amsgrad=True), {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8}),
    (
        "amsgrad_torch",
        _with(optimizers.adam, amsgrad=True, convention="torch"),
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8},
    ),
    (
        "amsgrad_keras",
        _with(optimizers.adam, amsgrad=True, convention="keras"),
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-7},
    ),
    ("adadelta", optimizers.adadelta, {"learning_rate": 1.0, "decay": 0.8, "eps": 1e-3}),
    ("nadam", optimizers.nadam, {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8}),
    (
        "nadam_torch",
        _with(optimizers.nadam, convention="torch"),
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8, "momentum_decay": 0.5},
    ),
    ("adamax", optimizers.adamax, {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8}),
    (
        "adamax_keras",
        _with(optimizers.adamax, convention="keras"),
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-7},
    ),
    ("radam", optimizers.radam, {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8}),
    (
        "radam_torch",
        _with(optimizers.radam, convention="torch"),
        {"learning_rate": 0.1, "b1": 0.8, "b2": 0.95, "eps": 1e-8},
    ),
    ("lion", _lion, {"learning_rate": 0.02, "b1": 0.8, "b2": 0.95, "weight_decay": 0.01}),
    (
        "lamb",
        _with(optimizers.lamb, mask=trees.every_leaf),
        {"learning_rate": 0.05, "b1": 0.8, "b2": 0.95, "eps": 1e-6, "weight_decay": 0.01},
    ),
    (
        "lars",
        _with(optimizers.lars, mask=trees.every_leaf),
        {"learning_rate": 0.1, "weight_decay": 0.01, "trust_coefficient": 0.5, "eps": 1e-3, "momentum": 0.5},
    ),
    (
        "lars_paper",
        _with(optimizers.lars, mask=trees.every_leaf, convention="paper"),
        {"learning_rate": 0.1, "weight_decay": 0.01, "trust_coefficient": 0.5, "eps": 1e-3, "momentum": 0.5},
    ),
    (
        "adafactor",
        _with(optimizers.adafactor, mask=trees.every_leaf),
        {
            "learning_rate": 0.02,
            "decay_exponent": 0.8,
            "eps": 1e-30,
            "clipping_threshold": 0.6,
            "min_scale": 2.0,
            "momentum": 0.5,
            "weight_decay": 0.01,
        },
    ),
    ("weight_ema", _averaged, {"learning_rate": 0.1, "momentum": 0.7}),
    ("lookahead", _looking_ahead, {"learning_rate": 0.1, "slow_step_size": 0.6}),
    ("schedule_free", _schedule_free, {"learning_rate": 0.3, "b1": 0.7}),
]
PARTS = [
    ("add_momentum", optimizers.add_momentum, {"momentum": 0.7}),
    ("scale_by_adagrad", optimizers.scale_by_adagrad, {"initial_accumulator_value": 0.1, "eps": 1e-7}),
    ("scale_by_rms", optimizers.scale_by_rms, {"decay": 0.8, "eps": 1e-8}),
    ("scale_by_rms_centered", _with(optimizers.scale_by_rms, centered=True), {"decay": 0.8, "eps": 1e-3}),
    ("scale_by_adam", optimizers.scale_by_adam, {"b1": 0.8, "b2": 0.95, "eps": 1e-8}),
    ("scale_by_adadelta", optimizers.scale_by_adadelta, {"decay": 0.8, "eps": 1e-3}),
    ("scale_by_nadam", optimizers.scale_by_nadam, {"b1": 0.8, "b2": 0.95, "eps": 1e-8}),
    ("scale_by_adamax", optimizers.scale_by_adamax, {"b1": 0.8, "b2": 0.95, "eps": 1e-8}),
    ("scale_by_radam", optimizers.scale_by_radam, {"b1": 0.8, "b2": 0.95, "eps": 1e-8, "threshold": 4.5}),
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
]
TABLE = OPTIMIZERS + PARTS
# Where compiling is what costs, what is a part of another row is left out.
PARTIAL = {"momentum", "momentum_keras", "rmsprop", "rmsprop_momentum_torch"}
PARTIAL |= {"adam", "adam_keras", "amsgrad", "amsgrad_torch", "nadam", "adamax", "radam_torch"}
DISTINCT = [row for row in OPTIMIZERS if row[0] not in PARTIAL]
DISTINCT += [row for row in PARTS if row[0].startswith(("scale_by_schedule", "clip"))]


def _rows(table):
    return pytest.mark.parametrize(("factory", "numbers"), [row[1:] for row in table], ids=[row[0] for row in table])


# Together with zero gradients, these numbers being zero is where a root or a quotient could be undefined.
ZEROS = [
    set(),
    {"max_value", "max_norm", "learning_rate"},
    {"b1", "b2", "decay", "momentum"},
    {"initial_accumulator_value"},
    {"initial_accumulator_value", "decay", "eps"},
]

each_transform, each_distinct, each_optimizer = _rows(TABLE), _rows(DISTINCT), _rows(OPTIMIZERS)


def _params(dtype=np.float32):
    return {"layer": {"kernel": np.linspace(-1, 1, 6).reshape(2, 3).astype(dtype)}, "scale": np.array(0.5, dtype)}


def _gradients(seed=0, dtype=np.float32, lanes=()):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(size=(*lanes, *p.shape)).astype(dtype), _params())


def _run(transform, steps=3, dtype=np.float32):
    """The updates and the state of the last of some steps, with the parameters where they are."""
    params = jax.tree.map(jnp.asarray, _params(dtype))
    state, updates = transform.init(params), None
    for step in range(steps):
        updates, state = transform.update(jax.tree.map(jnp.asarray, _gradients(step, dtype)), state, params)
    return updates, state


def _types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)


def _assert_close(a, b, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


@each_transform
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64], ids=lambda d: d.__name__)
def test_state_in_is_state_out_and_updates_have_the_dtype_of_gradients(factory, numbers, dtype):
    kinds = [lambda n: n, np.float64, jnp.asarray, lambda n: jnp.asarray(n, jnp.bfloat16)]
    with jax.enable_x64(dtype == jnp.float64):
        params, gradients = jax.tree.map(lambda x: jnp.asarray(x, dtype), (_params(), _gradients()))
        for kind in kinds:  # a Python, a NumPy, a weakly typed, a low-precision number
            given = {name: kind(number) for name, number in numbers.items()}
            initial = jax.eval_shape(lambda given: factory(**given).init(params), given)
            updates, state = jax.eval_shape(
                lambda given, state: factory(**given).update(gradients, state, params), given, initial
            )
            assert _types(state) == _types(initial)
            assert _types(updates) == _types(gradients)
            floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating) and x.shape]
            assert all(x.dtype == jnp.promote_types(dtype, jnp.float32) for x in floats)
            assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@each_transform
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=lambda d: d.__name__)
def test_low_precision_is_computed_in_float32(factory, numbers, dtype):
    params, gradients = jax.tree.map(lambda x: jnp.asarray(x, dtype), (_params(), _gradients()))
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), (params, gradients))
    transform = factory(**numbers)
    low, high = transform.init(params), transform.init(exact[0])
    for _ in range(2):
        low_updates, low = transform.update(gradients, low, params)
        high_updates, high = transform.update(exact[1], high, exact[0])
    if "learning_rate" not in numbers:  # one link: the very same numbers, rounded once
        jax.tree.map(np.testing.assert_array_equal, low, high)
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y.astype(dtype)), low_updates, high_updates)
    _assert_close(*jax.tree.map(lambda x: x.astype(jnp.float32), (low_updates, high_updates)), rtol=2.0**-6)


@each_transform
def test_eager_equals_jit(factory, numbers):
    eager, jitted = _run(factory(**numbers)), jax.jit(lambda: _run(factory(**numbers)))()
    _assert_close(eager, jitted)


@each_transform
def test_a_lane_of_vmap_equals_the_single_run(factory, numbers):
    transform, lanes = factory(**numbers), 3
    params, gradients = jax.tree.map(jnp.asarray, _params()), _gradients(lanes=(lanes, 2))

    def two_updates(gradients):
        state = transform.init(params)
        _, state = transform.update(jax.tree.map(lambda g: g[0], gradients), state, params)
        return transform.update(jax.tree.map(lambda g: g[1], gradients), state, params)

    together = jax.jit(jax.vmap(two_updates))(gradients)
    for lane in range(lanes):
        alone = two_updates(jax.tree.map(lambda g, lane=lane: jnp.asarray(g[lane]), gradients))
        _assert_close(alone, jax.tree.map(lambda x, lane=lane: x[lane], together))


@each_distinct
def test_ten_values_of_every_number_are_one_trace_and_equal_python_numbers(factory, numbers):
    traces = []

    @jax.jit
    def run(given):
        traces.append(None)
        return _run(factory(**given))

    for value in np.linspace(0.9, 1.0, 10, dtype=np.float32):
        given = {name: np.float32(number) * value for name, number in numbers.items()}
        traced = run(given)
    assert len(traces) == 1
    _assert_close(traced, _run(factory(**{name: float(number) for name, number in given.items()})))


@each_distinct
def test_numbers_may_be_swept(factory, numbers):
    values = np.linspace(0.8, 1.0, 3, dtype=np.float32)
    swept = {name: np.float32(number) * values for name, number in numbers.items()}
    lanes = jax.jit(jax.vmap(lambda given: _run(factory(**given))))(swept)
    for lane in range(len(values)):
        alone = _run(factory(**{name: float(number[lane]) for name, number in swept.items()}))
        _assert_close(alone, jax.tree.map(lambda x, lane=lane: x[lane], lanes))


def _descend(factory, given, curvature, steps=10):
    """The parameters after some steps on a quadratic, all in one scan; without curvature there is nothing to do."""
    transform = factory(**given)
    params = jnp.linspace(-1.0, 1.3, 4) if curvature else jnp.zeros(4)
    slopes = curvature * jnp.arange(1.0, 5.0)

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(slopes * params, state, params)
        if "learning_rate" not in given:
            updates = -0.1 * updates
        return (params + updates, state), None

    return jax.lax.scan(step, (params, transform.init(params)), None, length=steps)[0][0]


@each_distinct
def test_forward_equals_reverse_equals_finite_differences_through_ten_steps(factory, numbers):
    with jax.enable_x64(True):
        at = jnp.array([1e-3 if name == "eps" else number for name, number in numbers.items()])
        step = 1e-5 * at

        def end(vector):
            return _descend(factory, dict(zip(numbers, vector, strict=True)), 1.0)

        @jax.jit
        def evaluate(at):
            above, below = (jax.vmap(end)(at[None] + sign * jnp.diag(step)) for sign in (1, -1))
            return jax.jacfwd(end)(at), jax.jacrev(end)(at), ((above - below) / (2 * step[:, None])).T

        forward, reverse, difference = evaluate(at)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(forward, difference, rtol=1e-5, atol=1e-6)
        flat = {"b1", "b2"} if factory is _lion else set()  # the sign has no slope
        moves = [name not in flat for name in numbers]
        np.testing.assert_array_equal(np.abs(forward).max(axis=0) > 1e-4, moves)


@each_distinct
def test_zero_gradients_give_zero_updates_with_finite_derivatives(factory, numbers):
    points = [numbers | dict.fromkeys(numbers.keys() & names, 0.0) for names in ZEROS]
    if "b2" in numbers:  # Adam's epsilon stands outside of the root, and must be positive
        points = [point | {"eps": 1e-8} for point in points]
    points = {name: jnp.array([point[name] for point in points], jnp.float32) for name in numbers}

    def end(point):
        return _descend(factory, point, 0.0)

    @jax.jit
    @jax.vmap
    def evaluate(point):
        return end(point), jax.jacfwd(end)(point), jax.jacrev(end)(point)

    ends, *slopes = evaluate(points)
    np.testing.assert_array_equal(ends, jnp.zeros_like(ends))
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


@each_transform
def test_a_gradient_that_is_not_finite_is_seen_in_the_updates(factory, numbers):
    transform = factory(**numbers)
    params, gradients = jax.tree.map(jnp.asarray, (_params(), _gradients()))
    initial, update = transform.init(params), jax.jit(transform.update)
    for bad in (np.inf, -np.inf, np.nan):
        kernel = gradients["layer"]["kernel"].at[0, 1].set(bad)
        updates, state = update({"layer": {"kernel": kernel}, "scale": gradients["scale"]}, initial, params)
        assert _types(state) == _types(initial)
        finite = np.isfinite(updates["layer"]["kernel"])
        if "max_value" in numbers and not np.isnan(bad):
            np.testing.assert_allclose(updates["layer"]["kernel"][0, 1], np.sign(bad) * numbers["max_value"])
        else:
            assert not finite[0, 1]
        assert np.isfinite(updates["scale"])
        assert finite.sum() >= 5  # the other elements of the leaf do not suffer


@each_transform
def test_an_empty_tree_and_none_leaves_pass(factory, numbers):
    transform = factory(**numbers)
    for tree in ({}, {"frozen": None}):
        updates, state = transform.update(tree, transform.init(tree), tree)
        assert updates == tree
        assert jax.tree.structure(state) == jax.tree.structure(transform.init(tree))


@each_transform
def test_composes_with_optax_on_either_side(factory, numbers):
    params, gradients = jax.tree.map(jnp.asarray, (_params(), _gradients()))
    ours, before, after = factory(**numbers), optax.clip(0.8), optax.scale(0.25)
    chain = optax.chain(before, ours, optax.identity(), optax.chain(after))
    state = chain.init(params)
    updates, state = chain.update(gradients, state, params, value=1.0)
    clipped, _ = before.update(gradients, before.init(params))
    alone, alone_state = ours.update(clipped, ours.init(params), params)
    _assert_close(updates, jax.tree.map(lambda u: 0.25 * u, alone))
    _assert_close(state[1], alone_state)
    masked = optax.masked(ours, {"layer": True, "scale": False})
    updates, _ = masked.update(gradients, masked.init(params), params)
    layer = {"layer": params["layer"]}
    alone, _ = ours.update({"layer": gradients["layer"]}, ours.init(layer), layer)
    _assert_close(updates, alone | {"scale": gradients["scale"]})


@each_transform
def test_a_fresh_state_may_be_donated_and_takes_nothing_of_the_caller_with_it(factory, numbers):
    params, gradients = jax.tree.map(jnp.asarray, (_params(), _gradients()))
    given = {name: jnp.float32(number) for name, number in numbers.items()}
    transform = factory(**given)
    consume = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    consume(transform.init(params))
    consume(transform.update(gradients, transform.init(params), params)[1])
    assert not any(x.is_deleted() for x in jax.tree.leaves((given, params, gradients)))


@each_optimizer
def test_converges_on_a_quadratic(factory, numbers):
    end = jax.jit(lambda: _descend(factory, numbers, 0.3, steps=400))()
    assert np.abs(end).max() < 0.05


@each_optimizer
def test_converges_on_rosenbrock(factory, numbers):
    """Along a curved valley, from (-1.2, 1) to (1, 1), with the best of six learning rates, which end at 0."""

    def height(at):
        return 100 * (at[1] - at[0] ** 2) ** 2 + (1 - at[0]) ** 2

    def end(learning_rate):
        transform = factory(**free | {"learning_rate": schedules.cosine_decay(learning_rate, 5000.0)})

        def step(carry, _):
            params, state = carry
            updates, state = transform.update(jax.grad(height)(params), state, params)
            return (params + updates, state), None

        start = jnp.array([-1.2, 1.0])
        return height(jax.lax.scan(step, (start, transform.init(start)), None, length=5000)[0][0])

    free = numbers | dict.fromkeys(numbers.keys() & {"weight_decay"}, 0.0)
    rates = numbers["learning_rate"] * jnp.array([0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
    assert jnp.nanmin(jax.jit(jax.vmap(end))(rates)) < 0.02  # from 24


@each_optimizer
def test_a_schedule_is_as_good_as_a_number(factory, numbers):
    numbers = dict(numbers)
    rate = numbers.pop("learning_rate")
    scheduled = _run(factory(learning_rate=schedules.constant(rate), **numbers))
    constant = _run(factory(learning_rate=rate, **numbers))
    _assert_close(scheduled[0], constant[0], rtol=1e-6)
    for state in (scheduled[1], constant[1]):
        np.testing.assert_allclose(optimizers.current_learning_rate(state), rate, rtol=1e-6)


@pytest.mark.parametrize(
    ("factory", "numbers"),
    [row[1:] for row in TABLE if row[2].keys() & {"momentum", "decay", "b1", "initial_accumulator_value"}],
    ids=[row[0] for row in TABLE if row[2].keys() & {"momentum", "decay", "b1", "initial_accumulator_value"}],
)
def test_trees_that_do_not_fit_are_refused_with_the_path(factory, numbers):
    transform = factory(**numbers)
    params, gradients = jax.tree.map(jnp.asarray, (_params(), _gradients()))
    state = transform.init(params)
    with pytest.raises(ValueError, match=r"^updates: .* missing are \['scale'\], unexpected \['gain'\]"):
        transform.update({"layer": gradients["layer"], "gain": gradients["scale"]}, state, params)
    with pytest.raises(ValueError, match=r"^updates\[scale\]: expected shape \(\), got \(3,\)"):
        transform.update(gradients | {"scale": jnp.ones(3)}, state, params)
    for dtype in (jnp.int32, jnp.complex64):
        with pytest.raises(TypeError, match=rf"^params\[scale\]: expected real floating-point .* got {dtype.__name__}"):
            transform.init(params | {"scale": jnp.ones((), dtype)})


RANGES = {
    "learning_rate": [-0.1, np.inf, np.nan],
    "momentum": [-0.1, 1.0, np.nan],
    "decay": [-0.1, 1.0],
    "b1": [-0.1, 1.0],
    "b2": [-0.1, 1.5],
    "eps": [-1e-9, np.inf],
    "initial_accumulator_value": [-0.1],
    "weight_decay": [-0.1, np.nan],
    "max_value": [-1.0],
    "max_norm": [-1.0, np.inf],
    "trust_coefficient": [-0.1, np.nan],
    "decay_exponent": [-0.1, np.inf],
    "clipping_threshold": [0.0],
    "min_scale": [-0.1],
    "slow_step_size": [-0.1, 1.1],
}


@each_transform
def test_a_number_out_of_its_range_is_refused_at_once(factory, numbers):
    for name in numbers.keys() & RANGES.keys():
        for bad in RANGES[name]:
            for kind in (float, np.float32, jnp.float32):
                with pytest.raises(ValueError, match=f"^{name}: expected a finite number in .*, got "):
                    factory(**numbers | {name: kind(bad)})
        with pytest.raises(TypeError, match=f"^{name}: expected a number, got "):
            factory(**numbers | {name: "much"})
        if factory is not _scheduled:
            with pytest.raises(ValueError, match=rf"^{name}: expected one number, got an array of shape \(2,\)"):
                factory(**numbers | {name: jnp.full(2, numbers[name])})


def test_adam_refuses_an_epsilon_of_zero():
    with pytest.raises(ValueError, match=r"^eps: expected a finite number in \(0, inf\), got 0"):
        optimizers.adam(0.1, eps=0.0)


@pytest.mark.parametrize("factory", [optimizers.sgd, optimizers.rmsprop])
def test_nesterov_without_momentum_is_refused(factory):
    with pytest.raises(ValueError, match=r"^nesterov: expected False without momentum, got True"):
        factory(0.1, nesterov=True)
