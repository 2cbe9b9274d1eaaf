"""Other libraries' weights and models: read safely, mapped explicitly, tested numerically.

Import from ``jaxopt_nn.interop``, not from the modules within it. Models of Flax, Equinox, Haiku and Keras as they are
become layers by functions of :mod:`jaxopt_nn.layers`.
"""

from jaxopt_nn.interop._efficientnet import efficientnet_lite0, efficientnet_lite0_names
from jaxopt_nn.interop._exports import export_model, export_onnx
from jaxopt_nn.interop._keras_files import load_keras, save_keras
from jaxopt_nn.interop._keras_models import KerasModel, from_keras, into_keras
from jaxopt_nn.interop._keras_weights import from_keras_weights, to_keras_weights
from jaxopt_nn.interop._torch_files import load_torch
from jaxopt_nn.interop._torch_modules import TorchModule, from_torch_module
from jaxopt_nn.interop._torch_weights import from_torch, to_torch, torch_flatten

__all__ = [
    "KerasModel",
    "TorchModule",
    "efficientnet_lite0",
    "efficientnet_lite0_names",
    "export_model",
    "export_onnx",
    "from_keras",
    "from_keras_weights",
    "from_torch",
    "from_torch_module",
    "into_keras",
    "load_keras",
    "load_torch",
    "save_keras",
    "to_keras_weights",
    "to_torch",
    "torch_flatten",
]
