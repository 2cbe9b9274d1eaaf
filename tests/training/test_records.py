"""Records: what a recipe's functions of an epoch, a step and a layer leave in the history."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import layers, losses, training
from jaxopt_nn._jaxprs.equations import opened, programs_in
from jaxopt_nn.training import Checkpoint, Record, RunKeys


def _global_norm(tree):
    return optax.tree.norm(tree)


RECORD = {
    "sizes": Record(
        lambda end: {"gradient": _global_norm(end.gradient), "update": _global_norm(end.update)}, of="step"
    ),
    "second": Record(lambda end: end.loss, of="step", every=2, series=True),
    "same": Record(
        lambda end, before: (optax.tree.vdot(end.gradient, before), end.gradient),
        of="step",
        init=lambda params: jax.tree.map(lambda leaf: jnp.nan * leaf, params),
    ),
    "square": Record(lambda out: jnp.mean(out.value**2), of="layer", finish=jnp.sqrt),
    "distance": lambda end: _global_norm(end.state.params),
    "third": Record(lambda end: {"a": end.metrics["sizes/update"], "b": jnp.arange(3)}, every=3),
}


MODEL = layers.serial(layers.dense(4), jnp.tanh, layers.dense(3))


def _recipe(**changes):
    def recipe(rate):
        parts = training.Recipe(
            model=MODEL, loss=losses.softmax_cross_entropy, optimizer=optax.sgd(rate, momentum=0.9), batch_size=16,
            epochs=2,
        )  # fmt: skip
        return parts._replace(**changes)

    return recipe


@pytest.fixture(scope="module")
def runs(problem):
    """A run with records, and the same without."""
    run, plain = (jax.jit(training.make_run(_recipe(record=record, epochs=4))) for record in (RECORD, {}))
    arguments = (problem.key, 0.1, problem.train)
    return run(*arguments), plain(*arguments)


def test_the_training_has_the_same_bits_and_the_history_more_entries(runs):
    recorded, plain = runs
    jax.tree.map(np.testing.assert_array_equal, recorded.params, plain.params)
    added = {name: values.shape for name, values in recorded.history.items() if name not in plain.history}
    squares = ["dense_0", "tanh_0", "dense_1"]
    assert added == {
        "sizes/gradient": (4,), "sizes/update": (4,), "second": (4, 3), "same": (4,), "distance": (4,),
        "third/a": (4,), "third/b": (4, 3), **{f"square/{path}": (4,) for path in squares},
    }  # fmt: skip


def test_they_are_what_a_loop_of_steps_sees(problem):
    """Step by step, with optax's optimizer and norms, and a model that is applied here."""
    keys, optimizer = RunKeys(*jax.random.split(problem.key, 3)), optax.sgd(0.1, momentum=0.9)
    got = jax.jit(training.make_run(_recipe(record=RECORD)))(keys, 0.1, problem.train).history
    params, _ = MODEL.init(keys.init, problem.train.x)

    @jax.jit
    def step(params, state, x, y, weight):
        def loss(params):
            outputs = jnp.tanh(x @ params["dense_0"]["kernel"] + params["dense_0"]["bias"][None])
            logits = outputs @ params["dense_1"]["kernel"] + params["dense_1"]["bias"][None]
            each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
            return jnp.sum(each * weight) / jnp.sum(weight), jnp.mean(outputs**2)

        (value, square), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        update, state = optimizer.update(gradient, state, params)
        figures = value, _global_norm(gradient), _global_norm(update), square
        return optax.apply_updates(params, update), state, gradient, figures

    state, before = optimizer.init(params), None
    for epoch in range(2):
        rows = np.concatenate([jax.random.permutation(jax.random.fold_in(keys.order, epoch), 70), np.zeros(10, int)])
        weights, seen, before = np.arange(80) < 70, [], None
        for first in range(0, 80, 16):
            batch, weight = rows[first : first + 16], weights[first : first + 16]
            x, y = problem.train.x[batch], problem.train.y[batch]
            params, state, gradient, figures = step(params, state, x, y, weight.astype("f"))
            leaves = (jax.tree.leaves(tree) for tree in (gradient, before)) if before else ()
            same = sum(np.vdot(a, b) for a, b in zip(*leaves, strict=True)) if before else np.nan
            seen.append([*figures, same])
            before = gradient
        value, gradients, updates, square, same = np.array(seen, float).T
        expected = {
            "second": value[::2], "sizes/gradient": gradients.mean(), "sizes/update": updates.mean(),
            "same": np.nanmean(same), "square/tanh_0": np.sqrt(square.mean()), "distance": _global_norm(params),
        }  # fmt: skip
        for name, value in expected.items():
            np.testing.assert_allclose(got[name][epoch], value, rtol=1e-4, err_msg=name)
    np.testing.assert_array_equal(np.isnan(got["third/a"]), [False, True])


