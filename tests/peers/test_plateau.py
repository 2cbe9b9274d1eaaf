"""The plateau against the live classes of PyTorch and Keras."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxopt_nn.optimizers import reduce_on_plateau

LANES, EPOCHS = 200, 40


def _settings(rng, absolute):
    """Random settings and a metric: noisy, with flat stretches, now and then NaN or infinite, of either sign."""
    metric = rng.normal(size=EPOCHS).cumsum() * rng.choice([0.0, 0.01, 0.3]) + rng.choice([-20.0, 0.0, 20.0])
    for begin in rng.integers(0, EPOCHS, 3):
        metric[begin : begin + 6] = metric[begin]
    metric[1:][rng.random(EPOCHS - 1) < 0.1] = rng.choice([np.nan, np.inf])
    numbers = {
        "factor": rng.uniform(0.05, 0.95),
        "patience": int(rng.integers(0, 5)),
        "cooldown": int(rng.integers(0, 5)),
        "min_lr": rng.choice([0.0, 1e-3]),
        "rtol": 0.0 if absolute else rng.choice([0.0, 1e-4, 0.1]),
        "atol": rng.choice([0.0, 1e-4, 0.1]) if absolute else 0.0,
    }
    return numbers, metric, rng.choice([0.5, 5e-4])


def _ours(numbers, metrics, rates, **static):
    """The learning rates after each epoch, ``[lanes, epochs]``, in one program."""

    def lane(numbers, metric, rate):
        plateau = reduce_on_plateau(**numbers, **static)

        def step(state, value):
            state = plateau.update(value, state, rate * state.scale)
            return state, rate * state.scale

        return jax.lax.scan(step, plateau.init(), metric)[1]

    return jax.jit(jax.vmap(lane))(jax.tree.map(lambda *leaves: np.stack(leaves), *numbers), metrics, rates)


def _compare(theirs, absolute, **static):
    rng = np.random.default_rng(0)
    numbers, metrics, rates = zip(*(_settings(rng, absolute) for _ in range(LANES)), strict=True)
    # what is infinitely bad to the one mode is an improvement to the other, for theirs
    metrics = np.where(np.isinf(metrics) & (static["mode"] == "max"), -np.inf, metrics)
    expected = [theirs(n, m, float(r)) for n, m, r in zip(numbers, metrics, rates, strict=True)]
    with jax.enable_x64(True):
        ours = _ours(numbers, metrics, np.array(rates), **static)
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-36)  # Keras compares float32s, and stops before 0
    assert len(np.unique(expected)) > LANES  # something was reduced


@pytest.mark.parametrize("kind", ["rel", "abs"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_equals_torch(mode, kind):
    torch = pytest.importorskip("torch")

    def theirs(numbers, metric, rate):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode,
            numbers["factor"],
            numbers["patience"],
            numbers["rtol"] if kind == "rel" else numbers["atol"],
            kind,
            numbers["cooldown"],
            numbers["min_lr"],
        )
        rates = []
        for value in metric:
            scheduler.step(value)
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    _compare(theirs, kind == "abs", mode=mode, convention="torch", signed_threshold=True, min_change=1e-8)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_equals_keras(mode):
    keras = pytest.importorskip("keras")

    def theirs(numbers, metric, rate):
        callback = keras.callbacks.ReduceLROnPlateau(
            "loss",
            numbers["factor"],
            numbers["patience"],
            mode=mode,
            min_delta=numbers["atol"],
            cooldown=numbers["cooldown"],
            min_lr=numbers["min_lr"],
        )
        model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=rate))
        callback.set_model(model)
        callback.on_train_begin()
        rates = []
        for epoch, value in enumerate(metric):
            callback.on_epoch_end(epoch, {"loss": value})
            rates.append(model.optimizer.learning_rate)
        return rates

    _compare(theirs, True, mode=mode, convention="keras")
