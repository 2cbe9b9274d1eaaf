"""The oracle that differentiates what f computes: where it has nothing to say it says why, and its own bugs show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.checking import check_gradients
from jaxopt_nn.checking._jaxpr import interpreter, rule_stripped

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal(20).astype(np.float32)


@jax.custom_vjp
def doubled(x):
    return jnp.sin(x)


doubled.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (2 * ct * jnp.cos(x),))


def two_terms(x):
    return jnp.sum(doubled(x)) + jnp.sum(x**2)


def looped(x):
    return jax.lax.while_loop(lambda c: c[1] < 2, lambda c: (jnp.sin(c[0]), c[1] + 1), (jnp.sum(x), 0))[0]


def test_what_has_no_derivative_is_a_note_and_differences_decide():
    right = lambda x: jnp.cos(jnp.sin(jnp.sum(x))) * jnp.cos(jnp.sum(x)) * jnp.ones_like(x)  # noqa: E731
    for factor, verdict in ((1.0, "PASS"), (1.0001, "FAIL")):
        report = check_gradients(looped, X, grad_fn=lambda x, factor=factor: factor * right(x), key=KEY)
        assert report.verdict == verdict, report
        assert any("rule-stripped AD was not to be had: Reverse-mode differ" in note for note in report.notes)


def test_a_rule_that_cannot_be_run_again_is_a_note():
    calls = []

    def backward(x, ct):
        calls.append(1)
        if len(calls) == 2:  # the first is jax.grad, the second the search for the rule to blame
            raise KeyError("not now")
        return (2 * ct * jnp.cos(x),)

    sin = jax.custom_vjp(jnp.sin)
    sin.defvjp(lambda x: (jnp.sin(x), x), backward)
    report = check_gradients(lambda x: jnp.sum(sin(x)), X, key=KEY)
    assert report.verdict == "FAIL" and "ratio 2.0000" in report.leaves[0].hypothesis
    assert any("could not be tried alone: 'not now'" in note for note in report.notes), report


def test_a_type_error_is_a_note_only_where_a_solve_has_no_transposed_one(monkeypatch):
    solve = lambda x: jax.lax.custom_linear_solve(lambda v: 2 * v, x, lambda _, b: b / 2)  # noqa: E731
    by_hand = lambda x: x / 2  # noqa: E731
    report = check_gradients(lambda x: jnp.sum(solve(x) ** 2), X, grad_fn=by_hand, key=KEY)
    assert report.verdict == "PASS"
    assert any("was not to be had: transpose_solve required" in note for note in report.notes), report

    def fail(*_):
        raise TypeError("a bug of our own")

    monkeypatch.setattr(rule_stripped, "evaluator", fail)
    with pytest.raises(TypeError, match="a bug of our own"):
        check_gradients(two_terms, X, key=KEY)


@pytest.mark.parametrize("use", ["stripped_gradient", "single_rules", "terms"])
def test_a_bug_of_our_own_is_raised(monkeypatch, use):
    """Whatever our reading of a program raises: the oracle must not be silently absent."""
    true = getattr(rule_stripped, use)

    def fail(*_):
        raise ValueError("a bug of our own")

    def broken(*args, **options):
        with monkeypatch.context() as inside:
            inside.setattr(interpreter, "run", fail)
            inside.setattr(rule_stripped, "run", fail)
            return true(*args, **options)

    monkeypatch.setattr(rule_stripped, use, broken)
    with pytest.raises(ValueError, match="a bug of our own"):
        check_gradients(two_terms, X, key=KEY)


@pytest.mark.slow
def test_a_stop_gradient_of_jax_itself_is_no_cause_and_one_of_the_users_that_blocks_is():
    logits = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    loss = lambda x: -jnp.mean(jax.nn.log_softmax(x)[:, 0]) + jnp.linalg.solve(2 * jnp.eye(3) + x[:3], x[3])[0]  # noqa: E731
    report = check_gradients(loss, logits, grad_fn=lambda x: 2 * jax.grad(loss)(x), key=KEY)
    assert report.verdict == "FAIL" and "stop_gradient" not in str(report)
    assert check_gradients(loss, logits, key=KEY).verdict == "PASS"
    stopped = lambda x: loss(x) + jnp.sum(jax.tree.map(jax.lax.stop_gradient, [x])[0] * x)  # noqa: E731
    report = check_gradients(stopped, logits, grad_fn=lambda x: 2 * jax.grad(stopped)(x), key=KEY)
    assert report.verdict == "FAIL" and "stop_gradient at test_rule_stripped.py" in report.leaves[0].hypothesis


def test_a_rule_beside_a_while_loop_is_a_suspect():
    @jax.custom_vjp
    def root(x):
        def step(carry):
            return carry[0] + 1, (carry[1] + x / carry[1]) / 2

        return jax.lax.while_loop(lambda carry: carry[0] < 60, step, (0, x))[1]

    root.defvjp(lambda x: (root(x), x), lambda x, ct: (ct / jnp.sqrt(x),))
    report = check_gradients(lambda x: jnp.sum(root(x)), np.array([2.0, 3.0]), key=KEY)
    assert report.verdict == "FAIL"
    assert any("may be wrong: the custom_vjp rule of root at test_rule_stripped.py" in note for note in report.notes), (
        report
    )
