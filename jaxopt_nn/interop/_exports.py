"""Trained models as files that run without this library: StableHLO of ``jax.export``, and ONNX."""

import os
from collections.abc import Sequence
from typing import Any

import jax
from jax import export

from jaxopt_nn.layers import as_layer
from jaxopt_nn.trees import named_leaves
from jaxopt_nn.types import Params, PyTree, State

__all__ = ["export_model", "export_onnx"]


def export_model(
    model: Any,
    params: Params,
    state: State,
    x: PyTree,
    *,
    platforms: Sequence[str] | None = None,
) -> export.Exported:
    """The predictions of a trained model as a program of ``jax.export``, for batches of any size.

    It holds the weights. ``exported.serialize()`` makes bytes of it (that needs the package flatbuffers), and
    ``jax.export.deserialize(content).call(x)`` predicts in another process, with JAX alone.

    Args:
        model: a layer, or a plain function of an array.
        params, state: of a result: ``result.params, result.model_state``.
        x: an example input with the batch axis first, or its ``jax.ShapeDtypeStruct``; only shapes and dtypes are read.
        platforms: the names of those it shall run on, as ``jax.export.export`` takes them; by default the one in use.

    Returns:
        A ``jax.export.Exported``.

    Raises:
        ValueError, TypeError: those of a layer, with its path.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxopt_nn import layers
        >>> model = layers.dense(2)
        >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> predict = export_model(model, params, state, jnp.ones((1, 3))).call
        >>> predict(jnp.ones((5, 3))).shape
        (5, 2)
    """
    (batch,) = export.symbolic_shape("batch")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), _checked(x))
    program = jax.jit(_predict(model, params, state))
    return export.export(program, platforms=None if platforms is None else tuple(platforms))(shapes)


def export_onnx(path: str | os.PathLike[str], model: Any, params: Params, state: State, x: PyTree) -> None:
    """Writes the predictions of a trained model as ONNX, for batches of any size, by ``jax2onnx``.

    Compare the file's predictions with the model's before you use it: the translation is jax2onnx's. Its version 0.13
    carries no layer, group, instance or RMS normalization, and not every pooling. Loops over time are written out.

    Args:
        path: the file to write.
        model, params, state: as for :func:`export_model`.
        x: an example input with the batch axis first, or its shape: one array, or several, in a dictionary or tuple.
            The inputs in the file are named by their paths (``"x"`` if there is one).

    Raises:
        ImportError: without jax2onnx.
        NotImplementedError, ValueError, TypeError: of jax2onnx, for an operation that it does not translate.
        OSError: the file cannot be written.
    """
    try:
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("writing ONNX needs jax2onnx: pip install 'jaxopt-nn[onnx]'") from error
    leaves, tree = named_leaves(_checked(x)), jax.tree.structure(x)
    predict = _predict(model, params, state)

    def of_arrays(*arrays: Any) -> Any:
        with jax.disable_jit():  # loops over time are written out: jax2onnx knows no scan within a jit
            return predict(jax.tree.unflatten(tree, arrays))

    to_onnx(
        of_arrays,
        inputs=[jax.ShapeDtypeStruct(("B", *leaf.shape[1:]), leaf.dtype) for _, leaf in leaves],
        input_names=[name or "x" for name, _ in leaves],
        return_mode="file",
        output_path=os.fspath(path),
    )


def _predict(model: Any, params: Params, state: State) -> Any:
    layer = as_layer(model)

    def predict(x: PyTree) -> PyTree:
        return layer.apply(params, state, x)[0]

    return predict


def _checked(x: PyTree) -> PyTree:
    leaves = named_leaves(x)
    if not leaves:
        raise ValueError("x: expected an example input, got none")
    for path, leaf in leaves:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype") or len(leaf.shape) < 1:
            where = f"x[{path}]" if path else "x"
            raise TypeError(f"{where}: expected an array [batch, ...] or its shape, got {leaf!r}")
    return x
