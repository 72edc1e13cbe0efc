"""What a checkpoint says about itself: its architecture and its tasks, as plain values."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from unihap import __version__
from unihap.models.unihap import Architecture
from unihap.structures import Supervision, TaskSpec, Unit


def spec_to_json(spec: TaskSpec) -> dict[str, Any]:
    """A task's specification as plain values."""
    return {
        "num_queries": spec.num_queries,
        "units": sorted(unit.value for unit in spec.units),
        "supervision": spec.supervision.value,
        "num_anchors": spec.num_anchors,
        "feature_norm": spec.feature_norm,
    }


def spec_from_json(name: str, values: Mapping[str, Any]) -> TaskSpec:
    """The inverse of ``spec_to_json``."""
    return TaskSpec(
        name,
        values["num_queries"],
        frozenset(Unit(unit) for unit in values["units"]),
        Supervision(values["supervision"]),
        values["num_anchors"],
        values["feature_norm"],
    )


def base_card(architecture: Architecture, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The part of a card that says what the weights are."""
    return {"format": 1, "unihap": __version__, "architecture": asdict(architecture), "tasks": dict(tasks)}


def architecture_of(card: Mapping[str, Any]) -> Architecture:
    """The architecture a card describes."""
    values = dict(card["architecture"])
    return Architecture(**{**values, "position_grid": tuple(values["position_grid"])})
