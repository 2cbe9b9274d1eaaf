"""Neural networks as scikit-learn estimators: in pipelines, grid searches and cross-validation.

:class:`JaxClassifier` and :class:`JaxRegressor` train with :func:`jaxopt_nn.training.fit`, in float32. They need
scikit-learn, which is imported when one of them is used: ``pip install 'jaxopt-nn[data]'``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxopt_nn.estimators._estimators import JaxClassifier, JaxRegressor

__all__ = ["JaxClassifier", "JaxRegressor"]


def __getattr__(name: str) -> Any:
    """Imports scikit-learn only for those who use an estimator."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from jaxopt_nn.estimators import _estimators
    except ImportError as error:
        raise ImportError(f"{name} needs scikit-learn: pip install 'jaxopt-nn[data]'") from error
    return getattr(_estimators, name)