def test_fit_gives_the_same_bits_in_the_middle_of_an_epoch_too(problem, runs, tmp_path):
    recipe, ends = _recipe(record=RECORD, epochs=4), []

    def stop(end):
        ends.append(end)
        return end.epoch == 1

    folder = Checkpoint(tmp_path / "run", every_steps=3)
    arguments = (recipe, 0.1, problem.train)
    training.fit(*arguments, key=problem.key, checkpoint=folder, callbacks=[stop])
    for path in sorted((tmp_path / "run").glob("epoch-*"))[1:]:
        path.rename(tmp_path / path.name)  # the one before is in the middle of an epoch
    resumed = training.fit(*arguments, key=problem.key, checkpoint=folder)
    for name, values in runs[0].history.items():
        np.testing.assert_array_equal(resumed.history[name], values, err_msg=name)
    assert ends[0].arrays["second"].shape == (3,) and ends[0].metrics["sizes/update"] > 0
    assert "second" not in ends[0].metrics


@pytest.mark.slow
def test_a_record_of_another_shape_than_in_the_checkpoint_is_named(problem, tmp_path):
    folder = Checkpoint(tmp_path / "run")

    def fit(size, epochs, **more):
        recipe = _recipe(record={"last": lambda end: jnp.zeros(size), **more}, epochs=epochs)
        return training.fit(recipe, 0.1, problem.train, key=problem.key, checkpoint=folder)

    fit(3, 1)
    with (
        pytest.warns(UserWarning, match="the recipe is not the one"),
        pytest.raises(ValueError, match=r"^record: expected 'last' to be \[3\], as in the checkpoint .*, got \[4\]"),
    ):
        fit(4, 2)
    with pytest.warns(UserWarning, match="the recipe is not the one"):
        history = fit(3, 2, new=lambda end: 1.0).history
    np.testing.assert_array_equal(history["new"], [np.nan, 1.0])


