"""Pictures of training runs and sweeps, drawn with matplotlib (the ``plots`` extra).

What shows a run returns a ``matplotlib.figure.Figure``; :func:`report` is a run on one page, also as an HTML file. What
shows a sweep takes and returns ``Axes``, so that it can be a panel of a figure of your own; its figure is
``ax.figure``. Neither belongs to any global state: save a figure with ``figure.savefig("curves.png")``, or show it as
the last value of a notebook cell.
"""

from jaxopt_nn.plots._bars import plot_bars, plot_by_layer
from jaxopt_nn.plots._confusion import plot_confusion_matrix
from jaxopt_nn.plots._differences import plot_differences
from jaxopt_nn.plots._generalization import plot_generalization
from jaxopt_nn.plots._history import plot_comparison, plot_history
from jaxopt_nn.plots._landscape import plot_paths
from jaxopt_nn.plots._means import plot_means, plot_response
from jaxopt_nn.plots._metrics import plot_learning_curve, plot_metrics
from jaxopt_nn.plots._rates import plot_range_test, plot_schedules
from jaxopt_nn.plots._report import report
from jaxopt_nn.plots._sweep_lines import plot_curves, plot_parallel_coordinates
from jaxopt_nn.plots._sweep_values import plot_heat_map, plot_importance, plot_isolation, plot_slice

__all__ = [
    "plot_bars",
    "plot_by_layer",
    "plot_comparison",
    "plot_confusion_matrix",
    "plot_curves",
    "plot_differences",
    "plot_generalization",
    "plot_heat_map",
    "plot_history",
    "plot_importance",
    "plot_isolation",
    "plot_learning_curve",
    "plot_means",
    "plot_metrics",
    "plot_parallel_coordinates",
    "plot_paths",
    "plot_range_test",
    "plot_response",
    "plot_schedules",
    "plot_slice",
    "report",
]
