"""Two hundred settings of every algorithm, drawn at random, take the steps that torch, keras and optax take."""

import importlib.util
import os
import zlib
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, trees

_path = Path(__file__).parent.parent / "optimizers" / "golden" / "make.py"
_spec = importlib.util.spec_from_file_location("golden_make", _path)
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

COUNT = 200
EXACT = 1e-12
# The largest error of float32, in parts of the largest value that a parameter has had: what the same algorithm in
# float64 makes of the same float64 numbers. 1e-5 is fifty roundings of the learning rate, gradient and parameter.
ROUNDED = 1e-5


def _ours(name, convention, dtype):
    algorithm = golden.ALGORITHMS[name]
    static = dict(algorithm.static)
    if algorithm.ours in ("adamw", "lion"):
        static["mask"] = trees.every_leaf
    if algorithm.ours not in ("adadelta", "lion"):
        static["convention"] = convention

    def alone(numbers, rates, gradients, start):
        optimizer = getattr(optimizers, algorithm.ours)(lambda count: rates[count], **numbers, **static)

        def step(carry, gradient):
            params, state = carry
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (start, optimizer.init(start)), gradients)[1]

    def run(*arguments):
        with jax.enable_x64(dtype == np.float64):
            arguments = jax.tree.map(lambda x: jnp.asarray(x, dtype), arguments)
            path = jax.jit(jax.vmap(alone, in_axes=(0, 1, 1, 0), out_axes=1), compiler_options={'xla_backend_optimization_level': 0} if os.environ.get('O0') else {})(*arguments)
            assert path.dtype == dtype
            return np.asarray(path, np.float64)

    return run


def _error(ours, theirs):
    assert np.isfinite(theirs).all()
    return np.max(np.abs(ours - theirs).max(axis=0) / np.abs(theirs).max(axis=0))


@pytest.mark.parametrize(("name", "library"), golden.CASES, ids=["-".join(case) for case in golden.CASES])
def test_float64_and_float32_take_the_steps_of_the_library(name, library):
    pytest.importorskip(library)
    algorithm = golden.ALGORITHMS[name]
    rng = np.random.default_rng(zlib.crc32(f"{name} {library}".encode()))
    numbers = golden.draw(algorithm, COUNT, rng)
    arguments = (numbers, *golden.problem(COUNT, rng))
    theirs = golden.RUNS[library](algorithm, *arguments)
    a,b=(_error(_ours(name, library, np.float64)(*arguments), theirs),_error(_ours(name, library, np.float32)(*arguments), theirs))
    print("ERR",name,library,a,b)
    assert a <= EXACT
    assert b <= ROUNDED
