"""Sweeps: hundreds of training runs as one experiment.

A *space* is a list of trials, dictionaries of hyperparameters. ``sweep`` groups them by what has to be compiled in,
runs each group as lanes of one program, and keeps every finished chunk in a store. Its result is read over seeds.
"""

from jaxopt_nn.sweeps._engine import work
from jaxopt_nn.sweeps._lanes import run_keys
from jaxopt_nn.sweeps._plan import Group, Plan
from jaxopt_nn.sweeps._pruning import Pruning, asha, hyperband, successive_halving
from jaxopt_nn.sweeps._ray import ray
from jaxopt_nn.sweeps._results import Best, Comparison, Sweep
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
    "Group",
    "Plan",
    "Pruning",
    "Record",
    "Space",
    "Sweep",
    "Trial",
    "asha",
    "choice",
    "grid",
    "halton",
    "hyperband",
    "integers",
    "log_uniform",
    "plan",
    "random",
    "ray",
    "run_keys",
    "search",
    "sobol",
    "successive_halving",
    "sweep",
    "sweep_function",
    "uniform",
    "work",
    "zipped",
]
