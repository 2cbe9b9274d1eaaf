import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, training
from jaxopt_nn.types import Batch


def result(**changes):
    fields = {
        "params": {"kernel": np.zeros(1000)},
        "model_state": {},
        "history": {"train_loss": np.arange(60.0), "valid_loss": np.arange(60.0), "valid_accuracy": np.full(60, 0.9)},
        "epochs": jnp.int32(44),
        "best_epoch": jnp.int32(33),
        "status": jnp.int32(training.Status.STOPPED_EARLY),
        "first_bad_step": jnp.int32(-1),
        "skipped_steps": jnp.int32(0),
        "state": None,
    }
    return training.RunResult(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "stopped early at epoch 44 of 60, at its best (epoch 34) validation accuracy 0.90"),
        (
            {"status": np.int32(0), "epochs": np.int32(60), "best_epoch": np.int32(59)},
            "completed 60 epochs, validation accuracy 0.90",
        ),
        (
            {"status": np.int32(2), "best_epoch": np.int32(-1), "epochs": np.int32(1), "first_bad_step": np.int32(7)},
            "training not finite at step 7, in epoch 1 of 60",
        ),
        (
            {"status": np.int32(4), "best_epoch": np.int32(43), "history": {"train_loss": np.arange(60.0)}},
            "interrupted after epoch 44 of 60, training loss 43",
        ),
        ({"skipped_steps": np.int32(2), "history": {}}, "stopped early at epoch 44 of 44; 2 steps skipped"),
    ],
)
def test_a_result_says_how_it_ended(changes, expected):
    assert repr(result(**changes)) == f"<RunResult: {expected}>"


def test_results_of_lanes_of_traces_and_of_other_things():
    def recipe(rate):
        return training.Recipe(
            model=layers.dense(1),
            loss=losses.mean_squared_error,
            optimizer=optimizers.sgd(rate),
            batch_size=4,
            epochs=2,
        )

    train = Batch(jnp.ones((8, 2)), jnp.ones((8, 1)))
    seen = []

    def run(rate):
        made = training.make_run(recipe)(jax.random.key(0), rate, train, train)
        seen.append(repr(made))
        return made

    lanes = jax.jit(jax.vmap(run))(jnp.array([0.1, 1e30]))
    assert seen == ["<RunResult: traced, its values are not known yet>"]
    assert repr(lanes).startswith("<RunResult: 2 lanes: 1 completed, 1 nonfinite training, validation loss ")
    assert repr(jax.tree.map(lambda leaf: leaf[0], lanes)).startswith("<RunResult: completed 2 epochs, validation loss")
    others = [
        jax.eval_shape(run, 0.1),
        jax.tree.map(lambda leaf: None, lanes),
        jax.tree.map(lambda leaf: 0, lanes),
        result(history=None),
        result(status=np.int32([1, 2]), epochs=np.int32(3)),
        result(status=np.int32(9)),
    ]
    for other in others:
        assert repr(other).startswith("RunResult(params=")
    lanes.status.delete()
    assert repr(lanes) == "<RunResult: its arrays were donated, or are on another machine>"
