"""Evidence about gradients: any claimed gradient, of any function of pytrees, compared with differences in float64.

``check_gradients(f, *args, key=key)`` prints a table with one row per leaf: how far the claimed gradient is from the
numeric one, how well that is known, and what is wrong where it is wrong. It returns a report and raises nothing for a
wrong gradient; ``report.assert_ok()`` does.
"""

from jaxopt_nn.checking._check import check_gradients
from jaxopt_nn.checking._jaxpr.origin import Origin, find_nonfinite
from jaxopt_nn.checking._one_call import check_layer, check_loss, check_optimizer, check_rule
from jaxopt_nn.checking._report import Coordinate, Curve, GradientReport, LeafReport, Verdict

__all__ = [
    "Coordinate",
    "Curve",
    "GradientReport",
    "LeafReport",
    "Origin",
    "Verdict",
    "check_gradients",
    "check_layer",
    "check_loss",
    "check_optimizer",
    "check_rule",
    "find_nonfinite",
]
