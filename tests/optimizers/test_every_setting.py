"""What holds for every factory in every setting of JAX: eager calls, strict promotion, a mesh with explicit axes."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.optimizers.table import STORED, TABLE, WRAPPERS, assert_close, gradients_of, params_of, rows

ALL = TABLE + WRAPPERS + STORED
# The arithmetic of an optimizer of optax mixes integers and floats.
each = rows([row for row in ALL if row[0] != "in_float32"])


@pytest.fixture(scope="module")
def compilations():
    """How many programs were compiled so far, as the only entry of a list."""
    count = [0]

    def listen(event, seconds, **_):
        count[0] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.jit(lambda x: x + 1)(np.ones(3))
    assert count[0] > 0  # the event still has this name
    return count


@rows(ALL)
def test_after_the_first_call_nothing_is_compiled_without_jit(factory, numbers, compilations):
    params, gradients = params_of(), gradients_of()

    def train(steps):
        transform = factory(**numbers)
        state = transform.init(params)
        for _ in range(steps):
            updates, state = transform.update(gradients, state, params)
        return updates

    train(2)
    before = compilations[0]
    train(2)  # by a factory made anew as well
    assert compilations[0] == before


@each
def test_promotions_are_said_where_jax_asks_for_that(factory, numbers):
    def updates(given, dtype):
        transform = factory(**given)
        state = transform.init(params_of(dtype))
        return transform.update(gradients_of(dtype), state, params_of(dtype))[0]

    for dtype in (jnp.bfloat16, np.float32):
        with jax.numpy_dtype_promotion("strict"):
            jax.eval_shape(partial(updates, numbers, dtype))
            given = {name: jnp.float32(number) for name, number in numbers.items()}
            jax.eval_shape(partial(updates, dtype=dtype), given)


def _params(sharding):
    kernel = jnp.linspace(-1, 1, 32).reshape(4, 8)
    return {
        "layer": {"kernel": kernel if sharding is None else jax.device_put(kernel, sharding)},
        "scale": jnp.float32(0.5),
    }


def _types(tree):
    return [(leaf.shape, leaf.dtype, jax.typeof(leaf).sharding.spec) for leaf in jax.tree.leaves(tree)]


def check_explicit_mesh():
    """In a process of four devices: types, and the numbers of what looks at shardings, are as on one device."""
    mesh, whole = jax.make_mesh((4,), ("d",)), _params(None)  # its axes are explicit

    def make_train(name, factory, numbers):
        factored = name in ("adafactor", "scale_by_factored_rms")
        transform = factory(**numbers, **({"min_size_to_factor": 2} if factored else {}))

        def train(params):
            gradients = jax.tree.map(jnp.sin, params)
            state = transform.init(params)
            _, new = transform.update(gradients, state, params)
            assert _types(new) == _types(state), name
            return transform.update(gradients, new, params)[0]

        return train

    for spec in (jax.P("d", None), jax.P(None, "d")):
        with jax.set_mesh(mesh):
            params = _params(jax.NamedSharding(mesh, spec))
            for name, factory, numbers in ALL:
                train = make_train(name, factory, numbers)
                types = jax.eval_shape(train, params)
                assert types["layer"]["kernel"].sharding.spec == spec, name
                if name in ("adafactor", "flatten", "muon"):
                    updates = jax.jit(train)(params)
                    assert_close(jax.tree.map(np.asarray, updates), jax.jit(train)(whole), 1e-4, 1e-5)


@pytest.mark.slow
def test_on_a_mesh_of_explicit_axes():
    root = Path(__file__).parents[2]
    script = "from tests.optimizers import test_every_setting; test_every_setting.check_explicit_mesh(); print('done')"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, env=environment)
    assert done.stdout == "done\n", done.stderr
