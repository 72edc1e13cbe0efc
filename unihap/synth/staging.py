"""How people stand before the cameras: as in a street, or as on the pages of a catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from unihap.synth.structures import Camera


@dataclass(frozen=True)
class Staging:
    """What makes pictures easy or hard, whoever is in them.

    Attributes:
        views: share of people who face the camera, turn a side (either) to it, and turn their back; empty: any
            direction is as likely.
        spread: standard deviation around these directions, radians.
        strangers: whether others come into crops.
        truncated: share of crops that lose their lower part.
        space: smallest distance between the middles of two people of a scene, metres.
        smallest: height of the smallest person of a scene in heights of the image, where there is a choice.
        noise: largest standard deviation of a camera's noise, 0-255.
        blur: largest blur of a camera, pixels of its sensor.
        quality: largest JPEG quality.
    """

    views: tuple[float, ...] = ()
    spread: float = 0.0
    strangers: bool = True
    truncated: float = 0.12
    space: float = 0.55
    smallest: float = 0.18
    noise: float = np.inf
    blur: float = np.inf
    quality: int = 100

    def yaw(self, rng: np.random.Generator, spot: np.ndarray, camera: np.ndarray) -> float:
        """Where somebody turns.

        Args:
            rng: the only source of randomness.
            spot: (2,) where they stand, world.
            camera: (2,) where the camera stands.

        Returns:
            Radians in [-pi, pi); 0 faces -y, as bodies at rest do.
        """
        if not self.views:
            return float(rng.uniform(-np.pi, np.pi))
        toward = camera - spot
        front, side, back = self.views
        turned = rng.choice([0.0, np.pi / 2, -np.pi / 2, np.pi], p=[front, side / 2, side / 2, back])
        yaw = np.arctan2(toward[0], -toward[1]) + turned + rng.normal(0, self.spread)
        return float((yaw + np.pi) % (2 * np.pi) - np.pi)

    def camera(self, camera: Camera) -> Camera:
        """A site's camera, no worse than allowed and no better than the space on disk allows."""
        return replace(
            camera,
            noise=min(camera.noise, self.noise),
            blur=min(camera.blur, self.blur),
            quality=min(camera.quality, self.quality),
        )


STAGINGS: Mapping[str, Staging] = {
    "street": Staging(),
    # for sets so small that a model must learn from few pictures, in minutes
    "catalogue": Staging(
        views=(0.6, 0.16, 0.24), spread=0.22, strangers=False, truncated=0.0, space=0.8, smallest=0.4,
        noise=1.0, blur=0.3, quality=55,
    ),
}  # fmt: skip
