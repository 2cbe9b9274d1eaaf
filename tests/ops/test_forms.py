"""The fast forms of operations beside the plain ones, under every transform, as users' programs are compiled.

The test suite compiles at XLA's level 0. Fast forms exist because of what the optimizing compiler does, so here each of
them is compiled with XLA's default options. What it is compared with is not: the plain form is the specification.
"""

import functools
import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxopt_nn import _ops
from jaxopt_nn._ops import plain
from jaxopt_nn._ops.cpu import convolution, pooling
from jaxopt_nn._ops.windows import Axis

LANES = 3
DEFAULT = {"xla_backend_optimization_level": 3, "xla_cpu_parallel_codegen_split_count": 32}


def axis(size, window, stride=1, dilation=1, before=0, after=0):
    out = (size + before + after - (window - 1) * dilation - 1) // stride + 1
    return Axis(window, stride, dilation, before, after, size, out)


def transposed_axis(size, window, stride):
    return Axis(window, stride, 1, 0, 0, size, (size - 1) * stride + window)


def conv(module, axes, groups=1):
    return lambda x, kernel, bias: module.convolve(x, kernel, bias, axes, groups)


def conv_transposed(module, axes, groups=1):
    return lambda x, kernel, bias: module.convolve_transposed(x, kernel, bias, axes, groups)


def max_pool(module, axes):
    return lambda x: module.max_pool(x, axes)


def sum_pool(module, axes):
    return lambda x: module.sum_pool(x, axes)


SAME = (axis(4, 3, before=1, after=1), axis(6, 3, before=1, after=1))
STRIDED = (axis(5, 2, stride=2), axis(7, 3, dilation=2, before=1))
TILES = (axis(4, 2, 2), axis(6, 3, 3))
OVERLAPPING = (axis(4, 3, 1, before=1, after=1), axis(6, 2, 2))
UP = (transposed_axis(3, 2, 2), transposed_axis(2, 3, 1))
# name -> (operation of a module, shapes of its arguments)
CASES = {
    "convolution": (lambda m: conv(m, SAME), [(2, 4, 6, 3), (3, 3, 3, 2), (2,)]),
    "strided convolution": (lambda m: conv(m, STRIDED), [(2, 5, 7, 2), (2, 3, 2, 4), (4,)]),
    "grouped convolution": (lambda m: conv(m, SAME, 2), [(2, 4, 6, 4), (3, 3, 2, 6), (6,)]),
    "depthwise convolution": (lambda m: conv(m, SAME, 3), [(2, 4, 6, 3), (3, 3, 1, 6), (6,)]),
    "convolution of sequences": (lambda m: conv(m, (axis(6, 3),)), [(2, 6, 3), (3, 3, 4), (4,)]),
    "transposed convolution": (lambda m: conv_transposed(m, UP), [(2, 3, 2, 3), (2, 3, 3, 2), (2,)]),
    "maximum, tiling": (lambda m: max_pool(m, TILES), [(2, 4, 6, 3)]),
    "maximum, overlapping": (lambda m: max_pool(m, OVERLAPPING), [(2, 4, 6, 3)]),
    "sum, tiling": (lambda m: sum_pool(m, TILES), [(2, 4, 6, 3)]),
    "sum, overlapping": (lambda m: sum_pool(m, OVERLAPPING), [(2, 4, 6, 3)]),
}
FAST = {name: pooling if "m, " in name else convolution for name in CASES}
table = pytest.mark.parametrize("name", CASES)


def both(name):
    make, shapes = CASES[name]
    return make(FAST[name]), make(plain), shapes


def arguments(shapes, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def compiled(function, *args):
    """The results of ``function``, compiled with XLA's default options."""
    return jax.jit(function).lower(*args).compile(DEFAULT)(*args)


def agree(fast, plain_form, *args, tolerance=1e-12):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance),
        compiled(fast, *args),
        jax.jit(plain_form)(*args),
    )


def number(operation):
    """A number with derivatives of every order."""
    return lambda *args: jnp.sum(jnp.sin(operation(*args)))


