"""Pictures of training runs and sweeps, drawn with matplotlib (the ``plots`` extra).

What shows a run returns a ``matplotlib.figure.Figure``; :func:`report` is a run on one page, also as an HTML file. What
shows a sweep takes and returns ``Axes``, so that it can be a panel of a figure of your own; its figure is
``ax.figure``. Neither belongs to any global state: save a figure with ``figure.savefig("curves.png")``, or show it as
the last value of a notebook cell.
"""

from jaxopt_nn.plots._confusion import plot_confusion_matrix
from jaxopt_nn.plots._history import plot_comparison, plot_history
from jaxopt_nn.plots._rates import plot_range_test, plot_schedules
from jaxopt_nn.plots._report import report
from jaxopt_nn.plots._sweep_lines import plot_curves, plot_parallel_coordinates
from jaxopt_nn.plots._sweep_values import plot_heat_map, plot_importance, plot_isolation, plot_slice

__all__ = [
    "plot_comparison",
    "plot_confusion_matrix",
    "plot_curves",
    "plot_heat_map",
    "plot_history",
    "plot_importance",
    "plot_isolation",
    "plot_parallel_coordinates",
    "plot_range_test",
    "plot_schedules",
    "plot_slice",
    "report",
]
