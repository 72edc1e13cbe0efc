from dataclasses import replace

import numpy as np
import pytest

from unihap.synth.camera import DOMAINS, develop, look_at, project, site_cameras, to_camera, windowed
from unihap.synth.structures import Camera

GREY = 0.2  # linear, below the knee of the tone curve
NO_NOISE = np.random.default_rng(0)


def camera(**changes: object) -> Camera:
    """Stands 4 m in front of the origin, 1 m above the ground, and looks horizontally at +y; f = 100 px."""
    position = np.array([0.0, -4.0, 1.0])
    matrix = np.array([[100.0, 0, 31.5], [0, 100.0, 23.5], [0, 0, 1]])
    plain = Camera(1, matrix, look_at(position, np.array([0.0, 0.0, 1.0])), position, (48, 64))
    return replace(plain, **changes)


def grey(**changes: object) -> np.ndarray:
    """(3,) what a camera makes of an even grey."""
    return develop(np.full((4, 4, 3), GREY, np.float32), camera(**changes), NO_NOISE)[1, 1].astype(int)


# where things appear


def test_a_camera_looks_along_its_third_axis_with_x_to_the_right_and_y_down():
    np.testing.assert_allclose(camera().rotation, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)


def test_the_target_of_look_at_is_in_the_middle_and_the_image_upright():
    position, target = np.array([3.0, 2.0, 5.0]), np.array([-1.0, 0.5, 0.3])
    rotation = look_at(position, target)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation @ (target - position), [0, 0, np.linalg.norm(target - position)], atol=1e-12)
    assert rotation[0, 2] == pytest.approx(0)  # the horizon is level
    assert rotation[1, 2] < 0  # up in the world is up in the image


def test_looking_straight_down_has_no_upright_image():
    with pytest.raises(ValueError, match="no upright image; change up"):
        look_at(np.array([0, 0, 3.0]), np.zeros(3))


def test_project_agrees_with_the_pinhole_by_hand():
    # 0.5 m to the right and 0.25 m above the axis, 4 m away: 100 * 0.5 / 4 = 12.5 px and 6.25 px
    x, y, depth = project(camera(), np.array([[0.5, 0.0, 1.25], [0.0, 6.0, 0.0]]))
    np.testing.assert_allclose(x, [31.5 + 12.5, 31.5])
    np.testing.assert_allclose(y, [23.5 - 6.25, 23.5 + 10])
    np.testing.assert_allclose(depth, [4, 10])


def test_a_point_behind_the_camera_has_negative_depth():
    assert project(camera(), np.array([0.0, -5.0, 1.0]))[2] == pytest.approx(-1)
    np.testing.assert_allclose(to_camera(camera(), np.array([0.3, -5.0, 1.2])), [0.3, -0.2, -1], atol=1e-12)


def test_the_window_of_the_whole_image_is_the_image():
    same = windowed(camera(), (0, 0, 64, 48), (48, 64))
    np.testing.assert_allclose(same.matrix, camera().matrix)
    assert same.blur == 0


def test_a_window_moves_points_by_its_corner():
    point = np.array([0.5, 0.0, 1.25])  # at (44, 17.25)
    x, y, _ = project(windowed(camera(), (40, 10, 60, 30), (20, 20)), point)
    assert (x, y) == pytest.approx((4, 7.25))


def test_a_window_that_is_enlarged_keeps_edges_in_place_not_centres():
    # the point is 44.5 - 40 = 4.5 px behind the window's left edge; three times as large that is 13.5, less half a
    # pixel to the first centre; upwards 17.25 + 0.5 - 10 = 7.75, twice as large 15.5
    x, y, _ = project(windowed(camera(), (40, 10, 60, 30), (40, 60)), np.array([0.5, 0.0, 1.25]))
    assert (x, y) == pytest.approx((13.0, 15.0))


def test_a_window_may_reach_out_of_the_image():
    x, y, _ = project(windowed(camera(), (-10, -20, 54, 28), (48, 64)), np.array([0.5, 0.0, 1.25]))
    assert (x, y) == pytest.approx((54, 37.25))


def test_an_enlarged_window_is_as_unsharp_as_the_sensor():
    assert windowed(camera(blur=0.8), (0, 0, 64, 48), (24, 32)).blur == pytest.approx(0.4)
    assert windowed(camera(blur=0.8), (0, 0, 32, 24), (48, 64)).blur > 1.6


def test_an_empty_window_is_refused():
    with pytest.raises(ValueError, match="cannot be shown on 64x128"):
        windowed(camera(), (10, 10, 10, 20), (128, 64))


# what pictures look like


def test_middle_grey_is_coded_as_srgb_does():
    # 1.055 * 0.2 ** (1 / 2.4) - 0.055 = 0.48453
    assert grey().tolist() == [124, 124, 124]


