"""What the loggers write, read by others: the csv and json modules, TensorBoard's records, MLflow."""

import csv
import json
import math
import shutil
import time

import pytest

from jaxopt_nn import layers, optimizers, training
from jaxopt_nn.training import EpochEnd


def _ends(*epochs):
    return [EpochEnd(epoch, {"train_loss": 1 / (1 + epoch), "valid_loss": math.nan}, None) for epoch in epochs]


@pytest.mark.slow
def test_tables_have_each_epoch_once_in_a_run_that_goes_on_too(problem, tmp_path):
    recipe = problem.recipe(model=layers.dense(3), optimizer=optimizers.sgd(0.1), penalty=None, epochs=4)
    table, lines = tmp_path / "logs" / "a.csv", tmp_path / "logs" / "a.jsonl"

    def fit(*callbacks):
        callbacks = [training.log_csv(table), training.log_json_lines(lines), *callbacks]
        checkpoint = training.Checkpoint(tmp_path / "run", every_epochs=10)
        arguments = (recipe, problem.hparams, problem.train, problem.valid)
        return training.fit(*arguments, key=problem.key, checkpoint=checkpoint, callbacks=callbacks)

    fit(lambda end: end.epoch == 1)
    for file in (table, lines):  # written by a process that was killed: epochs that are in no checkpoint
        file.write_text(file.read_text() + file.read_text().splitlines()[-1].replace("1", "2", 1) + "\nhal")
    result = fit()
    rows = list(csv.DictReader(table.read_text().splitlines()))
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    for read in (rows, records):
        assert [int(row["epoch"]) for row in read] == [0, 1, 2, 3]
        for name, values in result.history.items():
            assert [float(row[name]) for row in read] == [float(value) for value in values]


def test_what_is_not_finite_is_null_in_json(tmp_path):
    log = training.log_json_lines(tmp_path / "a.jsonl")
    for end in _ends(0, 1):
        log(end)
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[1]) == {
        "epoch": 1, "train_loss": 0.5, "valid_loss": None,
    }  # fmt: skip


def test_a_logger_whose_folder_is_gone_ends_the_run_and_keeps_it(problem, tmp_path):
    recipe = problem.recipe(model=layers.dense(3), optimizer=optimizers.sgd(0.1), penalty=None, epochs=3)

    def gone(end):
        shutil.rmtree(tmp_path / "logs")

    callbacks = [training.log_csv(tmp_path / "logs" / "a.csv"), gone]
    with pytest.raises(FileNotFoundError, match=r"logs/a\.csv") as caught:
        training.fit(recipe, problem.hparams, problem.train, key=problem.key, callbacks=callbacks)
    assert int(caught.value.result.epochs) == 2


def test_tensorboard_reads_the_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    log = training.log_tensorboard(tmp_path / "board")
    for end in _ends(0, 1):
        log(end)
    (file,), scalars, until = (tmp_path / "board").iterdir(), {}, time.monotonic() + 30
    while len(scalars) < 2 and time.monotonic() < until:  # it is written by a thread, each second
        content = file.read_bytes()
        while content:  # a record: its length, a checksum of that, the event, a checksum of it
            length = int.from_bytes(content[:8], "little")
            event, content = Event.FromString(content[12 : 12 + length]), content[16 + length :]
            scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        time.sleep(0.1)
    assert scalars == {("train_loss", 0): 1.0, ("train_loss", 1): 0.5}


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_has_the_finite_metrics_by_epoch(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlflow").as_uri())
    log = training.log_mlflow()
    with mlflow.start_run() as run:
        for end in _ends(0, 1):
            log(end)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.0), (1, 0.5)]
