"""The operation that first gives what is not finite, with its line, through loops, branches, calls and derivatives."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxopt_nn import checking


def line_of(function, text):
    """``file.py:line`` of the line of a function with a text in it, read from the source."""
    lines, first = inspect.getsourcelines(function)
    return f"test_origin.py:{first + next(i for i, line in enumerate(lines) if text in line)}"


def of_root(w):
    distance = jnp.sqrt(jnp.sum(w**2))
    return distance + 1.0


def scanned(w):
    def body(left, step):
        left = left - step
        return left, jnp.log(left)  # the third is log 0

    return jnp.sum(lax.scan(body, w, jnp.ones(5))[1])


def looped(w):
    def body(x):
        return x * x  # 1e16, 1e32, and then too much

    return lax.while_loop(lambda x: (x > 1) & (x < jnp.inf), body, w)


def branched(w):
    return lax.cond(w > 0, lambda x: 1 / (x - x), jnp.sin, w)  # the branch


@pytest.mark.parametrize(
    ("function", "at", "operation", "text", "iteration"),
    [
        (jax.grad(of_root), jnp.zeros(3), "div", "jnp.sqrt", ()),
        (jax.jit(scanned), 3.0, "log", "jnp.log", (2,)),
        (jax.grad(scanned), 3.0, "div", "jnp.log", (2,)),
        (looped, 1e8, "mul", "x * x", (2,)),
        (jax.vmap(branched), jnp.ones(2), "div", "the branch", ()),
        (jax.jit(branched), 1.0, "div", "the branch", ()),
    ],
    ids=["gradient", "scan", "gradient of a scan", "while", "vmap", "cond"],
)
def test_the_operation_and_its_line(function, at, operation, text, iteration):
    origin = checking.find_nonfinite(function, at)
    source = next(each for each in (of_root, scanned, looped, branched) if text in inspect.getsource(each))
    assert (origin.operation, origin.place, origin.iteration) == (operation, line_of(source, text), iteration)
    assert origin.file == __file__ and origin.place in str(origin)


def test_a_mask_is_not_taken_for_the_cause():
    def scores(x, mask):
        return jax.nn.softmax(jnp.where(mask, jnp.log(x), -jnp.inf))

    mask = jnp.array([[True, True], [False, True]])
    assert checking.find_nonfinite(scores, jnp.ones((2, 2)), mask) is None
    # A row that is masked as a whole makes the NaN itself; with a 0 in x it is the logarithm.
    origin = checking.find_nonfinite(scores, jnp.ones((2, 2)), mask.at[1, 1].set(False))
    assert (origin.operation, origin.result) == ("sub", "nan")
    origin = checking.find_nonfinite(lambda x: scores(x, mask) * jnp.log(x), jnp.array([[1.0, 0.0], [1.0, 1.0]]))
    assert (origin.operation, origin.inputs, origin.result) == ("log", "float32[2, 2] from 0 to 1", "-inf")


def test_an_argument_or_a_constant_that_is_not_finite_is_named():
    origin = checking.find_nonfinite(
        lambda tree: tree["a"] @ tree["b"], {"a": jnp.ones(2), "b": jnp.array([1.0, jnp.nan])}
    )
    assert (origin.operation, origin.place, str(origin)) == ("input", "0/b", "the input 0/b holds nan")
    origin = checking.find_nonfinite(
        lambda x: {"fine": x, "bad": jnp.where(x > 1, jnp.inf, 0.0)}, jnp.array([0.0, 2.0])
    )
    assert (origin.output, origin.operation, origin.result) == ("bad", "select_n", "inf")
    half = checking.find_nonfinite(lambda x: x * 2, jnp.full(3, 6e4, jnp.float16))
    assert (half.operation, half.result, half.inputs) == ("mul", "inf", "float16[3] from 60000 to 60000, 2")


def test_what_is_finite_or_no_float_has_no_origin():
    key = jax.random.key(0)
    assert checking.find_nonfinite(lambda key: (jax.random.normal(key, (3,)), key, jnp.arange(3)), key) is None
    assert checking.find_nonfinite(lambda: np.float64(math.pi)) is None


def test_bad_calls_are_named():
    with pytest.raises(TypeError, match=r"^function: expected a function, got 3"):
        checking.find_nonfinite(3)
    with pytest.raises(TypeError, match=r"^find_nonfinite: expected to be called outside of jit"):
        jax.jit(lambda x: checking.find_nonfinite(jnp.log, x))(1.0)
