"""Optimizers in optax's protocol, whose numbers may all be traced, with moments in float32 at least.

An optimizer is an ``optax.GradientTransformation``: ``init(params) -> state`` and ``update(gradients, state, params)
-> (updates, state)``. Ours and optax's compose in ``optax.chain`` in any order. A transform ``scale_by_x`` is the
rescaling alone, and the optimizer ``x`` is a chain of it and :func:`scale_by_learning_rate`, which records the learning
rate.

Moments have the shapes of the parameters. Moments and arithmetic are in float32 for float16, bfloat16 and float32
leaves, and in float64 for float64 leaves. Updates have the dtypes of the gradients. A new state has the tree, shapes,
dtypes and weak types of the old one.

Numbers annotated ``ArrayLike`` may be traced, mapped by ``vmap`` and differentiated. If all gradients so far were 0,
the update is 0 (except for weight decay) and has finite derivatives. A gradient that is not finite makes updates that
are not, so that a run's status sees it (except for clipping by value).
"""

from jaxopt_nn.optimizers._algorithms.adadelta import AdadeltaState, adadelta, scale_by_adadelta
from jaxopt_nn.optimizers._algorithms.adafactor import AdafactorState, FactoredMoment, adafactor, scale_by_factored_rms
from jaxopt_nn.optimizers._algorithms.adagrad import AdagradState, adagrad, scale_by_adagrad
from jaxopt_nn.optimizers._algorithms.adam import AdamState, adam, adamw, scale_by_adam
from jaxopt_nn.optimizers._algorithms.adamax import AdamaxState, adamax, scale_by_adamax
from jaxopt_nn.optimizers._algorithms.lion import LionState, lion, scale_by_lion
from jaxopt_nn.optimizers._algorithms.muon import MuonState, muon, scale_by_muon
from jaxopt_nn.optimizers._algorithms.nadam import NadamState, nadam, scale_by_nadam
from jaxopt_nn.optimizers._algorithms.radam import radam, scale_by_radam
from jaxopt_nn.optimizers._algorithms.rmsprop import RmsState, rmsprop, scale_by_rms
from jaxopt_nn.optimizers._algorithms.schedule_free import ScheduleFreeState, schedule_free
from jaxopt_nn.optimizers._algorithms.sgd import MomentumState, add_momentum, sgd
from jaxopt_nn.optimizers._algorithms.sophia import SophiaState, scale_by_sophia, sophia
from jaxopt_nn.optimizers._algorithms.trust_ratio import lamb, lars, scale_by_trust_ratio
from jaxopt_nn.optimizers._transforms.clipping import (
    ClipState,
    clip_adaptively,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
)
from jaxopt_nn.optimizers._transforms.decay import add_decayed_weights
from jaxopt_nn.optimizers._transforms.learning_rate import (
    LearningRateState,
    current_learning_rate,
    scale_by_learning_rate,
    scale_learning_rate,
)
from jaxopt_nn.optimizers._transforms.plateau import Plateau, PlateauState, reduce_on_plateau
from jaxopt_nn.optimizers._transforms.proximal import constrain_max_norm, proximal_elastic_net, proximal_l1
from jaxopt_nn.optimizers._wrappers.evaluation import evaluation_params
from jaxopt_nn.optimizers._wrappers.flatten import flatten
from jaxopt_nn.optimizers._wrappers.freeze import FrozenState, freeze, frozen_paths
from jaxopt_nn.optimizers._wrappers.groups import parameter_groups, scale_by_depth, scale_by_path
from jaxopt_nn.optimizers._wrappers.in_float32 import in_float32
from jaxopt_nn.optimizers._wrappers.lookahead import LookaheadState, lookahead
from jaxopt_nn.optimizers._wrappers.precision import (
    RoundedState,
    StoredState,
    round_stochastically,
    stochastic_round,
    store_state,
)
from jaxopt_nn.optimizers._wrappers.sam import sam
from jaxopt_nn.optimizers._wrappers.weight_average import WeightAverageState, weight_average
from jaxopt_nn.optimizers._wrappers.weight_ema import WeightEmaState, weight_ema

__all__ = [
    "AdadeltaState",
    "AdafactorState",
    "AdagradState",
    "AdamState",
    "AdamaxState",
    "ClipState",
    "FactoredMoment",
    "FrozenState",
    "LearningRateState",
    "LionState",
    "LookaheadState",
    "MomentumState",
    "MuonState",
    "NadamState",
    "Plateau",
    "PlateauState",
    "RmsState",
    "RoundedState",
    "ScheduleFreeState",
    "SophiaState",
    "StoredState",
    "WeightAverageState",
    "WeightEmaState",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "add_decayed_weights",
    "add_momentum",
    "clip_adaptively",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "constrain_max_norm",
    "current_learning_rate",
    "evaluation_params",
    "flatten",
    "freeze",
    "frozen_paths",
    "in_float32",
    "lamb",
    "lars",
    "lion",
    "lookahead",
    "muon",
    "nadam",
    "parameter_groups",
    "proximal_elastic_net",
    "proximal_l1",
    "radam",
    "reduce_on_plateau",
    "rmsprop",
    "round_stochastically",
    "sam",
    "scale_by_adadelta",
    "scale_by_adagrad",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_depth",
    "scale_by_factored_rms",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_muon",
    "scale_by_nadam",
    "scale_by_path",
    "scale_by_radam",
    "scale_by_rms",
    "scale_by_sophia",
    "scale_by_trust_ratio",
    "scale_learning_rate",
    "schedule_free",
    "sgd",
    "sophia",
    "stochastic_round",
    "store_state",
    "weight_average",
    "weight_ema",
]
