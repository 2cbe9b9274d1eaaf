"""Sweeps: hundreds of training runs as one experiment.

A *space* is a list of trials, dictionaries of hyperparameters. ``sweep`` groups them by what has to be compiled in,
runs each group as lanes of one program, and keeps every finished chunk in a store. Its result is read over seeds.
"""

from jaxopt_nn.sweeps._configurations import Best, Comparison, Configuration, Drop
from jaxopt_nn.sweeps._descend import Descent, descend
from jaxopt_nn.sweeps._folds import cross_validate
from jaxopt_nn.sweeps._hypergradient import Hypergradient, hypergradient, validation_loss
from jaxopt_nn.sweeps._isolation import Edge, Isolated
from jaxopt_nn.sweeps._plan import Group, Plan
from jaxopt_nn.sweeps._results import Sweep
from jaxopt_nn.sweeps._space import (
    Space,
    Trial,
    choice,
    grid,
    halton,
    integers,
    log_uniform,
    random,
    sobol,
    uniform,
    zipped,
)
from jaxopt_nn.sweeps._store import Record
from jaxopt_nn.sweeps._sweep import plan, run_keys, sweep, sweep_function

__all__ = [
    "Best",
    "Comparison",
    "Configuration",
    "Descent",
    "Drop",
    "Edge",
    "Group",
    "Hypergradient",
    "Isolated",
    "Plan",
    "Record",
    "Space",
    "Sweep",
    "Trial",
    "choice",
    "cross_validate",
    "descend",
    "grid",
    "halton",
    "hypergradient",
    "integers",
    "log_uniform",
    "plan",
    "random",
    "run_keys",
    "sobol",
    "sweep",
    "sweep_function",
    "uniform",
    "validation_loss",
    "zipped",
]
