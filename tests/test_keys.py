"""jax.random's own numbers, without its loops: compared with jax.random, and looked for in the compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import _keys

KEYS = {
    "typed": lambda: jax.random.key(3),
    "words": lambda: jax.random.PRNGKey(3),
    "rbg": lambda: jax.random.key(3, impl="rbg"),
}


@pytest.fixture(params=KEYS)
def key(request):
    return KEYS[request.param]()


@pytest.mark.parametrize("num", [1, 2, 5, (2, 3)])
def test_split_gives_the_keys_of_jax(key, num):
    mine, theirs = _keys.split(key, num), jax.random.split(key, num)
    assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
    assert bool(jnp.all(mine == theirs))


@pytest.mark.parametrize("data", [0, 7, 2**32 - 1, np.uint32(9), jnp.int32(5)])
def test_fold_in_gives_the_key_of_jax(key, data):
    mine, theirs = _keys.fold_in(key, data), jax.random.fold_in(key, data)
    assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
    assert bool(jnp.all(mine == theirs))


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 7)])
@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_bits_are_those_of_jax(key, bits, shape):
    with jax.enable_x64(bits == 64):
        mine = jax.random.bits(_keys.unrolled(key), shape, f"uint{bits}")
        np.testing.assert_array_equal(mine, jax.random.bits(key, shape, f"uint{bits}"), strict=True)


@pytest.mark.parametrize("size", [0, 1, 2, 1625, 1626, 100_000])  # from 1,626 on JAX sorts twice, as words may be equal
def test_an_order_is_that_of_jax(key, size):
    np.testing.assert_array_equal(_keys.permutation(key, size), jax.random.permutation(key, size), strict=True)


def test_an_order_is_that_of_jax_where_words_are_equal(monkeypatch):
    """As rarely happens by itself: words of two bits."""
    few = lambda bits: lambda *args: bits(*args) & jnp.uint32(3)  # noqa: E731
    monkeypatch.setattr(jax.random, "bits", few(jax.random.bits))
    mine, words, theirs = _keys.permutation(jax.random.key(3), 3000), [], np.arange(3000)
    key = jax.random.key(3)
    for _ in range(2):
        key, own = jax.random.split(key)
        words.append(np.asarray(jax.random.bits(own, (3000,), jnp.uint32)))
        theirs = theirs[np.argsort(words[-1], stable=True)]
    np.testing.assert_array_equal(mine, theirs)


def test_lanes_draw_as_jax_does():
    keys = jax.random.split(jax.random.key(1), 4)

    def draw(split, fold_in, order, convert):
        def one(key, epoch):
            key = convert(fold_in(split(key)[1], epoch))
            return jax.random.normal(key, (3,)), order(key, 20)

        return jax.vmap(one)(keys, jnp.arange(4))

    mine = draw(_keys.split, _keys.fold_in, _keys.permutation, _keys.unrolled)
    theirs = draw(jax.random.split, jax.random.fold_in, jax.random.permutation, lambda key: key)
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_without_partitionable_threefry_keys_are_as_they_are():
    key = jax.random.key(0)
    with jax.threefry_partitionable(False):
        assert _keys.unrolled(key).dtype == key.dtype
        assert bool(jnp.all(_keys.split(key) == jax.random.split(key)))


@pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.__version_info__ < (0, 10), reason="as XLA for CPUs compiles it, 2026"
)
def test_a_chain_of_keys_is_a_kernel_for_each():
    """No loop, and no kernel that computes the hashes before its own anew: that takes the compiler seconds."""

    def draw(key, epoch):
        own = _keys.split(_keys.split(_keys.fold_in(key, epoch))[1], 3)[2]
        return jax.random.normal(_keys.unrolled(own), (1437,))

    compiled = jax.jit(draw).lower(jax.random.key(0), 3).compile().as_text()
    assert " while(" not in compiled
    rounds = [body.count(" xor(") for body in compiled.split("\n}\n")]
    assert 20 <= max(rounds) < 2 * 22  # 20 rounds, the keys' combination, and the one word with the other
