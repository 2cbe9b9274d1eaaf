"""Reading a sweep: intervals that cover, the luck of the best, one hyperparameter by itself, edges, importance."""

import math

import numpy as np
import pytest

from jaxopt_nn import sweeps
from jaxopt_nn.sweeps._configurations import compare
from jaxopt_nn.sweeps._intervals import expected_drop, interval

RNG = np.random.default_rng(0)


def swept(space, value, mode="min", repeats=("seed",), **columns):
    """A sweep whose trials have these values."""
    records = [
        sweeps.Record(trial, "COMPLETED", None, {"loss": float(value(**trial)), **columns}, {}, 0.1) for trial in space
    ]
    return sweeps.Sweep(tuple(records), "loss", mode, False, repeats=repeats)


@pytest.mark.parametrize("count", [3, 5, 10])
def test_intervals_of_few_values_cover_the_mean(count):
    draws = RNG.standard_normal((1000, count))
    ends = np.array([interval(row) for row in draws])
    covered = np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
    assert 0.925 < covered < 0.985  # the percentiles by themselves: 0.75, 0.84, 0.90


def test_intervals_over_folds_have_the_variance_of_nadeau_and_bengio():
    values = RNG.standard_normal(5)
    plain, over_folds = (np.array(interval(values, folds)) - values.mean() for folds in (1, 5))
    np.testing.assert_allclose(over_folds / plain, math.sqrt((1 / 5 + 1 / 4) / (1 / 5)))
    assert all(map(math.isnan, interval(values[:1])))


def test_the_luck_of_the_best_of_equals_is_the_expected_extreme():
    draws = RNG.standard_normal((300, 20, 5))
    drops = [expected_drop(values, mode) for values in draws for mode in ("min", "max")]
    assert np.mean(drops) == pytest.approx(1.867 / math.sqrt(5), rel=0.05)  # E max of 20 normals, of means of 5
    clear = draws[0] / 100 + np.arange(20)[:, None]
    assert abs(expected_drop(clear, "min")) < 0.02 and math.isnan(expected_drop(clear[:, :1], "min"))


def test_the_best_of_equals_beats_few_of_them_once_its_luck_is_taken_from_it():
    space = sweeps.grid(x=range(30), seed=range(5))
    verdicts = {True: [], False: []}
    for _ in range(12):
        result = swept(space, lambda x, seed: RNG.standard_normal())
        best, *others = result.configurations()
        for fair in verdicts:
            luck = result.expected_drop().new_seeds * fair
            verdicts[fair] += [compare(best, other, "min", luck=luck).verdict == "better" for other in others]
    assert np.mean(verdicts[True]) < 0.1 < np.mean(verdicts[False])


def test_two_seeds_decide_nothing_unless_they_agree():
    values = {("a", 0): 1.0, ("a", 1): 2.0, ("b", 0): 1.1, ("b", 1): 2.3, ("c", 0): 1.5, ("c", 1): 2.5}
    result = swept(sweeps.grid(kind=["a", "b", "c"], seed=range(2)), lambda kind, seed: values[kind, seed])
    assert result.compare({"kind": "a"}, {"kind": "b"}).verdict == "undecided"
    assert result.compare({"kind": "a"}, {"kind": "c"}).verdict == "better"  # by 0.5, with both
    assert str(result.compare({"kind": "a"}, {"kind": "c"})) == "-0.5 (-0.5 to -0.5) over 2 seeds: better"


def test_a_configuration_with_fewer_seeds_than_others_is_not_the_best():
    result = swept(sweeps.grid(x=[1.0, 2.0], seed=range(3)) + sweeps.grid(x=0.0, seed=0), lambda x, seed: x)
    assert result.best().hparams == {"x": 1.0} and result.best().left_out == {"FEWER_SEEDS": 1}
    assert [(each.hparams["x"], each.sound) for each in result.configurations()] == [(1, True), (2, True), (0, False)]


