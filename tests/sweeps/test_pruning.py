"""Pruning: the rules decide as their papers say, and who goes on does so from where it was."""

import jax
import numpy as np
import pytest

from jaxopt_nn import layers, losses, optimizers, sweeps, training
from jaxopt_nn.sweeps import _engine, _execute
from jaxopt_nn.sweeps._pruning import Advance, Prune, schedule
from jaxopt_nn.types import Batch

X = np.random.default_rng(0).standard_normal((24, 3)).astype("f")
TRAIN = Batch(X, X[:, :1])
KEY = jax.random.key(0)


def recipe(hp):
    return training.Recipe(
        model=layers.dense(1),
        loss=losses.mean_squared_error,
        optimizer=optimizers.sgd(hp["rate"]),
        batch_size=8,
        epochs=hp["epochs"],
    )


def steps(pruning, configurations, epochs, at_a_time=4):
    """What a rule does with configurations that are the worse the later they come."""
    return list(schedule(pruning, configurations, epochs, lambda place, rung: float(place), at_a_time))


def test_successive_halving_keeps_the_best_third_at_each_rung():
    halving = sweeps.successive_halving(min_epochs=1, factor=3)
    asked = [(len(step.configurations), step.epochs) for step in steps(halving, 81, 81) if isinstance(step, Advance)]
    assert asked == [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)]  # figure 1 of the paper, bracket s = 4
    pruned = [each for step in steps(halving, 81, 81) if isinstance(step, Prune) for each in step.configurations]
    assert sorted(pruned) == list(range(1, 81))


def test_hyperband_has_the_brackets_of_the_paper():
    """Algorithm 1 with R = 81 and η = 3."""
    brackets = [[(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)], [(34, 3), (11, 9), (3, 27), (1, 81)]]
    brackets += [[(15, 9), (5, 27), (1, 81)], [(8, 27), (2, 81)], [(5, 81)]]
    done = steps(sweeps.hyperband(), 81 + 34 + 15 + 8 + 5, 81)
    asked = [(len(step.configurations), step.epochs) for step in done if isinstance(step, Advance)]
    assert asked == [each for bracket in brackets for each in bracket]


def test_asha_promotes_without_waiting_and_nobody_diverged_goes_on():
    done = steps(sweeps.asha(), 16, 9, at_a_time=2)
    asked = [step for step in done if isinstance(step, Advance)]
    assert asked[:3] == [Advance((0, 1), 1), Advance((2, 3), 1), Advance((4, 5), 1)]
    assert asked[3] == Advance((0, 1), 3)  # two of six are a third, and fill the lanes; ten have not begun
    trained = {rung: {c for step in asked if step.epochs == rung for c in step.configurations} for rung in (1, 3, 9)}
    assert trained[1] == set(range(16)) and {0, 1} <= trained[3] and 0 in trained[9] and trained[9] <= trained[3]
    ended = done[-1]
    assert isinstance(ended, Prune) and set(ended.configurations) == set(range(16)) - trained[9]
    nobody = list(schedule(sweeps.asha(), 4, 9, lambda place, rung: float("nan"), 2))
    assert [step.epochs for step in nobody[:-1]] == [1, 1] and nobody[-1] == Prune((0, 1, 2, 3))


SPACE = sweeps.grid(rate=[1e-3, 3e-3, 0.1, 0.01, 1e30, 0.03], epochs=9, seed=range(2))


@pytest.fixture
def epochs(monkeypatch):
    """How many epochs of how many lanes were run."""
    done, advance = [], _engine._record

    def counted(trial, lane, chunk, place, first, before):
        record = advance(trial, lane, chunk, place, first, before)
        done.append(int(record.metrics["epochs"]) - first)
        return record

    monkeypatch.setattr(_engine, "_record", counted)
    return done


