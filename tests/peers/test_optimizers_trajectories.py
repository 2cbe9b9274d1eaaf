"""Two hundred settings of every algorithm, drawn at random, take the steps that torch, keras and optax take."""

import importlib.util
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_nn import optimizers, trees

if not (importlib.util.find_spec("torch") or importlib.util.find_spec("keras")):
    pytest.skip("neither torch nor keras is installed: `make test-peers` has them", allow_module_level=True)

_spec = importlib.util.spec_from_file_location(
    "golden_make", Path(__file__).parent.parent / "optimizers" / "golden" / "make.py"
)
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

COUNT = 200
# The largest error, in parts of the largest value that a parameter has had. All numbers are exact in float32, so its
# error is that of its arithmetic; the bound is twenty-four steps' worth of roundings, measured are 3e-6 at most.
EXACT, ROUNDED = 1e-12, 5e-6


def _ours(name, convention, dtype, arguments):
    """The parameters after each step, as the library's runs give them; every number is traced."""
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

    with jax.enable_x64(dtype == np.float64):
        arguments = jax.tree.map(lambda x: jnp.asarray(x, dtype), arguments)
        path = jax.jit(jax.vmap(alone, in_axes=(0, 1, 1, 0), out_axes=1))(*arguments)
        assert path.dtype == dtype
        return np.asarray(path, np.float64)


@pytest.mark.parametrize(("name", "library"), golden.CASES, ids=["-".join(case) for case in golden.CASES])
def test_two_hundred_settings_take_the_steps_of_the_library(name, library):
    if not importlib.util.find_spec(library):  # one that is there but cannot be imported is to fail
        pytest.skip(f"{library} is not installed")
    algorithm = golden.ALGORITHMS[name]
    rng = np.random.default_rng(zlib.crc32(f"{name} {library}".encode()))
    arguments = (golden.draw(algorithm, COUNT, rng), *golden.problem(COUNT, rng))
    theirs = golden.RUNS[library](algorithm, *arguments)
    assert np.isfinite(theirs).all()
    for dtype, bound in ((np.float64, EXACT), (np.float32, ROUNDED)):
        ours = _ours(name, library, dtype, arguments)
        assert np.max(np.abs(ours - theirs).max(axis=0) / np.abs(theirs).max(axis=0)) <= bound
