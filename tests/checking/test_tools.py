"""The pytest fixture, the Hypothesis strategies, and the picture."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find, given, settings

from jaxopt_nn import checking
from jaxopt_nn.checking import check_gradients, strategies
from jaxopt_nn.checking.pytest_plugin import assert_gradients, gradcheck  # noqa: F401, a fixture

KEY = jax.random.key(0)


@pytest.mark.gradcheck
def test_the_fixture_passes_and_expects(gradcheck):  # noqa: F811
    assert gradcheck(jnp.sin, np.ones(3)).verdict == "PASS"
    assert gradcheck(jnp.sum, np.ones(3), grad_fn=lambda x: 2 * jnp.ones(3), expect="FAIL").verdict == "FAIL"


def test_a_failure_shows_the_report():
    with pytest.raises(pytest.fail.Exception, match=r"(?s)gradient check: FAIL .*ratio 2.0000"):
        assert_gradients(jnp.sum, np.ones(3), grad_fn=lambda x: 2 * jnp.ones(3), key=KEY)
    with pytest.raises(pytest.fail.Exception, match=r"(?s)expected the verdict KINK_OK.*gradient check: PASS"):
        assert_gradients(jnp.sum, np.ones(3), expect="KINK_OK", key=KEY)


@settings(max_examples=3, phases=[hypothesis.Phase.generate])
@given(strategies.separated((2, 3)))
def test_hypothesis_takes_the_fixture(gradcheck, x):  # noqa: F811
    gradcheck(jnp.sin, x)


@pytest.mark.slow
def test_the_plugin_in_a_project_of_its_own(tmp_path):
    """As a newcomer has it: no settings of ours, each test a first compilation."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["jaxopt_nn.checking.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(
        "import jax.numpy as jnp\nfrom hypothesis import given\nfrom jaxopt_nn.checking import strategies\n\n"
        "@given(strategies.arrays((2, 3)))\ndef test_it(gradcheck, x):\n    gradcheck(jnp.sin, x)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-profile=gradcheck", "-p", "no:cacheprovider"]
    paths = os.pathsep.join([str(Path(checking.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("strategy", [strategies.shapes(), strategies.nets(), strategies.batches()])
def test_shapes_are_few(strategy):
    seen = set()

    @settings(max_examples=200, database=None)
    @given(strategy)
    def draw(value):
        seen.add((*value.widths, value.activation) if hasattr(value, "widths") else str(jax.tree.map(np.shape, value)))

    draw()
    assert len(seen) <= 14


@given(strategies.separated())
def test_separated_numbers_are_apart(x):
    points = np.concatenate([x.ravel().astype(np.float64), [0.0, 1.0, -1.0]])
    gaps = np.diff(np.sort(points))
    assert np.all(gaps[1:] > 0.1 / x.size) or x.size == 0
    assert np.min(gaps) > 0.1 / x.size


@given(strategies.trees(), strategies.batches(), strategies.losses())
def test_drawn_things_are_what_they_say(tree, batch, loss):
    assert jax.tree.leaves(tree)
    assert batch.x.shape[0] == batch.y.shape[0] and np.max(batch.y) < 3
    assert batch.weight is None or np.sum(batch.weight) > 0
    o = np.ones((2, 3), np.float32)
    assert loss[1](o, 2 * o).shape == (2,)


def test_counterexamples_shrink_to_something_small():
    quiet = settings(database=None, max_examples=300)
    net = find(strategies.nets(), lambda net: net.activation == "relu", settings=quiet)
    assert net.widths == (1, 1)
    array = find(strategies.arrays(), lambda x: x.ndim == 2, settings=quiet)
    assert array.shape == (1, 1)


@pytest.mark.gradcheck
@settings(max_examples=4, phases=[hypothesis.Phase.generate])
@given(strategies.nets(max_layers=2))
def test_random_nets_have_right_gradients(net):
    report = check_gradients(net.loss, net.params, net.x, net.y, argnums=0, key=KEY, directions=2)
    assert report.verdict in ("PASS", "DEAD", "KINK_OK"), report


@pytest.mark.gradcheck
@settings(max_examples=3, phases=[hypothesis.Phase.generate])
@given(strategies.tied((2, 4)))
def test_ties_are_no_false_alarm(x):
    report = check_gradients(lambda x: jnp.sum(jnp.max(x, -1)) + jnp.sum(jax.nn.relu(x)), x, key=KEY)
    assert report.ok, report


def test_the_picture_has_a_panel_a_leaf_and_the_chosen_step():
    pytest.importorskip("matplotlib")
    f = lambda p: jnp.sum(jnp.sin(p["a"])) + jnp.sum(jnp.abs(p["b"] + 1e-4))  # noqa: E731
    report = check_gradients(f, {"a": np.ones(3), "b": np.zeros(2)}, key=KEY)
    figure = report.plot()
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["a: PASS", "b: PASS"]
    lines = {line.get_label(): line for line in panels[0].lines}
    assert set(lines) == {"one-sided", "two-sided", "extrapolated", "chosen step"}
    assert lines["chosen step"].get_xdata()[0] == report.leaves[0].step
    _, legend = panels[1].get_legend_handles_labels()
    assert legend.count("reaches over a kink") == 1
    curve = report.leaves[1].curve
    assert curve.crossed[0] == 1 and curve.crossed[-1] == 0  # the kink is 1e-4 away
    assert curve.one_sided[0] > 0.1 > curve.one_sided[-1]
