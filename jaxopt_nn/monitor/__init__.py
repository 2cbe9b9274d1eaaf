"""What happens inside of a training run: the flow of gradients, activations, noise, step lengths; and what it means.

Each function here returns records for a recipe: ``Recipe(..., record=monitor.watch())``. They are computed inside of
the compiled run, at a cadence, and end up in its history. :func:`diagnose` says in words what a history shows, and
:func:`plot` draws it.
"""

from jaxopt_nn.monitor._activations import activations
from jaxopt_nn.monitor._diagnose import Diagnosis, Finding, diagnose
from jaxopt_nn.monitor._flow import gradient_flow, histograms, inputs, watch
from jaxopt_nn.monitor._noise import gradient_noise, step_length
from jaxopt_nn.monitor._plot import plot, plot_layers

__all__ = [
    "Diagnosis",
    "Finding",
    "activations",
    "diagnose",
    "gradient_flow",
    "gradient_noise",
    "histograms",
    "inputs",
    "plot",
    "plot_layers",
    "step_length",
    "watch",
]
