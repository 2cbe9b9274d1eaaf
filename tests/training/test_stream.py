"""Runs over streams of batches: the same bits as in memory, faults that are named, positions that are restored."""

import os
import signal
import threading
import time
import warnings

import jax
import numpy as np
import pytest

from jaxopt_nn import data, layers, losses, optimizers, training
from jaxopt_nn.training import _stream
from jaxopt_nn.training._batches import epoch_order
from jaxopt_nn.types import Batch


def in_the_order_of_a_run(train, key, batch_size):
    """The batches that a run in memory takes, of each epoch; the last has the rows that are left."""
    order_key = jax.random.split(key, 3)[1]

    def batches(epoch):
        rows, padding = epoch_order(jax.random.fold_in(order_key, epoch), len(train.y), batch_size, "pad", True)
        for index, each in enumerate(np.asarray(rows)):
            kept = each if padding is None else each[np.asarray(padding[index]) > 0]
            yield jax.tree.map(lambda leaf, kept=kept: np.asarray(leaf)[kept], train)

    return batches


def assert_same_bits(ours, theirs):
    for name, values in theirs.history.items():
        np.testing.assert_array_equal(ours.history[name], values, err_msg=name)
    for a, b in zip(jax.tree.leaves(ours.state), jax.tree.leaves(theirs.state), strict=True):
        if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("examples", "full"), [(70, False), pytest.param(64, True, marks=pytest.mark.slow)])
def test_the_same_bits_as_in_memory(problem, examples, full):
    """With BatchNorm, dropout, a penalty and validation; chunks that split the epoch; also with padding."""
    train = jax.tree.map(lambda leaf: leaf[:examples], problem.train)
    recipe = problem.recipe(
        epochs=2, early_stopping=training.EarlyStopping("train_loss", patience=9),
        record={"bias": training.Record(lambda end: end.gradient["dense_1"]["bias"], of="step", every=2)},
    )  # fmt: skip
    source = data.stream(in_the_order_of_a_run(train, problem.key, 16), full=full)
    streamed = training.fit(recipe, problem.hparams, source, problem.valid, key=problem.key, steps_per_call=3)
    assert_same_bits(streamed, training.fit(recipe, problem.hparams, train, problem.valid, key=problem.key))


ROWS = Batch(np.arange(40, dtype=np.float32).reshape(20, 2) / 40, np.arange(20, dtype=np.float32).reshape(20, 1))
KEY = jax.random.key(0)


def small(epochs=3, last_batch="pad", batch_size=4):
    def recipe(hp):
        return training.Recipe(
            model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.adam(hp),
            batch_size=batch_size, epochs=epochs, last_batch=last_batch, shuffle=False,
        )  # fmt: skip

    return recipe


