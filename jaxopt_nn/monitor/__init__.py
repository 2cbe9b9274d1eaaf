"""What happens inside of a training run: the flow of gradients, activations, noise, step lengths; and what it means.

Each function here returns records for a recipe: ``Recipe(..., record=monitor.watch())``. They are computed inside of
the compiled run, at a cadence, and end up in its history. :func:`diagnose` says in words what a history shows, and
:func:`plot` draws it.

Planes through the parameter space are functions of parameters: :func:`random_plane`, :func:`principal_plane`, and
:func:`plane_losses` over them. :func:`mean_field` says how large signals and gradients should be by layer.
"""

from jaxopt_nn.monitor._activations import activations
from jaxopt_nn.monitor._diagnose import Diagnosis, Finding, diagnose
from jaxopt_nn.monitor._flow import gradient_flow, histograms, inputs, watch
from jaxopt_nn.monitor._landscape import Plane, plane_losses, principal_plane, project, random_plane, share_in_plane
from jaxopt_nn.monitor._mean_field import MeanField, mean_field
from jaxopt_nn.monitor._noise import gradient_noise, step_length
from jaxopt_nn.monitor._plot import plot, plot_layers

__all__ = [
    "Diagnosis",
    "Finding",
    "MeanField",
    "Plane",
    "activations",
    "diagnose",
    "gradient_flow",
    "gradient_noise",
    "histograms",
    "inputs",
    "mean_field",
    "plane_losses",
    "plot",
    "plot_layers",
    "principal_plane",
    "project",
    "random_plane",
    "share_in_plane",
    "step_length",
    "watch",
]
