"""Layers: pairs of pure functions ``(init, apply)``, and the combinators that make models of them.

Arrays have the batch axis first and the channels (features) last. ``init`` reads only the shape and dtype of its input,
so input sizes are never stated. Parameters have the input's dtype and are nested dictionaries with readable names:
``params["dense_0"]["kernel"]``. Any plain function of an array, such as ``jax.nn.relu`` or :func:`flatten`, is a layer
wherever a layer is expected.

Numbers annotated ``ArrayLike`` may be traced, and so mapped by ``vmap``. Shapes, names and functions are static.
"""

from jaxopt_nn.layers._basic.activity import activity_penalty, total_activity_penalty
from jaxopt_nn.layers._basic.dense import dense, flatten
from jaxopt_nn.layers._basic.dropout import drop_connect, dropout, spatial_dropout, stochastic_depth
from jaxopt_nn.layers._basic.embedding import embedding, reshape
from jaxopt_nn.layers._basic.noise import gaussian_noise
from jaxopt_nn.layers._combinators.graph import graph, shared
from jaxopt_nn.layers._combinators.mlp import mlp, pyramid
from jaxopt_nn.layers._combinators.repeat import repeat
from jaxopt_nn.layers._combinators.serial import add, concatenate, eval_mode, parallel, residual, serial
from jaxopt_nn.layers._combinators.wiring import as_layer
from jaxopt_nn.layers._initialization.defaults import with_defaults
from jaxopt_nn.layers._initialization.lsuv import lsuv
from jaxopt_nn.layers._inspection.draw import draw
from jaxopt_nn.layers._inspection.outputs import Place, apply_with_outputs, places
from jaxopt_nn.layers._inspection.summary import Description, Row, describe, summary
from jaxopt_nn.layers._keras import from_keras
from jaxopt_nn.layers._normalization.batch_norm import batch_norm
from jaxopt_nn.layers._normalization.per_example import group_norm, instance_norm, layer_norm, rms_norm
from jaxopt_nn.layers._normalization.weight_norm import weight_norm
from jaxopt_nn.layers._other_libraries import from_apply, from_equinox, from_haiku, from_linen, from_nnx
from jaxopt_nn.layers._precision import with_precision
from jaxopt_nn.layers._sequence.attention import multi_head_attention, transformer_block
from jaxopt_nn.layers._sequence.recurrent import gru, lstm, simple_rnn
from jaxopt_nn.layers._spatial.conv import conv, conv_transpose, depthwise_conv
from jaxopt_nn.layers._spatial.pool import average_pool, global_average_pool, global_max_pool, max_pool

__all__ = [
    "Description",
    "Place",
    "Row",
    "activity_penalty",
    "add",
    "apply_with_outputs",
    "as_layer",
    "average_pool",
    "batch_norm",
    "concatenate",
    "conv",
    "conv_transpose",
    "dense",
    "depthwise_conv",
    "describe",
    "draw",
    "drop_connect",
    "dropout",
    "embedding",
    "eval_mode",
    "flatten",
    "from_apply",
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "gaussian_noise",
    "global_average_pool",
    "global_max_pool",
    "graph",
    "group_norm",
    "gru",
    "instance_norm",
    "layer_norm",
    "lstm",
    "lsuv",
    "max_pool",
    "mlp",
    "multi_head_attention",
    "parallel",
    "places",
    "pyramid",
    "repeat",
    "reshape",
    "residual",
    "rms_norm",
    "serial",
    "shared",
    "simple_rnn",
    "spatial_dropout",
    "stochastic_depth",
    "summary",
    "total_activity_penalty",
    "transformer_block",
    "weight_norm",
    "with_defaults",
    "with_precision",
]
