"""Training: one step, a whole run as one pure function, and the same run driven from the host.

A recipe is a function from hyperparameters to a :class:`Recipe`. ``make_run`` makes of it a pure function ``(key,
hparams, train, valid) -> RunResult``. ``fit`` trains epoch by epoch, with a progress bar and callbacks, and gives the
same bits. ``make_step`` is for a model and a loop of your own.
"""

from jaxopt_nn.training._checkpoint import Checkpoint, CheckpointInfo, checkpoints
from jaxopt_nn.training._epoch import RunKeys
from jaxopt_nn.training._evaluation import evaluate, make_predict, predict
from jaxopt_nn.training._explain import Explanation, explain
from jaxopt_nn.training._fit import EpochEnd, fit
from jaxopt_nn.training._loggers import log_csv, log_json_lines, log_mlflow, log_tensorboard
from jaxopt_nn.training._range_test import RangeTest, learning_rate_range_test
from jaxopt_nn.training._recipe import Recipe
from jaxopt_nn.training._run import RunResult, make_run
from jaxopt_nn.training._save import SavedModel, load, save
from jaxopt_nn.training._statistics import update_batch_statistics
from jaxopt_nn.training._status import Status
from jaxopt_nn.training._step import init_state, make_step
from jaxopt_nn.training._stopping import EarlyStopping

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "EarlyStopping",
    "EpochEnd",
    "Explanation",
    "RangeTest",
    "Recipe",
    "RunKeys",
    "RunResult",
    "SavedModel",
    "Status",
    "checkpoints",
    "evaluate",
    "explain",
    "fit",
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
    "save",
    "update_batch_statistics",
]
