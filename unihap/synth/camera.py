"""Cameras: where they stand, what they project where, and how a picture looks that they take.

Frames and the meaning of every field: ``unihap.synth.structures``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from unihap.lookup import lookup
from unihap.synth.structures import Camera

SENSOR = (360, 640)  # (height, width) of the cameras of a site
PERSON = 1.7  # metres, the height that ``CameraStatistics.share`` speaks of
KNEE = 0.7  # linear values above it are compressed so that highlights keep their colour
FORWARD_LIMIT = 1e-6

Range = tuple[float, float]


@dataclass(frozen=True)
class CameraStatistics:
    """What the cameras of a domain are like: the smallest and the largest value of each property.

    Attributes:
        share: height of a person of 1.7 m in the middle of the site, as a share of the image height: sets the focal
            length.
        distance: metres from the middle of the site, along the ground.
        height: metres above the ground.
        exposure: factor of the light.
        warmth: logarithm of the factor of red; blue takes its inverse.
        tint: logarithm of the factor of green.
        contrast: exponent of the tone curve.
        blur: standard deviation in pixels of the sensor.
        noise: standard deviation of 0-255.
        quality: of JPEG.
    """

    share: Range
    distance: Range
    height: Range
    exposure: Range
    warmth: Range
    tint: Range
    contrast: Range
    blur: Range
    noise: Range
    quality: Range


DOMAINS: Mapping[str, CameraStatistics] = {
    "a": CameraStatistics(
        share=(0.42, 0.72), distance=(4.0, 9.0), height=(1.3, 3.4), exposure=(0.6, 1.3), warmth=(-0.17, 0.17),
        tint=(-0.06, 0.06), contrast=(0.9, 1.25), blur=(0.0, 0.8), noise=(0.5, 3.0), quality=(50, 82),
    ),
    "b": CameraStatistics(
        share=(0.30, 0.50), distance=(7.5, 14.0), height=(2.4, 5.0), exposure=(0.45, 1.0), warmth=(0.04, 0.34),
        tint=(-0.12, 0.02), contrast=(0.7, 1.0), blur=(0.3, 1.2), noise=(3.0, 7.0), quality=(45, 70),
    ),
}  # fmt: skip


def site_cameras(rng: np.random.Generator, domain: str, num_cameras: int = 6) -> tuple[Camera, ...]:
    """The cameras of a site, all around its middle (the origin), which all of them see.

    Every property is drawn from strata of its range, one for each camera, so that the cameras of a site differ as much
    as the domain allows: this is what makes ReID across cameras hard.

    Args:
        rng: the only source of randomness.
        domain: a key of ``DOMAINS``.
        num_cameras: at least 1; numbered from 1.

    Raises:
        ValueError: no such domain, or no camera asked for.
    """
    statistics = lookup(DOMAINS, domain, "domain")
    if num_cameras < 1:
        raise ValueError(f"a site needs at least one camera, not {num_cameras}")

    def spread(limits: Range) -> np.ndarray:
        low, high = limits
        return low + (high - low) * (rng.permutation(num_cameras) + rng.random(num_cameras)) / num_cameras

    drawn = {name: spread(limits) for name, limits in vars(statistics).items()}
    yaws = rng.uniform(0, 2 * np.pi) + 2 * np.pi * (np.arange(num_cameras) + rng.uniform(-0.3, 0.3, num_cameras)) / (
        num_cameras
    )
    return tuple(
        _site_camera(rng, i + 1, yaws[i], {k: float(v[i]) for k, v in drawn.items()}) for i in range(len(yaws))
    )


def _site_camera(rng: np.random.Generator, number: int, yaw: float, drawn: Mapping[str, float]) -> Camera:
    distance, height = drawn["distance"], drawn["height"]
    position = np.array([distance * np.cos(yaw), distance * np.sin(yaw), height])
    target = np.array([*rng.uniform(-0.5, 0.5, 2), 0.9 + rng.uniform(-0.15, 0.15)])
    roll = rng.normal(0, 0.015)
    focal = drawn["share"] * SENSOR[0] * np.linalg.norm(position - target) / PERSON
    warmth, tint = drawn["warmth"], drawn["tint"]
    return Camera(
        number=number,
        matrix=np.array([[focal, 0, (SENSOR[1] - 1) / 2], [0, focal, (SENSOR[0] - 1) / 2], [0, 0, 1]]),
        rotation=look_at(position, target, up=np.array([roll * np.sin(yaw), -roll * np.cos(yaw), 1.0])),
        position=position,
        size=SENSOR,
        exposure=drawn["exposure"],
        white_balance=(float(np.exp(warmth)), float(np.exp(tint)), float(np.exp(-warmth))),
        contrast=drawn["contrast"],
        blur=drawn["blur"],
        noise=drawn["noise"],
        quality=round(drawn["quality"]),
    )


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray | None = None) -> np.ndarray:
    """Rotation of a camera that looks at a point.

    Args:
        position: (3,) world.
        target: (3,) world.
        up: (3,) world, what is up in the image; by default z.

    Returns:
        (3, 3) float64, world to camera.

    Raises:
        ValueError: the camera looks along ``up``, or is where it looks at.
    """
    up = np.array([0.0, 0.0, 1.0]) if up is None else np.asarray(up, dtype=np.float64)
    forward = np.asarray(target, dtype=np.float64) - np.asarray(position, dtype=np.float64)
    right = np.cross(forward, up)
    distance = float(np.linalg.norm(forward))
    if np.linalg.norm(right) < FORWARD_LIMIT * max(distance, FORWARD_LIMIT):
        raise ValueError(f"a camera at {position} that looks at {target} has no upright image; change up={up}")
    rotation = np.stack([right, np.cross(forward, right), forward])
    return rotation / np.linalg.norm(rotation, axis=1, keepdims=True)


def to_camera(camera: Camera, points: np.ndarray) -> np.ndarray:
    """World to camera frame.

    Args:
        camera: the camera.
        points: (..., 3) world.

    Returns:
        (..., 3) float64.
    """
    return (np.asarray(points, dtype=np.float64) - camera.position) @ camera.rotation.T


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where points appear.

    Args:
        camera: the camera.
        points: (..., 3) world.

    Returns:
        x, y in pixels (the centre of the first pixel is (0, 0)) and the depth in metres, each (...,) float64.  x and y
        mean nothing where the depth is not positive.
    """
    local = to_camera(camera, points)
    depth = local[..., 2]
    safe = np.where(np.abs(depth) < FORWARD_LIMIT, FORWARD_LIMIT, depth)
    image = (local / safe[..., None]) @ camera.matrix.T
    return image[..., 0], image[..., 1], depth


