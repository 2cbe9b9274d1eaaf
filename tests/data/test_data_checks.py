import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import data
from jaxopt_nn.types import Batch

X, Y = np.ones((4, 3), np.float32), np.array([0, 1, 2, 1], np.int32)


def _with(array, index, value):
    changed = array.astype(np.result_type(array, type(value)))
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("batch", "num_outputs"),
    [
        (Batch(X, Y), 3),
        (Batch(X, Y), None),
        (Batch(X, np.array([-1, 5, 0, 0])), None),
        (Batch(X, np.array([0, 1, 1, 0])), 1),
        (Batch(X, np.array([True, False, True, True])), 1),
        (Batch(X, np.linspace(-1, 1, 4)), 1),
        (Batch(X, np.eye(4)), 4),
        (Batch(X, None), None),
        (Batch({"a": X, "b": Y}, {"c": Y}, np.array([0.0, 2, 0, 0])), 3),
        (Batch(X, Y, np.array([1, 0, 0, 0])), 3),
        (Batch(jnp.asarray(X), jnp.asarray(Y), jnp.ones(4)), 3),
        (Batch(jnp.ones((4, 1), jnp.bfloat16), jnp.asarray(Y, jnp.uint8)), 3),
        (Batch(jax.ShapeDtypeStruct((4, 1), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.int32)), 3),
    ],
)
def test_good_batches_pass(batch, num_outputs):
    data.check_batch("train", batch, num_outputs)


