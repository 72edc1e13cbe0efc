from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from unihap.data.skeletons import SKELETONS
from unihap.synth.body import Body, vertex_normals
from unihap.synth.camera import look_at, project, windowed
from unihap.synth.labels import extent
from unihap.synth.props import Prop, box, merged, placed
from unihap.synth.rays import Solid, blocked, clipped, pixel_rays, window_of
from unihap.synth.render import render
from unihap.synth.scene import Scene, sample_scene
from unihap.synth.shading import albedo
from unihap.synth.structures import (
    BAG,
    LIP,
    Camera,
    Figure,
    Garment,
    Hair,
    Material,
    Mesh,
    Outfit,
    Pattern,
    Person,
    Picture,
    Pose,
)

pytest.importorskip("embreex")

NAMES = SKELETONS["coco"].names
GREY = Material((0.3, 0.3, 0.3))
SHAPE = {"gender": 0.0, "age": 2 / 3, "muscle": 0.5, "weight": 0.5, "height": 0.42, "proportions": 0.5}
SUN = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2)  # from the left of the camera below, 45 degrees high


def person(number: int) -> Person:
    outfit = Outfit(number, Garment("t_shirt", GREY), Garment("shoes", GREY))
    return Person(number, SHAPE, GREY, Hair("bald", (0.0, 0.0, 0.0)), outfit)


def block(place: tuple[float, float] = (0.0, 0.0), number: int = 1, part: int = LIP["upper_clothes"]) -> Figure:
    """A person in the shape of a box, 0.4 m wide and deep and 1.7 m tall, whose joints are 5 cm behind its front."""
    piece = box((0.4, 0.4, 1.7), (*place, 0), GREY)
    mesh = placed([piece], (0.0, 0.0), 0.0).mesh
    keypoints = np.stack([np.full(17, place[0]), np.full(17, place[1] - 0.15), np.linspace(1.6, 0.1, 17)], axis=1)
    return Figure(person(number), Pose("stand", {}), replace(mesh, part=np.full(12, part, np.uint8)), keypoints, 0.0)


def bare(body: Body, yaw: float = 0.0, place: tuple[float, float] = (0.0, 0.0), number: int = 1) -> Figure:
    """The bare body with hanging arms, on the ground."""
    rest = body.rest(SHAPE)
    posed = body.pose(rest, {"upperarm01.L": np.array([0, 0.5, 0]), "upperarm01.R": np.array([0, -0.5, 0])})
    turn = Rotation.from_euler("z", yaw).as_matrix()
    vertices = posed.vertices @ turn.T
    shift = np.array([*place, -vertices[:, 2].min()])
    mesh = Mesh(
        vertices=(vertices + shift).astype(np.float32),
        faces=body.faces,
        part=body.part_of_face,
        material=np.zeros(len(body.faces), np.uint8),
        surface=rest.vertices,
        materials=(GREY,),
    )
    return Figure(person(number), Pose("stand", {}), mesh, posed.keypoints @ turn.T + shift, yaw)


