"""Careless calls, each named at once: argument, what was expected, what came. One loop an area: all are tried."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import checking, data, initializers, layers, losses, metrics, optimizers, plots, training
from jaxopt_nn.types import Batch

KEY, X, IMAGES, SEQUENCE = jax.random.key(0), jnp.ones((4, 6)), jnp.ones((2, 8, 8, 4)), jnp.ones((2, 5, 8))
PARAMS = {"kernel": jnp.ones((6, 3)), "bias": jnp.zeros(3)}


def _used(layer, x=X, **options):
    params, state = layer.init(KEY, x)
    return layer.apply(params, state, x, train=True, key=KEY, **options)


def _all_named(calls):
    """Raises where a call passes, or fails in other words."""
    for call, error, match in calls:
        with pytest.raises(error, match=match):
            call()


def test_layers():
    model = layers.serial(layers.dense(3), layers.batch_norm())
    params, state = model.init(KEY, X)
    _all_named(
        [
            # A factory, a class or something else in the place of a layer.
            (lambda: layers.serial(layers.dense, jax.nn.relu), TypeError, r"^layer: .*the function dense .*call it"),
            (lambda: layers.residual(layers.batch_norm), TypeError, r"^layer: .*the function batch_norm .*call it"),
            (lambda: layers.eval_mode(int), TypeError, r"^layer: expected a Layer or a function.*<class 'int'>"),
            (lambda: layers.serial(lambda: 1), TypeError, r"^layer: expected a Layer or a function of an array"),
            (lambda: layers.serial(initializers.he_normal()), TypeError, r"^layer: expected a Layer or a function"),
            (lambda: layers.transformer_block(2, norm=layers.layer_norm()), TypeError, r"^norm: .*without \(\)"),
            (
                lambda: layers.mlp([3, 2], norm=layers.dense),
                TypeError,
                r"^norm: expected a function that makes",
            ),
            (lambda: layers.mlp([3, 2], norm=dict), TypeError, r"^norm: expected .* got one that makes \{\}"),
            (lambda: layers.mlp(3), TypeError, r"^widths: expected a list of ints.*got 3"),
            (lambda: layers.simple_rnn(3, activation="tanh"), TypeError, r"^activation: expected a function.*'tanh'"),
            (lambda: layers.graph([layers.dense(3)], outputs="a"), TypeError, r"^nodes: expected a dictionary"),
            # Initializers.
            (lambda: layers.dense(3, kernel_init="he_normal"), TypeError, r"^kernel_init: expected an initializer.*he"),
            (lambda: layers.dense(3, bias_init=initializers.zeros), TypeError, r"^bias_init: expected an initializer"),
            (lambda: layers.conv(3, 3, kernel_init=0.1), TypeError, r"^kernel_init: expected an initializer.*got 0\.1"),
            (lambda: layers.lstm(3, recurrent_init=[]), TypeError, r"^recurrent_init: expected an initializer.*\[\]"),
            (lambda: layers.multi_head_attention(2, bias_init=int), TypeError, r"^bias_init: expected an initializer"),
            (lambda: layers.embedding(3, 2, embedding_init="n"), TypeError, r"^embedding_init: expected an initial"),
            (
                lambda: layers.dense(3, kernel_init=jax.nn.initializers.he_normal).init(KEY, X),
                ValueError,
                r"^kernel_init: expected an initializer that makes an array \[6, 3\], got <function",
            ),
            # Flags, choices and numbers.
            (lambda: layers.dense(3, use_bias="no"), TypeError, r"^use_bias: expected True or False, got 'no'"),
            (lambda: layers.average_pool(2, count_padding=1), TypeError, r"^count_padding: expected True or False"),
            (lambda: layers.gru(3, reset_after=None), TypeError, r"^reset_after: expected True or False, got None"),
            (lambda: layers.lstm(3, return_sequences=0), TypeError, r"^return_sequences: expected True or False"),
            (lambda: layers.multi_head_attention(2, causal="yes"), TypeError, r"^causal: expected True or False"),
            (lambda: layers.layer_norm(use_scale=2), TypeError, r"^use_scale: expected True or False"),
            (lambda: layers.repeat(layers.dense(6), 2, remat="yes"), TypeError, r"^remat: expected True or False"),
            (lambda: layers.batch_norm(convention=["torch"]), ValueError, r'^convention: expected "flax", "torch" or'),
            (lambda: layers.conv(3, b"33"), TypeError, r"^kernel_size: expected a positive int"),
            (lambda: layers.embedding(3, 2, padding_id=True), ValueError, r"^padding_id: expected an int .*got True"),
            (lambda: layers.embedding(3, 2, dtype="wide"), TypeError, r"^dtype: expected a dtype.*got 'wide'"),
            # What a model is called with.
            (lambda: model.apply(None, state, X), TypeError, r"^params: expected the dictionary that init returned"),
            (lambda: model.apply(params, [], X), TypeError, r"^state: expected the dictionary that init returned"),
            (lambda: model.apply(params, state, X, train="no"), TypeError, r"^train: expected True or False, got 'no'"),
            (lambda: model.apply(params, state, X, key="k"), TypeError, r"^key: expected a PRNG key, got 'k'"),
            (lambda: _used(model, weight=jnp.ones(3)), ValueError, r"^batch_norm_0: weight: expected one weight an"),
            (lambda: _used(model, weight=-jnp.ones(4)), ValueError, r"^batch_norm_0: weight\[0\]: expected .*>= 0"),
            (lambda: layers.dense(3).init(KEY, np.ones((4, 6), ">f4")), TypeError, r"^expected the machine's order"),
            (lambda: layers.summary(layers.dense(3), Batch(X, X)), TypeError, r"got a Batch: pass its x"),
            (lambda: layers.flatten([[1.0]]), TypeError, r"^expected one array, got a list"),
            (lambda: layers.lsuv(model, params, state, X * jnp.nan), ValueError, r"^x\[0, 0\]: expected a finite"),
        ]
    )


def test_losses_metrics_and_data():
    batch = Batch(np.ones((4, 2), "f"), np.array([0, 1, 0, 1]))
    _all_named(
        [
            (lambda: losses.weighted_mean(jnp.ones(3) * 1j), TypeError, r"^per_example: expected real numbers"),
            (lambda: losses.weighted_mean(jnp.ones(3), jnp.ones(3) * 1j), TypeError, r"^weight: expected real numbers"),
            (lambda: metrics.precision_recall_f1(-np.ones((2, 2))), ValueError, r"^confusion\[0, 0\]: .*count >= 0"),
            (lambda: data.transform(X, X), TypeError, r"^scaler: expected a Scaler.*got an array float32\[4, 6\]"),
            (lambda: data.split(KEY, batch, (0.5, 0.5), stratify=batch.y), ValueError, r"^stratify: expected True"),
            (lambda: data.split(KEY, batch, (0.5, 0.5), stratify=1), ValueError, r"^stratify: expected True, .*got 1"),
            (lambda: data.from_arrays(X, batch.y, dtype="wide"), TypeError, r"^dtype: expected a dtype"),
            (lambda: data.load_fashion_mnist(3), TypeError, r"^directory: expected a path, got 3"),
            (lambda: initializers.normal(0.1)(KEY, (3, -1)), ValueError, r"^shape: expected sizes >= 0"),
            (lambda: initializers.he_normal()(KEY, (3, 3), "wide"), TypeError, r"^dtype: expected a dtype"),
            (lambda: initializers.constant(0.1)(KEY, (3, 3), "wide"), TypeError, r"^dtype: expected a dtype"),
            (lambda: initializers.he_normal(mode=np.ones(2)), ValueError, r'^mode: expected "fan_in", "fan_out" or'),
        ]
    )


def test_optimizers():
    transform = optimizers.sgd(0.1)
    _all_named(
        [
            # A mask is checked where there is no decay for it, too.
            (lambda: optimizers.lamb(0.1, weight_decay=None, mask=0.5), TypeError, r"^mask: expected a pattern of"),
            (lambda: optimizers.lars(0.1, weight_decay=None, mask={}), TypeError, r"^mask: expected a pattern of"),
            (lambda: optimizers.sophia(0.1, weight_decay=None, mask=1, key=KEY), TypeError, r"^mask: expected a pat"),
            (lambda: optimizers.adafactor(0.1, mask=None), TypeError, r"^mask: expected a pattern of paths"),
            (lambda: optimizers.freeze(transform, int), TypeError, r"^frozen: expected a function \(path, leaf\)"),
            (lambda: optimizers.adafactor(0.1, min_size_to_factor="9"), TypeError, r"^min_size_to_factor: expected a"),
            (lambda: optimizers.adafactor(0.1, min_size_to_factor=-1), ValueError, r"^min_size_to_factor: expected"),
            (lambda: optimizers.scale_by_muon(coefficients=(1, 2)), TypeError, r"^coefficients: expected three"),
            (lambda: optimizers.scale_by_depth(int, 0.5), TypeError, r"^patterns: expected a list of patterns"),
            (
                lambda: optimizers.adam(0.1, convention=np.ones(2)),
                ValueError,
                r'^convention: expected "optax", .*arr',
            ),
            (lambda: optimizers.stochastic_round(0, X, jnp.bfloat16), TypeError, r"^key: expected a PRNG key"),
            (lambda: optimizers.scale_learning_rate(0.5, transform.init(PARAMS)), TypeError, r"^scale: expected a num"),
        ]
    )


def _recipe(model=None, **changes):
    model = layers.dense(3) if model is None else model
    parts = training.Recipe(model, losses.softmax_cross_entropy, optimizers.sgd(0.1), batch_size=4, epochs=1)
    return lambda hp: parts._replace(**changes)


def test_training():
    batch = Batch(X, jnp.array([0, 1, 2, 0]))
    state = training.init_state(PARAMS, optimizers.sgd(0.1), KEY)
    step = training.make_step(lambda params, model_state, batch, key: (0.0, ({}, {})), optimizers.sgd(0.1))

    def run(recipe):
        training.make_run(recipe)(KEY, None, batch, batch)

    _all_named(
        [
            (lambda: run(lambda: None), TypeError, r"^recipe: expected a function of hyperparameters"),
            (lambda: training.make_run(_recipe()(None)), TypeError, r"^recipe: expected a function.*got a Recipe"),
            (lambda: run(_recipe(jax.nn.relu)), ValueError, r"^model: expected parameters to train"),
            (lambda: run(_recipe(layers.dense)), TypeError, r"^layer: expected a Layer, got the function dense"),
            (
                lambda: run(_recipe(loss=metrics.accuracy)),
                TypeError,
                r"^loss: expected a loss, got the metric acc",
            ),
            (lambda: run(_recipe(loss=lambda: 0.0)), TypeError, r"^loss: expected a function \(outputs, targets\)"),
            (lambda: run(_recipe(loss=lambda o, t: np.sum(np.asarray(o)))), TypeError, r"^loss: .*got one in NumPy"),
            (lambda: run(_recipe(penalty=lambda p: None)), TypeError, r"^penalty: .*float scalar, got None"),
            (lambda: run(_recipe(metrics={1: metrics.accuracy})), TypeError, r"^metrics: expected names, .*got 1"),
            (lambda: run(_recipe(nonfinite_limit=1.5)), ValueError, r"^nonfinite_limit: expected an integer, got 1\.5"),
            (
                lambda: training.evaluate(_recipe(layers.dense(4)), None, state, batch),
                ValueError,
                r"^params\[bias\]: expected the shape \[4\] of this model, got \[3\]",
            ),
            (
                lambda: training.predict(_recipe(layers.dense(4)), None, state, X),
                ValueError,
                r"^params\[bias\]: expected the shape \[4\]",
            ),
            (lambda: training.fit(_recipe(), None, batch, key=KEY, progress_bar="y"), ValueError, r"^progress_bar: "),
            (lambda: training.make_step(lambda p, b: 0.0, optax.sgd(0.1)), TypeError, r"^loss_fn: expected a function"),
            (lambda: step(PARAMS, batch), TypeError, r"^state: expected a TrainState, as init_state makes one"),
            (
                lambda: training.init_state({"w": "abc"}, optax.sgd(0.1), KEY),
                TypeError,
                r"^params\[w\]: expected an",
            ),
        ]
    )


def test_checking_and_plots():
    linen = pytest.importorskip("flax.linen")
    w = jnp.arange(3.0)
    _all_named(
        [
            (lambda: checking.check_layer(linen.Dense(3), X, key=KEY), TypeError, r"^layer: .*layers\.from_linen"),
            (lambda: checking.check_layer(linen.Dense, X, key=KEY), TypeError, r"^layer: expected a function such as"),
            (lambda: checking.check_layer(layers.dense, X, key=KEY), TypeError, r"^layer: .*function dense.*call it"),
            (
                lambda: checking.check_layer(layers.dense(3), X * jnp.inf, key=KEY),
                ValueError,
                r"^x\[0, 0\]: expected",
            ),
            (
                lambda: checking.check_loss(losses.softmax_cross_entropy, X, jnp.array([0, 1, 2, 6]), key=KEY),
                ValueError,
                r"^labels\[3\]: expected a class label in \[0, 6\), got 6",
            ),
            (
                lambda: checking.check_optimizer(optimizers.adam, {"learning_rate": -1.0}, w, key=KEY),
                ValueError,
                r"^learning_rate: expected a finite number in \[0, inf\), got -1",
            ),
            (
                lambda: checking.check_optimizer(layers.dense, {"features": 3}, w, key=KEY),
                TypeError,
                r"^factory: .*got one that makes a Layer",
            ),
            (
                lambda: checking.check_gradients(int, w, key=KEY),
                TypeError,
                r"^f: expected a function, got <class",
            ),
            (lambda: plots.plot_history({1: [1.0]}), TypeError, r"^history: expected a dictionary with names"),
            (lambda: plots.plot_comparison([1.0], ylabel="y"), TypeError, r"^curves: expected a dictionary with"),
            (lambda: plots.plot_schedules({"a": 0.1}, 3), TypeError, r"^schedules\['a'\]: expected a function of the"),
        ]
    )
