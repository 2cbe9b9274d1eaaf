"""The records of the monitor against NumPy, closed forms, and networks where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, monitor, training
from jaxopt_nn.monitor._noise import relative_length
from jaxopt_nn.training import LayerOutput, StepEnd
from jaxopt_nn.types import Batch

KEY = jax.random.key(0)


def _step_end(**parts):
    blank = dict.fromkeys(StepEnd._fields)
    return StepEnd(**{**blank, "batch": Batch(jnp.zeros((4, 2)), jnp.zeros(4, int)), **parts})


def test_flow_are_the_norms_of_numpy():
    rng = np.random.default_rng(0)
    trees = [{"dense_0": {"kernel": rng.normal(size=(3, 4)), "bias": np.zeros(4)}} for _ in range(3)]
    gradient, update, params = (jax.tree.map(jnp.float32, tree) for tree in trees)
    found = monitor.gradient_flow()["flow"].function(_step_end(gradient=gradient, update=update, params=params))
    for kind, tree in zip(("gradient", "update", "parameter"), trees, strict=True):
        np.testing.assert_allclose(found[kind]["dense_0/kernel"], np.linalg.norm(tree["dense_0"]["kernel"]), rtol=1e-6)
    sizes = [np.linalg.norm(tree["dense_0"]["kernel"]) for tree in trees[1:]]
    np.testing.assert_allclose(found["ratio"]["dense_0/kernel"], sizes[0] / sizes[1], rtol=1e-6)
    assert np.isnan(found["ratio"]["dense_0/bias"])


def test_histograms_are_those_of_numpy():
    leaf = np.concatenate([np.zeros(50), 10 ** np.random.default_rng(0).uniform(-12, 4, 950)]).astype("float32")
    record = monitor.histograms()["histogram"]
    tree = {"w": jnp.asarray(leaf)}
    found = record.function(_step_end(gradient=tree, update=tree, params=tree))["gradient"]["w"]
    edges = [-np.inf, *(10.0**power for power in range(-10, 3)), np.inf]
    np.testing.assert_allclose(found, np.histogram(leaf, edges)[0] / 1000, atol=1e-6)


def test_activations_count_examples_of_weight():
    """Unit 0 is dead, unit 1 was fed zeros alone, and a row of weight 0 says otherwise."""
    inputs = jnp.array([[-1.0, 0.0, 2.0], [-3.0, 0.0, 4.0], [9.0, 9.0, 9.0]])
    value, weight = jax.nn.relu(inputs), jnp.array([1.0, 3.0, 0.0])
    record = monitor.activations()["activation"]
    means = record.function(LayerOutput("relu_0", "relu", 1, inputs, value, weight))
    found = record.finish(means)
    flat, shares = np.asarray(value).ravel(), np.repeat(np.asarray(weight), 3)
    mean = np.average(flat, weights=shares)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(found["deviation"], np.sqrt(np.average((flat - mean) ** 2, weights=shares)), rtol=1e-5)
    assert float(found["dead"]) == np.float32(1 / 3) and "saturated" not in found
    tanh = jnp.array([[0.98, -0.99], [0.0, 0.5]])
    found = record.function(LayerOutput("tanh_0", "tanh", 1, tanh, tanh, None))
    assert float(found["saturated"]) == 0.5
    assert record.function(LayerOutput("ids", "lambda", 0, None, jnp.zeros(3, int), None)) is None


def test_the_noise_scale_of_gradients_whose_noise_is_known():
    """Gradients are G and noise of variance 1/B in each of 1,000 numbers: tr(Σ) = 1000, |G|² = 10."""
    record, rng = monitor.gradient_noise()["noise"], np.random.default_rng(0)
    signal, examples = np.full(1000, 0.1), 4
    memory, seen = record.init({"w": jnp.zeros(1000)}), []
    for _ in range(400):
        gradient = {"w": jnp.asarray(signal + rng.normal(size=1000) / np.sqrt(examples), jnp.float32)}
        values, memory = record.function(_step_end(gradient=gradient), memory)
        seen.append(values)
    found = record.finish(jax.tree.map(lambda *values: jnp.nanmean(jnp.stack(values)), *seen))
    np.testing.assert_allclose(found["scale"], 100.0, rtol=0.05)
    np.testing.assert_allclose(found["signal_to_noise"]["w"], np.sqrt(10 / 250), rtol=0.05)


@pytest.mark.parametrize(("end", "alpha"), [(0.5, -0.5), (1.0, 0.0), (1.5, 0.5), (2.0, 1.0), (0.01, -0.99)])
def test_where_a_step_ends_on_a_parabola(end, alpha):
    """Of f(x) = (x − 1)², from 0 to ``end``; and NumPy's least squares where the four figures fit no parabola."""
    figures = (1.0, (end - 1) ** 2, -2.0 * end, 2 * (end - 1) * end)
    np.testing.assert_allclose(relative_length(*map(jnp.float32, figures)), alpha, atol=1e-5)
    noisy = np.add(figures, [0.0, 0.05, -0.02, 0.03])
    rows = [[1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 2]]
    _, b, c = np.linalg.lstsq(np.array(rows, float), noisy, rcond=None)[0]
    np.testing.assert_allclose(relative_length(*map(jnp.float32, noisy)), max(-1 - 2 * c / b, -1), rtol=1e-3)


