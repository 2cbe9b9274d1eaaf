import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import _arguments as arguments
from jaxopt_nn import initializers, layers, losses, metrics, optimizers, penalties, schedules
from jaxopt_nn.types import ArrayLike

NAN, INF = math.nan, math.inf


def traced(check):
    """Whether ``check`` lets a traced value pass."""
    jax.jit(check)(1.0)
    jax.vmap(check)(jnp.array([1.0, -1.0, jnp.nan]))
    return True


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.int64(1), jnp.array(0.5), jnp.array(1, jnp.int8)])
def test_numbers_of_every_kind_pass(value):
    arguments.check_number("rate", value)
    arguments.check_number("rate", value, 0.0, 1.0)
    assert arguments.concrete_number(value) == float(value)


def test_traced_numbers_pass_whatever_the_range():
    assert traced(lambda v: arguments.check_number("rate", v, 5.0, 6.0))
    assert jax.jit(lambda v: v if arguments.concrete_number(v) is None else 0 * v)(2.0) == 2
    assert jax.grad(lambda v: v if arguments.concrete_number(v) is None else 0 * v)(2.0) == 1


def test_an_array_is_no_concrete_number():
    assert arguments.concrete_number(np.ones(3)) is None
    assert arguments.concrete_number(jnp.ones((1, 1))) is None


@pytest.mark.parametrize("value", ["0.5", b"1", None, [0.5], object()])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match=r"^rate: expected a number, got "):
        arguments.check_number("rate", value)


@pytest.mark.parametrize(
    ("keywords", "good", "bad", "interval"),
    [
        ({}, [-1e30, 0, 1e30], [NAN, INF, -INF], r"\(-inf, inf\)"),
        ({"low": 0.0}, [0, 1e30], [-1e-9, INF, NAN], r"\[0, inf\)"),
        ({"low": 0.0, "open_low": True}, [1e-9], [0, -0.0, -1, INF, NAN], r"\(0, inf\)"),
        ({"low": 0.0, "high": 1.0}, [0, 1], [-0.1, 1.1, NAN, INF], r"\[0, 1\]"),
        ({"low": 0.0, "high": 1.0, "open_high": True}, [0, 0.999], [-0.1, 1, NAN], r"\[0, 1\)"),
        ({"low": -1.0, "high": 1.0, "open_low": True, "open_high": True}, [0], [-1, 1, NAN], r"\(-1, 1\)"),
        ({"high": 1.0}, [-1e30, 1], [1.1, -INF, NAN], r"\(-inf, 1\]"),
    ],
)
def test_ranges(keywords, good, bad, interval):
    for value in good:
        arguments.check_number("rate", value, **keywords)
    for value in bad:
        for kind in (float, np.float32, jnp.float32):
            with pytest.raises(ValueError, match=rf"^rate: expected a finite number in {interval}, got {value:g}"):
                arguments.check_number("rate", kind(value), **keywords)


def test_positive_ints():
    for value in (1, 7, np.int32(7)):
        arguments.check_positive_int("width", value)
        arguments.check_positive_int("width", value, high=7)


@pytest.mark.parametrize(
    ("value", "keywords", "error", "message"),
    [
        (0, {}, ValueError, r"^width: expected an int in \[1, inf\), got 0"),
        (-3, {}, ValueError, r"^width: expected an int in \[1, inf\), got -3"),
        (8, {"high": 7}, ValueError, r"^width: expected an int in \[1, 7\], got 8"),
        (2.0, {}, TypeError, r"^width: expected a positive int, got 2\.0 of type float"),
        (True, {}, TypeError, r"^width: expected a positive int, got True of type bool"),
        ("2", {}, TypeError, r"^width: expected a positive int, got '2' of type str"),
        (None, {}, TypeError, r"^width: expected a positive int, got None of type NoneType"),
    ],
)
def test_what_is_no_positive_int_is_refused(value, keywords, error, message):
    with pytest.raises(error, match=message):
        arguments.check_positive_int("width", value, **keywords)