def derivatives(operation):
    places = lambda args: tuple(range(len(args)))  # noqa: E731

    def results(*args):
        gradient = jax.grad(number(operation), places(args))
        checkpointed = jax.grad(jax.checkpoint(number(operation)), places(args))
        ones = tuple(map(jnp.ones_like, args))

        def step(carry, _):
            return jax.tree.map(lambda a, g: a - 0.1 * g, carry, gradient(*carry)), number(operation)(*carry)

        return {
            "value": operation(*args),
            "gradient": gradient(*args),
            "Hessian-vector product": jax.jvp(gradient, args, ones)[1],
            "checkpoint": checkpointed(*args),
            "scan": jax.lax.scan(step, args, None, 3),
        }

    return results


@table
def test_values_and_derivatives(name):
    fast, plain_form, shapes = both(name)
    with jax.enable_x64(True):
        agree(derivatives(fast), derivatives(plain_form), *arguments(shapes))


def over_axes(operation, in_axes):
    """The gradient of ``operation`` mapped over one axis of each argument that has lanes.

    The mapped function is inside of a ``jit`` and differentiated from outside of it: where a derivative rule returns
    its value with the lanes on another axis than the function does, only that shows it.
    """
    mapped = jax.jit(jax.vmap(operation, in_axes, -1))

    def results(*args):
        def loss(*args):
            ys = mapped(*args)
            weights = jnp.broadcast_to(jnp.arange(1.0, 1 + LANES, dtype=ys.dtype), ys.shape)
            return jnp.sum(jnp.sin(ys) * weights), ys

        gradient = jax.grad(loss, tuple(range(len(args))), has_aux=True)
        tangents = tuple(map(jnp.ones_like, args))
        return gradient(*args), jax.jvp(lambda *args: loss(*args)[1], args, tangents)[1]

    return results


@table
def test_mapped_over_every_axis(name):
    """One argument with lanes on each of its axes; all arguments with lanes, on axes of their own; nested."""
    fast, plain_form, shapes = both(name)
    single = [
        tuple(where if place == each else None for each in range(len(shapes)))
        for place, shape in enumerate(shapes)
        for where in range(len(shape) + 1)
    ]
    several = [tuple((shift + place) % (len(shape) + 1) for place, shape in enumerate(shapes)) for shift in range(2)]

    def everything(operation):
        def results(*lanes):
            rest = iter(lanes)
            return [
                over_axes(operation, axes)(*(next(rest) for _ in shapes)) for axes in itertools.chain(single, several)
            ]

        return results

    with jax.enable_x64(True):
        lanes = []
        for axes in itertools.chain(single, several):
            with_lanes = [
                shape if where is None else (*shape[:where], LANES, *shape[where:])
                for shape, where in zip(shapes, axes, strict=True)
            ]
            lanes += arguments(with_lanes, seed=len(lanes))
        agree(everything(fast), everything(plain_form), *lanes)


@table
def test_nested_lanes_in_a_branch_in_a_loop(name):
    fast, plain_form, shapes = both(name)

    def nested(operation):
        def mapped(*args):
            inner = jax.vmap(operation, (-1, *[None] * (len(shapes) - 1)))
            outer = jax.vmap(inner, (1, *[0] * (len(shapes) - 1)))
            return jax.lax.map(
                lambda scale: jax.lax.cond(scale > 0, lambda: outer(*args) * scale, lambda: 0 * outer(*args)),
                jnp.ones(2),
            )

        return jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(mapped(*args))), tuple(range(len(shapes))))

    x, *rest = shapes
    with jax.enable_x64(True):
        args = arguments([(x[0], 2, *x[1:], LANES), *((2, *shape) for shape in rest)])
        agree(nested(fast), nested(plain_form), *args)


@table
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_other_dtypes(name, dtype):
    fast, plain_form, shapes = both(name)
    args = arguments(shapes, dtype)
    gradient = lambda f: jax.value_and_grad(lambda *args: jnp.sum(f(*args)))  # noqa: E731
    results, expected = compiled(gradient(fast), *args), jax.jit(gradient(plain_form))(*args)
    tolerance = 20 * float(jnp.finfo(dtype).eps)
    for ours, theirs in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


