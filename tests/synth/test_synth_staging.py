import numpy as np
import pytest

from unihap.synth.amounts import PRESETS
from unihap.synth.camera import site_cameras
from unihap.synth.request import Request
from unihap.synth.staging import STAGINGS


def turned(yaws: np.ndarray, spot: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Degrees between where people face and the camera; a body at yaw 0 faces -y."""
    toward = (camera - spot) / np.linalg.norm(camera - spot)
    facing = np.stack([np.sin(yaws), -np.cos(yaws)], axis=1)
    return np.degrees(np.arccos(np.clip(facing @ toward, -1, 1)))


def test_catalogue_people_face_the_camera_turn_a_side_to_it_or_turn_away():
    rng = np.random.default_rng(0)
    spot, camera = np.array([1.0, -2.0]), np.array([4.0, 3.0])
    angle = turned(np.array([STAGINGS["catalogue"].yaw(rng, spot, camera) for _ in range(2000)]), spot, camera)
    shares = [(angle < 45).mean(), ((angle > 45) & (angle < 135)).mean(), (angle > 135).mean()]
    assert shares == pytest.approx(STAGINGS["catalogue"].views, abs=0.03)


def test_in_a_street_every_direction_is_as_likely():
    rng = np.random.default_rng(0)
    yaws = np.array([STAGINGS["street"].yaw(rng, np.zeros(2), np.ones(2)) for _ in range(4000)])
    assert np.histogram(yaws, bins=4, range=(-np.pi, np.pi))[0] / 4000 == pytest.approx([0.25] * 4, abs=0.03)


def test_catalogue_cameras_are_clean_and_others_are_as_they_were():
    cameras = site_cameras(np.random.default_rng(1), "b")
    for camera in cameras:
        same = STAGINGS["street"].camera(camera)
        assert (same.noise, same.blur, same.quality) == (camera.noise, camera.blur, camera.quality)
        clean = STAGINGS["catalogue"].camera(camera)
        assert clean.noise <= 1.0
        assert clean.blur <= 0.3
        assert clean.quality <= 55
        assert clean.exposure == camera.exposure


def test_an_unknown_staging_is_refused():
    with pytest.raises(ValueError, match=r"unknown staging 'catalog'.*did you mean catalogue"):
        Request(PRESETS["mini"], staging="catalog")