def test_a_traced_int_is_refused_with_a_way_out():
    with pytest.raises(TypeError, match=r"^width: expected a Python int, got a traced value.*types\.Static\(value\)"):
        jax.jit(functools.partial(arguments.check_positive_int, "width"))(3)


def test_one_key_of_either_kind_passes():
    for key in (jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")):
        arguments.check_key("key", key)
        jax.jit(functools.partial(arguments.check_key, "key"))(key)
    jax.vmap(functools.partial(arguments.check_key, "key"))(jax.random.split(jax.random.key(0), 3))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (0, r"^key: expected a PRNG key, got 0 of type int; make one with jax\.random\.key\(0\)"),
        (np.int64(5), r"^key: expected a PRNG key, .*jax\.random\.key\(5\)"),
        (None, r"^key: expected a PRNG key, got None of type NoneType$"),
        (np.zeros(2, np.uint32), r"^key: expected a PRNG key, got an array.* of type ndarray"),
        (jnp.zeros(2), r"^key: expected one PRNG key, got an array float32\[2\]"),
        (jnp.array(5), r"^key: expected one PRNG key, got an array int32\[\]"),
    ],
)
def test_what_is_no_key_is_refused(key, message):
    with pytest.raises(TypeError, match=message):
        arguments.check_key("key", key)


def test_several_keys_are_refused():
    with pytest.raises(TypeError, match=r"^key: expected one PRNG key, got an array key<fry>\[3\]"):
        arguments.check_key("key", jax.random.split(jax.random.key(0), 3))
    with pytest.raises(TypeError, match=r"^key: expected one PRNG key, got an array uint32\[3, 2\]"):
        arguments.check_key("key", jax.random.split(jax.random.PRNGKey(0), 3))


def test_concrete_arrays():
    np.testing.assert_array_equal(arguments.concrete_array(jnp.arange(3)), [0, 1, 2])
    np.testing.assert_array_equal(arguments.concrete_array([1, 2]), [1, 2])
    assert jax.jit(lambda v: arguments.concrete_array(v) is None)(1.0)


def test_same_shapes():
    arguments.check_same_shape("targets", np.ones((2, 3)), "outputs", jnp.zeros((2, 3)))
    jax.jit(lambda a, b: arguments.check_same_shape("targets", a, "outputs", b))(1.0, 2.0)
    with pytest.raises(
        ValueError, match=r"^targets: expected the shape \[3\] of outputs, got \[3, 1\]; drop or add the axis"
    ):
        arguments.check_same_shape("targets", np.ones((3, 1)), "outputs", np.ones(3))
    with pytest.raises(ValueError, match=r"^targets: expected the shape \[3\] of outputs, got \[4\]$"):
        arguments.check_same_shape("targets", np.ones(4), "outputs", np.ones(3))


