"""Sweeps: hundreds of training runs as one experiment.

A *space* is a list of trials, dictionaries of hyperparameters. ``sweep`` groups them by what has to be compiled in,
runs each group as lanes of one program, and keeps every finished chunk in a store. Its result is read over seeds.
"""

from jaxopt_nn.sweeps._configurations import Best, Comparison, Configuration, Drop
from jaxopt_nn.sweeps._descend import Descent, descend
from jaxopt_nn.sweeps._engine import work
from jaxopt_nn.sweeps._folds import cross_validate
from jaxopt_nn.sweeps._hypergradient import Hypergradient, hypergradient, validation_loss
from jaxopt_nn.sweeps._isolation import Edge, Isolated
from jaxopt_nn.sweeps._lanes import run_keys
from jaxopt_nn.sweeps._plan import Group, Plan
from jaxopt_nn.sweeps._processes import processes
from jaxopt_nn.sweeps._pruning import Pruning, asha, hyperband, successive_halving
from jaxopt_nn.sweeps._ray import ray
from jaxopt_nn.sweeps._read_store import read_store
from jaxopt_nn.sweeps._results import Sweep
from jaxopt_nn.sweeps._search import search
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
from jaxopt_nn.sweeps._sweep import plan, sweep, sweep_function

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
    "Pruning",
    "Record",
    "Space",
    "Sweep",
    "Trial",
    "asha",
    "choice",
    "cross_validate",
    "descend",
    "grid",
    "halton",
    "hyperband",
    "hypergradient",
    "integers",
    "log_uniform",
    "plan",
    "processes",
    "random",
    "ray",
    "read_store",
    "run_keys",
    "search",
    "sobol",
    "successive_halving",
    "sweep",
    "sweep_function",
    "uniform",
    "validation_loss",
    "work",
    "zipped",
]
