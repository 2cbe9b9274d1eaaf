"""Preprocessing of tables that is fitted once: :mod:`table` is the whole, :mod:`columns` its parts."""

from jaxopt_nn.data._fitted.table import FittedTable, fit_table, inverse_table, inverse_target, transform_table

__all__ = ["FittedTable", "fit_table", "inverse_table", "inverse_target", "transform_table"]
