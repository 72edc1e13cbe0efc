import itertools

import numpy as np
import pytest

from unihap.synth.body import Body, RestBody, skin, vertex_normals
from unihap.synth.cloth import clip, compacted, with_hems
from unihap.synth.footwear import SOLE
from unihap.synth.garments import outfit_shells
from unihap.synth.structures import LIP, Garment, Material, Outfit, Shell

MALE = {"gender": 0.0, "age": 2 / 3, "muscle": 0.5, "weight": 0.5, "height": 0.42, "proportions": 0.5}
SHAPES = {
    "man": MALE,
    "child": {**MALE, "age": 0.3},
    "heavy_woman": {**MALE, "gender": 1.0, "weight": 0.9},
    "old": {**MALE, "age": 1.0, "gender": 1.0},
}
CLOTH = Material((0.2, 0.3, 0.8))
INNER = Material((0.9, 0.9, 0.2))
# upper, lower, footwear, open front, socks
OUTFITS = [
    ("t_shirt", "trousers", "shoes", False, False),
    ("t_shirt", "shorts", "shoes", False, True),
    ("long_sleeve", "skirt", "boots", False, False),
    ("jacket", "trousers", "boots", True, False),
    ("jacket", "skirt", "shoes", False, True),
    ("coat", "trousers", "shoes", False, False),
    ("coat", "skirt", "shoes", True, False),
    ("dress", None, "shoes", False, False),
]


def outfit(upper: str, lower: str | None, shoes: str, opened: bool = False, socks: bool = False) -> Outfit:
    return Outfit(
        number=1,
        upper=Garment(upper, CLOTH),
        shoes=Garment(shoes, CLOTH),
        lower=Garment(lower, CLOTH) if lower else None,
        inner=INNER if opened else None,
        socks=CLOTH if socks else None,
    )


