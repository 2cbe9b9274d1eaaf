"""Networks built to have one thing wrong with them, and healthy ones: what ``monitor.diagnose`` says about each.

``python -m studies.sick_nets`` runs 20 seeds of each illness and 50 healthy networks, and prints how many are told right.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import initializers, layers, losses, metrics, monitor, optimizers, schedules, training
from jaxopt_nn.types import Batch

__all__ = ["ILLNESSES", "Net", "diagnosed", "healthy"]


class Net(NamedTuple):
    """A run to look at.

    Attributes:
        parts: its recipe, without records.
        train: training data.
        valid: validation data.
    """

    parts: training.Recipe
    train: Batch
    valid: Batch


def data(
    seed: int, examples: int = 512, classes: int = 4, features: int = 8, noise: float = 0.6
) -> tuple[Batch, Batch]:
    """Classes of two clusters each, so that no linear function tells them apart, but a small network does."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((2 * classes, features))
    centres *= 1.6 / centres.std()
    parts: list[Batch] = []
    for count in (examples, 256):
        cluster = rng.integers(0, 2 * classes, count)
        x = centres[cluster] + noise * rng.standard_normal((count, features))
        parts.append(Batch(jnp.asarray(x / 1.7, jnp.float32), jnp.asarray(cluster % classes, jnp.int32)))
    return parts[0], parts[1]


def recipe(model: Any, optimizer: Any, **changes: Any) -> training.Recipe:
    base = training.Recipe(
        model=model,
        loss=losses.softmax_cross_entropy,
        optimizer=optimizer,
        metrics={"accuracy": metrics.accuracy},
        batch_size=32,
        epochs=15,
    )
    return base._replace(**changes)


def _mlp(*widths: int, activation: Any = jax.nn.relu, **options: Any) -> Any:
    return layers.mlp([*widths, 4], activation, **options)


def vanishing(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(7, 12))
    model = _mlp(
        *[int(rng.integers(24, 48))] * depth, activation=jax.nn.sigmoid, kernel_init=initializers.xavier_normal()
    )
    optimizer = optimizers.adam(1e-3) if seed % 2 else optimizers.sgd(0.1, momentum=0.9)
    return Net(recipe(model, optimizer), *data(seed))