def test_inputs_and_targets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) * [1, 100, 0] + [0, 0, 5]
    y = rng.integers(0, 3, 500)
    records = monitor.inputs()
    end = _step_end(batch=Batch(jnp.float32(x), jnp.asarray(y)))
    found = records["input"].finish(records["input"].function(end))
    deviations = x.std(0)[:2]
    np.testing.assert_allclose(found["spread"], deviations.max() / np.median(deviations), rtol=1e-3)
    np.testing.assert_allclose(found["largest"], np.sqrt((x[:, 1] ** 2).mean()), rtol=1e-4)
    shares = np.bincount(y) / 500
    entropy = records["target"].finish(records["target"].function(end))["entropy"]
    np.testing.assert_allclose(entropy, -(shares * np.log(shares)).sum(), rtol=1e-5)


@pytest.fixture(scope="module")
def watched():
    x = jax.random.normal(KEY, (64, 4))
    train = Batch(x, jnp.argmax(x[:, :3], 1))

    def recipe(rate):
        return training.Recipe(
            model=layers.serial(layers.dense(8), jnp.tanh, layers.dense(3)), loss=losses.softmax_cross_entropy,
            optimizer=optax.sgd(rate), batch_size=16, epochs=3, record=monitor.watch() | monitor.histograms(2),
        )  # fmt: skip

    run = jax.vmap(training.make_run(recipe), (None, 0, None, None))
    return jax.jit(run)(KEY, jnp.array([1e-7, 0.1]), train, train)


@pytest.mark.slow
def test_all_of_it_in_lanes(watched):
    history = watched.history
    assert history["activation/tanh_0/saturated"].shape == history["step_length"].shape == (2, 3)
    assert history["histogram/gradient/dense_1/kernel"].shape == (2, 3, 14)
    np.testing.assert_allclose(history["histogram/update/dense_0/bias"].sum(-1), 1, rtol=1e-5)
    # Of gradient descent an update is the rate times the gradient.
    ratio = history["flow/update/dense_0/kernel"] / history["flow/gradient/dense_0/kernel"]
    np.testing.assert_allclose(ratio, [[1e-7] * 3, [0.1] * 3], rtol=1e-3)
    # The norm of the whole gradient is that of the leaves' norms, up to the mean over steps.
    assert (history["step_length"][0] < -0.999).all() and (history["step_length"][1] > -0.999).all()
    assert np.isfinite(history["noise/scale"]).all()


def test_one_lane_is_diagnosed_and_drawn(watched):
    with pytest.raises(ValueError, match=r"^result: expected that of one run, got lanes \[2\]: take one by"):
        monitor.diagnose(watched)
    slow = jax.tree.map(lambda leaf: leaf[0], watched)
    assert monitor.diagnose(slow).names == ("rate too low",)
    assert "learning_rate_range_test" in str(monitor.diagnose(slow))
    figure = monitor.plot(slow, title="too slow")
    titles = [axes.get_title() for axes in figure.axes]
    assert "update / parameter" in titles and "where steps end (α)" in titles


def test_the_memory_of_a_run_does_not_grow_with_its_steps():
    def recipe(rate):
        return training.Recipe(
            model=layers.dense(3), loss=losses.softmax_cross_entropy, optimizer=optax.sgd(rate), batch_size=4,
            epochs=2, record=monitor.gradient_flow() | monitor.activations(),
        )  # fmt: skip

    def shapes(examples):
        train = Batch(jnp.zeros((examples, 2)), jnp.zeros(examples, int))
        return jax.eval_shape(training.make_run(recipe), KEY, 0.1, train).history

    assert shapes(8) == shapes(800)


def test_what_is_no_result_is_refused():
    with pytest.raises(TypeError, match=r"^result: expected the result of a run, or its history, got a dict"):
        monitor.diagnose({"loss": [1.0]})
    with pytest.raises(ValueError, match=r"^every: expected .* got 0"):
        monitor.watch(0)
    with pytest.raises(ValueError, match=r"^record\['flow'\]\.every: expected .* got -1"):
        training.make_run(
            lambda rate: training.Recipe(
                layers.dense(1), losses.mean_squared_error, optax.sgd(rate), record=monitor.gradient_flow(-1)
            )
        )(KEY, 0.1, Batch(jnp.zeros((40, 2)), jnp.zeros((40, 1))))
