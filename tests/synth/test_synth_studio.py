"""The labels of real renderings, proved against each other."""

from dataclasses import replace

import numpy as np
import pytest

from unihap.data.parsing_classes import LIP_CLASSES
from unihap.data.skeletons import SKELETONS, mirror_pairs
from unihap.synth.attributes import ATTRIBUTES, attributes
from unihap.synth.body import Body
from unihap.synth.camera import look_at
from unihap.synth.dress import Wardrobe
from unihap.synth.person import PALETTES, change_outfit, linear, sample_person
from unihap.synth.poses import mirrored, sample_pose
from unihap.synth.render import render
from unihap.synth.scene import sample_scene
from unihap.synth.structures import LIP, Camera, Picture
from unihap.synth.studio import Studio

NAMES = SKELETONS["coco"].names
WORN = {"Hat": ("hat",), "LongCoat": ("coat",), "Skirt&Dress": ("skirt", "dress")}


@pytest.fixture(scope="module")
def studio(body: Body) -> Studio:
    studio = Studio(3, "a")
    studio.wardrobe = Wardrobe(body)  # one body model for all tests
    return studio


@pytest.fixture(scope="module")
def crops(studio: Studio) -> list[Picture]:
    return [
        studio.crop(studio.person("train", i), "train", i % 6 + 1, i, (128, 64), site=i % 3, others=i % 2)
        for i in range(1, 25)
    ]


@pytest.fixture(scope="module")
def scenes(studio: Studio) -> list[Picture]:
    people = [studio.person("train", i) for i in range(1, 9)]
    return [studio.scene(people[: 2 * n], "train", n, n, (120, 200), site=n) for n in range(1, 5)]


@pytest.fixture(scope="module")
def pictures(crops: list[Picture], scenes: list[Picture]) -> list[Picture]:
    return [*crops, *scenes]


def test_keypoints_reproject_from_their_3d_joints(pictures: list[Picture]):
    errors = []
    for picture in pictures:
        for seen in picture.people:
            points = seen.joints.astype(np.float64) @ picture.camera.matrix.T
            errors.append(np.abs(points[:, :2] / points[:, 2:] - seen.keypoints[:, :2]).max())
    assert len(errors) > 40
    assert max(errors) < 0.5


def test_visible_keypoints_lie_on_the_mask_of_their_person(pictures: list[Picture]):
    right = total = 0
    for picture in pictures:
        for index, seen in enumerate(picture.people):
            for x, y, visible in seen.keypoints:
                if visible == 2:
                    total += 1
                    right += picture.owner[round(float(y)), round(float(x))] == index
    assert total > 300
    assert right / total >= 0.99


def test_boxes_are_the_tight_extents_of_masks_and_lie_in_full_boxes(pictures: list[Picture]):
    for picture in pictures:
        for index, seen in enumerate(picture.people):
            y, x = np.nonzero(picture.owner == index)
            if not len(x):
                assert not seen.visible_box.any()
                continue
            assert seen.visible_box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert (seen.full_box[:2] <= seen.visible_box[:2]).all()
            assert (seen.full_box[2:] >= seen.visible_box[2:]).all()
            assert 0 < seen.visible_share <= 1


def test_parts_belong_to_people_and_background_to_nobody(pictures: list[Picture]):
    for picture in pictures:
        np.testing.assert_array_equal(picture.part > 0, picture.owner >= 0)
        assert picture.part.max() < len(LIP_CLASSES)


def test_left_and_right_parts_are_where_the_keypoints_of_their_side_are(crops: list[Picture]):
    right = total = 0
    for picture in crops:
        for seen in picture.people:
            for part, joint in (("arm", "wrist"), ("arm", "elbow"), ("leg", "knee"), ("shoe", "ankle")):
                for side, other in (("left", "right"), ("right", "left")):
                    x, y, visible = seen.keypoints[NAMES.index(f"{side}_{joint}")].tolist()
                    found = picture.part[round(y), round(x)] if visible == 2 else 0
                    # under a sleeve or trousers there is no left and right
                    if found in (LIP[f"{side}_{part}"], LIP[f"{other}_{part}"]):
                        total += 1
                        right += found == LIP[f"{side}_{part}"]
    assert total > 40
    assert right / total >= 0.97


def test_a_mirrored_person_gives_the_mirrored_picture(body: Body):
    rng = np.random.default_rng(5)
    scene = replace(sample_scene(rng, "a", "outdoor"), props=())
    position = np.array([0.0, -4.0, 1.2])
    matrix = np.array([[200.0, 0, 39.5], [0, 200, 63.5], [0, 0, 1]])
    camera = Camera(1, matrix, look_at(position, np.array([0, 0, 0.9])), position, (128, 80))
    swap = np.arange(len(LIP_CLASSES))
    for left, right in mirror_pairs(LIP_CLASSES):
        swap[[left, right]] = right, left
    for number, activity in enumerate(("stand", "walk", "run")):
        person = sample_person(np.random.default_rng(number), 1, "a")
        bare = replace(person.outfit, shoulder_bag=None, handbag=None, backpack=None)
        person = replace(person, outfit=bare, hair=replace(person.hair, style="short"))
        pose = sample_pose(np.random.default_rng(number), activity, None, None)
        maps = []
        for way, yaw in ((pose, 0.6), (mirrored(pose), -0.6)):
            figure = Wardrobe(body).figure(person, way, yaw, (0.0, 0.0))
            maps.append(render([figure], scene, camera, np.random.default_rng(0)).part)
        person_pixels = (maps[0] > 0).sum()
        assert (swap[maps[0]][:, ::-1] != maps[1]).sum() < 0.06 * person_pixels


