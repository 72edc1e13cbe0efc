from dataclasses import replace

import numpy as np
import pytest

from unihap.synth.backdrops import BACKDROPS
from unihap.synth.camera import DOMAINS as CAMERAS
from unihap.synth.props import PROPS, ball, box, merged, placed, tube
from unihap.synth.scene import BIG, DOMAINS, KINDS, Scene, sample_scene
from unihap.synth.structures import Material
from unihap.synth.textures import GROUNDS, clouds, slabs, texture

RED = Material((0.5, 0.0, 0.0))
EYE = np.array([0.0, -4.0, 2.0])


@pytest.fixture(scope="module")
def outdoor() -> Scene:
    return sample_scene(np.random.default_rng(1), "a", "outdoor")


@pytest.fixture(scope="module")
def indoor() -> Scene:
    return sample_scene(np.random.default_rng(1), "b", "indoor")


def look(scene: Scene, *directions: tuple[float, float, float]):
    return scene.background(EYE, np.array(directions, dtype=np.float32), 0.001)


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Positive if the faces look outwards."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


# what a ray sees


def test_a_ray_meets_the_ground_where_it_should(outdoor):
    seen = look(outdoor, (0, 2, -1), (0.5, 2, -1))  # 2 m down: after two steps
    np.testing.assert_allclose(seen.points, [[0, 0, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(seen.normals, [[0, 0, 1]] * 2)
    assert not seen.sky.any()


def test_a_level_ray_meets_the_wall_which_faces_the_middle(outdoor):
    radius = outdoor.panorama.extent[0] / (2 * np.pi)
    seen = look(outdoor, (0, 1, 0), (1, 0, 0))
    np.testing.assert_allclose(np.hypot(seen.points[:, 0], seen.points[:, 1]), radius, rtol=1e-5)
    np.testing.assert_allclose(seen.points[0], [0, radius, 2], atol=1e-4)
    np.testing.assert_allclose(seen.normals[0], [0, -1, 0], atol=1e-5)
    assert seen.points[1, 0] > 0


def test_a_wall_is_never_between_the_camera_and_the_site(outdoor):
    radius = outdoor.panorama.extent[0] / (2 * np.pi)
    seen = outdoor.background(np.array([0.0, -3 * radius, 2.0]), np.array([[0, 1, 0]], dtype=np.float32), 0.001)
    assert seen.points[0, 1] > 3 * radius


def test_straight_up_is_the_sky_or_the_ceiling(outdoor, indoor):
    for scene in (outdoor, indoor):
        seen = look(scene, (0, 0.0, 1.0))
        assert seen.sky.all()
        options = np.stack([scene.zenith, scene.horizon])
        assert np.abs(options - seen.colour).sum(axis=1).min() < 1e-3


def test_colours_are_finite_and_not_negative_in_all_directions(outdoor, indoor):
    rays = np.random.default_rng(0).normal(size=(3000, 3))
    rays[0] = [0, 0, -1]
    for scene in (outdoor, indoor):
        colour = look(scene, *rays).colour
        assert np.isfinite(colour).all()
        assert colour.min() >= 0
        assert colour.max() < 3


def test_no_rays_see_nothing(outdoor):
    assert outdoor.background(EYE, np.zeros((0, 3), np.float32), 0.001).colour.shape == (0, 3)


# which scenes there are


@pytest.mark.parametrize("table", [GROUNDS, BACKDROPS, PROPS], ids=["grounds", "backdrops", "props"])
def test_the_domains_share_no_ground_backdrop_or_prop(table):
    used = {domain: {entry for kind in KINDS for entry in table[domain, kind]} for domain in DOMAINS}
    assert len(used["a"]) >= 4
    assert not used["a"] & used["b"]


@pytest.mark.parametrize("key", sorted(GROUNDS))
def test_every_ground_is_a_picture_with_some_structure(key):
    for painter in GROUNDS[key]:
        picture = painter(np.random.default_rng(2))
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert np.isfinite(picture).all()
        assert 0.01 < picture.std(axis=(0, 1)).mean() < 0.4


@pytest.mark.parametrize("key", sorted(BACKDROPS))
def test_every_backdrop_fills_its_panorama(key):
    for painter in BACKDROPS[key]:
        picture = painter(np.random.default_rng(2), 50.0, 10.0 if key[1] == "outdoor" else 3.0)
        assert picture.shape == (240 if key[1] == "outdoor" else 72, 1200, 4)
        assert set(np.unique(picture[..., 3])) <= {0.0, 1.0}
        assert picture[-12:, :, 3].mean() > 0.95  # hardly any holes just above the ground
        assert picture[..., :3].std() > 0.02


def test_the_same_generator_gives_the_same_scene():
    one, two = (sample_scene(np.random.default_rng(7), "a") for _ in range(2))
    rays = np.random.default_rng(0).normal(size=(500, 3))
    assert one.kind == two.kind
    assert np.array_equal(look(one, *rays).colour, look(two, *rays).colour)
    assert len(one.props) == len(two.props)
    for left, right in zip(one.props, two.props, strict=True):
        assert np.array_equal(left.mesh.vertices, right.mesh.vertices)


def test_scenes_of_other_generators_look_different():
    rays = np.random.default_rng(0).normal(size=(500, 3))
    first, second = (look(sample_scene(np.random.default_rng(s), "a", "outdoor"), *rays).colour for s in (1, 2))
    assert np.abs(first - second).mean() > 0.02


def test_light_comes_from_above_with_a_unit_direction(outdoor, indoor):
    for scene in (outdoor, indoor):
        assert np.linalg.norm(scene.sun) == pytest.approx(1)
        assert scene.sun[2] > 0.2
        assert (scene.sky_colour > 0).all()


def test_unknown_domains_and_kinds_are_refused():
    with pytest.raises(ValueError, match="unknown domain 'aa'"):
        sample_scene(np.random.default_rng(0), "aa")
    with pytest.raises(ValueError, match="unknown kind of scene 'cave'"):
        sample_scene(np.random.default_rng(0), "a", "cave")


# props


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_props_leave_the_ring_of_the_cameras_free_and_big_ones_stand_behind_it(domain):
    nearest, farthest = CAMERAS[domain].distance
    count = 0
    for seed in range(6):
        for prop in sample_scene(np.random.default_rng(seed), domain, KINDS[seed % 2]).props:
            distance = np.hypot(*prop.place)
            count += 1
            assert distance + prop.radius < nearest or distance - prop.radius > farthest
            assert prop.radius <= BIG or distance > farthest
            reach = np.linalg.norm(prop.mesh.vertices[:, :2] - prop.place, axis=1).max()
            assert reach == pytest.approx(prop.radius, abs=1e-4)
            assert prop.mesh.vertices[:, 2].min() > -0.25
    assert count > 5


def test_clear_of_removes_props_where_people_stand(outdoor):
    near, far = (placed([box((1, 1, 1), (0, 0, 0), RED)], place, 0.3) for place in ((0.0, 1.0), (0.0, 3.0)))
    scene = replace(outdoor, props=(near, far))
    assert scene.clear_of([]).props == (near, far)
    assert scene.clear_of([(0.0, 0.0)]).props == (far,)  # radius 0.71 + margin 0.4 > 1 m
    assert scene.clear_of([(0.0, 0.0)], margin=0.2).props == (near, far)
    assert scene.clear_of([(0.0, 0.0), (0.5, 3.0)]).props == ()


@pytest.mark.parametrize("key", sorted(PROPS))
def test_every_prop_stands_on_the_ground_and_faces_outwards(key):
    for maker in PROPS[key]:
        pieces = maker(np.random.default_rng(4))
        assert min(piece.vertices[:, 2].min() for piece in pieces) == pytest.approx(0, abs=0.25)
        for piece in pieces:
            assert volume(piece.vertices, piece.faces) > 0
            assert all(0 <= channel <= 1 for channel in piece.material.colour)


def test_solids_have_the_volume_of_their_shape():
    cube = box((2, 3, 4), (1, 1, 1), RED)
    assert volume(cube.vertices, cube.faces) == pytest.approx(24)
    assert cube.vertices.min(axis=0).tolist() == [0, -0.5, 1]
    cylinder = tube((0.5, 0.5), 2, (0, 0, 0), RED)
    assert volume(cylinder.vertices, cylinder.faces) == pytest.approx(np.pi * 0.25 * 2, rel=0.05)
    sphere = ball((1, 1, 1), (5, 0, 0), RED)
    assert volume(sphere.vertices, sphere.faces) == pytest.approx(4 / 3 * np.pi, rel=0.1)


def test_merging_meshes_keeps_the_materials_of_their_faces():
    blue = Material((0.0, 0.0, 0.5))
    props = [placed([box((1, 1, 1), (0, 0, 0), m)], (x, 0.0), 0.0) for x, m in ((0.0, RED), (5.0, blue))]
    mesh = merged([prop.mesh for prop in props])
    assert len(mesh.faces) == 24
    corners = mesh.vertices[mesh.faces].mean(axis=1)
    for centre, material in zip(corners, mesh.material, strict=True):
        assert mesh.materials[material] == (blue if centre[0] > 2 else RED)
    assert len(merged([]).faces) == 0


def test_more_materials_than_a_mesh_can_number_are_refused():
    with pytest.raises(ValueError, match="257 materials"):
        merged([placed([box((1, 1, 1), (0, 0, 0), RED)], (0.0, 0.0), 0.0).mesh] * 257)


# textures


def test_a_texture_repeats_itself_and_is_upright():
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8] = 200  # the upper half
    tile = texture(picture, (1.6, 1.6))
    u = np.array([0.4, 0.4, 0.4 + 1.6, 0.4 - 3.2])
    v = np.array([1.2, 0.4, 1.2, 0.4 + 1.6])
    assert tile.lookup(u, v, np.full(4, 1e-3))[:, 0].tolist() == [200, 0, 200, 0]


def test_a_panorama_repeats_around_but_not_upwards():
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[:8] = 200
    wall = texture(picture, (1.6, 1.6), tiles=False)
    seen = wall.lookup(np.full(3, 2.0), np.array([5.0, -3.0, 1.3]), np.full(3, 1e-3))
    assert seen[:, 0].tolist() == [200, 0, 200]


def test_from_far_away_a_texture_is_its_mean():
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    tile = texture(checker, (1.0, 1.0))
    points = np.random.default_rng(0).uniform(0, 5, (2, 50))
    far = tile.lookup(*points, np.full(50, 0.5))
    np.testing.assert_allclose(far, 127.5, atol=1)
    assert tile.lookup(*points, np.full(50, 1e-4)).std() > 30


def test_noise_is_standardised_and_repeats_at_the_seam():
    noise = clouds(np.random.default_rng(0), (64, 96), 1.5)
    assert noise.shape == (64, 96)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    assert abs(noise.mean()) < 1e-3
    seam, inside = np.abs(noise[:, 0] - noise[:, -1]).mean(), np.abs(np.diff(noise, axis=1)).mean()
    assert seam < 1.5 * inside


def test_slabs_have_one_value_each_and_joints_between_them():
    value, joint = slabs(np.random.default_rng(0), (40, 40), (4, 2), 0.0, 1.0)
    assert len(np.unique(value)) == 8
    assert (value[:10, :20] == value[0, 0]).all()
    assert joint[5, 10] == 0
    assert joint[0, 10] > 0.9
    assert joint[5, 19] > 0.9
