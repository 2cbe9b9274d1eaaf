"""Learning rates over time: a schedule is a pure function ``count -> learning rate``.

``count`` is the number of updates already done, an integer scalar (or an array of any shape, to plot a schedule at
once). Every number of every schedule may be traced, swept and differentiated, step sizes and boundaries too: there is
arithmetic here and no branch. Wherever an optimizer takes a ``learning_rate`` it takes a number or a schedule, ours or
optax's.

A drop happens exactly on its step, on every backend: integers are compared with integers, and numbers of steps that
are floats, as traced ones often are, are exact in float32 up to 2^24. The result is a float32 array, or float64 where
x64 is on. Steps are steps of the optimizer; for a schedule in epochs there is :func:`by_epoch`. A number of steps
between 0 and 1 is refused: it is a fraction of a training, or a learning rate in the wrong place.
"""

from jaxopt_nn.schedules._compose import by_epoch, join, warmup
from jaxopt_nn.schedules._cosine import cosine_decay, cosine_restarts, one_cycle
from jaxopt_nn.schedules._decay import (
    constant,
    exponential_decay,
    inverse_sqrt_decay,
    linear,
    multi_step_decay,
    polynomial_decay,
    step_decay,
)
from jaxopt_nn.schedules._steps import Schedule

__all__ = [
    "Schedule",
    "by_epoch",
    "constant",
    "cosine_decay",
    "cosine_restarts",
    "exponential_decay",
    "inverse_sqrt_decay",
    "join",
    "linear",
    "multi_step_decay",
    "one_cycle",
    "polynomial_decay",
    "step_decay",
    "warmup",
]
