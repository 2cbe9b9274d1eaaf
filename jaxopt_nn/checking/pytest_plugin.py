"""Gradient checks in pytest: ``pytest_plugins = ["jaxopt_nn.checking.pytest_plugin"]`` in the top ``conftest.py``.

It brings the fixture ``gradcheck``, whose failures show the report, and the marker ``gradcheck`` for choosing tests::

    @pytest.mark.gradcheck
    def test_my_layer(gradcheck):
        gradcheck(loss, params, batch, argnums=0)

The key of a check comes from the name of the test: the same directions each time, other ones in another test.

The fixture lives as long as the session, so Hypothesis takes it beside ``@given``. Where Hypothesis is installed there
is a profile too, without a deadline, since the first example of each shape compiles:
``pytest --hypothesis-profile=gradcheck``, or ``hypothesis.settings.load_profile("gradcheck")`` in ``conftest.py``.
"""

import importlib.util
import os
import zlib
from collections.abc import Callable
from typing import Any

import jax
import pytest

from jaxopt_nn.checking._check import check_gradients
from jaxopt_nn.checking._report import GradientReport, Verdict

__all__ = ["assert_gradients", "gradcheck", "pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, and the profile of Hypothesis."""
    config.addinivalue_line("markers", "gradcheck: compares gradients with evidence from outside autodiff")
    if importlib.util.find_spec("hypothesis") is not None:
        import hypothesis

        slow = [hypothesis.HealthCheck.too_slow]
        hypothesis.settings.register_profile("gradcheck", deadline=None, max_examples=20, suppress_health_check=slow)


@pytest.fixture(scope="session")
def gradcheck() -> Callable[..., GradientReport]:
    """``gradcheck(f, *args, expect=None, **options)``: :func:`assert_gradients` with a key of the test's own."""

    def check(f: Callable[..., Any], *args: Any, **options: Any) -> GradientReport:
        __tracebackhide__ = True
        if "key" not in options:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit("/", 1)[-1].rsplit(" ", 1)[0]
            options["key"] = jax.random.key(zlib.crc32(test.encode()))
        return assert_gradients(f, *args, **options)

    return check


def assert_gradients(
    f: Callable[..., Any],
    *args: Any,
    expect: Verdict | None = None,
    check: Callable[..., GradientReport] = check_gradients,
    **options: Any,
) -> GradientReport:
    """Fails the test, with the report as its message, unless the gradient is ok.

    Args:
        f: what ``check`` takes first: a function, a layer, a rule.
        *args: its arguments.
        expect: the verdict that is expected instead, such as ``"FAIL"`` for a bug planted on purpose.
        check: ``check_gradients``, or ``check_layer``, ``check_loss``, ``check_optimizer``, ``check_rule``.
        **options: of ``check``, the key among them.

    Returns:
        The report.
    """
    __tracebackhide__ = True
    report = check(f, *args, **options)
    if (report.verdict != expect) if expect else not report.ok:
        wanted = f"expected the verdict {expect}\n" if expect else ""
        pytest.fail(f"{wanted}{report}", pytrace=False)
    return report