@pytest.mark.slow  # in CI under the default options of the compiler
def test_lanes_have_records_of_their_own(problem):
    run, keys = training.make_run(_recipe(record=RECORD)), RunKeys(*jax.random.split(problem.key, 3))
    rates = jnp.array([0.01, 0.1])
    got = jax.jit(jax.vmap(run, (None, 0, None)))(keys, rates, problem.train).history
    for lane, rate in enumerate(rates):
        for name, values in jax.jit(run)(keys, rate, problem.train).history.items():
            np.testing.assert_allclose(got[name][lane], values, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_cadence_stays_a_branch_in_lanes(problem):
    def branches(record):
        run = jax.vmap(training.make_run(_recipe(record=record)), (None, 0, None))
        program = jax.make_jaxpr(run)(problem.key, jnp.array([0.01, 0.1]), problem.train)
        return sum(equation.primitive.name == "cond" for equation in _equations(program.jaxpr))

    slow = {"loss": Record(lambda end: end.loss, of="step", every=2)}
    always = {"loss": Record(lambda end: end.loss, of="step")}
    assert branches(slow) > branches(always) == branches({})


def _equations(jaxpr):
    """All of them, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in programs_in(equation.params):
            yield from _equations(opened(inner))


@pytest.mark.slow
def test_parts_of_a_batch_and_repeated_layers(problem):
    block = layers.residual(layers.serial(layers.dense(6), jnp.tanh))
    model = layers.serial(layers.repeat(block, 3), layers.dense(3))
    record = {"mean": Record(lambda out: jnp.mean(out.value), of="layer")}
    same = {"model": model, "record": record, "epochs": 1, "last_batch": "drop"}
    runs = (training.make_run(_recipe(**same, micro_batches=parts)) for parts in (2, 1))
    got, expected = (run(problem.key, 0.1, problem.train).history for run in runs)
    path = "mean/repeat_0/residual_0/serial_0/tanh_0"
    assert got[path].shape == (1, 3) and "mean/dense_0" in got
    np.testing.assert_allclose(got[path], expected[path], rtol=1e-4, atol=1e-6)


def test_what_is_not_asked_for_is_not_in_the_program(problem):
    """The loop of the steps carries the state alone, and gives the means of the epoch alone."""

    def outputs(record):
        program = jax.make_jaxpr(training.make_run(_recipe(record=record)))(problem.key, 0.1, problem.train)
        loops = [each for each in _equations(program.jaxpr) if each.primitive.name == "scan"]
        return [len(each.outvars) for each in loops if each.params["length"] == 5]

    state = jax.eval_shape(training.make_run(_recipe()), problem.key, 0.1, problem.train).state
    (plain,) = outputs({})
    assert plain <= len(jax.tree.leaves(state)) + 1
    assert outputs({"epoch": lambda end: 1.0}) == [plain]
    assert outputs({"step": Record(lambda end: end.loss, of="step")}) == [plain + 1]


def test_a_step_that_is_not_finite_is_not_recorded(problem):
    x = problem.train.x.at[:, 0].set(1e30)
    train = problem.train._replace(x=x)
    record = {"loss": Record(lambda end: end.loss, of="step"), "one": Record(lambda out: 1.0, of="layer")}
    recipe = _recipe(model=layers.serial(lambda x: x * x, layers.dense(3)), record=record)
    result = training.make_run(recipe)(problem.key, 0.1, train)
    assert int(result.first_bad_step) == 0
    assert np.isnan(result.history["loss"]).all() and np.isnan(result.history["one/dense_0"]).all()


def test_early_stopping_may_monitor_a_record(problem):
    stopping = training.EarlyStopping("mine", mode="max", patience=2)
    recipe = _recipe(record={"mine": lambda end: -1.0 * end.epoch}, early_stopping=stopping, epochs=9)
    result = training.make_run(recipe)(problem.key, 0.1, problem.train)
    assert int(result.epochs) == 3 and int(result.best_epoch) == 0


@pytest.mark.parametrize(
    ("record", "error", "match"),
    [
        ([1], TypeError, r"^record: expected a dictionary"),
        ({1: print}, TypeError, r"^record: expected names, got 1"),
        ({"a": 3}, TypeError, r"^record\['a'\]: expected a function of an EpochEnd, got 3"),
        ({"a": Record(lambda: 1.0, of="step")}, TypeError, r"^record\['a'\]: expected a function of a StepEnd"),
        ({"a": Record(print, of="batch")}, ValueError, r"^record\['a'\]\.of: expected .*layer.*, got 'batch'"),
        ({"a": Record(print, every=0)}, ValueError, r"^record\['a'\]\.every: expected .* got 0"),
        ({"a": Record(print, series=True)}, ValueError, r"^record\['a'\]\.series: .*step or layer, got 'epoch'"),
        ({"a": lambda end: "text"}, TypeError, r"^record\['a'\]: expected an array of numbers, got dtype <U4"),
        ({"a": lambda end: None}, TypeError, r"^record\['a'\]: expected it to return numbers, got None"),
        ({"a": Record(lambda end: {"b": 1j}, of="step")}, TypeError, r"^record\['a'\]\[b\]: expected real numbers"),
        ({"train_loss": lambda end: 1.0}, ValueError, r"^record: expected names that .*, got \['train_loss'\]"),
        (
            {"a": lambda end: {"b": 1.0}, "a/b": lambda end: 1.0},
            ValueError,
            r"^record\['a/b'\]: expected names that no",
        ),
        (
            {"a": Record(lambda end, m: end.loss, of="step", init=lambda p: 0.0)},
            TypeError,
            r"^record\['a'\]: expected it to return \(values, memory\), got",
        ),
        (
            {"a": Record(lambda end, m: (end.loss, jnp.zeros(2)), of="step", init=lambda p: jnp.zeros(3))},
            ValueError,
            r"^record\['a'\]: its memory.*expected float32\[3\], got float32\[2\]",
        ),
        ({"a": Record(lambda out: None, of="layer")}, TypeError, r"^record\['a'\]: expected it to return numbers"),
    ],
)
def test_mistakes_are_named_before_anything_is_compiled(problem, record, error, match):
    with pytest.raises(error, match=match):
        jax.eval_shape(training.make_run(_recipe(record=record)), problem.key, 0.1, problem.train)
