"""A trained model in a folder of its own, to be loaded in another process."""

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn._safetensors import impl_of, is_key
from jaxopt_nn.training._checks import check_data
from jaxopt_nn.training._folders import (
    check_fits,
    decode,
    encode,
    fingerprints,
    is_folder,
    read_description,
    read_folder,
    tree_of,
    write_folder,
)
from jaxopt_nn.training._orbax import read_checkpoint
from jaxopt_nn.training._programs import as_arrays, is_traced_any, static_unless_number
from jaxopt_nn.training._recipe import RecipeFn, build_recipe
from jaxopt_nn.training._run import RunResult, check_run_key, finish, split_key
from jaxopt_nn.training._run_state import RunKeys, RunState, init_run_state
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Batch, Key, Params, PyTree, State

__all__ = ["SavedModel", "features_of", "key_type", "load", "save", "versions"]


class SavedModel(NamedTuple):
    """What :func:`load` returns. It has ``params`` and ``model_state``, so ``predict`` and ``evaluate`` take it.

    Attributes:
        result: the run's result, bit for bit.
        hparams: the hyperparameters it was trained with.
        preprocessing: what was saved with it, such as a fitted scaler and the names of the classes.
        key: the key of its run; None if it was not saved.
        data: the fingerprint of the training data: of each leaf, by its path, the dtype, the shape and a checksum.
        versions: of Python and of the libraries that it was trained with.
    """

    result: RunResult
    hparams: PyTree
    preprocessing: PyTree
    key: Key | RunKeys | None
    data: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def params(self) -> Params:
        """The trained parameters."""
        return self.result.params

    @property
    def model_state(self) -> State:
        """The model state that belongs to them."""
        return self.result.model_state


def save(
    path: str | os.PathLike[str],
    result: RunResult,
    *,
    recipe: RecipeFn,
    hparams: PyTree,
    train: Batch,
    key: Key | RunKeys | None = None,
    preprocessing: PyTree = None,
) -> None:
    """Writes the result of a run, and what it takes to use it, to a folder.

    The folder has two files: ``arrays.safetensors``, which any library can read, and ``about.json``. It appears when
    both are complete.

    Args:
        path: the folder. One that ``save`` wrote before is replaced.
        result: what ``run`` or ``fit`` returned, of a single run. With ``result._replace(state=None)`` the state to go
            on from, such as the optimizer's moments, is left out.
        recipe, hparams: what it was trained with. Of hyperparameters that are functions only the text is kept: then
            :func:`load` has to be given ``hparams``.
        train: the training data. Kept are the shape of an example and a fingerprint, no data.
        key: the key of the run.
        preprocessing: what else belongs to the model: numbers, text, arrays, a ``data.Scaler`` or ``FittedTable``, and
            lists, tuples and dictionaries of them.

    Raises:
        ValueError: the result is not of this recipe, naming the path; the folder has other files.
        TypeError: ``result`` is none; ``preprocessing`` has something else.
        OSError: the folder cannot be written. What was there is still there.

    >>> import tempfile, jax, jax.numpy as jnp
    >>> from jaxopt_nn import data, layers, losses, optimizers, training
    >>> train = data.from_arrays(jnp.arange(8.0).reshape(8, 1), jnp.arange(8.0).reshape(8, 1))
    >>> scaler = data.fit_standard_scaler(train.x)
    >>> train = data.transform(scaler, train)
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.adam(hp), batch_size=4)
    >>> result = training.fit(recipe, 0.1, train, key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     training.save(
    ...         folder + "/model", result, recipe=recipe, hparams=0.1, train=train, preprocessing={"scaler": scaler})
    ...     model = training.load(folder + "/model", recipe)
    >>> x = data.transform(model.preprocessing["scaler"], jnp.array([[2.0]]))
    >>> expected = training.predict(recipe, 0.1, result, x)
    >>> bool((training.predict(recipe, model.hparams, model, x) == expected).all())
    True
    """
    if not isinstance(result, RunResult):
        raise TypeError(f"result: expected a RunResult, as run and fit return it, got a {type(result).__name__}")
    if is_traced_any((result, hparams, train, key)):
        raise TypeError("save: expected to be called outside of jit, vmap and grad, with the result of a run")
    folder = Path(path)
    _check_replaceable(folder)
    if key is not None:
        check_run_key(key)
    train = check_data("train", train)
    of_result = dict(named_leaves(result._replace(history={})))
    state: Any = result.state
    keyed = None if state is None else key_type(state.key)
    try:
        check_fits("result", _result_shapes(recipe, hparams, train.x, keyed), of_result)
    except ValueError as error:
        lanes = np.ndim(result.epochs) > 0
        hint = ". It has lanes: save one, jax.tree.map(lambda leaf: leaf[0], result)" if lanes else ""
        raise ValueError(f"{error}{hint}") from None
    arrays: dict[str, Any] = {**of_result, **{f"history/{name}": value for name, value in result.history.items()}}
    keys = key._asdict() if isinstance(key, RunKeys) else key
    about = {
        "kind": "model",
        "versions": versions(),
        "hparams": encode("hparams", hparams, arrays, opaque=True),
        "preprocessing": encode("preprocessing", preprocessing, arrays),
        "key": encode("key", keys, arrays),
        "features": features_of(train),
        "data": fingerprints(train),
        "state": keyed,
    }
    write_folder(folder, about, arrays)


