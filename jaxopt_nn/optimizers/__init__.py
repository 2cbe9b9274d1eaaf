"""Optimizers: optax's protocol, every number traceable, moments that keep their digits.

An optimizer is an ``optax.GradientTransformation``: ``init(params) -> state`` and ``update(gradients, state, params)
-> (updates, state)``. Ours and optax's compose in ``optax.chain`` in any order. A transform ``scale_by_x`` is the
rescaling alone, the optimizer ``x`` is a chain of it and :func:`scale_by_learning_rate`, which records the learning
rate it used.

Layout and precision: moments have the shapes of the parameters and are kept, as all arithmetic is done, in float32 for
float16, bfloat16 and float32 leaves and in float64 for float64 leaves; updates have the dtypes of the gradients. State
in = state out, in tree, shapes, dtypes and weak types.

Numbers typed ``ArrayLike`` may be traced, swept by ``vmap`` and differentiated. Where all gradients were 0 the update
is 0 (weight decay aside), with finite derivatives; a gradient that is not finite gives updates that are not, for a
run's status to see (clipping by value aside).
"""

from jaxopt_nn.optimizers._adagrad import AdagradState, adagrad, scale_by_adagrad
from jaxopt_nn.optimizers._adam import AdamState, adam, adamw, scale_by_adam
from jaxopt_nn.optimizers._clipping import clip_by_global_norm, clip_by_norm, clip_by_value
from jaxopt_nn.optimizers._decay import add_decayed_weights
from jaxopt_nn.optimizers._learning_rate import LearningRateState, current_learning_rate, scale_by_learning_rate
from jaxopt_nn.optimizers._plateau import Plateau, PlateauState, reduce_on_plateau
from jaxopt_nn.optimizers._rmsprop import RmsState, rmsprop, scale_by_rms
from jaxopt_nn.optimizers._sgd import MomentumState, add_momentum, sgd

__all__ = [
    "AdagradState",
    "AdamState",
    "LearningRateState",
    "MomentumState",
    "Plateau",
    "PlateauState",
    "RmsState",
    "adagrad",
    "adam",
    "adamw",
    "add_decayed_weights",
    "add_momentum",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "current_learning_rate",
    "reduce_on_plateau",
    "rmsprop",
    "scale_by_adagrad",
    "scale_by_adam",
    "scale_by_learning_rate",
    "scale_by_rms",
    "sgd",
]