@pytest.mark.parametrize(
    ("batch", "num_outputs", "error", "message"),
    [
        (
            Batch(_with(X, (2, 1), np.nan), Y),
            3,
            ValueError,
            r"train\.x: .*finite numbers, got nan in row 2 \(at \[2, 1\]\)",
        ),
        (Batch(_with(X, (3, 0), -np.inf), Y), 3, ValueError, r"train\.x: expected finite numbers, got -inf in row 3"),
        (
            Batch(jnp.asarray(X).at[1].set(jnp.nan), Y),
            3,
            ValueError,
            r"train\.x: expected finite numbers, got nan in row 1",
        ),
        (
            Batch({"a": X, "b": X * np.inf}, Y),
            3,
            ValueError,
            r"train\.x\[b\]: expected finite numbers, got inf in row 0",
        ),
        (Batch(X, Y[:3]), 3, ValueError, r"train\.y: expected 4 rows as train\.x has, got 3"),
        (Batch({"a": X, "b": X[:2]}, Y), 3, ValueError, r"train\.x\[b\]: expected 4 rows as train\.x\[a\] has, got 2"),
        (Batch(X[:0], Y[:0]), 3, ValueError, r"train\.x: expected at least one row, got the shape \[0, 3\]"),
        (Batch(np.float32(1), Y), 3, ValueError, r"train\.x: expected an array \[N, \.\.\.\].*, got a scalar"),
        (Batch(X, _with(Y, 3, 3)), 3, ValueError, r"train\.y: expected integer labels in \[0, 3\), got 3 in row 3$"),
        (Batch(X, _with(Y, 1, -1)), 3, ValueError, r"train\.y: expected integer labels in \[0, 3\), got -1 in row 1$"),
        (
            Batch(X, jnp.array([0, 0, 2, 0])),
            1,
            ValueError,
            r"train\.y: expected integer labels in \[0, 2\), got 2 in row 2",
        ),
        (
            Batch(X, {"a": Y, "b": Y + 1}),
            3,
            ValueError,
            r"train\.y\[b\]: expected integer labels in \[0, 3\), got 3 in row 2",
        ),
        (Batch(X, _with(Y, 2, np.nan)), 3, ValueError, r"train\.y: expected finite numbers, got nan in row 2"),
        (Batch(X, Y, np.ones(3)), 3, ValueError, r"train\.weight: expected 4 rows as train\.x has, got 3"),
        (
            Batch(X, Y, np.ones((4, 1))),
            3,
            ValueError,
            r"train\.weight: expected one weight a row, .* got the shape \[4, 1\]",
        ),
        (Batch(X, Y, np.array([1, 1, -0.5, 1])), 3, ValueError, r"train\.weight: .*weights >= 0, got -0\.5 in row 2"),
        (
            Batch(X, Y, np.array([1, np.nan, 0, 1])),
            3,
            ValueError,
            r"train\.weight: expected finite weights.*nan in row 1",
        ),
        (Batch(X, Y, np.zeros(4)), 3, ValueError, r"train\.weight: expected a positive sum, got 4 weights of 0"),
        ((X, Y), 3, TypeError, r"train: expected a Batch\(x, y, weight\), got a tuple; write Batch\(x, y\)"),
        (X, 3, TypeError, r"train: expected a Batch\(x, y, weight\), got a ndarray"),
        (Batch(None, Y), 3, TypeError, r"train\.x: expected an array, got None"),
        (Batch([[1.0]], [1]), 3, TypeError, r"train\.x\[0/0\]: expected a NumPy or JAX array, got a float"),
        (Batch(X.astype(object), Y), 3, TypeError, r"train\.x: expected an array of real numbers, got dtype object"),
        (Batch(X, np.array(list("abca"))), 3, TypeError, r"train\.y: expected an array of real numbers, got dtype <U1"),
        (Batch(X * 1j, Y), 3, TypeError, r"train\.x: expected an array of real numbers, got dtype complex"),
        (
            Batch(X, Y + 1),
            3,
            ValueError,
            r"train\.y: expected integer labels in \[0, 3\), got 3 in row 2; classes count from 0: subtract 1$",
        ),
        (
            Batch(_with(X.astype(np.float64), (1, 2), 1e300), Y),
            3,
            ValueError,
            r"train\.x: expected numbers that fit float32, got 1e\+300 in row 1",
        ),
        (Batch(X, _with(Y.astype(np.int64), 2, 2**40)), None, ValueError, r"train\.y: .* fit int32, got 1099511627776"),
        (Batch(X, Y, np.full(4, 1e-60)), 3, ValueError, r"train\.weight: expected a positive sum, got 4 weights of 0"),
        (
            Batch(X.astype(">f4"), Y),
            3,
            TypeError,
            r"train\.x: .* byte order of this machine, got dtype >f4; .*from_arrays",
        ),
        (Batch(np.ma.array(X, mask=X > 0), Y), 3, TypeError, r"train\.x: .* got a masked array"),
        (Batch(X, np.ma.array(Y, mask=Y > 1)), 3, TypeError, r"train\.y: .* got a masked array"),
        (Batch(X, Y), 0, ValueError, r"num_outputs: expected an int in \[1, inf\), got 0"),
    ],
)
def test_bad_batches_are_refused(batch, num_outputs, error, message):
    with pytest.raises(error, match=f"^{message}"):
        data.check_batch("train", batch, num_outputs)


def test_without_a_name_the_parts_are_named_alone():
    with pytest.raises(ValueError, match=r"^y: expected 4 rows as x has, got 3"):
        data.check_batch("", Batch(X, Y[:3]))


def test_traced_values_pass_and_traced_shapes_do_not():
    @jax.jit
    def check(batch):
        data.check_batch("train", batch, 3)
        return 0

    check(Batch(X * np.nan, Y + 9, -np.ones(4)))
    with pytest.raises(ValueError, match=r"^train\.y: expected 4 rows as train\.x has, got 3"):
        check(Batch(X, Y[:3]))
    with pytest.raises(ValueError, match=r"^train\.x: expected at least one row"):
        check(Batch(X[:0], Y[:0]))


def test_concrete_parts_of_a_partly_traced_batch_are_checked():
    with pytest.raises(ValueError, match=r"^train\.y: expected integer labels in \[0, 3\), got 7 in row 0"):
        jax.jit(lambda x: data.check_batch("train", Batch(x, Y + 7), 3))(X)


def test_wide_numbers_pass_where_jax_holds_them():
    with jax.enable_x64(True):
        data.check_batch("train", Batch(1e300 * X.astype(np.float64), Y.astype(np.int64) + 2**40))