@table
@pytest.mark.parametrize("examples", [0, 1])
def test_few_examples(name, examples):
    fast, plain_form, (x, *rest) = both(name)
    args = arguments([(examples, *x[1:]), *rest], np.float32)
    gradient = lambda f: jax.value_and_grad(number(f), tuple(range(len(args))))  # noqa: E731
    agree(gradient(fast), gradient(plain_form), *args, tolerance=1e-4)


@table
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_in_one_example_reaches_no_other(name, bad):
    fast, _, shapes = both(name)
    args = arguments(shapes, np.float32)
    spoilt = args[0].at[0, 1, 1].set(bad)

    def per_example(x, *rest):
        y, pullback = jax.vjp(lambda x: fast(x, *rest), x)
        return y, pullback(jnp.cos(y))[0]

    program = jax.jit(per_example).lower(*args).compile(DEFAULT)
    for got, expected in zip(program(spoilt, *args[1:]), program(*args), strict=True):
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-5)
        assert not np.isfinite(got[0]).all()


def test_ties_of_a_maximum_go_to_the_first():
    x = jnp.zeros((1, 4, 6, 1))
    for module, axes in itertools.product((plain, pooling), (TILES, OVERLAPPING)):
        gradient = compiled(jax.grad(lambda x, m=module, a=axes: jnp.sum(m.max_pool(x, a))), x)
        if axes is TILES:
            np.testing.assert_array_equal(
                np.argwhere(np.asarray(gradient)[0, :, :, 0]), [[0, 0], [0, 3], [2, 0], [2, 3]]
            )
        else:
            expected = compiled(jax.grad(lambda x: jnp.sum(plain.max_pool(x, OVERLAPPING))), x)
            np.testing.assert_array_equal(gradient, expected)


def test_a_record_is_its_value():
    def step(carry, rate):
        used = jnp.sin(rate) * carry
        return _ops.record(used, carry, never=carry < -9), used

    def results(rates):
        return jax.value_and_grad(lambda rates: jax.lax.scan(step, 0.5, rates)[0])(rates)

    rates = jnp.arange(1.0, 4.0)
    fast = compiled(results, rates)
    with _ops.plain_forms():
        expected = compiled(lambda rates: results(rates), rates)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), fast, expected)


def test_the_switch_takes_the_plain_forms_whatever_is_asked_for(monkeypatch):
    args = arguments(CASES["convolution"][1], np.float32)

    def program(convolve):
        return jax.jit(lambda *args: convolve(*args)).lower(*args).as_text()

    asked = lambda *args: _ops.convolve(*args, SAME, 1, "patches")  # noqa: E731
    expected = program(lambda *args: plain.convolve(*args, SAME, 1))
    monkeypatch.setattr(_ops, "_plain_everywhere", lambda: False)
    assert program(asked) != expected
    with _ops.plain_forms():
        assert program(asked) == expected
    monkeypatch.setattr(_ops, "_plain_everywhere", lambda: True)
    assert program(asked) == expected


SHARDED = ["convolution", "depthwise convolution", "transposed convolution", "maximum, tiling", "sum, overlapping"]


def compare_on_four_devices():
    """Each device with a part of the batch: in ``shard_map``, and as sharded inputs of ``jit``."""
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    data = {}
    for name in SHARDED:
        (first, *rest) = CASES[name][1]
        data[name] = arguments([(8, *first[1:]), *rest], np.float32)

    def gradients(form):
        def gradient(name, args):
            return jax.value_and_grad(number(form(name)), tuple(range(len(args))))(*args)

        return lambda data: {name: gradient(name, args) for name, args in data.items()}

    def sharded(name):
        fast, _, shapes = both(name)
        in_specs = (P("data"), *[P()] * (len(shapes) - 1))
        return jax.shard_map(fast, mesh=mesh, in_specs=in_specs, out_specs=P("data"))

    on_devices = {name: [jax.device_put(x, NamedSharding(mesh, P("data"))), *rest] for name, (x, *rest) in data.items()}
    expected = jax.jit(gradients(lambda name: both(name)[1]))(data)
    for form, inputs in ((sharded, data), (lambda name: both(name)[0], on_devices)):
        results = jax.jit(gradients(form))(inputs)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), results, expected)


@pytest.mark.slow
def test_each_device_with_a_part_of_the_batch():
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_forms"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; test_forms.compare_on_four_devices()"],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
