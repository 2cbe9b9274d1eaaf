import sys

import numpy as np
import pytest
from sklearn import datasets

from jaxopt_nn import data

LOADERS = [
    ("load_digits", (1797, 64), 10),
    ("load_iris", (150, 4), 3),
    ("load_wine", (178, 13), 3),
    ("load_breast_cancer", (569, 30), 2),
    ("load_diabetes", (442, 10), None),
]


@pytest.mark.parametrize(("name", "shape", "num_classes"), LOADERS)
def test_shapes_dtypes_and_values(name, shape, num_classes):
    batch = getattr(data, name)()
    assert batch.x.shape == shape and batch.x.dtype == np.float32 and batch.weight is None
    options = {"scaled": False} if name == "load_diabetes" else {}
    x, y = getattr(datasets, name)(return_X_y=True, **options)
    np.testing.assert_allclose(batch.x, x, rtol=1e-6)
    np.testing.assert_array_equal(batch.y, y)
    if num_classes is None:
        assert batch.y.dtype == np.float32 and (batch.y.min(), batch.y.max()) == (25, 346)
    else:
        assert batch.y.dtype == np.int32 and set(batch.y.tolist()) == set(range(num_classes))
    data.check_batch("data", batch, num_classes)


def test_digits_are_raw():
    x = data.load_digits().x
    assert x.min() == 0 and x.max() == 16
    np.testing.assert_array_equal(x, np.round(x))


@pytest.mark.parametrize("name", [name for name, _, _ in LOADERS])
def test_without_scikit_learn_the_extra_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=rf"^{name}: needs scikit-learn; .* pip install 'jaxopt-nn\[data\]'"):
        getattr(data, name)()
