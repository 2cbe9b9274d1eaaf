"""Losses of single examples: plain functions ``loss(outputs, targets) -> [N]``, and the mean that respects weights.

A loss that has a number takes it as a keyword, to be fixed with ``functools.partial(huber, delta=0.5)``. The first axis
counts examples; the loss is averaged over the axes behind it, so that each example has one. ``outputs`` must be floats;
losses are computed and returned in float32 (float64 if ``outputs`` are float64), and targets are cast to that. Shapes
must agree: nothing broadcasts.

Targets that a loss is not defined for (a class out of range, a probability that is none) raise ``ValueError`` naming
the first of them. Within a compiled program no error can be raised: there the example's loss is NaN, and its gradient
0. A NaN loss makes the mean NaN unless the example's weight is 0.

Cross-entropies take logits, the outputs of a last layer without an activation. Of probabilities they compute something
else, without an error: the model learns slowly, and its predictions stay near 1/C.
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
