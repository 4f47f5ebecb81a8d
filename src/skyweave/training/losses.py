"""Losses in backend-neutral operations."""

from collections.abc import Mapping
from typing import Any

from keras import ops


def mean_squared_errors(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """Mean squared error of each output over all its pixels, a float32 scalar tensor each."""
    return {
        name: ops.mean(ops.square(ops.cast(outputs[name], "float32") - target))
        for name, target in targets.items()
    }


def mean_absolute_errors(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """Mean absolute error of each output over all its pixels, a float32 scalar tensor each."""
    return {
        name: ops.mean(ops.abs(ops.cast(outputs[name], "float32") - target))
        for name, target in targets.items()
    }
