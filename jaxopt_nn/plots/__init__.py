"""Pictures of training runs and sweeps, drawn with matplotlib (the ``plots`` extra).

What shows a run returns a ``matplotlib.figure.Figure``. What shows a sweep takes and returns ``Axes``, so that it can be
a panel of a figure of your own; its figure is ``ax.figure``. Neither belongs to any global state: save a figure with
``figure.savefig("curves.png")``, or show it as the last value of a notebook cell.
"""

from jaxopt_nn.plots._history import plot_comparison, plot_history
from jaxopt_nn.plots._rates import plot_range_test, plot_schedules

__all__ = ["plot_comparison", "plot_history", "plot_range_test", "plot_schedules"]
