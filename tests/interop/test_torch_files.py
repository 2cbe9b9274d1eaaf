"""Files of torch.save, read without PyTorch; made here by hand. Those that PyTorch wrote are in tests/peers."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from jaxopt_nn import interop

A = np.arange(6, dtype=np.float32).reshape(2, 3)


class _Global:
    """Pickled as a call of a function by its name."""

    def __init__(self, module, name, *args):
        self.call = (module, name, args)


class _Pickler(pickle._Pickler):
    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def persistent_id(self, obj):
        return obj[1:] if isinstance(obj, tuple) and obj and obj[0] == "persistent" else None

    def save_call(self, obj):
        module, name, args = obj.call
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        if args:
            self.save(args)
            self.write(pickle.REDUCE)

    dispatch[_Global] = save_call


def _pickled(value):
    file = io.BytesIO()
    _Pickler(file, 2).dump(value)
    return file.getvalue()


def _storage(key, size, kind="FloatStorage"):
    return ("persistent", "storage", _Global("torch", kind), key, "cpu", size)


def _tensor(key, shape, strides, *, size=6, offset=0, kind="FloatStorage"):
    storage = _storage(key, size, kind)
    return _Global("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, OrderedDict())


def _zip(path, value, **data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", _pickled(value))
        for key, array in data.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return path


def test_views_dtypes_and_nested_dictionaries(tmp_path):
    content = {
        "model": OrderedDict(w=_tensor("a", (2, 3), (3, 1)), t=_tensor("a", (3, 2), (1, 3))),
        "row": _Global("torch._utils", "_rebuild_parameter", _tensor("a", (3,), (1,), offset=3), True, OrderedDict()),
        "half": _tensor("b", (1,), (1,), size=1, kind="BFloat16Storage"),
        "epoch": 3,
    }
    half = np.array([0x3FC0], np.uint16)
    weights = interop.load_torch(_zip(tmp_path / "w.pt", content, a=A, b=half))
    assert sorted(weights) == ["half", "model.t", "model.w", "row"]
    np.testing.assert_array_equal(weights["model.w"], A)
    np.testing.assert_array_equal(weights["model.t"], A.T)
    np.testing.assert_array_equal(weights["row"], A[1])
    assert weights["half"].dtype.name == "bfloat16" and float(weights["half"][0]) == 1.5


def test_the_older_format(tmp_path):
    path = tmp_path / "w.pth"
    pickles = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"w": _tensor("a", (2, 3), (3, 1))}, ["a"]]
    path.write_bytes(b"".join(map(_pickled, pickles)) + (6).to_bytes(8, "little") + A.tobytes())
    np.testing.assert_array_equal(interop.load_torch(path)["w"], A)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"damaged: the tensor 'w' is larger than its numbers"):
        interop.load_torch(path)


@pytest.mark.parametrize("call", [("os", "system"), ("builtins", "eval"), ("torch.hub", "load")], ids=str)
@pytest.mark.parametrize("older", [False, True])
def test_a_malicious_file_runs_nothing(call, older, tmp_path):
    proof = tmp_path / "proof"
    evil = {"w": _Global(*call, f"touch {proof}")}
    path = tmp_path / "evil.pth"
    if older:
        path.write_bytes(_pickled(0x1950A86A20F9469CFC6C) + _pickled(1001) + _pickled({}) + _pickled(evil))
    else:
        _zip(path, evil)
    with pytest.raises(ValueError, match=rf"it asks for {call[0]}\.{call[1]}, which is refused"):
        interop.load_torch(path)
    assert not proof.exists()
    if call == ("os", "system"):  # the file is what it is meant to be: the ordinary reader runs it
        pickle.loads(_pickled(evil["w"]))
        assert proof.exists()


def test_damaged_and_other_files_are_named(tmp_path):
    outside = _zip(tmp_path / "outside.pt", {"w": _tensor("a", (2, 4), (3, 1))}, a=A)
    for path, content, message in (
        (outside, None, "damaged: the tensor 'w' is larger"),
        (tmp_path / "text", b"hello", "expected a file that torch.save wrote"),
        (tmp_path / "empty", b"", "expected a file that torch.save wrote"),
        (_zip(tmp_path / "numbers.pt", {"epoch": 3}), None, "expected a dictionary of tensors"),
        (_zip(tmp_path / "missing.pt", {"w": _tensor("b", (2, 3), (3, 1))}, a=A), None, "larger than its numbers"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            interop.load_torch(path)
    with pytest.raises(OSError, match="nowhere"):
        interop.load_torch(os.path.join(tmp_path, "nowhere"))
