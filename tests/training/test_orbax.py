"""What Orbax writes comes back to the bit, or is refused; what it does not do is done beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn.training._folders import read_description
from jaxopt_nn.training._orbax import numbered, read_checkpoint, writer_of

ABOUT = {"kind": "checkpoint", "epochs": 1}
ARRAYS = {
    "run/state/params/dense_0/kernel": np.arange(600, dtype=np.float32).reshape(20, 30),
    "run/state/params/dense_0/bias": jnp.arange(3, dtype=jnp.bfloat16) / 3,
    "run/step": np.int32(7),
    "run/flags": np.array([True, False]),
    "run/worst": np.array([np.nan, np.inf, -0.0]),
    "run/none": np.zeros((0, 2), jnp.bfloat16),
    "order": jax.random.key(3),
}


@pytest.fixture
def written(tmp_path):
    with writer_of(tmp_path, 2, {}) as writer:
        writer.start(5, ABOUT, ARRAYS)
    return tmp_path / "step_5"


def test_arrays_of_all_kinds_come_back(written):
    about, arrays = read_checkpoint(written)
    assert ABOUT.items() <= about.items() and arrays.keys() == ARRAYS.keys()
    for path, expected in ARRAYS.items():
        numbers = np.asarray(jax.random.key_data(expected) if path == "order" else expected)
        assert (arrays[path].shape, arrays[path].dtype) == (numbers.shape, numbers.dtype), path
        assert arrays[path].tobytes() == numbers.tobytes(), path


def test_a_flipped_bit_or_a_cut_is_refused_by_the_name_of_the_file(written, capfd):
    files = [written / "about.json", *(each for each in (written / "arrays").rglob("*") if each.is_file())]
    assert len(files) > 5
    for file in files:
        content = file.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 8]) + content[middle + 1 :]
        for damaged in (flipped, content[:middle], b""):
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{file.name}: damaged: "):
                read_checkpoint(written)
        file.write_bytes(content)
    read_checkpoint(written)
    assert capfd.readouterr().err == ""


def test_the_best_and_the_last_stay(tmp_path):
    """Of equal ones the first; one that was there before counts."""
    arrays, worth = {"a": np.ones(2)}, {1: -3.0, 2: 4.0, 3: 4.0, 4: -np.inf}
    for steps in ([1, 2], [3, 4, 5, 6]):
        with writer_of(tmp_path, 2, worth) as writer:
            for step in steps:
                writer.start(step, {"step": step}, arrays)
    assert {step: read_description(path)["step"] for step, path in numbered(tmp_path).items()} == {2: 2, 5: 5, 6: 6}