def test_survivors_go_on_from_their_state_and_the_table_says_who_ended_when(tmp_path, epochs):
    whole = sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, lanes=4)
    every, epochs[:] = sum(epochs), []
    store = tmp_path / "sweep.sqlite"
    rule = sweeps.successive_halving(min_epochs=1, factor=3)
    pruned = sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, lanes=4, pruning=rule, store=store)
    assert every == 10 * 9 + 2 and sum(epochs) == 12 * 1 + 4 * 2 + 2 * 6  # a diverged one ends in its first epoch
    by_rate = {rate: [r for r in pruned.records if r.trial["rate"] == rate] for rate in (0.1, 0.03, 0.01, 1e30)}
    assert {r.status for r in by_rate[0.1]} == {"COMPLETED"} and {r.status for r in by_rate[0.01]} == {"PRUNED"}
    assert [r.metrics["epochs"] for r in by_rate[0.03]] == [3, 3] and {r.status for r in by_rate[1e30]} == {
        "NONFINITE_TRAINING"
    }
    table = pruned.table()
    assert sorted(table[table.status == "PRUNED"].recorded_epochs) == [1] * 6 + [3] * 2
    for a, b in zip(whole.records, pruned.records, strict=True):
        done = int(b.metrics["epochs"])
        np.testing.assert_array_equal(a.history["train_loss"][:done], b.history["train_loss"][:done])
        assert np.isnan(b.history["train_loss"][done:]).all()
    assert pruned.best().hparams["rate"] == 0.1 and pruned.best().left_out == {"PRUNED": 8, "NONFINITE_TRAINING": 2}
    again = sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, lanes=4, pruning=rule, store=store)
    assert str(again.records) == str(pruned.records) and sum(epochs) == 32
    with pytest.raises(ValueError, match=r"""^store: .* is of another pruning: there "Pruning.*", here 'None'"""):
        sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, store=store)


def test_a_pruned_sweep_goes_on_from_the_states_in_its_store(tmp_path, epochs, monkeypatch):
    rule = sweeps.hyperband(min_epochs=3, factor=3)
    whole = sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, lanes=4, pruning=rule)
    every, epochs[:] = sum(epochs), []
    keep, calls = _engine._keep, []

    def interrupting(*arguments):
        kept = keep(*arguments)
        calls.append(1)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt
        return kept

    monkeypatch.setattr(_engine, "_keep", interrupting)
    parts = [
        sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, lanes=4, pruning=rule, store=tmp_path / "sweep.sqlite")
        for _ in range(3)
    ]
    assert [part.interrupted for part in parts] == [True, True, False] and sum(epochs) == every
    part = parts[-1]
    for a, b in zip(whole.records, part.records, strict=True):
        assert a.status == b.status and str(a.history) == str(b.history)


def test_few_survivors_get_a_narrower_program_where_that_pays(monkeypatch):
    monkeypatch.setattr(_execute, "width_of", lambda trials, lanes: min(trials, lanes))  # of one device

    class Lane:
        epochs = 10

        def __init__(self, flops):
            self.flops = lambda: flops

    def widths(flops, trials, last):
        made = _execute.Made(_execute.Group({}, (), tuple(range(20)), 20), Lane(flops))
        tasks = _execute.tasks_of(0, made, range(trials), 1, last, 8, {i: () for i in range(20)}, keep=False)
        return [(len(task.trials), task.width) for task in tasks]

    assert widths(1e6, 20, 3) == [(8, 8), (8, 8), (4, 8)]  # compiling would take longer
    assert widths(1e12, 20, 3) == [(8, 8), (8, 8), (4, 4)] and widths(1e12, 1, 10) == [(1, 1)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sweeps.successive_halving(factor=1), ValueError, r"^factor: expected an int >= 2, got 1"),
        (lambda: sweeps.asha(min_epochs=0), ValueError, r"^min_epochs: expected an int in \[1"),
        (
            lambda: sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, pruning=sweeps.asha),
            TypeError,
            r"^pruning: expected a rule, as sweeps.successive_halving\(\), got <function asha",
        ),
        (
            lambda: sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, pruning=sweeps.asha(), objective="epochs", mode="min"),
            ValueError,
            r"^objective: expected one of \['gradient_norm', 'learning_rate', 'train_loss'\], got 'epochs'",
        ),
        (
            lambda: sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, pruning=sweeps.asha(), store=sweeps.work("a.sqlite")),
            ValueError,
            r"^pruning: expected None with a store that several processes fill",
        ),
        (
            lambda: sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, store=5),
            TypeError,
            r"^store: expected the path of a file",
        ),
        (
            lambda: sweeps.sweep(recipe, SPACE, TRAIN, key=KEY, keep=-1),
            ValueError,
            r"^keep: expected an int >= 0, got -1",
        ),
        (lambda: sweeps.work("a.sqlite", seconds=0), ValueError, r"^seconds: expected a finite number in \[1, inf\)"),
    ],
)
def test_bad_rules_and_options_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
