"""The run: equal to a plain Python loop, to ``fit`` and to its own lanes; one trace; a program of constant size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch, Static


def assert_equal(got, expected, **tolerance):
    def check(a, b):
        a, b = (jax.random.key_data(c) if jnp.issubdtype(c.dtype, jax.dtypes.prng_key) else c for c in (a, b))
        if tolerance:
            np.testing.assert_allclose(a, b, **tolerance)
        else:
            np.testing.assert_array_equal(a, b)

    jax.tree.map(check, got, expected)


@pytest.mark.slow  # in CI under the default options of the compiler
def test_equals_a_python_loop_of_steps(problem):
    """The scan, its shuffling and its padding, against the same steps called one by one: the same bits."""
    # Compiled as users' programs are: unoptimized (see tests/conftest.py), a product and a sum are fused into one
    # rounding here and not there.
    jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
    recipe = problem.recipe(epochs=3)
    result = jit(training.make_run(recipe))(problem.key, problem.hparams, problem.train)

    init_key, order_key, noise_key = jax.random.split(problem.key, 3)
    hp = {name: jnp.float32(value) for name, value in problem.hparams.items()}

    def loss_fn(params, model_state, batch, key, hp):
        parts = recipe(hp)
        outputs, model_state = parts.model.apply(params, model_state, batch.x, train=True, key=key, weight=batch.weight)
        loss = losses.weighted_mean(parts.loss(outputs, batch.y), batch.weight)
        return loss + parts.penalty(params), (model_state, {})

    @jit
    def step(carry, batch, hp):
        one_step = training.make_step(lambda *args: loss_fn(*args, hp), recipe(hp).optimizer, nonfinite_limit=1)
        return one_step(carry, batch)[0]

    params, model_state = jit(recipe(hp).model.init)(init_key, problem.train.x)
    carry = training.init_state(params, recipe(hp).optimizer, noise_key, model_state)
    for epoch in range(3):
        order = jax.random.permutation(jax.random.fold_in(order_key, epoch), 70)
        order, weight = jnp.concatenate([order, jnp.zeros(10, order.dtype)]), (jnp.arange(80) < 70).astype("f")
        for first in range(0, 80, 16):
            rows = order[first : first + 16]
            batch = Batch(problem.train.x[rows], problem.train.y[rows], weight[first : first + 16])
            carry = step(carry, batch, hp)
    assert_equal(result.state, carry)
    assert int(carry.step) == 15


@pytest.mark.slow
@pytest.mark.parametrize("epochs_per_call", [1, 4])
def test_fit_equals_run(problem, epochs_per_call):
    recipe = problem.recipe(early_stopping=training.EarlyStopping(patience=3))
    expected = jax.jit(training.make_run(recipe))(problem.key, problem.hparams, problem.train, problem.valid)
    got = training.fit(
        recipe, problem.hparams, problem.train, problem.valid, key=problem.key, epochs_per_call=epochs_per_call
    )
    assert_equal(got, expected)


def test_lane_equals_single_run(problem):
    run = training.make_run(problem.recipe(early_stopping=training.EarlyStopping(patience=2)))
    keys = training.RunKeys(*jax.random.split(problem.key, 3))
    hparams = {"learning_rate": jnp.array([0.003, 0.01, 0.1]), "l2": jnp.array([0.0, 1e-3, 1e-2]), "drop_rate": 0.2}
    axes = ({"learning_rate": 0, "l2": 0, "drop_rate": None}, None, None)
    lanes = jax.jit(jax.vmap(run, (None, *axes)))(keys, hparams, problem.train, problem.valid)
    for lane in range(3):
        own = {"learning_rate": hparams["learning_rate"][lane], "l2": hparams["l2"][lane], "drop_rate": 0.2}
        single = jax.jit(run)(keys, own, problem.train, problem.valid)
        got = jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes)
        assert int(got.epochs) == int(single.epochs) and int(got.best_epoch) == int(single.best_epoch)
        # Rounding only: a batched matrix product sums in another order; 30 Adam steps amplify that.
        assert_equal(got.params, single.params, rtol=1e-3, atol=1e-4)


@pytest.mark.slow  # in CI under the default options of the compiler
def test_lanes_of_seeds_differ_and_share_the_order_they_are_given(problem):
    run = training.make_run(problem.recipe(epochs=2))
    keys = jax.random.split(problem.key, 4)
    own = jax.jit(jax.vmap(run, (0, None, None)))(keys, problem.hparams, problem.train)
    assert len({float(loss) for loss in own.history["train_loss"][:, -1]}) == 4
    shared_keys = training.RunKeys(
        jax.random.split(problem.key, 4), jax.random.key(7), jax.random.split(problem.key, 4)
    )
    axes = training.RunKeys(0, None, 0)
    shared = jax.jit(jax.vmap(run, (axes, None, None)))(shared_keys, problem.hparams, problem.train)
    single_keys = training.RunKeys(shared_keys.init[3], shared_keys.order, shared_keys.noise[3])
    single = jax.jit(run)(single_keys, problem.hparams, problem.train)
    assert_equal(jax.tree.map(lambda leaf: leaf[3], shared.params), single.params, rtol=1e-3, atol=1e-4)


def test_shared_order_gathers_each_batch_once(problem):
    """Lanes that share their order share their batches: the gather in the loop of steps has no lane axis."""
    run = training.make_run(problem.recipe(epochs=2))

    def gathers_of_own_batches(axes, keys):
        hparams = {**problem.hparams, "learning_rate": jnp.ones(11)}
        lanes = jax.vmap(run, (axes, {"learning_rate": 0, "l2": None, "drop_rate": None}, None))
        text = jax.jit(lanes).lower(keys, hparams, problem.train).as_text()
        return sum("stablehlo.gather" in line and "tensor<11x16x6xf32>" in line for line in text.splitlines())

    init, order, noise = jax.random.split(problem.key, 3)
    assert gathers_of_own_batches(None, training.RunKeys(init, order, noise)) == 0
    own = training.RunKeys(init, jax.random.split(order, 11), noise)
    assert gathers_of_own_batches(training.RunKeys(None, 0, None), own) == 1


def test_ten_learning_rates_are_one_trace(problem):
    traces = []

    def recipe(hp):
        traces.append(hp)
        return problem.recipe(epochs=2)(hp)

    run = jax.jit(training.make_run(recipe))
    run(problem.key, problem.hparams, problem.train)
    first = len(traces)
    for rate in np.linspace(0.001, 0.01, 10):
        run(problem.key, {**problem.hparams, "learning_rate": float(rate)}, problem.train)
    assert len(traces) == first and run._cache_size() == 1


@pytest.mark.slow
def test_program_size_is_flat_in_epochs_examples_and_lanes(problem):
    def lines(epochs, copies, lanes):
        x, y = (jnp.concatenate([leaf] * copies) for leaf in (problem.train.x, problem.train.y))
        run = jax.vmap(training.make_run(problem.recipe(epochs=epochs)), (0, None, None, None))
        keys = jax.random.split(problem.key, lanes)
        return len(jax.jit(run).lower(keys, problem.hparams, Batch(x, y), problem.valid).as_text().splitlines())

    assert len({lines(2, 1, 2), lines(2000, 1, 2), lines(2, 1, 64), lines(2, 9, 2)}) == 1


@pytest.mark.slow
def test_batch_mini_batch_and_stochastic_gradient_descent_are_batch_sizes():
    x = jax.random.normal(jax.random.key(0), (32, 3))
    y = x @ jnp.array([[1.0], [-2.0], [0.5]])
    for batch_size, epochs, rate in [(32, 300, 0.1), (8, 100, 0.1), (1, 60, 0.02)]:

        def recipe(hp, batch_size=batch_size, epochs=epochs):
            return training.Recipe(
                model=layers.dense(1),
                loss=losses.mean_squared_error,
                optimizer=optimizers.sgd(hp),
                batch_size=batch_size,
                epochs=epochs,
            )

        result = jax.jit(training.make_run(recipe))(jax.random.key(1), rate, Batch(x, y))
        np.testing.assert_allclose(result.params["kernel"][:, 0], [1, -2, 0.5], atol=1e-3)
        assert int(result.state.step) == epochs * (32 // batch_size)


def test_full_batch_descent_equals_its_closed_form():
    """On a quadratic, gradient descent is a linear map: w_t − w* = (I − 2η H)^t (w_0 − w*), H = XᵀX/N."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 1))
    with jax.enable_x64(True):

        def recipe(hp):
            model = layers.dense(1, use_bias=False, kernel_init=lambda key, shape, dtype: jnp.ones(shape, dtype))
            loss = losses.mean_squared_error
            return training.Recipe(model=model, loss=loss, optimizer=optimizers.sgd(hp), batch_size=20, epochs=25)

        result = jax.jit(training.make_run(recipe))(jax.random.key(0), 0.05, Batch(x, y))
        best = np.linalg.lstsq(x, y, rcond=None)[0]
        shrink = np.linalg.matrix_power(np.eye(3) - 0.1 * x.T @ x / 20, 25)
        np.testing.assert_allclose(result.params["kernel"], best + shrink @ (np.ones((3, 1)) - best), rtol=1e-10)