def camera(height: float = 1.0, focal: float = 80.0) -> Camera:
    """4 m in front of the origin, looks at +y; 64 x 48 pixels."""
    position = np.array([0.0, -4.0, height])
    matrix = np.array([[focal, 0, 31.5], [0, focal, 23.5], [0, 0, 1]])
    return Camera(1, matrix, look_at(position, np.array([0.0, 0.0, height])), position, (48, 64))


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Without props, the sun from the left and nearly as sharp as it is."""
    place = sample_scene(np.random.default_rng(4), "a", "outdoor")
    ones = np.ones(3, np.float32)
    return replace(place, props=(), sun=SUN, sun_colour=ones, sky_colour=0.4 * ones, softness=0.01)


def take(scene: Scene, *figures: Figure, view: Camera | None = None, supersample: int = 1) -> Picture:
    return render(figures, scene, view or camera(), np.random.default_rng(0), supersample)


def wall(place: tuple[float, float], size: tuple[float, float, float]) -> Prop:
    return placed([box(size, (0, 0, 0), GREY)], place, 0.0)


# boxes and masks


def test_boxes_of_a_block_are_those_of_its_projection(scene):
    # the front face is 3.8 m away: x = 31.5 -+ 80 * 0.2 / 3.8, from 27.29 to 35.71: centres 28 to 35;
    # y from 23.5 - 80 * 0.7 / 3.8 = 8.76 to 23.5 + 80 * 1 / 3.8 = 44.55: centres 9 to 44
    (seen,) = take(scene, block()).people
    assert seen.full_box.tolist() == seen.visible_box.tolist() == [28, 9, 36, 45]
    assert seen.visible_share == 1
    # with a longer lens the feet, at 23.5 + 110 / 3.8 = 52.4, are below the image
    (cut,) = take(scene, block(), view=camera(focal=110.0)).people
    assert (cut.full_box[3], cut.visible_box[3]) == (53, 48)


def test_the_visible_box_is_the_extent_of_the_owner_map_and_lies_in_the_full_box(scene, body):
    figures = [bare(body, 0.4 * i, (0.35 * i - 0.5, 0.3 * (i % 2)), i + 1) for i in range(3)]
    picture = take(scene, *figures)
    assert len(picture.people) == 3
    for index, seen in enumerate(picture.people):
        rows, columns = np.nonzero(picture.owner == index)
        assert seen.visible_box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert (seen.visible_box[:2] >= seen.full_box[:2]).all()
        assert (seen.visible_box[2:] <= seen.full_box[2:]).all()
        assert 0 < seen.visible_share <= 1
        assert set(np.unique(picture.part[picture.owner == index])) <= seen.all_parts
    assert ((picture.owner >= 0) == (picture.part > 0)).all()


def test_people_are_numbered_nearest_first_whatever_the_order_given(scene):
    near, middle, far = (block((0.6 * y, y), number=n) for n, y in ((7, -0.5), (8, 0.0), (9, 0.5)))
    picture = take(scene, far, near, middle)
    assert [seen.figure.person.identity for seen in picture.people] == [7, 8, 9]
    assert picture.people[0].visible_share == 1
    x, y, _ = (int(v) for v in picture.people[0].keypoints[4])
    assert picture.owner[y, x] == 0


def test_somebody_in_front_hides_keypoints_and_shrinks_the_visible_box_only(scene):
    alone = take(scene, block()).people[0]
    picture = take(scene, block(), block((0.15, -1.0), number=2))
    hidden = picture.people[1]
    assert hidden.figure.person.identity == 1
    assert hidden.full_box.tolist() == alone.full_box.tolist()
    assert hidden.all_parts == alone.all_parts
    assert hidden.visible_box[2] < alone.visible_box[2]
    assert hidden.visible_share < 0.6
    assert (hidden.keypoints[:, 2] <= 1).all()


def test_a_wall_hides_everything_but_the_full_box(scene):
    seen = take(replace(scene, props=(wall((0.0, -1.0), (3, 0.1, 2.5)),)), block())
    (only,) = seen.people
    assert (seen.owner == -1).all()
    assert (seen.part == 0).all()
    assert only.visible_box.tolist() == [0, 0, 0, 0]
    assert only.visible_share == 0
    assert only.full_box.tolist() == [28, 9, 36, 45]
    assert (only.keypoints[:, 2] <= 1).all()


def test_a_low_wall_hides_legs_only(scene, body):
    figure = bare(body)
    free = take(scene, figure).people[0]
    cut = take(replace(scene, props=(wall((0.0, -1.0), (3, 0.1, 0.75)),)), figure).people[0]
    at = {name: i for i, name in enumerate(NAMES)}
    for joint in ("left_shoulder", "right_shoulder", "nose"):
        assert free.keypoints[at[joint], 2] == cut.keypoints[at[joint], 2] == 2
    for joint in ("left_knee", "right_ankle"):
        assert free.keypoints[at[joint], 2] == 2
        assert cut.keypoints[at[joint], 2] == 1
    assert cut.full_box.tolist() == free.full_box.tolist()
    assert cut.visible_box[3] < free.visible_box[3]
    assert cut.visible_box[1] == free.visible_box[1]


def test_a_bag_hides_its_owner_and_belongs_to_nobody(scene):
    figure = block()
    mesh = placed([box((0.3, 0.1, 0.4), (0, -0.3, 0.9), GREY)], (0.0, 0.0), 0.0).mesh
    bag = replace(mesh, part=np.full(12, BAG, np.uint8))
    carrier = replace(figure, mesh=merged([figure.mesh, bag]))
    picture = take(scene, carrier)
    x, y, _ = (round(float(v)) for v in project(camera(), np.array([0.0, -0.35, 1.1])))
    assert picture.owner[y, x] == -1
    assert picture.part[y, x] == 0
    (seen,) = picture.people
    assert BAG in seen.all_parts
    assert seen.visible_share == 1  # of what the carrier shows of themselves
    alone = take(scene, figure).people[0]
    behind = (seen.joints[:, 1] > -0.3) & (seen.joints[:, 1] < 0.05)  # at the height of the bag
    assert behind.sum() >= 3
    assert (seen.keypoints[behind, 2] == 1).all()
    assert seen.full_box.tolist() == alone.full_box.tolist()


def test_the_full_box_leaves_the_image_where_a_person_is_cut(scene):
    (seen,) = take(scene, block((1.4, 0.0))).people  # from 31.5 + 22.9 to 31.5 + 33.7
    assert seen.full_box[2] > 64
    assert seen.visible_box[2] == 64
    assert seen.visible_share < 1
    assert seen.keypoints[8, 2] == 2  # at 31.5 + 80 * 1.4 / 3.85 = 60.6
    assert take(scene, block((1.53, 0.0))).people[0].keypoints[8, 2] > 0  # at 63.3, in the last pixel
    assert take(scene, block((1.55, 0.0))).people[0].keypoints[8, 2] == 0  # at 63.7


def test_somebody_behind_the_camera_or_far_outside_has_no_boxes(scene):
    for place in ((0.0, -8.0), (30.0, 0.0)):
        picture = take(scene, block(place))
        (seen,) = picture.people
        assert (picture.owner == -1).all()
        assert seen.full_box.tolist() == seen.visible_box.tolist() == [0, 0, 0, 0]
        assert (seen.keypoints[:, 2] == 0).all()
        assert seen.visible_share == 0
        assert seen.all_parts == frozenset()


def test_masks_are_sampled_at_pixel_centres(scene):
    # moved by a whole pixel of the window the mask moves by that pixel; by half a pixel it stays within one
    view = camera()
    moved = windowed(view, (1, 0, 65, 48), (48, 64))
    first, second = take(scene, block(), view=view).owner, take(scene, block(), view=moved).owner
    assert np.array_equal(first[:, 1:], second[:, :-1])


def test_the_number_of_samples_changes_no_label(scene):
    one, three = (take(scene, block(), block((0.3, 0.5), 2), supersample=s) for s in (1, 3))
    assert np.array_equal(one.owner, three.owner)
    assert np.array_equal(one.part, three.part)
    assert not np.array_equal(one.image, three.image)


def test_the_extent_of_an_empty_mask_is_zero_and_of_a_pixel_is_that_pixel():
    mask = np.zeros((5, 6), bool)
    assert extent(mask).tolist() == [0, 0, 0, 0]
    mask[2, 3] = True
    assert extent(mask).tolist() == [3, 2, 4, 3]
    assert extent(mask, (-10, 20)).tolist() == [-7, 22, -6, 23]


# keypoints


def test_keypoints_are_the_projections_of_the_joints_in_the_camera_frame(scene, body):
    figure, view = bare(body, 0.7, (0.1, 0.2)), camera()
    (seen,) = take(scene, figure, view=view).people
    image = seen.joints @ view.matrix.T.astype(np.float32)
    np.testing.assert_allclose(seen.keypoints[:, :2], image[:, :2] / image[:, 2:], atol=1e-3)
    np.testing.assert_allclose(seen.joints[:, 2], figure.keypoints[:, 1] + 4, atol=1e-5)


def test_every_visible_keypoint_lies_on_its_person(scene, body):
    figures = [bare(body, 1.3 * i, (0.3 * i - 0.6, 0.35 * (i % 2)), i + 1) for i in range(4)]
    picture = take(scene, *figures)
    visible = 0
    for index, seen in enumerate(picture.people):
        for x, y, visibility in seen.keypoints:
            if visibility == 2:
                visible += 1
                assert picture.owner[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))] == index
    assert visible > 15


@pytest.mark.parametrize(("yaw", "face"), [(0.0, 2), (np.pi, 1)])
def test_a_face_is_seen_from_the_front_and_hidden_from_the_back(scene, body, yaw, face):
    keypoints = take(scene, bare(body, yaw)).people[0].keypoints
    at = {name: i for i, name in enumerate(NAMES)}
    for name in ("nose", "left_eye", "right_eye"):
        assert keypoints[at[name], 2] == face
    for name in ("left_shoulder", "right_hip", "left_knee"):
        assert keypoints[at[name], 2] == 2
    left_is_right = keypoints[at["left_shoulder"], 0] > keypoints[at["right_shoulder"], 0]
    assert left_is_right == (yaw == 0)


def test_from_the_side_the_far_arm_is_hidden(scene, body):
    # turned by +90 degrees a person faces +x, so that the right side is towards the camera at -y
    keypoints = take(scene, bare(body, np.pi / 2)).people[0].keypoints
    at = {name: i for i, name in enumerate(NAMES)}
    for joint in ("shoulder", "elbow", "ear"):
        assert keypoints[at[f"right_{joint}"], 2] == 2
        assert keypoints[at[f"left_{joint}"], 2] == 1


def test_left_and_right_parts_are_where_the_left_and_right_joints_are(scene, body):
    picture = take(scene, bare(body))
    at = {name: i for i, name in enumerate(NAMES)}
    for side in ("left", "right"):
        for joint, part in (("elbow", "arm"), ("knee", "leg")):
            x, y, visibility = picture.people[0].keypoints[at[f"{side}_{joint}"]]
            assert visibility == 2
            assert picture.part[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))] == LIP[f"{side}_{part}"]


# light


def test_a_shadow_darkens_the_ground_away_from_the_sun(scene):
    # the sun is 45 degrees high at -x: a point 1 m up over x = 0 falls on x = 1
    view = camera(height=2.0)
    view = replace(view, rotation=look_at(view.position, np.zeros(3)))
    bare_ground = take(scene, view=view, supersample=2).image.astype(int)
    picture = take(scene, block(), view=view, supersample=2)

    def pixel(x: float, y: float) -> tuple[int, int]:
        u, v, _ = project(view, np.array([x, y, 0.0]))
        return round(float(v)), round(float(u))

    shaded, sunny = pixel(0.9, 0.0), pixel(-0.9, -0.4)
    assert picture.owner[shaded] == picture.owner[sunny] == -1
    assert picture.image[shaded].mean() < 0.85 * bare_ground[shaded].mean()
    assert picture.image[sunny].mean() == pytest.approx(bare_ground[sunny].mean(), rel=0.05)


def test_the_side_towards_the_sun_is_brighter(scene):
    turned = replace(block(), mesh=placed([box((0.4, 0.4, 1.7), (0, 0, 0), GREY)], (0.0, 0.0), np.pi / 4).mesh)
    turned = replace(turned, mesh=replace(turned.mesh, part=np.full(12, LIP["coat"], np.uint8)))
    picture = take(scene, turned)
    row = picture.image[24].astype(int).mean(axis=1)
    assert row[28:31].mean() > row[33:36].mean() + 20


def test_one_person_throws_a_shadow_on_another(scene):
    # 0.9 m to the left of the other; its shadow climbs to 1.7 - 0.5 = 1.2 m
    lit = take(scene, block((0.45, 0.0)))
    shaded = take(scene, block((0.45, 0.0)), block((-0.45, 0.0), 2))
    side = lit.image[10:46, 38:40].mean(), shaded.image[10:46, 38:40].mean()
    assert side[1] <= side[0]
    solid = Solid(block((-0.45, 0.0)).mesh)
    points = np.array([[0.25, 0.0, 0.5], [0.25, 0.0, 1.6]], dtype=np.float32)
    assert solid.blocks(points, np.tile(SUN, (2, 1))).tolist() == [True, False]


def test_the_camera_exposes_the_picture(scene):
    dark, bright = (take(scene, block(), view=replace(camera(), exposure=e)).image.mean() for e in (0.5, 1.2))
    assert bright > 1.2 * dark


def test_patterns_mix_two_colours_by_place_on_the_person():
    z = np.array([0.05, 0.15, 1.33, 1.33, 0.75])
    surface = np.stack([[0.0, 0.0, 0.05, 0.05, 0.0], [-0.1, -0.1, -0.1, 0.1, -0.1], z], axis=1).astype(np.float32)

    def share(pattern: Pattern, **changes: float) -> list[float]:
        material = Material((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), pattern, **{"period": 0.2, **changes})
        points = np.concatenate([surface, [[0, 0, 0], [0, 0, 1.7]]]).astype(np.float32)
        faces = np.array([[i, i, i] for i in range(7)], np.int32)
        mesh = Mesh(points, faces, np.zeros(7, np.uint8), np.zeros(7, np.uint8), points, (material,))
        return albedo(mesh, np.arange(5), surface)[:, 0].tolist()

    assert share(Pattern.PLAIN) == [0, 0, 0, 0, 0]
    assert share(Pattern.STRIPES) == [1, 0, 0, 0, 0]  # every 0.2 m, one half of it
    assert share(Pattern.LOGO) == [0, 0, 1, 0, 0]  # on the chest, not on the back
    assert share(Pattern.TWO_TONE) == [1, 1, 0, 0, 1]  # below half of 1.7 m
    assert set(share(Pattern.PLAID)) <= {0.0, 0.5, 1.0}
    assert set(share(Pattern.DOTS)) <= {0.0, 1.0}


# pictures as a whole


def test_an_empty_scene_is_a_picture_of_nobody(scene):
    picture = take(scene)
    assert picture.image.shape == (48, 64, 3)
    assert picture.image.dtype == np.uint8
    assert picture.owner.dtype == np.int16
    assert picture.part.dtype == np.uint8
    assert (picture.owner == -1).all()
    assert len(picture.people) == 0
    assert picture.image.std() > 2


def test_the_same_generator_gives_the_same_bytes(scene, body):
    view = replace(camera(), noise=4.0, blur=0.7)
    figures = [bare(body), bare(body, 2.0, (0.5, 0.5), 2)]
    one, two = (take(scene, *figures, view=view, supersample=2) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.owner.tobytes() == two.owner.tobytes()
    for left, right in zip(one.people, two.people, strict=True):
        assert left.keypoints.tobytes() == right.keypoints.tobytes()
    other = render(figures, scene, view, np.random.default_rng(1))
    assert not np.array_equal(other.image, one.image)
    assert np.array_equal(other.owner, one.owner)


def test_any_size_can_be_rendered(scene):
    for size in ((1, 1), (5, 40), (40, 3)):
        picture = take(scene, block(), view=windowed(camera(), (20, 0, 44, 48), size), supersample=2)
        assert picture.image.shape == (*size, 3)


def test_no_samples_and_a_camera_under_the_ground_are_refused(scene):
    with pytest.raises(ValueError, match="supersample must be at least 1, not 0"):
        take(scene, supersample=0)
    with pytest.raises(ValueError, match="is under the ground"):
        take(scene, view=camera(height=-1.0))


# rays


def test_rays_through_pixel_centres_are_the_inverse_of_projection():
    view = camera()
    rays = pixel_rays(view, (-3, 2, 4, 5))
    assert rays.shape == (3, 7, 3)
    x, y, depth = project(view, view.position + rays.astype(np.float64))
    np.testing.assert_allclose(x, np.broadcast_to(np.arange(-3, 4), (3, 7)), atol=1e-4)
    np.testing.assert_allclose(y, np.broadcast_to(np.arange(2, 5)[:, None], (3, 7)), atol=1e-4)
    np.testing.assert_allclose(depth, 1, atol=1e-6)


def test_samples_of_a_pixel_are_spread_evenly_around_its_centre():
    x, _, _ = project(camera(), camera().position + pixel_rays(camera(), (10, 0, 11, 1), 2)[0].astype(np.float64))
    np.testing.assert_allclose(x, [9.75, 10.25], atol=1e-4)


def test_a_hit_has_the_depth_of_the_surface_and_the_face_that_faces_the_ray():
    solid = Solid(block().mesh)
    hits = solid.cast(np.array([0.0, -4.0, 1.0]), np.array([[0.0, 2.0, 0.0], [0.0, -1.0, 0.0]]))
    assert hits.depth.tolist() == pytest.approx([1.9, np.inf])  # 3.8 m in steps of 2 m
    assert hits.face[1] == -1
    mesh = solid.mesh
    a, b, c = mesh.vertices[mesh.faces[hits.face[0]]]
    assert np.cross(b - a, c - a)[1] < 0
    np.testing.assert_allclose(vertex_normals(mesh.vertices, mesh.faces)[mesh.faces[hits.face[0], 0]], [0, -1, 0])


def test_blocked_is_whether_any_solid_is_in_the_way_within_reach():
    solids = [Solid(block((x, 0.0)).mesh) for x in (2.0, 4.0)] + [Solid(merged([]))]
    points = np.array([[0, 0, 1], [3, 0, 1], [5, 0, 1], [0, 0, 3]], dtype=np.float32)
    right = np.tile(np.array([1, 0, 0], dtype=np.float32), (4, 1))
    assert blocked(solids, points, right).tolist() == [True, True, False, False]
    assert blocked(solids, points, right, reach=1.0).tolist() == [False, True, False, False]
    assert blocked([], points, right).tolist() == [False] * 4


def test_windows_hold_the_projection_and_nothing_behind_the_camera():
    limits = (-64, -48, 128, 96)
    x1, y1, x2, y2 = window_of(camera(), block().mesh.vertices, limits)
    assert x1 <= 27
    assert x2 >= 37
    assert y1 <= 8
    assert y2 >= 45
    x1, _, x2, _ = window_of(camera(), block((0.0, -9.0)).mesh.vertices, limits)
    assert x1 == x2
    assert window_of(camera(), block((0.0, -4.0)).mesh.vertices, limits) == limits
    assert clipped((-5, 3, 70, 90), 64, 48) == (0, 3, 64, 48)
    assert clipped((70, 3, 80, 9), 64, 48) == (64, 3, 64, 9)
