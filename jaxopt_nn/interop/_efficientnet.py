"""EfficientNet-Lite0, a small network for images with published weights."""

from collections.abc import Mapping
from typing import Any

import jax

from jaxopt_nn import layers
from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.types import Layer

__all__ = ["efficientnet_lite0", "efficientnet_lite0_names"]

# Of each stage: blocks, kernel size, stride of the first block, expansion, output channels. Tan and Le, 2019, table 1.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0(num_classes: int | None = 1000, *, drop_rate: Any = 0.2) -> Layer:
    """EfficientNet-Lite0: 16 inverted residuals of depthwise convolutions, with ReLU6 and without squeeze-and-excite.

    Args:
        num_classes: of the head; None for no head: the layer ends with the 1,280 features of the image.
        drop_rate: of the dropout before the head.

    Returns:
        A layer ``[N, H, W, 3] -> [N, num_classes]`` of 4.7 million parameters. The published weights are for images of
        224 by 224 with values ``(byte - 127) / 128``. Its children are ``features`` (all but the head), ``dropout``
        and ``head``.

    References:
        Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019; the "Lite" models
        of TensorFlow, 2020.
    """
    blocks: list[Layer] = [_conv_norm(layers.conv(32, 3, stride=2, use_bias=False)), layers.as_layer(jax.nn.relu6)]
    channels = 32
    for repeats, kernel, stride, expansion, features in _STAGES:
        for index in range(repeats):
            block = _inverted_residual(channels, kernel, stride if index == 0 else 1, expansion, features)
            same = (index > 0 or stride == 1) and channels == features
            blocks.append(layers.residual(block) if same else block)
            channels = features
    blocks += [_conv_norm(layers.conv(1280, 1, use_bias=False)), layers.as_layer(jax.nn.relu6)]
    blocks.append(layers.as_layer(layers.global_average_pool))
    features = layers.serial(*blocks)
    if num_classes is None:
        return features
    check_positive_int("num_classes", num_classes)
    nodes = {
        "features": (features, "input"),
        "dropout": (layers.dropout(drop_rate), "features"),
        "head": (layers.dense(num_classes), "dropout"),
    }
    return layers.graph(nodes, outputs="head")


def _conv_norm(conv: Layer) -> Layer:
    return layers.serial(conv, layers.batch_norm(momentum=0.01, epsilon=1e-3))


def _inverted_residual(channels: int, kernel: int, stride: int, expansion: int, features: int) -> Layer:
    parts: list[Any] = []
    if expansion != 1:
        parts += [_conv_norm(layers.conv(channels * expansion, 1, use_bias=False)), jax.nn.relu6]
    parts += [_conv_norm(layers.depthwise_conv(kernel, stride=stride, use_bias=False)), jax.nn.relu6]
    parts.append(_conv_norm(layers.conv(features, 1, use_bias=False)))
    return layers.serial(*parts)


def efficientnet_lite0_names(num_classes: int | None = 1000) -> Mapping[str, str]:
    """The names of the published PyTorch weights for :func:`from_torch`: paths of layers to names of modules."""
    modules = ["_conv_stem", "_bn0"]
    index = 0
    for repeats, _, _, expansion, _ in _STAGES:
        for _ in range(repeats):
            expand = [] if expansion == 1 else ["_expand_conv", "_bn0"]
            parts = (*expand, "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
            modules += [f"_blocks.{index}.{name}" for name in parts]
            index += 1
    modules += ["_conv_head", "_bn1"]
    places = [place.path for place in layers.places(efficientnet_lite0(num_classes)) if _has_weights(place.name)]
    return dict(zip(places, modules if num_classes is None else [*modules, "_fc"], strict=True))


def _has_weights(name: str) -> bool:
    return name in ("conv", "depthwise_conv", "batch_norm", "dense")
