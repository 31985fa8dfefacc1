"""Great Expectations, imported in one place: its import warns about modules that it uses or would use."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
    # where another package (Ray) brings Google's client without all that belongs to it
    warnings.filterwarnings("ignore", r"Please install grpcio-status", ImportWarning)
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import (
        ColumnAggregateExpectation,
        ColumnMapExpectation,
        ColumnPairMapExpectation,
    )
    from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
        ColumnAggregateMetricProvider,
        column_aggregate_value,
    )
    from great_expectations.expectations.metrics.map_metric_provider import (
        ColumnMapMetricProvider,
        ColumnPairMapMetricProvider,
        column_condition_partial,
        column_pair_condition_partial,
    )

__all__ = [
    "ColumnAggregateExpectation",
    "ColumnAggregateMetricProvider",
    "ColumnMapExpectation",
    "ColumnMapMetricProvider",
    "ColumnPairMapExpectation",
    "ColumnPairMapMetricProvider",
    "PandasExecutionEngine",
    "column_aggregate_value",
    "column_condition_partial",
    "column_pair_condition_partial",
    "gx",
    "gxe",
]
