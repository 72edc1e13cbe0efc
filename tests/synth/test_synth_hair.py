from itertools import product

import numpy as np
import pytest
from scipy.spatial import cKDTree

from unihap.synth.body import Body, RestBody
from unihap.synth.hair import STYLES, Skull, face_shells, hair_shells
from unihap.synth.structures import LIP, Hair

BASE = {"gender": 0.5, "age": 0.66, "muscle": 0.5, "weight": 0.5, "height": 0.43, "proportions": 0.5}
BODIES = {
    "child": {"age": 0.33},
    "woman": {"gender": 1.0},
    "heavy man": {"gender": 0.0, "weight": 0.9},
    "old": {"age": 1.0},
}


def rest_of(body: Body, name: str) -> RestBody:
    return body.rest({**BASE, **BODIES[name]})


def hair_of(body: Body, name: str, style: str, hat: bool = False):
    return hair_shells(body, rest_of(body, name), Hair(style, (0.1, 0.05, 0.03)), hat)


def hits(shells, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Whether rays meet any of the shells."""
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh

    found = np.zeros(len(origins), dtype=bool)
    for shell in shells:
        scene = rtcore_scene.EmbreeScene()
        TriangleMesh(scene, shell.vertices, shell.faces)
        found |= scene.run(origins.astype(np.float32), directions.astype(np.float32)) >= 0
    return found


@pytest.mark.parametrize(("name", "style"), list(product(BODIES, STYLES)))
def test_hair_covers_the_head_and_leaves_the_face_free(body: Body, name: str, style: str):
    skull = Skull(body, rest_of(body, name))
    shells = hair_of(body, name, style)
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(-0.4, 0.4, 7), np.linspace(0.4, 1.3, 7)))
    above = skull.at(np.stack([x, y, np.full(49, 3.0)], axis=1))
    assert hits(shells, above, np.tile([0.0, 0, -1], (49, 1))).all()
    x, z = (grid.ravel() for grid in np.meshgrid(np.linspace(-0.4, 0.4, 9), np.linspace(-0.9, 0.3, 9)))
    before = skull.at(np.stack([x, np.full(81, -3.0), z], axis=1))
    seen = np.tile([0.0, 1, 0], (81, 1))
    # what is behind the face may be hair; the face itself comes first
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh

    scene = rtcore_scene.EmbreeScene()
    TriangleMesh(scene, rest_of(body, name).vertices, body.faces)
    skin = scene.run(before.astype(np.float32), seen.astype(np.float32), query="DISTANCE")
    for shell in shells:
        scene = rtcore_scene.EmbreeScene()
        TriangleMesh(scene, shell.vertices, shell.faces)
        distance = scene.run(before.astype(np.float32), seen.astype(np.float32), query="DISTANCE")
        assert (distance[skin < 1] > skin[skin < 1]).all()


@pytest.mark.parametrize(("name", "style"), list(product(BODIES, STYLES)))
def test_hair_is_rigged_and_does_not_float(body: Body, name: str, style: str):
    rest = rest_of(body, name)
    tree = cKDTree(rest.vertices)
    for shell in hair_of(body, name, style):
        assert shell.part == LIP["hair"]
        np.testing.assert_allclose(shell.weights.sum(axis=1), 1, atol=1e-5)
        assert shell.weights.shape == (len(shell.vertices), len(body.bones))
        assert 0 <= shell.faces.min() <= shell.faces.max() < len(shell.vertices)
        # a bun and a ponytail stand farthest from the skin
        assert tree.query(shell.vertices)[0].max() < 0.13
    assert tree.query(hair_of(body, name, style)[0].vertices)[0].max() < 0.03


def test_bald_people_have_none_and_unknown_styles_are_refused(body: Body):
    assert hair_of(body, "woman", "bald") == []
    with pytest.raises(ValueError, match="unknown hair style 'mohawk'"):
        hair_of(body, "woman", "mohawk")


def test_long_hair_reaches_lower_than_medium_and_short_hair(body: Body):
    low = {style: min(s.vertices[:, 2].min() for s in hair_of(body, "woman", style)) for style in STYLES}
    assert low["long"] < low["medium"] - 0.1 < low["short"] - 0.1


def test_under_a_hat_only_the_lower_hair_is_left(body: Body):
    skull = Skull(body, rest_of(body, "woman"))
    (cap,) = hair_of(body, "woman", "short", hat=True)
    # the scalp is cut below the hat's line, then lifted a little
    assert skull.of(cap.vertices)[:, 2].max() < 0.45


def test_eyes_brows_and_lips_are_on_the_front_of_the_face(body: Body):
    for name in BODIES:
        skull = Skull(body, rest_of(body, name))
        shells = face_shells(body, rest_of(body, name), (0.1, 0.1, 0.1))
        assert len(shells) == 3
        for shell in shells:
            assert shell.part == LIP["face"]
            assert skull.of(shell.vertices)[:, 1].max() < 0.6
        brows, lips = (skull.of(shell.vertices)[:, 2].mean() for shell in shells[1:])
        assert lips < -0.3 < 0.1 < brows


def test_lips_are_around_the_gap_of_the_mouth(body: Body):
    for name in BODIES:
        rest = rest_of(body, name)
        skull = Skull(body, rest)
        lips = skull.of(face_shells(body, rest, (0.1, 0.1, 0.1))[2].vertices)
        # from the gap between the lips one looks past the face, into the head
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        scene = rtcore_scene.EmbreeScene()
        TriangleMesh(scene, rest.vertices, body.faces)
        z = np.linspace(-0.78, -0.5, 181)
        start = skull.at(np.stack([np.zeros(181), np.full(181, -3.0), z], axis=1)).astype(np.float32)
        depth = scene.run(start, np.tile(np.float32([0, 1, 0]), (181, 1)), query="DISTANCE")
        gap = z[np.argmax(depth - np.interp(z, z[[0, -1]], depth[[0, -1]]))]  # the chin recedes
        assert lips[:, 2].min() < gap < lips[:, 2].max(), name
        assert np.abs(lips[:, 0]).max() < 0.3


@pytest.mark.parametrize("style", ["medium", "long"])
def test_falling_hair_faces_outwards(body: Body, style: str):
    curtain = hair_of(body, "woman", style)[1]
    corners = curtain.vertices[curtain.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    away = corners.mean(axis=1) - Skull(body, rest_of(body, "woman")).at(np.array([0, 0.72, 0]))
    # the horizontal part decides, since hair falls; locks have faces that look sideways
    assert ((normals[:, :2] * away[:, :2]).sum(axis=1) > 0).mean() > 0.8
