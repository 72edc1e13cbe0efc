"""What is to be rendered."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unihap.lookup import lookup
from unihap.synth.amounts import check_amount
from unihap.synth.layouts import LAYOUTS
from unihap.synth.layouts.base import Amount, Draft, Item
from unihap.synth.layouts.extra import LEVELS
from unihap.synth.manifest import versions
from unihap.synth.staging import STAGINGS

DOMAINS = {"a": "for training", "b": "for transfer"}


@dataclass(frozen=True)
class Request:
    """What to render.

    Attributes:
        datasets: key of ``LAYOUTS`` -> how much.
        seed: everything follows from it.
        domain: ``a`` or ``b``: palettes, places, cameras, attributes and order of keypoints.
        staging: key of ``STAGINGS``: how people stand before the cameras.
        extra: how much ``extra.jsonl.gz`` tells: full, brief or none.

    Raises:
        ValueError: something that cannot be rendered.
    """

    datasets: Mapping[str, Amount]
    seed: int = 0
    domain: str = "a"
    staging: str = "street"
    extra: str = "full"

    def __post_init__(self) -> None:
        lookup(DOMAINS, self.domain, "domain")
        lookup(STAGINGS, self.staging, "staging")
        lookup(dict.fromkeys(LEVELS), self.extra, "level of extra labels")
        if self.seed < 0:
            raise ValueError(f"the seed must not be negative, got {self.seed}")
        if not self.datasets:
            raise ValueError(f"no dataset asked for; the datasets are {', '.join(LAYOUTS)}")
        for name, amount in self.datasets.items():
            lookup(LAYOUTS, name, "dataset")
            check_amount(name, amount)

    def options(self) -> dict[str, Any]:
        """Everything that the bytes of the files depend on, as JSON has it."""
        datasets = {f"datasets.{name}": asdict(amount) for name, amount in self.datasets.items()}
        installed = {f"versions.{name}": version for name, version in versions().items()}
        looks = {"domain": self.domain, "staging": self.staging}
        options = {"seed": self.seed, **looks, "extra": self.extra, **datasets, **installed}
        return dict(json.loads(json.dumps(options)))

    def plan(self) -> dict[str, list[Item]]:
        """The items of every dataset."""
        items = {}
        for position, (name, layout) in enumerate(LAYOUTS.items()):
            if name in self.datasets:
                items[name] = list(layout.plan(Draft(name, position, self.seed, self.datasets[name])))
        return items