def test_attributes_agree_with_what_would_be_seen(pictures: list[Picture]):
    names = ATTRIBUTES["a"]
    found = set()
    for picture in pictures:
        for seen in picture.people:
            values = dict(zip(names, attributes(seen.figure, picture.camera, "a").tolist(), strict=True))
            whole = (seen.full_box[:2] > 0).all() and (seen.full_box[2:] < picture.owner.shape[::-1]).all()
            if not whole or seen.full_box[3] - seen.full_box[1] < 60:
                continue  # too small, or cut, to show everything
            parts = {LIP_CLASSES[part] for part in seen.all_parts if part < len(LIP_CLASSES)}
            for name, classes in WORN.items():
                if name == "LongCoat" and not values[name] and "coat" in parts:
                    assert seen.figure.person.outfit.upper.kind == "jacket"  # of LIP's class coat, but short
                    continue
                assert values[name] == bool(parts.intersection(classes)), (name, parts)
                found.add((name, values[name]))
            assert values["Trousers"] + values["Shorts"] + values["Skirt&Dress"] == 1
            assert values["ShortSleeve"] + values["LongSleeve"] == 1
            if values["Glasses"] and values["Front"] and seen.full_box[3] - seen.full_box[1] > 100:
                assert seen.figure.person.outfit.glasses is not None
    assert {("Hat", 0), ("Hat", 1), ("Skirt&Dress", 0), ("Skirt&Dress", 1)} <= found


def test_a_picture_depends_on_its_key_alone(studio: Studio, body: Body):
    def take(other: Studio) -> Picture:
        return other.crop(other.person("test", 7), "test", 2, 99, (64, 32))

    fresh = Studio(3, "a")
    fresh.wardrobe = Wardrobe(body)
    first, again = take(studio), take(fresh)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.part, again.part)
    different = Studio(4, "a")
    different.wardrobe = Wardrobe(body)
    assert (take(different).image != first.image).any()


def test_splits_share_neither_people_nor_places(studio: Studio):
    first, second = studio.person("train", 5), studio.person("test", 5)
    assert first.shape != second.shape
    assert first.outfit.upper != second.outfit.upper
    sites = [studio._site(split, 0) for split in ("train", "test")]
    assert not np.allclose(sites[0].cameras[0].position, sites[1].cameras[0].position)
    assert sites[0].scene.ground is not sites[1].scene.ground


def test_changing_clothes_keeps_the_body_and_the_hair(studio: Studio):
    first, second = studio.person("train", 5), studio.person("train", 5, outfit=1)
    assert (first.identity, first.shape, first.hair, first.skin) == (
        second.identity,
        second.shape,
        second.hair,
        second.skin,
    )
    assert first.outfit.number != second.outfit.number
    assert first.outfit.upper != second.outfit.upper


def test_a_scene_without_people_is_a_place(studio: Studio):
    picture = studio.scene([], "train", 1, 5, (40, 60))
    assert len(picture.people) == 0
    assert picture.image.std() > 5
    assert (picture.owner == -1).all()


def test_people_are_drawn_from_all_kinds():
    people = [sample_person(np.random.default_rng(i), i, "a") for i in range(400)]
    outfits = [person.outfit for person in people]
    assert {o.upper.kind for o in outfits} == {"t_shirt", "long_sleeve", "jacket", "coat", "dress"}
    assert {o.lower.kind for o in outfits if o.lower} == {"trousers", "shorts", "skirt"}
    assert all((o.lower is None) == (o.upper.kind == "dress") for o in outfits)
    assert {person.hair.style for person in people} == {"bald", "short", "medium", "long", "ponytail", "bun"}
    for name in ("hat", "glasses", "backpack", "handbag", "shoulder_bag"):
        share = np.mean([getattr(o, name) is not None for o in outfits])
        assert 0.1 < share < 0.4, name
    assert 0.4 < np.mean([person.shape["gender"] > 0.5 for person in people]) < 0.6


def test_the_domains_share_no_colour_and_unknown_ones_are_refused():
    assert not set(PALETTES["a"]) & set(PALETTES["b"])
    with pytest.raises(ValueError, match="domain"):
        sample_person(np.random.default_rng(0), 1, "c")
    with pytest.raises(ValueError, match="domain"):
        Studio(0, "c")


def test_clothes_of_an_unknown_domain_are_refused():
    person = sample_person(np.random.default_rng(0), 1, "a")
    with pytest.raises(ValueError, match="domain"):
        change_outfit(np.random.default_rng(0), person, 2, "c")


def test_linear_is_the_inverse_of_srgb():
    # IEC 61966-2-1: 188 of 255 is half the light, 10 lies on the straight part of the curve
    assert linear((188, 0, 255)) == pytest.approx((0.5029, 0.0, 1.0), abs=1e-4)
    assert linear((10, 10, 10))[0] == pytest.approx(10 / 255 / 12.92)


def test_a_catalogue_crop_shows_one_whole_person(body: Body):
    catalogue = Studio(3, "a", "catalogue")
    catalogue.wardrobe = Wardrobe(body)
    for i in range(1, 5):
        picture = catalogue.crop(catalogue.person("train", i), "train", i, i, (128, 64), others=2)
        assert len(picture.people) == 1
        x1, y1, x2, y2 = picture.people[0].full_box
        assert min(x1, y1) >= -1
        assert x2 <= 65
        assert y2 <= 129
