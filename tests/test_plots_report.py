"""The page of a run: what it says is what the run's parts say, and it opens offline."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import precision_score

from jaxopt_nn import data, layers, losses, metrics, monitor, optimizers, plots, training
from jaxopt_nn.types import Static

KEY = jax.random.key(0)
TRAIN = data.from_arrays(
    jax.random.normal(KEY, (64, 3)), jax.random.randint(KEY, (64,), 0, 3)
)  # nothing to learn: validation gets worse
HPARAMS = {"rate": 0.1, "name": Static("<sgd>"), "betas": jnp.array([0.9, 0.99])}


def recipe(hp):
    return training.Recipe(
        model=layers.serial(layers.dense(32), jax.nn.relu, layers.dense(3)), loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.accuracy}, optimizer=optimizers.adam(hp["rate"]), batch_size=16, epochs=12,
        record=monitor.gradient_flow())  # fmt: skip


@pytest.fixture(scope="module")
def result():
    return training.make_run(recipe)(
        KEY, HPARAMS, TRAIN, jax.tree.map(lambda leaf: leaf[::-1], TRAIN)._replace(x=-TRAIN.x)
    )


@pytest.fixture(scope="module")
def confusion():
    return metrics.confusion_matrix(TRAIN.y, jnp.roll(TRAIN.y, 1), 3)


def test_the_page_says_what_the_run_says_and_asks_the_network_for_nothing(result, confusion, tmp_path):
    evaluation = {"accuracy": jnp.float32(0.25), "confusion": confusion}
    figure = plots.report(
        result, tmp_path / "run.html", hparams=HPARAMS, evaluation=evaluation, names=["a", "<b>", "c"], title="R & <co>"
    )
    text = (tmp_path / "run.html").read_text()
    assert not set(re.findall(r"""(?:src|href)=["'](?!data:)[^"']*""", text)) | set(re.findall(r"@import|url\(", text))
    assert "<h1>R &amp; &lt;co&gt;</h1>" in text and "<b>c" not in text and "&lt;sgd&gt;" in text
    words = re.sub(r"<[^>]+>", "", text)
    assert "Completed 12 epochs, validation accuracy" in words
    found = monitor.diagnose(result)
    assert "overfitting" in found.names
    assert all(f"{each.name}: " in words for each in found.findings)
    for name, value in (("rate", "0.1"), ("name", "&lt;sgd&gt;"), ("betas", "float32[2]"), ("accuracy", "0.25")):
        assert re.search(rf">{name}</td><td[^>]*>{re.escape(value)}</td>", text), name
    precision = precision_score(TRAIN.y, jnp.roll(TRAIN.y, 1), average="macro")
    assert re.search(rf"macro avg +{precision:.2f}", text)
    for heading in ("History", "Inside of the run", "confusion"):
        assert f"<h3>{heading}</h3>" in text
    drawn = [ax.get_ylabel() for ax in figure.axes]
    assert drawn[:4] == ["loss", "metric", "gradient norm", "learning rate"] and "true class" in drawn
    said = " ".join(text.get_text() for part in figure.subfigs for text in part.texts)
    assert "overfitting" in said and "rate = 0.1" in said and "accuracy = 0.25" in said


def test_a_page_without_more_than_the_result(result, tmp_path):
    history = {name: values for name, values in result.history.items() if "/" not in name}
    plots.report(result._replace(history=history), tmp_path / "run.html")
    words = re.sub(r"<[^>]+>", " ", (tmp_path / "run.html").read_text())
    assert "Not looked for: dead and saturated units" in words and "Evaluation" not in words


def test_what_a_report_refuses(result):
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), result._replace(state=None))
    with pytest.raises(ValueError, match=r"^result: expected that of one run, got lanes \[2\]"):
        plots.report(lanes)
    with pytest.raises(TypeError, match=r"^result: expected a RunResult, .* got a dict"):
        plots.report(result.history)
    with pytest.raises(TypeError, match=r"^evaluation: expected name to number, got a float"):
        plots.report(result, evaluation=0.5)
    with pytest.raises(ValueError, match=r"^evaluation\['f1'\]: expected a number or a square matrix, got f"):
        plots.report(result, evaluation={"f1": np.ones(3)})


def test_confusion_matrix_shows_shares_by_row(confusion):
    ax = plots.plot_confusion_matrix([[3, 1], [0, 0]], names=["yes", "no"])
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.75, 0.25], [0, 0]])  # a class that is absent: no NaN
    assert [text.get_text() for text in ax.texts] == ["3", "1", "0", "0"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["yes", "no"]
    assert plots.plot_confusion_matrix(confusion, ax=ax) is ax
    for wrong in ([[1, 2]], [[1.0, np.nan], [0, 1]], [[-1, 0], [0, 1]]):
        with pytest.raises(ValueError, match=r"^confusion: expected counts \[C, C\], got"):
            plots.plot_confusion_matrix(wrong)
    with pytest.raises(ValueError, match=r"^names: expected one a class, 2, got 1"):
        plots.plot_confusion_matrix(np.eye(2), names=["a"])