@pytest.mark.parametrize(("last_batch", "steps"), [("pad", 5), ("drop", 4)])
def test_the_last_batch(problem, last_batch, steps):
    result = jax.jit(training.make_run(problem.recipe(last_batch=last_batch, epochs=3)))(
        problem.key, problem.hparams, problem.train
    )
    assert int(result.state.step) == 3 * steps


def test_every_example_counts_once_in_the_training_loss():
    """With a rate of 0 the epoch's loss is the mean loss over the data, whatever the order and the padding."""
    x = jax.random.normal(jax.random.key(0), (70, 3))
    train = Batch(x, jnp.sum(x, 1, keepdims=True), jnp.arange(70.0))

    def recipe(hp):
        return training.Recipe(
            model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(hp), batch_size=16, epochs=2
        )

    result = jax.jit(training.make_run(recipe))(jax.random.key(1), 0.0, train, train)
    error = (x @ result.params["kernel"] - train.y)[:, 0] ** 2
    expected = float(jnp.sum(error * train.weight) / jnp.sum(train.weight))
    np.testing.assert_allclose(result.history["train_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(result.history["valid_loss"], expected, rtol=1e-5)


def test_shuffling_can_be_switched_off(problem):
    recipe = problem.recipe(shuffle=False, epochs=1)
    keys = training.RunKeys(*jax.random.split(problem.key, 3))
    run = jax.jit(training.make_run(recipe))
    first = run(keys, problem.hparams, problem.train)
    other = run(keys._replace(order=jax.random.key(99)), problem.hparams, problem.train)
    assert_equal(first, other)


@pytest.mark.slow  # in CI under the default options of the compiler
def test_gradient_with_respect_to_hyperparameters(problem):
    """Reverse mode through the whole run, with BatchNorm, dropout and Adam, against differences in float64."""
    with jax.enable_x64(True):
        widen = lambda batch: Batch(jnp.asarray(batch.x, jnp.float64), batch.y)  # noqa: E731
        train, valid = widen(problem.train), widen(problem.valid)
        run = training.make_run(problem.recipe(epochs=3))

        @jax.jit
        def final_loss(log_rate, l2):
            hparams = {"learning_rate": jnp.exp(log_rate), "l2": l2, "drop_rate": 0.2}
            return run(problem.key, hparams, train, valid).history["valid_loss"][-1]

        point = (np.log(0.01), 1e-3)
        slopes = jax.jit(jax.grad(final_loss, (0, 1)))(*point)
        tangents = jax.jit(lambda *p: jax.jvp(final_loss, p, (1.0, 0.0)))(*point)[1]
        np.testing.assert_allclose(tangents, slopes[0], rtol=1e-9)
        for index, step in enumerate((1e-5, 1e-6)):
            high, low = (tuple(p + sign * step * (i == index) for i, p in enumerate(point)) for sign in (1, -1))
            numeric = (final_loss(*high) - final_loss(*low)) / (2 * step)
            np.testing.assert_allclose(slopes[index], numeric, rtol=1e-5)


@pytest.mark.slow
def test_the_history_of_a_run_that_learns_nothing_has_a_derivative():
    """The gradient's norm, a root, has none at zero; and no entry may spoil another one's."""
    x = jnp.zeros((8, 2))

    def recipe(learning_rate):
        return training.Recipe(
            model=layers.dense(1, use_bias=False),
            loss=losses.mean_squared_error,
            optimizer=optimizers.sgd(learning_rate),
            batch_size=4,
            epochs=2,
        )

    def history(learning_rate):
        return training.make_run(recipe)(jax.random.key(0), learning_rate, Batch(x, jnp.ones((8, 1)))).history

    value, slope = history(0.1), jax.jit(jax.jacrev(history))(0.1)
    assert value["train_loss"].tolist() == [1, 1] and value["gradient_norm"].tolist() == [0, 0]
    assert slope["train_loss"].tolist() == slope["gradient_norm"].tolist() == [0, 0]


@pytest.mark.slow
def test_static_hyperparameters_are_plain_values_in_the_recipe(problem):
    seen = []

    def recipe(hp):
        seen.append(hp["batch_size"])
        return problem.recipe(epochs=1)(hp)._replace(batch_size=hp["batch_size"])

    run = jax.jit(training.make_run(recipe))
    result = run(problem.key, {**problem.hparams, "batch_size": Static(35)}, problem.train)
    assert seen[0] == 35 and type(seen[0]) is int and int(result.state.step) == 2
    with pytest.raises(TypeError, match=r"^batch_size: expected a Python int, got a traced value.*Static"):
        run(problem.key, {**problem.hparams, "batch_size": 35}, problem.train)


@pytest.mark.slow
def test_optax_optimizers_train_like_ours(problem):
    """Any optax optimizer goes in; adam of optax and ours give the same run."""
    ours = jax.jit(training.make_run(problem.recipe(epochs=2)))(problem.key, problem.hparams, problem.train)
    theirs_recipe = problem.recipe(epochs=2, optimizer=lambda hp: optax.adam(hp["learning_rate"]))
    theirs = jax.jit(training.make_run(theirs_recipe))(problem.key, problem.hparams, problem.train)
    assert_equal(ours.params, theirs.params, rtol=1e-3, atol=1e-5)
    assert "learning_rate" in ours.history and "learning_rate" not in theirs.history


def test_old_style_keys_work(problem):
    run = jax.jit(training.make_run(problem.recipe(epochs=1)))
    result = run(jax.random.PRNGKey(0), problem.hparams, problem.train)
    assert bool(jnp.isfinite(result.history["train_loss"][0]))