def batches(rows=ROWS, size=4):
    count = -(-len(rows.y) // size)
    return [jax.tree.map(lambda leaf, i=i: leaf[i * size : (i + 1) * size], rows) for i in range(count)]


def fit(source, *, recipe=None, **options):
    return training.fit(small() if recipe is None else recipe, 0.1, source, key=KEY, **{"steps_per_call": 2, **options})


def blocks(rows=ROWS, key=KEY):
    return data.stream_blocks(rows, 4, key=key, rows_per_block=3, blocks_at_once=2)


class Loader:
    """Like a DataLoader: a length, and another iterator each time."""

    def __init__(self, items, length=None):
        self.items, self.length = items, length

    def __len__(self):
        return len(self.items) if self.length is None else self.length

    def __iter__(self):
        return iter(self.items)


@pytest.mark.slow
def test_what_a_batch_may_be():
    """Of any of these the result is that of the rows in memory, float64 in float32."""
    expected = training.fit(small(), 0.1, ROWS, key=KEY)
    made = {
        "Batch": batches(),
        "tuple": [(each.x, each.y) for each in batches()],
        "dictionary, float64": [{"x": each.x.astype(np.float64), "y": each.y} for each in batches()],
        "weights": [(each.x, each.y, np.ones(4)) for each in batches()],
        "function of the epoch": data.stream(lambda epoch: iter(batches()), full=True),
        "endless": data.stream((each for _ in range(9) for each in batches()), batches_per_epoch=5, full=True),
        "longer than an epoch": data.stream(batches() + batches(), batches_per_epoch=5),
        "blocks in order": blocks(key=None),
    }
    for name, source in made.items():
        result = fit(source)
        np.testing.assert_array_equal(result.params["kernel"], expected.params["kernel"], err_msg=name)
        assert int(result.state.step) == 15


def test_short_batches_are_dropped_or_padded():
    rows = jax.tree.map(lambda leaf: leaf[:18], ROWS)
    for last_batch, steps in (("drop", 12), ("pad", 15)):
        recipe = small(last_batch=last_batch)
        ours, theirs = fit(batches(rows), recipe=recipe), training.fit(recipe, 0.1, rows, key=KEY)
        assert int(ours.state.step) == steps
        np.testing.assert_array_equal(ours.history["train_loss"], theirs.history["train_loss"])


def test_a_torch_loader_is_an_iterable_of_batches():
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(torch.from_numpy(ROWS.x), torch.from_numpy(ROWS.y))
    result = fit(torch.utils.data.DataLoader(rows, batch_size=4))
    np.testing.assert_array_equal(result.params["kernel"], training.fit(small(), 0.1, ROWS, key=KEY).params["kernel"])


def grain_rows():
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.range(20).map(lambda i: {"x": ROWS.x[i], "y": ROWS.y[i]})
    return source.shuffle(seed=1).repeat(None).batch(4).to_iter_dataset()


@pytest.mark.slow
def test_a_grain_loader_goes_on_where_it_stood(tmp_path):
    """An endless one; its own state is what a checkpoint holds."""
    expected = fit(data.stream(grain_rows(), batches_per_epoch=5, full=True))
    source = data.stream(grain_rows(), batches_per_epoch=5, full=True)
    assert_goes_on(tmp_path, source, source, expected)


def assert_goes_on(folder, first, second, expected):
    """A run that is killed by its source after 7 batches, of which it has saved 6, ends with the same bits."""

    def failing(epoch):
        for index, each in enumerate(first.batches(epoch)):
            if (epoch, index) == (1, 2) or index == 7:
                raise OSError("no such file")
            yield each

    broken = (
        first._replace(batches=failing) if not first.continues else first._replace(batches=lambda epoch: _Fails(first))
    )
    with pytest.raises(OSError, match="no such file") as caught:
        fit(broken, checkpoint=training.Checkpoint(folder, every_steps=3))
    assert int(caught.value.result.epochs) == 1
    result = fit(second, checkpoint=training.Checkpoint(folder, every_steps=3))
    assert_same_bits(result, expected)


class _Fails:
    """The iterator of a stream, with its state, up to the seventh batch."""

    def __init__(self, stream):
        self.inner, self.count = iter(stream.batches(0)), 0

    def __iter__(self):
        return self

    def __next__(self):
        self.count += 1
        if self.count == 8:
            raise OSError("no such file")
        return next(self.inner)

    def __getattr__(self, name):  # get_state and set_state, where there are any
        return getattr(self.inner, name)


@pytest.mark.parametrize("kind", ["endless", "function", "blocks"])
def test_a_run_goes_on_in_the_middle_of_an_epoch(kind, tmp_path):
    def make():
        if kind == "blocks":
            return blocks()
        if kind == "endless":
            return data.stream(batches() * 4, batches_per_epoch=5)
        return data.stream(lambda epoch: batches()[epoch:] + batches()[:epoch])

    assert_goes_on(tmp_path, make(), make(), fit(make()))


def test_blocks_read_each_row_once_in_another_order_each_epoch(tmp_path):
    np.save(tmp_path / "x.npy", ROWS.x)
    rows = Batch(np.load(tmp_path / "x.npy", mmap_mode="r"), ROWS.y)
    orders = [np.concatenate([each.y[:, 0] for each in blocks(rows).batches(epoch)]) for epoch in (0, 1, 0)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(20))
    assert (orders[0] == orders[2]).all() and (orders[0] != orders[1]).any()
    for each in blocks(rows).batches(0):
        np.testing.assert_array_equal(each.x[:, 0], each.y[:, 0] * 2 / 40)
    for skip in range(5):  # a place is the same place without what is before it
        iterator = blocks(rows).batches(1)
        iterator.set_state({"batches": skip})
        np.testing.assert_array_equal(np.concatenate([each.y[:, 0] for each in iterator]), orders[1][4 * skip :])


def raises(epoch):
    yield from batches()[: 5 if epoch == 0 else 2]
    if epoch:
        raise RuntimeError("the disk is gone")


def changed(index, **change):
    items = [each._asdict() for each in batches()]
    items[index] |= change
    return items


X = ROWS.x[:4]
FAULTS = {
    "raises": (raises, RuntimeError, "the disk is gone"),
    "ends early": (Loader(batches(), 7), ValueError, r"train: expected 7 batches in epoch 0, .* got 5"),
    "empty later": (
        lambda epoch: batches() if epoch == 0 else [], ValueError, r"train: expected batches in epoch 1, got none",
    ),
    "shape": (changed(3, x=X[:, :1]), ValueError, r"batch 3 of epoch 0: .* x: float32\[N, 2\], .* float32\[N, 1\]"),
    "dtype": (changed(2, x=X.astype(int)), ValueError, r"batch 2 of epoch 0: expected x: float32.* got x: int64"),
    "weights later": (changed(2, weight=np.ones(4)), ValueError, r"batch 2 of epoch 0: .* got .*weight: float64"),
    "longer": (changed(4, x=ROWS.x[:5], y=ROWS.y[:5]), ValueError, r"batch 4 of epoch 0: expected 1 to 4 .* \[5\]"),
    "uneven": (changed(4, x=ROWS.x[:3]), ValueError, r"batch 4 of epoch 0: .* got \[3, 4\]"),
    "no batch": ([*batches(), ROWS.x], TypeError, r"train, batch 5 of epoch 0: expected a Batch, \(x, y\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_source_is_named_and_nothing_is_lost(fault):
    source, kind, match = FAULTS[fault]
    with pytest.raises(kind, match=match) as caught:
        fit(source)
    assert int(caught.value.result.epochs) == (1 if fault in ("raises", "empty later") else 0)
    if fault == "raises":
        assert "raised by train, batch 2 of epoch 1" in "".join(caught.value.__notes__)


@pytest.mark.parametrize(
    ("source", "kind", "match"),
    [
        ((each for each in batches()), TypeError, r"train: expected what can be iterated in each of 3 epochs"),
        ([], ValueError, r"train: expected batches, got an empty list"),
        (lambda epoch: [], ValueError, r"train: expected batches, got none from a function"),
        (lambda epoch: 3, TypeError, r"train: expected an iterable of batches in epoch 0, got 3"),
        (lambda: batches(), TypeError, r"train: expected a function epoch -> iterable"),
        ((ROWS.x, ROWS.y), TypeError, r"train: expected a Batch\(x, y, weight\), .* got a tuple; write Batch\(x, y\)"),
        (ROWS.x, TypeError, r"train: expected a Batch\(x, y, weight\), or an iterable of batches, got a ndarray"),
        (3, TypeError, r"train: expected a Batch\(x, y, weight\), or an iterable of batches, got a int"),
        (batches(size=5), ValueError, r"batch_size: expected 5, which the batches of train have, got 4"),
        ([(np.full((4, 2), np.nan, np.float32), ROWS.y[:4])], ValueError, r"train.x: expected finite numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_said_at_once(source, kind, match):
    with pytest.raises(kind, match=match):
        fit(source)


def test_a_series_of_steps_needs_their_number():
    def recipe(hp):
        series = training.Record(lambda end: end.loss, of="step", series=True)
        return small()(hp)._replace(record={"loss_of_step": series})

    assert fit(batches(), recipe=recipe).history["loss_of_step"].shape == (3, 5)
    with pytest.raises(ValueError, match=r"record\['loss_of_step'\].series: expected a stream that says how many"):
        fit(lambda epoch: batches(), recipe=recipe)


def test_a_source_that_stalls_is_named(monkeypatch):
    told, texts = threading.Event(), []
    monkeypatch.setattr(_stream, "_PATIENCE", 1)
    monkeypatch.setattr(_stream.warnings, "warn", lambda text, **options: (texts.append(text), told.set()))

    def slow(epoch):
        yield from batches()[:3]
        told.wait(60)
        yield from batches()[3:]

    result = fit(slow, recipe=small(epochs=1))
    assert texts == ["train: batch 2 of epoch 0 has not come for 1 s. The run waits"]
    assert int(result.state.step) == 5


def test_a_signal_ends_a_run_that_waits(tmp_path):
    """While a checkpoint defers Ctrl-C, a source that is stuck would hold the run for ever."""

    def stuck(epoch):
        yield from batches()[:3]
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        time.sleep(4)

    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fit(stuck, checkpoint=training.Checkpoint(tmp_path), steps_per_call=1)
    assert training.Status(int(result.status)) is training.Status.INTERRUPTED
    assert time.monotonic() - started < 60
    assert training.checkpoints(tmp_path)[-1].steps > 0


def test_the_bar_knows_the_length_where_the_source_does(capsys):
    fit(batches(), progress_bar=True)
    assert "15/15 |" in capsys.readouterr().err
    fit(lambda epoch: batches(), progress_bar=True)
    assert "15/? |" in capsys.readouterr().err