def test_a_hyperparameter_is_isolated_by_the_best_of_the_others():
    best_rate = {"adam": 0.01, "sgd": 0.1}
    space = sweeps.grid(optimizer=["sgd", "adam"], rate=[0.001, 0.01, 0.1], width=[8, 16], seed=range(3))
    result = swept(
        space,
        lambda optimizer, rate, width, seed: (
            abs(math.log10(rate / best_rate[optimizer]))
            + 0.1 * (optimizer == "sgd")
            + 0.01 * (width == 16)
            + 1e-4 * seed
        ),
    )
    parts = result.isolate("optimizer")
    assert [(part.value, part.best.hparams["rate"], part.best.considered) for part in parts] == [
        ("adam", 0.01, 6),
        ("sgd", 0.1, 6),
    ]
    held = result.isolate("optimizer", {"rate": 0.1, "width": 16})
    assert [round(part.best.value, 2) for part in held] == [0.11, 1.01] and held[0].best.considered == 1
    many = swept(sweeps.grid(x=range(100), seed=range(2)), lambda x, seed: abs(x - 40.2) + seed).isolate("x")
    assert len(many) == 8 and [part.value for part in many][:2] == [(0, 12), (13, 25)]
    assert many[3].value == (39, 51) and many[3].best.hparams == {"x": 40}
    with pytest.raises(ValueError, match=r"^scientific: expected one of \['optimizer', 'rate', 'width'\], got 'rat'"):
        result.isolate("rat")
    with pytest.raises(ValueError, match=r"^fixed: expected values that a configuration with 'rate' has, got"):
        result.isolate("rate", {"width": 7})


def test_the_best_on_an_edge_says_so():
    space = sweeps.grid(rate=[0.001, 0.01, 0.1], l2=[0.0, 1e-4], width=[8, 16, 32], kind=["a", "b"])
    result = swept(space, lambda rate, l2, width, kind: -rate + l2 + abs(width - 16))
    (edge,) = result.edges()
    assert (edge.name, edge.side, edge.value) == ("rate", "high", 0.1)  # an L2 of 0 cannot be less
    assert str(edge) == (
        "rate=0.1 lies on the high edge of your space (3 values): widen it, the best may lie beyond"
    )  # fmt: skip
    drawn = [{"rate": rate} for rate in np.linspace(1, 2, 100).tolist()]
    assert [edge.side for edge in swept(drawn, lambda rate: abs(rate - 1.03)).edges()] == ["low"]
    assert swept(drawn, lambda rate: abs(rate - 1.3)).edges() == ()


def test_importance_is_the_share_of_the_variance_on_the_scale_of_the_space():
    pytest.importorskip("optuna")
    pytest.importorskip("sklearn")
    space = sweeps.random(60, rate=sweeps.log_uniform(1e-5, 1.0), l2=sweeps.log_uniform(1e-6, 1e-1), seed=range(2))
    result = swept(space, lambda rate, l2, seed: 2 * math.log10(rate) + math.log10(l2) + 0.1 * seed)
    shares = result.importance()
    assert list(shares) == ["rate", "l2", "seed"] and sum(shares.values()) == pytest.approx(1)
    assert shares["rate"] == pytest.approx(0.8, abs=0.08)  # variances as 4 to 1
    grid = swept(
        sweeps.grid(rate=[1e-4, 1e-2, 1.0], kind=["a", "b"]), lambda rate, kind: 1e9 * (rate == 1) + (kind == "b")
    )
    assert grid.importance()["kind"] > 0.1  # one value that explodes is not all there is
    names = swept(sweeps.grid(x=[0.0, 1.0], seed=range(40)), lambda x, seed: x + (seed == 7))  # in time, too
    assert names.importance()["x"] == pytest.approx(0.25 / (0.25 + 39 / 1600), abs=0.05)
    with pytest.raises(ValueError, match=r"^importance: expected trials with different values of 'loss', got 3 trials"):
        swept(sweeps.grid(x=[1.0, 2.0, 3.0]), lambda x: 1.0).importance()


def test_a_metric_with_the_name_of_a_hyperparameter_does_not_replace_it():
    table = swept(sweeps.grid(learning_rate=[0.1, 0.2]), lambda learning_rate: 1.0, learning_rate=0.05).table()
    assert table.learning_rate.tolist() == [0.1, 0.2] and table.recorded_learning_rate.tolist() == [0.05, 0.05]


def test_over_folds_the_drop_on_new_data_is_known_and_repeats_are_no_hyperparameters():
    space = sweeps.grid(x=range(10), seed=range(2), fold=range(5))
    noise = RNG.standard_normal((10, 5))
    result = swept(space, lambda x, seed, fold: noise[x, fold] + 0.01 * seed, repeats=("seed", "fold"))
    drop = result.expected_drop()
    assert drop.considered == 10 and abs(drop.new_seeds) < 1e-9
    assert drop.new_data == pytest.approx(expected_drop(noise, "min"))
    assert result.best().seeds == 10 and result.best().hparams.keys() == {"x"}
    assert "on new data worse by" in str(drop)
    assert "on new data unknown (it takes folds)" in str(swept(sweeps.grid(x=[1, 2]), lambda x: x).expected_drop())
