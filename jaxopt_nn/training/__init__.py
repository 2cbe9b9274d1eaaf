"""Training: one step, a whole run as one pure function, and the same run driven from the host.

A recipe is a function from hyperparameters to a :class:`Recipe`. ``make_run`` makes of it a pure function ``(key,
hparams, train, valid) -> RunResult``. ``fit`` trains epoch by epoch, with a progress bar and callbacks, and gives the
same bits. ``make_step`` is for a model and a loop of your own.
"""

from jaxopt_nn.training._checkpoint import Checkpoint, CheckpointInfo, checkpoints
from jaxopt_nn.training._evaluation import evaluate, make_predict, predict
from jaxopt_nn.training._explain import Explanation, explain
from jaxopt_nn.training._fit import fit
from jaxopt_nn.training._fit_model import FittedModel, fit_model
from jaxopt_nn.training._loggers import log_csv, log_json_lines, log_mlflow, log_tensorboard
from jaxopt_nn.training._loss_scale import DynamicLossScale
from jaxopt_nn.training._range_test import RangeTest, learning_rate_range_test
from jaxopt_nn.training._recipe import Recipe
from jaxopt_nn.training._records import EpochEnd, LayerOutput, Record, StepEnd
from jaxopt_nn.training._replay import Failure, Replay, Spread, replay
from jaxopt_nn.training._run import RunResult, make_run
from jaxopt_nn.training._run_state import RunKeys
from jaxopt_nn.training._sanity import Finding, SanityReport, sanity_check
from jaxopt_nn.training._save import SavedModel, load, save
from jaxopt_nn.training._snapshots import snapshot_ensemble
from jaxopt_nn.training._statistics import update_batch_statistics
from jaxopt_nn.training._status import Status
from jaxopt_nn.training._step import init_state, make_step
from jaxopt_nn.training._stopping import EarlyStopping

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "DynamicLossScale",
    "EarlyStopping",
    "EpochEnd",
    "Explanation",
    "Failure",
    "Finding",
    "FittedModel",
    "LayerOutput",
    "RangeTest",
    "Recipe",
    "Record",
    "Replay",
    "RunKeys",
    "RunResult",
    "SanityReport",
    "SavedModel",
    "Spread",
    "Status",
    "StepEnd",
    "checkpoints",
    "evaluate",
    "explain",
    "fit",
    "fit_model",
    "init_state",
    "learning_rate_range_test",
    "load",
    "log_csv",
    "log_json_lines",
    "log_mlflow",
    "log_tensorboard",
    "make_predict",
    "make_run",
    "make_step",
    "predict",
    "replay",
    "sanity_check",
    "save",
    "snapshot_ensemble",
    "update_batch_statistics",
]
