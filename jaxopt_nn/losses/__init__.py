"""Losses of single examples, plain functions ``loss(outputs, targets) -> [N]``, and their weighted mean.

Numbers of a loss are keywords; set them with ``functools.partial(huber, delta=0.5)``. The first axis counts examples.
A loss is averaged over the axes behind it, so that each example has one value. ``outputs`` must be floats. Losses are
computed and returned in float32 (float64 if ``outputs`` are float64), and targets are cast to that. Shapes must agree;
nothing broadcasts.

A target that the loss is not defined for (a class out of range, a probability outside of [0, 1]) raises ``ValueError``,
which names the first one. A compiled program cannot raise: there the example's loss is NaN, and its gradient 0. A NaN
loss makes the mean NaN, unless the example's weight is 0.

Cross-entropies take logits, the outputs of a last layer without an activation. If they are given probabilities there is
no error, but the model learns slowly, and its predictions stay near 1/C.
"""

from jaxopt_nn.losses._arrays import Loss
from jaxopt_nn.losses._classification import (
    hinge,
    kl_divergence,
    ordinal,
    sigmoid_cross_entropy,
    sigmoid_focal,
    softmax_cross_entropy,
    softmax_focal,
)
from jaxopt_nn.losses._ctc import ctc
from jaxopt_nn.losses._mean import weighted_mean
from jaxopt_nn.losses._pairs import contrastive, triplet
from jaxopt_nn.losses._regression import (
    gaussian_nll,
    huber,
    mean_absolute_error,
    mean_squared_error,
    poisson_nll,
    quantile,
)

__all__ = [
    "Loss",
    "contrastive",
    "ctc",
    "gaussian_nll",
    "hinge",
    "huber",
    "kl_divergence",
    "mean_absolute_error",
    "mean_squared_error",
    "ordinal",
    "poisson_nll",
    "quantile",
    "sigmoid_cross_entropy",
    "sigmoid_focal",
    "softmax_cross_entropy",
    "softmax_focal",
    "triplet",
    "weighted_mean",
]