def windowed(camera: Camera, window: np.ndarray | tuple[float, float, float, float], size: tuple[int, int]) -> Camera:
    """The camera whose image is a window of another one's, resampled.

    A window that is enlarged stays as unsharp as the sensor sees it: blur is carried over in its own pixels.

    Args:
        camera: the camera.
        window: xyxy, edges between pixels; may reach out of the image.
        size: (height, width) of the new image.

    Raises:
        ValueError: a window or an image without extent.
    """
    left, top, right, bottom = (float(edge) for edge in window)
    height, width = size
    if not (right > left and bottom > top and height > 0 and width > 0):
        raise ValueError(f"a window {(left, top, right, bottom)} cannot be shown on {width}x{height} pixels")
    scale = np.array([width / (right - left), height / (bottom - top)])
    # A point p lies p + 0.5 pixels behind the outer edge of the first pixel, in both images.
    shift = (0.5 - np.array([left, top])) * scale - 0.5
    change = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]])
    zoom = float(np.sqrt(scale.prod()))
    blur = np.hypot(camera.blur * zoom, 0.4 * np.sqrt(max(zoom**2 - 1, 0)))
    return replace(camera, matrix=change @ camera.matrix, size=(int(height), int(width)), blur=float(blur))


def develop(linear: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """The picture that a camera makes of light: exposure, white balance, blur, tone curve and noise, in this order.

    Args:
        linear: (H, W, 3) float32 linear RGB, 1 = white.
        camera: what the picture is like.
        rng: of the noise.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    gain = camera.exposure * np.array(camera.white_balance, dtype=np.float32)
    light = np.maximum(linear.astype(np.float32) * gain.astype(np.float32), 0)
    if camera.blur > 0.05:  # below, the kernel is a single pixel
        light = cv2.GaussianBlur(light, (0, 0), camera.blur, borderType=cv2.BORDER_REFLECT_101)
    bright = KNEE + (1 - KNEE) * (1 - np.exp(-np.maximum(light - KNEE, 0) / (1 - KNEE)))
    image = encode(np.where(light < KNEE, light, bright))
    if camera.contrast != 1:  # an S through (0, 0), (1/2, 1/2) and (1, 1), whose slope in the middle is the exponent
        high = image**camera.contrast
        image = high / (high + (1 - image) ** camera.contrast)
    image = image * 255
    if camera.noise > 0:
        image = image + camera.noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear RGB to sRGB, both 0-1 (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def decode(codes: np.ndarray) -> np.ndarray:
    """From sRGB to linear RGB, both 0-1: the inverse of ``encode``."""
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
