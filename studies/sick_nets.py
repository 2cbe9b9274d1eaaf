"""Networks built to have one thing wrong with them, and healthy ones: what ``monitor.diagnose`` says about each.

``python -m studies.sick_nets [NAME ...]`` runs 20 seeds of each illness and 50 healthy networks, and prints how many
are told right. Networks of one structure are lanes of one program.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_nn import initializers, layers, losses, metrics, monitor, optimizers, schedules, training
from jaxopt_nn.types import Batch

__all__ = ["HEALTHY", "ILLNESSES", "Kind", "diagnosed"]

Generator = np.random.Generator
Data = tuple[Batch, Batch]


class Kind(NamedTuple):
    """Networks of one structure.

    Attributes:
        recipe: from a number to a recipe, without records.
        number: draws that number: what differs from seed to seed beside data and initial values.
        data: draws training and validation data.
    """

    recipe: Callable[[Any], training.Recipe]
    number: Callable[[Generator], float] = lambda rng: 0.0
    data: Callable[[Generator], Data] = lambda rng: clusters(rng)


def diagnosed(kinds: Sequence[Kind], seeds: Sequence[int], every: int = 2) -> list[tuple[monitor.Diagnosis, Any]]:
    """What is found in a run of each seed, with the history: of the kind ``seed % len(kinds)``."""
    found: dict[int, tuple[monitor.Diagnosis, Any]] = {}
    for index, kind in enumerate(kinds):
        own = [seed for seed in seeds if seed % len(kinds) == index]
        if not own:
            continue
        rngs = [np.random.default_rng(seed) for seed in own]
        numbers = jnp.asarray([kind.number(rng) for rng in rngs], jnp.float32)
        train, valid = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[kind.data(rng) for rng in rngs])

        def recipe(number: Any, kind: Kind = kind) -> training.Recipe:
            return kind.recipe(number)._replace(record=monitor.watch(every=every))

        keys = jax.vmap(jax.random.key)(jnp.asarray(own))
        lanes = jax.jit(jax.vmap(training.make_run(recipe)))(keys, numbers, train, valid)
        lanes = jax.tree.map(np.asarray, lanes._replace(state=None, params=None, model_state=None))
        for place, seed in enumerate(own):
            result = jax.tree.map(lambda leaf, place=place: leaf[place], lanes)
            found[seed] = monitor.diagnose(result), result.history
    return [found[seed] for seed in seeds]


def clusters(rng: Generator, examples: int = 512, noise: float = 0.6, wrong: float = 0.0) -> Data:
    """Four classes of two clusters each, so that no linear function tells them apart, but a small network does."""
    centres = rng.standard_normal((8, 8))
    centres *= 1.6 / centres.std()
    parts: list[Batch] = []
    for count in (examples, 256):
        cluster = rng.integers(0, 8, count)
        x = centres[cluster] + noise * rng.standard_normal((count, 8))
        y = np.where(rng.random(count) < wrong, rng.integers(0, 4, count), cluster % 4)
        parts.append(Batch(jnp.asarray(x / 1.7, jnp.float32), jnp.asarray(y, jnp.int32)))
    return parts[0], parts[1]


def shuffled(rng: Generator) -> Data:
    train, valid = (part._replace(y=jnp.asarray(rng.permutation(np.asarray(part.y)))) for part in clusters(rng))
    return train, valid


def exclusive_or(rng: Generator) -> Data:
    """No linear function is better than none."""
    parts: list[Batch] = []
    for count in (512, 256):
        signs = rng.integers(0, 2, (count, 2))
        x = np.concatenate([2 * signs - 1 + 0.3 * rng.standard_normal((count, 2)), rng.standard_normal((count, 4))], 1)
        parts.append(Batch(jnp.asarray(x, jnp.float32), jnp.asarray(signs[:, 0] ^ signs[:, 1], jnp.int32)))
    return parts[0], parts[1]


def unscaled(first: float) -> Callable[[Generator], Data]:
    def data(rng: Generator) -> Data:
        scale = jnp.asarray(10 ** rng.uniform(-2, 3, 8), jnp.float32).at[:2].set(jnp.asarray([first, 1.0]))
        train, valid = (part._replace(x=part.x * scale[None]) for part in clusters(rng))
        return train, valid

    return data


def between(low: float, high: float) -> Callable[[Generator], float]:
    return lambda rng: float(rng.uniform(low, high))


def power(low: float, high: float) -> Callable[[Generator], float]:
    return lambda rng: float(10 ** rng.uniform(low, high))


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


def mlp(*widths: int, activation: Any = jax.nn.relu, outputs: int = 4, **options: Any) -> Any:
    return layers.mlp([*widths, outputs], activation, **options)


def deep(activation: Any, depth: int, optimizer: Any) -> Kind:
    init = initializers.xavier_normal()
    return Kind(lambda rate: recipe(mlp(*[32] * depth, activation=activation, kernel_init=init), optimizer(rate)),
                power(-3.3, -2.7))  # fmt: skip


def exploding(depth: int, optimizer: Any) -> Kind:
    def of_gain(gain: Any) -> training.Recipe:
        init = initializers.he_normal()
        larger = lambda key, shape, dtype=jnp.float32: gain * init(key, shape, dtype)  # noqa: E731
        return recipe(mlp(*[32] * depth, kernel_init=larger), optimizer)

    return Kind(of_gain, between(2.5, 4.0))


def dead(first: bool) -> Kind:
    def of_bias(bias: Any) -> training.Recipe:
        low = layers.dense(32, bias_init=initializers.constant(-bias))
        pair = [low, layers.dense(32)] if first else [layers.dense(32), low]
        hidden = [pair[0], jax.nn.relu, pair[1], jax.nn.relu]
        return recipe(layers.serial(*hidden, layers.dense(4)), optimizers.adam(1e-3))

    return Kind(of_bias, between(12, 20))


def saturated(activation: Any, low: float, high: float) -> Kind:
    def of_size(size: Any) -> training.Recipe:
        return recipe(mlp(32, 32, activation=activation, kernel_init=initializers.normal(size)), optimizers.adam(1e-3))

    return Kind(of_size, between(low, high))


def own_rate(factor: Any) -> training.Recipe:
    groups = {"dense_0/*": optimizers.adam(3e-3 * factor), "*": optimizers.adam(3e-3)}
    return recipe(mlp(32, 32), optimizers.parameter_groups(groups))


def gate(factor: Any) -> training.Recipe:
    """Hardly any gradient reaches the first layer."""

    def through(x: jax.Array) -> jax.Array:
        return factor * x + jax.lax.stop_gradient((1 - factor) * x)

    model = layers.serial(layers.dense(32), jax.nn.relu, through, layers.dense(32), jax.nn.relu, layers.dense(4))
    return recipe(model, optimizers.sgd(0.05, momentum=0.9))


def fading(rate: Any) -> training.Recipe:
    """A learning rate that is gone after a few epochs."""
    return recipe(mlp(16, 16), optimizers.adam(schedules.exponential_decay(rate, 8, 0.5)))


def small_and_noisy(rng: Generator) -> Data:
    return clusters(rng, examples=96, noise=1.2, wrong=0.1)


ILLNESSES: dict[str, tuple[Kind, ...]] = {
    "vanishing": (
        deep(jax.nn.sigmoid, 8, optimizers.adam),
        deep(jax.nn.sigmoid, 10, lambda rate: optimizers.sgd(100 * rate, momentum=0.9)),
    ),
    "exploding": (exploding(6, optimizers.adam(1e-3)), exploding(9, optimizers.sgd(1e-3))),
    "dead ReLUs": (dead(True), dead(False)),
    "saturated": (saturated(jnp.tanh, 1.5, 4.0), saturated(jax.nn.sigmoid, 6.0, 9.0)),
    "rate too high": (
        Kind(lambda rate: recipe(mlp(32, 32), optimizers.adam(rate)), power(-0.3, 0.7)),
        Kind(lambda rate: recipe(mlp(32, 32), optimizers.sgd(rate, momentum=0.9)), power(0.5, 1.5)),
    ),
    "rate too low": (
        Kind(lambda rate: recipe(mlp(32, 32), optimizers.adam(rate)), power(-7.5, -6)),
        Kind(lambda rate: recipe(mlp(32, 32), optimizers.sgd(rate)), power(-7, -5.3)),
    ),
    "overfitting": (
        Kind(
            lambda rate: recipe(mlp(128, 128), optimizers.adam(rate), epochs=60, batch_size=16),
            power(-3, -2.5),
            small_and_noisy,
        ),
    ),
    "underfitting": (
        Kind(lambda rate: recipe(layers.dense(2), optimizers.adam(rate)), power(-2.3, -1.7), exclusive_or),
        Kind(
            lambda rate: recipe(layers.serial(layers.dense(8), layers.dense(2)), optimizers.adam(rate)),
            power(-2.3, -1.7),
            exclusive_or,
        ),
    ),
    "plateau": (Kind(fading, power(-3.5, -3.0)),),
    "labels shuffled": (
        Kind(lambda rate: recipe(mlp(128, 128), optimizers.adam(rate), epochs=30), power(-3, -2.3), shuffled),
    ),
    "inputs not scaled": (
        Kind(lambda rate: recipe(mlp(32, 32), optimizers.adam(rate)), power(-3, -2.5), unscaled(1e3)),
        Kind(lambda rate: recipe(mlp(32, 32), optimizers.adam(rate)), power(-3, -2.5), unscaled(1e-2)),
    ),
    "first layer starved": (Kind(own_rate, power(-4, -2.5)), Kind(gate, power(-4, -3))),
}


def _healthy(model: Any, optimizer: Callable[[Any], Any], epochs: int = 20) -> Kind:
    return Kind(
        lambda rate: recipe(model, optimizer(rate), epochs=epochs),
        power(-3, -2.3),
        lambda rng: clusters(rng, examples=1024, noise=0.5),
    )


_XAVIER = {"kernel_init": initializers.xavier_normal()}
HEALTHY: tuple[Kind, ...] = (
    _healthy(mlp(64), optimizers.adam),
    _healthy(mlp(32, 32, norm=layers.batch_norm), lambda rate: optimizers.sgd(20 * rate, momentum=0.9)),
    _healthy(mlp(48, 48, 48, activation=jnp.tanh, **_XAVIER), optimizers.adam),
    _healthy(mlp(64, 64, activation=jax.nn.gelu, norm=layers.layer_norm), optimizers.adamw),
    _healthy(mlp(32, 32, 32, 32, activation=jax.nn.silu), optimizers.rmsprop),
    _healthy(mlp(96, 96, drop_rate=0.1), optimizers.adam),
    _healthy(mlp(64, 32, activation=jax.nn.elu), lambda rate: optimizers.sgd(20 * rate, momentum=0.9)),
    _healthy(mlp(32, activation=jax.nn.sigmoid, **_XAVIER), lambda rate: optimizers.adam(3 * rate), 40),
    _healthy(
        layers.serial(
            layers.dense(32),
            layers.repeat(layers.residual(layers.serial(layers.dense(32), jax.nn.relu)), 6),
            layers.dense(4),
        ),
        optimizers.adam,
    ),
    _healthy(mlp(*[32] * 6, norm=layers.batch_norm), optimizers.adam),
)
"""Usual networks of 1 to 6 hidden layers: activations, normalizations and optimizers in their usual ranges."""


def main() -> None:
    for name in sys.argv[1:] or [*ILLNESSES, "healthy"]:
        kinds, seeds = (HEALTHY, range(50)) if name == "healthy" else (ILLNESSES[name], range(20))
        expected = () if name == "healthy" else (name,)
        wrong = {
            seed: f"  seed {seed}: {', '.join(found.names)}; accuracy {float(history['valid_accuracy'][-1]):.2f}"
            for seed, (found, history) in zip(seeds, diagnosed(kinds, seeds), strict=True)
            if found.names[:1] != expected
        }
        print(f"{name}: {len(seeds) - len(wrong)} of {len(seeds)} right", *wrong.values(), sep="\n", flush=True)


if __name__ == "__main__":
    main()