def load(path: str | os.PathLike[str], recipe: RecipeFn, hparams: PyTree = None) -> SavedModel:
    """Reads what :func:`save` wrote, or a checkpoint of :func:`fit` (see :func:`checkpoints`).

    Args:
        path: the folder.
        recipe: the recipe that the model was trained with: it says what the model is. Nothing in the folder is
            executed.
        hparams: to be used instead of those in the folder; needed if some of them are functions.

    Returns:
        The model, for ``predict(recipe, model.hparams, model, x)``. It has the same bits, in any process.

    Raises:
        ValueError: the model is not of this recipe, naming the paths that are missing, not expected, or of another
            shape or dtype; the folder is damaged, naming the file; a hyperparameter was not saved.
        OSError: there is no such folder.
    """
    folder = Path(path)
    if is_folder(folder):
        about, arrays = (read_checkpoint if read_description(folder)["kind"] == "checkpoint" else read_folder)(folder)
    elif (folder / "lock").exists():
        raise ValueError(f"path: expected one of training.checkpoints({str(path)!r}), got the folder of them all")
    else:
        raise FileNotFoundError(
            f"path: expected a folder that training.save wrote, or that of one checkpoint, as training.checkpoints "
            f"names them, got {path}, which is none"
        )
    if hparams is None:
        hparams = decode("hparams", about["hparams"], arrays)
    key = decode("key", about["key"], arrays)
    result = _loaded_result(folder, recipe, hparams, about, arrays)
    return SavedModel(
        result,
        hparams,
        decode("preprocessing", about.get("preprocessing"), arrays),
        RunKeys(**key) if isinstance(key, dict) else key,
        about["data"],
        about["versions"],
    )


def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide what a run computes."""
    installed = {"python": sys.version.split()[0]}
    for name in ("jaxopt-nn", "jax", "jaxlib", "numpy", "optax"):
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def features_of(train: Batch) -> PyTree:
    """What an example's features are, as plain values: of each leaf the dtype and the shape."""
    described = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape[1:])}", train.x)
    return encode("train.x", described, {})


def _from_features(features: PyTree) -> PyTree:
    """The same as the shapes of one example each, with the batch axis first."""

    def shape_of(text: str) -> jax.ShapeDtypeStruct:
        dtype, _, sizes = text.rstrip("]").partition("[")
        return jax.ShapeDtypeStruct((1, *(int(size) for size in sizes.split(",") if size)), dtype)

    return jax.tree.map(shape_of, decode("train.x", features, {}))


def _check_replaceable(folder: Path) -> None:
    """Raises for a folder that ``save`` did not write: what is in it would be lost."""
    if folder.exists() and not (is_folder(folder) and read_description(folder)["kind"] == "model"):
        raise ValueError(f"path: expected a new folder, or one that training.save wrote, got {folder}, which is none")


def _run_state_shapes(recipe: RecipeFn, hparams: PyTree, x: PyTree, keyed: str | None) -> RunState:
    """What a run carries, as shapes."""

    def start(hparams: PyTree, x: PyTree) -> RunState:
        key = jax.random.PRNGKey(0) if keyed == "" else jax.random.key(0, impl=keyed)
        return init_run_state(build_recipe(recipe, hparams), split_key(key), Batch(x, None))

    return jax.eval_shape(start, static_unless_number(hparams), x)


def _result_shapes(recipe: RecipeFn, hparams: PyTree, x: PyTree, keyed: str | None) -> RunResult:
    """The result of a run, without its history, as shapes; without its state if that has no type of key."""
    run_state = _run_state_shapes(recipe, hparams, x, keyed)
    shapes = jax.eval_shape(lambda run_state: finish(run_state, {}), run_state)
    return shapes._replace(state=None) if keyed is None else shapes


def key_type(key: Key) -> str:
    """The generator of a typed key; of an older key nothing."""
    return str(impl_of(key)) if is_key(key) else ""


def _loaded_result(
    folder: Path, recipe: RecipeFn, hparams: PyTree, about: Mapping[str, Any], arrays: Mapping[str, Any]
) -> RunResult:
    """The result of a run; of a checkpoint, that of the epochs that are done."""
    x, keyed = _from_features(about["features"]), about["state"]
    history = as_arrays({path[8:]: array for path, array in arrays.items() if path.startswith("history/")})
    if about["kind"] == "checkpoint":
        shapes = {"run": _run_state_shapes(recipe, hparams, x, keyed)}
        found = {path: array for path, array in arrays.items() if path.startswith("run/")}
        check_fits(str(folder), shapes, found)
        return finish(tree_of(shapes, found)["run"], history)
    shapes = _result_shapes(recipe, hparams, x, keyed)
    found = {path: array for path, array in arrays.items() if path.partition("/")[0] in RunResult._fields}
    found = {path: array for path, array in found.items() if not path.startswith("history/")}
    check_fits(str(folder), shapes, found)
    return tree_of(shapes, found)._replace(history=history)
