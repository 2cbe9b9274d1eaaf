"""Other libraries' weights and models: read safely, mapped explicitly, tested numerically.

Import from ``jaxopt_nn.interop``, not from the modules within it. Models of Flax, Equinox and Haiku as they are become
layers by functions of :mod:`jaxopt_nn.layers`.
"""

from jaxopt_nn.interop._efficientnet import efficientnet_lite0, efficientnet_lite0_names
from jaxopt_nn.interop._torch_files import load_torch
from jaxopt_nn.interop._torch_weights import from_torch, to_torch

__all__ = ["efficientnet_lite0", "efficientnet_lite0_names", "from_torch", "load_torch", "to_torch"]