def exploding(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    gain = float(rng.uniform(2.5, 4.0))
    init = initializers.variance_scaling(2 * gain**2, "fan_in", "normal")
    model = _mlp(*[32] * int(rng.integers(6, 10)), kernel_init=init)
    return Net(recipe(model, optimizers.adam(1e-3) if seed % 2 else optimizers.sgd(1e-3)), *data(seed))


def dead_relus(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    dead = layers.dense(32, bias_init=initializers.constant(-float(rng.uniform(12, 20))))
    hidden = [layers.dense(32), jax.nn.relu, dead, jax.nn.relu]
    if seed % 2:
        hidden = [dead, jax.nn.relu, layers.dense(32), jax.nn.relu]
    return Net(recipe(layers.serial(*hidden, layers.dense(4)), optimizers.adam(1e-3)), *data(seed))


def saturated(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    init = initializers.normal(float(rng.uniform(1.5, 4.0)))
    model = _mlp(32, 32, activation=jnp.tanh if seed % 2 else jax.nn.sigmoid, kernel_init=init)
    if not seed % 2:  # the slope of a sigmoid falls later
        model = _mlp(32, 32, activation=jax.nn.sigmoid, kernel_init=initializers.normal(float(rng.uniform(6.0, 9.0))))
    return Net(recipe(model, optimizers.adam(1e-3)), *data(seed))


def rate_too_high(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    rate = float(10 ** rng.uniform(-0.3, 0.7))
    optimizer = optimizers.adam(rate) if seed % 2 else optimizers.sgd(10 * rate, momentum=0.9)
    return Net(recipe(_mlp(32, 32), optimizer), *data(seed))


def rate_too_low(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    rate = float(10 ** rng.uniform(-7, -6))
    optimizer = optimizers.adam(rate) if seed % 2 else optimizers.sgd(10 * rate)
    return Net(recipe(_mlp(32, 32), optimizer), *data(seed))


def overfitting(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    train, valid = data(seed, examples=96, noise=1.2)
    wrong = jnp.asarray(rng.random(96) < 0.15)
    train = train._replace(y=jnp.where(wrong, jnp.asarray(rng.integers(0, 4, 96), jnp.int32), train.y))
    return Net(recipe(_mlp(128, 128), optimizers.adam(2e-3), epochs=60, batch_size=16), train, valid)


def underfitting(seed: int) -> Net:
    """Exclusive or: no linear function is better than none."""
    rng = np.random.default_rng(seed)
    parts: list[Batch] = []
    for count in (512, 256):
        signs = rng.integers(0, 2, (count, 2))
        x = np.concatenate([2 * signs - 1 + 0.3 * rng.standard_normal((count, 2)), rng.standard_normal((count, 4))], 1)
        parts.append(Batch(jnp.asarray(x, jnp.float32), jnp.asarray(signs[:, 0] ^ signs[:, 1], jnp.int32)))
    model = layers.serial(layers.dense(2)) if seed % 2 else layers.serial(layers.dense(8), layers.dense(2))
    return Net(recipe(model, optimizers.adam(1e-2)), parts[0], parts[1])


def plateau(seed: int) -> Net:
    """A learning rate that is gone after a tenth of the training."""
    rng = np.random.default_rng(seed)
    rate = schedules.exponential_decay(float(10 ** rng.uniform(-3.5, -3.0)), 8, 0.5)
    return Net(recipe(_mlp(16, 16), optimizers.adam(rate)), *data(seed))


def labels_shuffled(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    train, valid = (part._replace(y=jnp.asarray(rng.permutation(np.asarray(part.y)))) for part in data(seed))
    return Net(recipe(_mlp(128, 128), optimizers.adam(3e-3), epochs=30), train, valid)


def inputs_not_scaled(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    scale = jnp.asarray(10 ** rng.uniform(-2, 3, 8), jnp.float32).at[0].set(1e3 if seed % 2 else 1e-2)
    scale = scale.at[1].set(1.0)
    train, valid = (part._replace(x=part.x * scale) for part in data(seed))
    return Net(recipe(_mlp(32, 32), optimizers.adam(1e-3)), train, valid)


def first_layer_starved(seed: int) -> Net:
    """A rate of its own that is far too low, or a gate behind it that lets hardly anything through."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        factor = float(10 ** rng.uniform(-4, -2.5))
        groups = {"dense_0/*": optimizers.adam(3e-3 * factor), "*": optimizers.adam(3e-3)}
        optimizer = optimizers.parameter_groups(groups)
        return Net(recipe(_mlp(32, 32), optimizer), *data(seed))
    factor = float(10 ** rng.uniform(-4, -3))

    def backward_scaled(x: jax.Array) -> jax.Array:
        return factor * x + jax.lax.stop_gradient((1 - factor) * x)

    model = layers.serial(
        layers.dense(32), jax.nn.relu, backward_scaled, layers.dense(32), jax.nn.relu, layers.dense(4)
    )
    return Net(recipe(model, optimizers.sgd(0.05, momentum=0.9)), *data(seed))


ILLNESSES: dict[str, Callable[[int], Net]] = {
    "vanishing": vanishing,
    "exploding": exploding,
    "dead ReLUs": dead_relus,
    "saturated": saturated,
    "rate too high": rate_too_high,
    "rate too low": rate_too_low,
    "overfitting": overfitting,
    "underfitting": underfitting,
    "plateau": plateau,
    "labels shuffled": labels_shuffled,
    "inputs not scaled": inputs_not_scaled,
    "first layer starved": first_layer_starved,
}


def healthy(seed: int) -> Net:
    """Networks of 1 to 4 hidden layers, all usual activations, norms and optimizers, in their usual ranges."""
    rng = np.random.default_rng(1000 + seed)
    activation = [jax.nn.relu, jnp.tanh, jax.nn.gelu, jax.nn.silu, jax.nn.elu][seed % 5]
    norm = [None, layers.batch_norm, layers.layer_norm][seed % 3]
    widths = [int(rng.integers(24, 97))] * int(rng.integers(1, 5))
    drop_rate = 0.1 if seed % 4 == 0 else None
    init = initializers.xavier_normal() if activation is jnp.tanh else initializers.he_normal()
    model = layers.mlp([*widths, 4], activation, norm=norm, drop_rate=drop_rate, kernel_init=init)
    rate = float(10 ** rng.uniform(-3, -2.3))
    chosen = [
        optimizers.adam(rate),
        optimizers.sgd(20 * rate, momentum=0.9),
        optimizers.adamw(rate),
        optimizers.rmsprop(rate),
    ][seed % 4]
    epochs = int(rng.integers(10, 25))
    return Net(recipe(model, chosen, epochs=epochs), *data(seed, examples=1024, noise=0.5))


def diagnosed(net: Net, seed: int) -> tuple[monitor.Diagnosis, training.RunResult]:
    """What is found in the run of a network."""
    run = training.make_run(lambda hparams: net.parts._replace(record=monitor.watch(every=2)))
    result = jax.jit(run)(jax.random.key(seed), None, net.train, net.valid)
    return monitor.diagnose(result), result


def main() -> None:
    wanted, seeds = sys.argv[1:] or [*ILLNESSES, "healthy"], 20
    for name in wanted:
        make, count = (healthy, 50) if name == "healthy" else (ILLNESSES[name], seeds)
        wrong: list[str] = []
        for seed in range(count):
            found, result = diagnosed(make(seed), seed)
            right = not found.names if name == "healthy" else found.names[:1] == (name,)
            if not right:
                end = float(result.history["valid_accuracy"][-1])
                wrong.append(f"  seed {seed}: {found.names}, accuracy {end:.2f}")
        print(f"{name}: {count - len(wrong)} of {count} right", *wrong, sep="\n", flush=True)


if __name__ == "__main__":
    main()