def test_exposure_multiplies_linear_light():
    # 1.055 * 0.4 ** (1 / 2.4) - 0.055 = 0.66519
    assert grey(exposure=2.0).tolist() == [170, 170, 170]


def test_warm_white_balance_raises_red_and_lowers_blue():
    red, green, blue = grey(white_balance=(1.3, 1.0, 0.7))
    assert red > green > blue
    assert green == 124


def test_bright_light_is_compressed_and_never_wraps():
    ramp = np.linspace(0, 8, 32, dtype=np.float32)[None, :, None].repeat(3, axis=2)
    codes = develop(ramp, camera(), NO_NOISE)[0, :, 0].astype(int)
    assert (np.diff(codes) >= 0).all()
    assert codes[0] == 0
    assert codes[-1] == 255
    assert codes[4] < 255  # a little above white is not yet clipped


def test_contrast_darkens_shadows_and_brightens_lights():
    light = np.array([[[0.05] * 3, [0.6] * 3]], dtype=np.float32)
    flat, steep = (develop(light, camera(contrast=c), NO_NOISE)[0, :, 0].astype(int) for c in (1.0, 1.5))
    assert steep[0] < flat[0]
    assert steep[1] > flat[1]


def test_noise_has_the_stated_deviation_and_follows_the_generator():
    light = np.full((64, 64, 3), GREY, np.float32)
    pictures = [develop(light, camera(noise=5.0), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert pictures[0].std() == pytest.approx(5, abs=0.3)
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_blur_spreads_a_point_and_keeps_its_light():
    light = np.zeros((21, 21, 3), np.float32)
    light[10, 10] = 1
    picture = develop(light, camera(blur=1.0), NO_NOISE)
    assert picture[10, 8, 0] > 0
    assert picture[10, 10, 0] < 255


# the cameras of a site


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_the_cameras_of_a_site_see_its_middle_within_the_statistics_of_the_domain(domain):
    statistics = DOMAINS[domain]
    cameras = site_cameras(np.random.default_rng(3), domain, 6)
    assert [c.number for c in cameras] == [1, 2, 3, 4, 5, 6]
    for c in cameras:
        x, y, depth = project(c, np.array([0.0, 0.0, 1.0]))
        assert 0 < x < c.size[1] - 1
        assert 0 < y < c.size[0] - 1
        assert depth > 0
        assert statistics.height[0] <= c.position[2] <= statistics.height[1]
        assert statistics.distance[0] <= np.hypot(*c.position[:2]) <= statistics.distance[1]
        assert 45 <= c.quality <= 82
        assert c.matrix[0, 0] == c.matrix[1, 1]


def test_the_cameras_of_a_site_differ_in_place_and_look():
    cameras = site_cameras(np.random.default_rng(3), "a", 6)
    yaws = np.sort([np.arctan2(c.position[1], c.position[0]) for c in cameras])
    assert np.diff(yaws).min() > np.radians(20)
    exposures = [c.exposure for c in cameras]
    low, high = DOMAINS["a"].exposure
    assert max(exposures) - min(exposures) > (high - low) * 4 / 6  # the outermost of six strata are both drawn


def test_the_statistics_of_the_domains_differ():
    many = {d: [c for s in range(20) for c in site_cameras(np.random.default_rng(s), d)] for d in ("a", "b")}

    def mean(domain: str, value) -> float:
        return float(np.mean([value(c) for c in many[domain]]))

    assert mean("b", lambda c: c.matrix[0, 0]) > 1.15 * mean("a", lambda c: c.matrix[0, 0])
    assert mean("b", lambda c: c.position[2]) > 1.3 * mean("a", lambda c: c.position[2])
    assert mean("b", lambda c: c.exposure) < 0.8 * mean("a", lambda c: c.exposure)
    assert mean("b", lambda c: c.white_balance[0]) > 1.1 * mean("a", lambda c: c.white_balance[0])
    assert mean("b", lambda c: c.noise) > 2 * mean("a", lambda c: c.noise)
    assert mean("b", lambda c: c.contrast) < 0.9 * mean("a", lambda c: c.contrast)


def test_the_same_generator_gives_the_same_cameras():
    one, two = (site_cameras(np.random.default_rng(5), "b", 2) for _ in range(2))
    for left, right in zip(one, two, strict=True):
        assert np.array_equal(left.matrix, right.matrix)
        assert np.array_equal(left.rotation, right.rotation)
        assert left.white_balance == right.white_balance


def test_an_unknown_domain_and_a_site_without_cameras_are_refused():
    with pytest.raises(ValueError, match="unknown domain 'c'"):
        site_cameras(np.random.default_rng(0), "c")
    with pytest.raises(ValueError, match="at least one camera, not 0"):
        site_cameras(np.random.default_rng(0), "a", 0)
