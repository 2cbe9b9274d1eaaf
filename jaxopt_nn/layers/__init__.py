"""Layers: pairs of pure functions ``(init, apply)``, and the combinators that make models of them.

Arrays have the batch axis first and the channels (features) last. ``init`` reads only the shape and dtype of its input,
so nobody states an input size twice. Parameters take the input's dtype and lie in nested dictionaries with readable
names: ``params["dense_0"]["kernel"]``. Any plain function of an array, such as ``jax.nn.relu`` or :func:`flatten`, is a
layer wherever a layer is expected.

Numbers annotated ``ArrayLike`` may be traced (and so swept); shapes, names and functions are static.
"""

from jaxopt_nn.layers.combinators import as_layer, serial
from jaxopt_nn.layers.dense import dense, flatten
from jaxopt_nn.layers.dropout import dropout
from jaxopt_nn.layers.norm import batch_norm

__all__ = ["as_layer", "batch_norm", "dense", "dropout", "flatten", "serial"]