def test_one_number():
    for number in (2, 2.0, np.float32(2), jnp.bfloat16(2)):
        arguments.check_number("n", number, 0.0, whole=True)
    jax.jit(lambda n: arguments.check_number("n", n, 0.0, whole=True))(-0.5)
    arguments.check_number("n", 0.5)
    for wrong, message in (
        (-1, r"^n: expected a finite number in \[0, inf\), got -1"),
        (0.5, r"^n: expected an integer, got 0.5"),
        (np.ones(2), r"^n: expected one number, got an array of shape \(2,\)"),
        (np.ones((1,)), r"^n: expected one number, got an array of shape \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            arguments.check_number("n", wrong, 0.0, whole=True)
    with pytest.raises(ValueError, match=r"^n: expected one number, got an array of shape \(2, 3\)"):
        jax.jit(lambda n: arguments.check_number("n", n))(np.ones((2, 3)))


def test_class_labels():
    for labels in (np.array([0, 2]), jnp.array([0, 2], jnp.uint8), 2, np.zeros((0,), int)):
        arguments.check_class_labels("y", labels, 3)
    jax.jit(lambda y: arguments.check_class_labels("y", y, 3))(np.array([-5, 77]))
    for wrong, message in (
        (np.array([[0, 1], [3, 2]]), r"^y\[1, 0\]: expected a class label in \[0, 3\), got 3"),
        (jnp.array([0, -1]), r"^y\[1\]: expected a class label in \[0, 3\), got -1"),
        (np.array([0, 2**32]), r"^y\[1\]: expected a class label in \[0, 3\), got 4294967296"),
    ):
        with pytest.raises(ValueError, match=message):
            arguments.check_class_labels("y", wrong, 3)
    for wrong in (np.array([0.0, 1.0]), np.array([True])):
        with pytest.raises(TypeError, match=r"^y: expected integer class labels, got (float|bool)"):
            arguments.check_class_labels("y", wrong, 3)


def test_weights():
    for weight in (np.array([0.0, 2.0]), jnp.array([True, False]), np.array([0, 3])):
        arguments.check_weight("weight", weight, 2)
    jax.jit(lambda w: arguments.check_weight("weight", w, 2))(np.array([-1.0, NAN]))
    for wrong, message in (
        (np.ones(3), r"^weight: expected one weight an example, \[2\], got \[3\]"),
        (np.ones((2, 1)), r"^weight: expected one weight an example, \[2\], got \[2, 1\]"),
        (np.array([1.0, -0.5]), r"^weight\[1\]: expected a finite number >= 0, got -0\.5"),
        (np.array([INF, 1.0]), r"^weight\[0\]: expected a finite number >= 0, got inf"),
        (jnp.array([1.0, jnp.nan], jnp.bfloat16), r"^weight\[1\]: expected a finite number >= 0, got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            arguments.check_weight("weight", wrong, 2)


@pytest.mark.parametrize("value", [np.array([0.5]), jnp.ones((1, 1)), np.ones(3)])
def test_an_array_is_no_number_traced_or_not(value):
    message = r"^rate: expected one number, got an array of shape \(.*use jax\.vmap"
    with pytest.raises(ValueError, match=message):
        arguments.check_number("rate", value)
    with pytest.raises(ValueError, match=message):
        jax.jit(functools.partial(arguments.check_number, "rate"))(value)


@pytest.mark.parametrize(
    "value", [True, np.bool_(True), jnp.array(True), np.array("0.5"), np.array(None), 1j, np.array(1j)]
)
def test_bools_text_and_complex_numbers_are_no_numbers(value):
    with pytest.raises(TypeError, match=r"^rate: expected a number, got "):
        arguments.check_number("rate", value)


def test_the_dtype_of_a_traced_number_is_known():
    with pytest.raises(TypeError, match=r"^rate: expected a number, got bool\[\]"):
        jax.jit(functools.partial(arguments.check_number, "rate"))(True)
    with pytest.raises(ValueError, match=r"^rate: expected a finite number in \[0, 1\], got 2"):
        arguments.check_number("rate", np.array(2), 0.0, 1.0)


ARGUMENTS = {
    "base": optimizers.sgd(0.1), "optimizer": optimizers.sgd(0.1), "key": jax.random.PRNGKey(0), "features": 3,
    "widths": [3, 2], "window": 2, "num_heads": 2, "num_embeddings": 5, "fan_in": 3,
    "mode": "fan_in", "distribution": "normal",
    "logits": np.zeros((2, 3), "f4"), "labels": np.array([0, 1]), "outputs": np.ones((2, 3), "f4"),
    "targets": np.ones((2, 3), "f4"), "patterns": ["*"], "steps_per_epoch": 3, "boundaries": [3],
    "decay_steps": 3, "period": 3, "total_steps": 3, "step_size": 3, "warmup_steps": 3,
}  # fmt: skip
ARRAYS = {
    "logits", "labels", "outputs", "targets", "predictions", "per_example", "weight", "confusion",
    "scores", "probabilities", "class_weight", "positive_weight",
}  # fmt: skip
OTHERWISE = {  # refused for another reason, or under another name
    ("nadam", "momentum_decay"), ("scale_by_nadam", "momentum_decay"), ("sgd", "dampening"), ("by_epoch", "schedule"),
    ("scale_learning_rate", "scale"),
}  # fmt: skip
NUMBERS = [
    (factory, name)
    for module in (initializers, layers, losses, metrics, optimizers, penalties, schedules)
    for factory in (getattr(module, name) for name in module.__all__)
    if inspect.isfunction(factory)
    for name, parameter in inspect.signature(factory).parameters.items()
    if str(parameter.annotation).startswith(str(ArrayLike)) and "Sequence" not in str(parameter.annotation)
    if name not in ARRAYS and (factory.__name__, name) not in OTHERWISE
]


@pytest.mark.parametrize(("factory", "name"), NUMBERS, ids=[f"{f.__name__}-{name}" for f, name in NUMBERS])
def test_every_factory_refuses_an_array_and_a_bool_for_a_number(factory, name):
    parameters = inspect.signature(factory).parameters.values()
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    given = {each: ARGUMENTS.get(each, 0.5) for each in required if each != name}
    with pytest.raises(ValueError, match=rf"^{name}: expected one number, got an array of shape \(1,\)"):
        factory(**given, **{name: np.array([0.5])})
    with pytest.raises(TypeError, match=rf"^{name}: expected a number, got True"):
        factory(**given, **{name: True})


def test_bools():
    for value in (True, False, np.bool_(True)):
        arguments.check_bool("shuffle", value)
    for wrong in ("no", 0, 1, None, np.array([True])):
        with pytest.raises(TypeError, match=r"^shuffle: expected True or False, got .* of type "):
            arguments.check_bool("shuffle", wrong)
    with pytest.raises(TypeError, match=r"^shuffle: expected True or False, got a traced value.*types\.Static"):
        jax.jit(functools.partial(arguments.check_bool, "shuffle"))(True)


def test_arrays_that_jax_would_refuse_or_change():
    assert arguments.plain_array("y", np.arange(3, dtype=">i4")).dtype == np.int32
    np.testing.assert_array_equal(arguments.plain_array("y", [[1.0, 2.0]]), [[1, 2]])
    y = np.ma.array([1.0, 2.0], mask=[False, False])
    assert arguments.plain_array("y", y) is not None  # hides nothing
    for wrong, error, message in (
        (np.ma.array([1.0, 2.0], mask=[False, True]), TypeError, r"^y: .* got a masked array: fill it with \.filled"),
        (np.array(["a"]), TypeError, r"^y: expected an array of numbers, got dtype <U1"),
        (None, TypeError, r"^y: expected an array of numbers, got None"),
        ([[1.0, 2.0], [3.0]], ValueError, r"^y: expected rows of equal shape, got something that makes no array"),
        (np.array([0, 2**40]), ValueError, r"^y\[1\]: expected numbers that fit int32, got 1099511627776"),
        (np.array([1e300]), ValueError, r"^y\[0\]: expected numbers that fit float32, got 1e\+300"),
    ):
        with pytest.raises(error, match=message):
            arguments.plain_array("y", wrong)
    with jax.enable_x64(True):
        assert arguments.plain_array("y", np.array([1e300])).tolist() == [1e300]


def test_classes_that_count_from_one_are_told_so():
    with pytest.raises(ValueError, match=r"^y\[2\]: .* got 3; classes count from 0: subtract 1$"):
        arguments.check_class_labels("y", np.array([1, 2, 3]), 3)
    with pytest.raises(ValueError, match=r"^y\[2\]: .* got 3$"):
        arguments.check_class_labels("y", np.array([0, 2, 3]), 3)