@pytest.fixture(scope="module")
def rests(body: Body) -> dict[str, RestBody]:
    return {name: body.rest(shape) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def worn(body: Body, rests: dict[str, RestBody]) -> dict[tuple, list[Shell]]:
    return {
        (name, *spec): outfit_shells(body, rests[name], outfit(*spec))
        for name, spec in itertools.product(("man", "child", "heavy_woman"), OUTFITS)
    }


def only(shells: list[Shell], part: str) -> Shell:
    (shell,) = [shell for shell in shells if shell.part == LIP[part]]
    return shell


def test_a_cut_triangle_keeps_the_side_where_the_field_is_positive():
    # Corners at (0, 0), (4, 0), (0, 4) and a cut at x = 1: a quadrangle of area 8 - 4.5 stays.
    vertices = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        for sign, area in ((1, 4.5), (-1, 3.5)):
            cut = clip(np.array([order]), sign * (vertices[:, 0] - 1))
            corners = cut.apply(vertices)[cut.faces]
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            assert (normals[:, 2] > 0).all()
            assert normals[:, 2].sum() / 2 == pytest.approx(area)


def test_neighbours_share_the_vertices_of_their_cut():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    cut = clip(np.array([[0, 1, 2], [0, 2, 3]]), vertices[:, 0] - 0.25)
    assert len(cut.apply(vertices)) == 5  # two corners, and the cuts of three edges
    assert cut.apply(vertices)[:, 0].min() == pytest.approx(0.25)


def test_a_mesh_entirely_inside_or_outside_is_kept_or_gone():
    faces = np.array([[0, 1, 2]])
    assert clip(faces, np.ones(3)).faces.tolist() == [[0, 1, 2]]
    assert len(clip(faces, -np.ones(3)).faces) == 0


def test_compacting_numbers_the_used_vertices_in_their_order():
    used, faces = compacted(np.array([[7, 2, 5], [5, 2, 9]]), 11)
    assert used.tolist() == [2, 5, 7, 9]
    assert faces.tolist() == [[2, 0, 1], [1, 0, 3]]
    assert faces.dtype == np.int32
    assert [len(part) for part in compacted(np.zeros((0, 3), np.int32), 4)] == [0, 0]


def test_hems_fold_inwards_at_open_edges_but_not_at_seams():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    faces, weights = np.array([[0, 1, 2]]), np.ones((3, 1))
    hemmed, strip, spread = with_hems(vertices, faces, weights, 0.1)
    assert len(strip) == 1 + 2 * 3
    assert hemmed[:, 2].min() == pytest.approx(-0.1)
    assert len(spread) == len(hemmed)
    _, sewn, _ = with_hems(vertices, faces, weights, 0.1, sewn=np.array([True, True, False]))
    assert len(sewn) == 1 + 2 * 2


def test_shells_are_valid_meshes_rigged_like_the_body(body: Body, worn: dict):
    for shells in worn.values():
        for shell in shells:
            assert shell.vertices.dtype == np.float32
            assert shell.faces.dtype == np.int32
            assert np.isfinite(shell.vertices).all()
            assert shell.weights.shape == (len(shell.vertices), len(body.bones))
            np.testing.assert_allclose(shell.weights.sum(axis=1), 1, atol=1e-5)
            assert shell.weights.min() >= 0
            assert shell.faces.min() >= 0
            assert shell.faces.max() < len(shell.vertices)


def test_nobody_shows_the_torso_and_nothing_hides_head_or_hands(body: Body, worn: dict):
    torso = np.flatnonzero(body.segment_of_face == "torso")
    for shells in worn.values():
        covered = np.concatenate([shell.covers for shell in shells])
        assert np.isin(torso, covered).all()
        hidden = set(body.segment_of_face[covered])
        assert not hidden & {"head", "eye", "left_hand", "right_hand"}


@pytest.mark.parametrize(
    ("kind", "part", "least", "most"),
    [
        ("t_shirt", "upper_clothes", 0.007, 0.025),
        ("jacket", "coat", 0.012, 0.04),
        ("trousers", "pants", 0.007, 0.025),
        ("shorts", "pants", 0.007, 0.025),
        ("socks", "socks", 0.002, 0.006),
    ],
)
def test_cloth_lies_outside_of_the_skin_by_its_thickness(
    body: Body, rests: dict, kind: str, part: str, least: float, most: float
):
    from scipy.spatial import cKDTree

    upper = kind if kind in ("t_shirt", "jacket") else "t_shirt"
    lower = kind if kind in ("trousers", "shorts") else "shorts"
    used = np.unique(body.faces)
    for rest in rests.values():
        cloth = only(outfit_shells(body, rest, outfit(upper, lower, "shoes", socks=True)), part).vertices
        cloth = cloth[cloth[:, 2] < rest.heads[body.bone("clavicle.L"), 2]]  # at the neck hems reach the skin
        _, nearest = cKDTree(rest.vertices[used]).query(cloth)
        gap = np.einsum("vi,vi->v", cloth - rest.vertices[used[nearest]], rest.normals[used[nearest]])
        scale = rest.height / 1.8
        assert least * scale < np.median(gap) < most * scale
        assert (gap > -0.004).mean() > 0.998  # the folded hems of socks touch the skin


def test_faces_point_outwards(worn: dict):
    for shells in worn.values():
        for shell in shells:
            if shell.part in (LIP["left_shoe"], LIP["right_shoe"], LIP["skirt"]):
                away = shell.vertices[:, :2] - shell.vertices[:, :2].mean(axis=0)
                normals = vertex_normals(shell.vertices, shell.faces)[:, :2]
                assert (np.einsum("vi,vi->v", normals, away) > 0).mean() > 0.6  # the rest are soles, linings and hems


def test_shoes_are_on_their_own_side_and_enclose_the_foot(body: Body, rests: dict, worn: dict):
    for (name, *_), shells in worn.items():
        for side, part, sign in (("left", "left_shoe", 1), ("right", "right_shoe", -1)):
            shoe = only(shells, part).vertices
            foot = rests[name].vertices[np.unique(body.faces[body.segment_of_face == f"{side}_foot"])]
            assert (sign * shoe[:, 0]).min() > 0
            assert (shoe.min(axis=0) < foot.min(axis=0)).all()
            assert (shoe.max(axis=0)[:2] > foot.max(axis=0)[:2]).all()
            assert shoe[:, 2].min() == pytest.approx(-SOLE)  # under the ground that bare feet stand on
            assert foot[:, 1].min() - shoe[:, 1].min() < 0.02


def test_boots_reach_the_calf_and_shoes_the_ankle(body: Body, rests: dict, worn: dict):
    for (name, _, _, kind, *_), shells in worn.items():
        knee, ankle = (rests[name].heads[body.bone(bone), 2] for bone in ("lowerleg01.L", "foot.L"))
        top = only(shells, "left_shoe").vertices[:, 2].max()
        assert (top - ankle) / (knee - ankle) == pytest.approx(0.58 if kind == "boots" else 0.05, abs=0.03)


@pytest.mark.parametrize(
    ("spec", "part", "bone", "above"),
    [
        (("t_shirt", "shorts", "shoes"), "pants", "lowerleg01.L", (0.01, 0.10)),
        (("t_shirt", "trousers", "shoes"), "pants", "foot.L", (-0.02, 0.02)),
        (("t_shirt", "skirt", "shoes"), "skirt", "lowerleg01.L", (0.0, 0.04)),
        (("coat", "trousers", "shoes"), "coat", "lowerleg01.L", (0.02, 0.08)),
        (("dress", None, "shoes"), "dress", "lowerleg01.L", (0.0, 0.05)),
        (("jacket", "trousers", "shoes"), "coat", "upperleg01.L", (-0.13, -0.02)),
    ],
)
def test_hems_are_where_the_joints_of_this_body_are(
    body: Body, rests: dict, spec: tuple, part: str, bone: str, above: tuple
):
    for rest in rests.values():
        shell = only(outfit_shells(body, rest, outfit(*spec)), part)
        scale = rest.height / 1.8
        hem = shell.vertices[:, 2].min() - rest.heads[body.bone(bone), 2]
        assert above[0] * scale <= hem <= above[1] * scale


def test_sleeves_end_at_the_upper_arm_or_at_the_wrist(body: Body, rests: dict):
    rest = rests["man"]
    elbow, wrist = (rest.heads[body.bone(bone)] for bone in ("lowerarm01.L", "wrist.L"))
    short = only(outfit_shells(body, rest, outfit("t_shirt", "trousers", "shoes")), "upper_clothes")
    long = only(outfit_shells(body, rest, outfit("long_sleeve", "trousers", "shoes")), "upper_clothes")
    assert np.linalg.norm(short.vertices - elbow, axis=1).min() > 0.08
    assert short.vertices[:, 0].max() > 0.25
    assert np.linalg.norm(long.vertices - wrist, axis=1).min() < 0.05


@pytest.mark.parametrize("upper", ["t_shirt", "long_sleeve", "jacket"])
@pytest.mark.parametrize("lower", ["trousers", "shorts", "skirt"])
def test_upper_garments_overlap_lower_ones_and_hang_outside_of_them(body: Body, rests: dict, upper: str, lower: str):
    for rest in rests.values():
        shells = outfit_shells(body, rest, outfit(upper, lower, "shoes"))
        below = only(shells, "skirt" if lower == "skirt" else "pants").vertices
        above = only(shells, "coat" if upper == "jacket" else "upper_clothes").vertices
        top, hem = below[:, 2].max(), above[:, 2].min()
        assert top - hem >= 0.08
        for level in np.linspace(hem + 0.01, top - 0.01, 4):  # how wide they are at some heights
            widths = [
                np.ptp(points[(np.abs(points[:, 2] - level) < 0.02) & (np.abs(points[:, 0]) < 0.3), :2], axis=0)
                for points in (below, above[np.linalg.norm(above[:, :2], axis=1) < 0.35])
            ]
            assert (widths[1] > widths[0]).all()


def test_an_open_front_shows_a_strip_of_the_inner_shirt(body: Body, rests: dict):
    for rest in rests.values():
        for upper in ("jacket", "coat"):
            opened = outfit_shells(body, rest, outfit(upper, "trousers", "shoes", opened=True))
            coat, inner = only(opened, "coat"), only(opened, "upper_clothes")
            chest = rest.heads[body.bone("spine01"), 2]
            front = coat.vertices[(np.abs(coat.vertices[:, 2] - chest) < 0.05) & (coat.vertices[:, 1] < -0.05)]
            assert 0.07 <= 2 * np.abs(front[:, 0]).min() <= 0.14
            assert np.abs(inner.vertices[inner.vertices[:, 1] < -0.05, 0]).min() < 0.03
            assert inner.material == INNER
            closed = only(outfit_shells(body, rest, outfit(upper, "trousers", "shoes")), "coat").vertices
            assert np.abs(closed[(np.abs(closed[:, 2] - chest) < 0.05) & (closed[:, 1] < -0.05), 0]).min() < 0.03


def test_skirts_have_an_outline_of_their_own(body: Body, rests: dict):
    for rest in rests.values():
        skirt = only(outfit_shells(body, rest, outfit("t_shirt", "skirt", "shoes")), "skirt").vertices
        knee = rest.vertices[np.abs(rest.vertices[:, 2] - skirt[:, 2].min()) < 0.02]
        knee = knee[np.abs(knee[:, 0]) < 0.35]
        hem = skirt[skirt[:, 2] < skirt[:, 2].min() + 0.01]
        assert np.ptp(hem[:, 0]) > np.ptp(knee[:, 0]) + 0.03
        assert np.ptp(hem[:, 1]) > np.ptp(knee[:, 1]) + 0.05
        # Between the legs it hangs in front and behind, where there is no skin.
        between = hem[np.abs(hem[:, 0]) < 0.02]
        assert between[:, 1].min() < knee[:, 1].min() < knee[:, 1].max() < between[:, 1].max()


def test_clothes_are_symmetric(body: Body, rests: dict, worn: dict):
    from scipy.spatial import cKDTree

    for (name, *spec), shells in worn.items():
        for part in ("upper_clothes", "coat", "dress", "pants", "skirt"):
            for shell in (shell for shell in shells if shell.part == LIP[part]):
                mirrored = shell.vertices * np.array([-1, 1, 1], dtype=np.float32)
                distance, _ = cKDTree(shell.vertices).query(mirrored)
                assert np.quantile(distance, 0.99) < 0.012, (name, spec, part)


def test_the_middle_of_a_skirt_follows_both_legs(body: Body, rests: dict):
    skirt = only(outfit_shells(body, rests["man"], outfit("t_shirt", "skirt", "shoes")), "skirt")
    low = skirt.vertices[:, 2] < skirt.vertices[:, 2].min() + 0.02
    left, right = (
        skirt.weights[:, [i for i, name in enumerate(body.bones) if name.startswith("upperleg") and name[-1] == side]]
        for side in "LR"
    )
    side = skirt.vertices[:, 0]
    assert (left.sum(axis=1)[low & (side > 0.15)] > 0.9).all()
    assert (right.sum(axis=1)[low & (side < -0.15)] > 0.9).all()
    middle = low & (np.abs(side) < 0.01)
    np.testing.assert_allclose(left.sum(axis=1)[middle], 0.5, atol=0.1)


def test_no_leg_shows_through_trousers_in_a_stride(body: Body, rests: dict):
    import embreex.rtcore_scene
    from embreex.mesh_construction import TriangleMesh

    rotations = {"upperleg01.L": np.array([-0.5, 0, 0]), "upperleg01.R": np.array([0.4, 0, 0])}
    rotations["lowerleg01.R"] = np.array([0.5, 0, 0])
    for rest in rests.values():
        shells = outfit_shells(body, rest, outfit("t_shirt", "trousers", "shoes"))
        posed = body.pose(rest, rotations)
        kept = np.setdiff1d(np.arange(len(body.faces)), np.concatenate([shell.covers for shell in shells]))
        vertices, faces, count = [posed.vertices], [body.faces[kept]], len(posed.vertices)
        for shell in shells:
            vertices.append(skin(shell.vertices, shell.weights, posed.transforms))
            faces.append(shell.faces + count)
            count += len(shell.vertices)
        scene = embreex.rtcore_scene.EmbreeScene()
        TriangleMesh(scene, np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.int32))
        across, up = np.meshgrid(np.arange(-0.8, 0.8, 0.01), np.arange(-1.1, 0.2, 0.01))
        for toward in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            ray = np.array([*toward, 0], dtype=np.float32)
            right = np.array([-toward[1], toward[0], 0], dtype=np.float32)
            origins = across.reshape(-1, 1) * right + up.reshape(-1, 1) * [0, 0, 1] - 3 * ray
            seen = scene.run(origins.astype(np.float32), np.tile(ray, (len(origins), 1)), output=True)["primID"]
            bare = body.segment_of_face[kept[seen[(seen >= 0) & (seen < len(kept))]]]
            assert np.isin(bare, ["left_leg", "right_leg", "torso"]).sum() == 0


def test_socks_are_seen_only_on_bare_legs(worn: dict):
    for (_, _, lower, _, _, socks), shells in worn.items():
        assert (LIP["socks"] in {shell.part for shell in shells}) == (socks and lower != "trousers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upper": Garment("poncho", CLOTH)}, "unknown upper garment 'poncho'"),
        ({"lower": Garment("skrit", CLOTH)}, "did you mean skirt"),
        ({"shoes": Garment("sandals", CLOTH)}, "unknown footwear 'sandals'"),
        ({"lower": None}, "a t_shirt needs a lower garment"),
    ],
)
def test_outfits_that_cannot_be_made_are_refused(body: Body, rests: dict, change: dict, message: str):
    from dataclasses import replace

    with pytest.raises(ValueError, match=message):
        outfit_shells(body, rests["man"], replace(outfit("t_shirt", "trousers", "shoes"), **change))


def test_the_same_outfit_is_made_the_same_way_twice(body: Body, rests: dict, worn: dict):
    spec = OUTFITS[3]
    for first, second in zip(worn[("man", *spec)], outfit_shells(body, rests["man"], outfit(*spec)), strict=True):
        np.testing.assert_array_equal(first.vertices, second.vertices)
        np.testing.assert_array_equal(first.covers, second.covers)
