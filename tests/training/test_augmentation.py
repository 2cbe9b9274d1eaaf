"""Augmentation in a run: what an example gets depends on the seed, the epoch and the example alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import augment, layers, losses, metrics, optimizers, sweeps, training
from jaxopt_nn.augment._batches import example_keys
from jaxopt_nn.types import Batch

N, EPOCHS = 10, 2
TRAIN = Batch(jnp.zeros((N, 3)), jnp.arange(N, dtype=jnp.float32)[:, None])
KEYS = training.RunKeys(*jax.random.split(jax.random.key(0), 3))


def recipe_of(augmentation, **changes):
    parts = training.Recipe(
        model=layers.dense(1),
        loss=losses.mean_squared_error,
        optimizer=optimizers.sgd(0.0),
        batch_size=4,
        epochs=EPOCHS,
        augment=augmentation,
    )
    return lambda hp: parts._replace(**changes)


def seen(train=TRAIN, keys=KEYS, **changes):
    """The pairs (example, its features) of all epochs: an example is known by its target."""
    pairs = set()

    def record(x, y):
        pairs.update((float(target), row.tobytes()) for target, row in zip(np.ravel(y), np.asarray(x), strict=True))

    def augmentation(batch, example_keys):
        batch = augment.random_noise(1.0)(batch, example_keys)
        jax.debug.callback(record, batch.x, batch.y)
        return batch

    run = jax.jit(training.make_run(recipe_of(augmentation, **changes)))
    jax.block_until_ready(run(keys, None, train))
    jax.effects_barrier()
    return pairs


def test_an_example_gets_the_same_whatever_the_batches_are():
    expected = seen()
    assert len(expected) == N * EPOCHS  # another one in each epoch
    assert seen(batch_size=3, shuffle=False) == expected  # the last batch is padded with example 0
    assert seen(keys=KEYS._replace(order=jax.random.key(7)), batch_size=N, micro_batches=2) == expected


def test_keys_do_not_depend_on_the_other_examples():
    """Of the generator RBG, ``vmap`` draws from the first key alone."""

    @jax.jit
    def draw(key, epoch, rows):
        return jax.vmap(jax.random.normal)(example_keys(key, epoch, rows))

    for key in (jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")):
        four, two = draw(key, 0, jnp.array([5, 3, 0, 8])), draw(key, 0, jnp.array([3, 5]))
        assert np.array_equal(two, four[jnp.array([1, 0])]) and len(set(four.tolist())) == 4
        assert not np.isin(draw(key, 1, jnp.array([3, 5])), four).any()
        assert not np.isin(draw(jax.random.fold_in(key, 1), 0, jnp.array([3, 5])), four).any()


@pytest.mark.slow
def test_lanes_are_single_runs():
    def recipe(rate):
        return recipe_of(augment.random_noise(rate), optimizer=optimizers.sgd(0.1))(None)

    run = training.make_run(recipe)
    noise = jax.random.split(jax.random.key(3), 2)
    both = jax.jit(jax.vmap(run, (training.RunKeys(None, None, 0), 0, None)))
    lanes = both(KEYS._replace(noise=noise), jnp.array([0.5, 2.0]), TRAIN)
    assert not np.allclose(lanes.history["train_loss"][0], lanes.history["train_loss"][1])
    for lane, rate in enumerate((0.5, 2.0)):
        single = run(KEYS._replace(noise=noise[lane]), rate, TRAIN)
        np.testing.assert_allclose(lanes.history["train_loss"][lane], single.history["train_loss"], rtol=1e-5)


@pytest.mark.slow
def test_fit_and_a_run_that_goes_on_are_the_run(tmp_path):
    def recipe(epochs):
        return recipe_of(augment.random_noise(1.0), optimizer=optimizers.adam(0.1), epochs=epochs)

    expected = training.make_run(recipe(3))(KEYS, None, TRAIN)
    checkpoint = training.Checkpoint(tmp_path / "run", every_steps=2)

    def stop(end):
        raise KeyboardInterrupt

    training.fit(recipe(3), None, TRAIN, key=KEYS, checkpoint=checkpoint, callbacks=[stop])
    result = training.fit(recipe(3), None, TRAIN, key=KEYS, checkpoint=checkpoint)
    assert all(map(np.array_equal, jax.tree.leaves(result.params), jax.tree.leaves(expected.params)))


@pytest.mark.slow
def test_a_stream_of_the_same_batches_is_the_run():
    recipe = recipe_of(augment.random_noise(1.0), optimizer=optimizers.adam(0.1), shuffle=False)
    expected = training.make_run(recipe)(KEYS, None, TRAIN)
    batches = [
        jax.tree.map(lambda leaf, first=first: np.asarray(leaf[first : first + 4]), TRAIN) for first in (0, 4, 8)
    ]
    result = training.fit(recipe, None, batches, key=KEYS)
    np.testing.assert_allclose(result.history["train_loss"], expected.history["train_loss"], rtol=1e-6)


def primitives(program, *arguments):
    return str(jax.make_jaxpr(program)(*arguments))


def test_what_is_not_asked_for_is_not_in_the_program():
    def plain(batch, keys):
        return batch

    without = primitives(training.make_run(recipe_of(None)), KEYS, None, TRAIN)
    assert "random_wrap" not in without
    assert "random_wrap" in primitives(training.make_run(recipe_of(augment.random_noise(1.0))), KEYS, None, TRAIN)
    result = training.make_run(recipe_of(None))(KEYS, None, TRAIN)

    def fails(batch, keys):
        raise AssertionError("called in evaluation")

    assert training.evaluate(recipe_of(fails), None, result, TRAIN)["loss"] >= 0
    training.predict(recipe_of(fails), None, result, TRAIN.x)


def test_validation_sees_no_augmentation():
    zero = recipe_of(lambda batch, keys: batch._replace(x=batch.x + 1e3), optimizer=optimizers.sgd(0.0))
    result = training.make_run(zero)(KEYS, None, TRAIN, TRAIN)
    expected = training.evaluate(recipe_of(None), None, result, TRAIN)["loss"]
    np.testing.assert_allclose(result.history["valid_loss"], float(expected), rtol=1e-6)
    assert result.history["train_loss"].min() > 100 * expected


@pytest.mark.slow
def test_mixed_targets_train_a_classifier():
    x = jax.random.normal(jax.random.key(1), (64, 6, 6, 1))
    data = Batch(x, (x.mean((1, 2, 3)) > 0).astype(jnp.int32))

    def recipe(alpha):
        return training.Recipe(
            model=layers.serial(layers.flatten, layers.dense(2)),
            loss=losses.softmax_cross_entropy,
            metrics={"accuracy": metrics.accuracy},
            optimizer=optimizers.adam(0.03),
            batch_size=24,
            epochs=20,
            augment=augment.mixup(alpha, num_classes=2),
        )

    result = training.make_run(recipe)(KEYS, 0.5, data, data)
    assert result.history["valid_accuracy"][-1] > 0.9 and training.Status(int(result.status)).name == "COMPLETED"


def shifted(batch, keys):
    return batch._replace(x=batch.x + 5.0)


@pytest.mark.slow
def test_range_test_and_statistics_are_augmented():
    model = layers.serial(layers.batch_norm(), layers.dense(1))
    result = training.make_run(recipe_of(None, model=model))(KEYS, None, TRAIN)
    after = training.update_batch_statistics(
        recipe_of(shifted, model=model), None, result, TRAIN, key=jax.random.key(0)
    )
    np.testing.assert_allclose(after.model_state["batch_norm_0"]["mean"], 5.0, rtol=1e-5)
    test = training.learning_rate_range_test(recipe_of(shifted), TRAIN, key=KEYS, high=1e-4, low=1e-5, steps=2)
    plain = training.learning_rate_range_test(recipe_of(None), TRAIN, key=KEYS, high=1e-4, low=1e-5, steps=2)
    assert not np.allclose(test.loss, plain.loss)


@pytest.mark.slow
def test_replay_and_hypergradients_see_the_same_examples():
    recipe = recipe_of(augment.random_noise(1.0), optimizer=optimizers.sgd(0.01), batch_size=5)
    result = training.make_run(recipe)(KEYS, None, TRAIN, TRAIN)
    again = training.replay(recipe, None, result, TRAIN, TRAIN, key=KEYS, steps=2)
    assert again.exact
    np.testing.assert_allclose(again.loss.mean(), result.history["train_loss"][-1], rtol=1e-6)
    loss = sweeps.validation_loss(recipe, None, TRAIN, TRAIN, key=KEYS)
    np.testing.assert_allclose(loss, result.history["valid_loss"][-1], rtol=1e-6)


LABELS = TRAIN._replace(y=jnp.arange(N) % 3)


@pytest.mark.parametrize(
    ("augmentation", "train", "error", "match"),
    [
        (3, TRAIN, TypeError, r"^augment: expected a function \(batch, keys\) -> batch"),
        (augment.random_crop, TRAIN, TypeError, r"^augment: expected a function"),
        (lambda batch, keys: batch.x, TRAIN, TypeError, r"^augment: expected it to return a Batch"),
        (lambda batch, keys: batch._replace(x=batch.x[:, :2]), TRAIN, ValueError, r"^augment: expected features like"),
        (
            lambda batch, keys: batch._replace(y=batch.y[:2]),
            TRAIN,
            ValueError,
            r"^augment: expected targets and weights",
        ),
        (lambda batch, keys: batch._replace(weight=None), TRAIN, ValueError, r"^augment: expected the batch's weight"),
        (augment.random_crop(2), TRAIN, ValueError, r"^x: expected images \[N, height, width, channels\], got the sha"),
        (augment.mixup(), LABELS, TypeError, r"^mixup: expected num_classes, to mix integer labels y int32\[10\]"),
        (augment.mixup(num_classes=3), TRAIN, TypeError, r"^mixup: expected targets y that are integer class labels"),
        (
            augment.mixup(num_classes=2),
            LABELS,
            ValueError,
            r"^mixup: y\[2\]: expected a class label in \[0, 2\), got 2",
        ),
    ],
)
def test_bad_input(augmentation, train, error, match):
    loss = losses.softmax_cross_entropy if train is LABELS else losses.mean_squared_error
    with pytest.raises(error, match=match):
        training.make_run(recipe_of(augmentation, loss=loss, model=layers.dense(3 if train is LABELS else 1)))(
            KEYS, None, train
        )
