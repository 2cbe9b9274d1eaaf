"""Training and optimizing neural networks as pure functions.

One idea: **pair → step → run → sweep**. A *pair* is a NamedTuple of pure functions (a layer, an optimizer); a *step* is
``(state, batch) -> (state, metrics)``; a *recipe* maps hyperparameters to the parts of an experiment; a *run* is one
pure function ``(key, hparams, train, valid) -> result``, a whole training from init to the best weights as one compiled
program, ready for ``jit``, ``vmap`` and ``grad``; a *sweep* is hundreds of runs as lanes of a few programs. *Checking*
stands beside them: a gradient is compared with evidence.
"""

from jaxopt_nn import (
    augment,
    checking,
    data,
    estimators,
    initializers,
    interop,
    layers,
    losses,
    metrics,
    monitor,
    optimizers,
    penalties,
    plots,
    schedules,
    sweeps,
    training,
    trees,
    types,
)

__all__ = [
    "augment",
    "checking",
    "data",
    "estimators",
    "initializers",
    "interop",
    "layers",
    "losses",
    "metrics",
    "monitor",
    "optimizers",
    "penalties",
    "plots",
    "schedules",
    "sweeps",
    "training",
    "trees",
    "types",
]

__version__ = "0.1.0"
