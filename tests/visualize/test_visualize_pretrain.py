"""Pictures of pre-training: what is hidden, framed and coloured, and what a caption counts."""

import cv2
import numpy as np
import pytest

from unihap.visualize import pretrain
from unihap.visualize.pretrain import (
    HIDDEN,
    QUERY,
    attention_cell,
    draw_attention,
    draw_mask,
    draw_origin,
    draw_parts,
    mask_cell,
    part_colours,
    patch_attention,
    reconstruction_cell,
)
from unihap.visualize.sheet import write_picture

EDGE = 8
GRID = (4, 2)
BLUE = np.full((32, 16, 3), (10, 20, 200), dtype=np.uint8)
RED, GREEN = (250, 0, 0), (0, 250, 0)


def patch(image, row, column):
    return image[row * EDGE : (row + 1) * EDGE, column * EDGE : (column + 1) * EDGE]


def patches(*cells):
    mask = np.zeros(GRID, dtype=bool)
    for cell in cells:
        mask[cell] = True
    return mask


def texts(monkeypatch):
    """Lines of text that pictures are given."""
    lines = []
    original = pretrain._text
    monkeypatch.setattr(
        pretrain, "_text", lambda given, *more: lines.extend(t for t, _ in given) or original(given, *more)
    )
    return lines


# one crop


def test_a_mask_hides_its_patches_and_nothing_else():
    drawn = draw_mask(BLUE, patches((1, 0), (3, 1)))
    assert (patch(drawn, 1, 0) == HIDDEN).all()
    assert (patch(drawn, 3, 1) == HIDDEN).all()
    assert (drawn != BLUE).any(-1).sum() == 2 * EDGE**2
    assert (BLUE == (10, 20, 200)).all()


def test_hidden_patches_show_the_first_part_that_wanted_them():
    chosen = [(patches((0, 0), (1, 0)), RED), (patches((1, 0), (2, 0)), GREEN)]
    drawn = draw_origin(BLUE, patches((0, 0), (1, 0), (3, 1)), chosen)
    assert (patch(drawn, 0, 0).argmax(-1) == 0).all()
    assert (patch(drawn, 1, 0) == patch(drawn, 0, 0)).all()  # not green
    assert (patch(drawn, 3, 1) == HIDDEN).all()
    given_up = patch(drawn, 2, 0)
    assert (given_up[0] == GREEN).all()
    assert (given_up[2:-2, 2:-2] == BLUE[0, 0]).all()
    assert (patch(drawn, 0, 1) == BLUE[0, 0]).all()


def test_part_rectangles_are_framed_inside_their_last_patch():
    rectangles = {"head": [(0, 0, 1, 1)], "left_leg": []}
    drawn = draw_parts(BLUE, rectangles, GRID, np.zeros((0, 2)))
    colour = part_colours(rectangles)["head"]
    for line in (drawn[0], drawn[15], drawn[:16, 0], drawn[:16, 15]):
        assert (line == colour).all()
    assert (drawn[16:] == BLUE[16:]).all()
    assert not (drawn[4:12, 4:12] == BLUE[4:12, 4:12]).all(-1).any()  # the part's colour lies over it


def test_keypoints_of_parts_are_dots():
    drawn = draw_parts(BLUE, {"head": []}, GRID, np.array([[8.2, 19.8]]))
    assert (drawn[20, 8] == 255).all()
    assert (drawn[:10] == BLUE[:10]).all()


def maps():
    """Two heads over 1 + 4 tokens of a 2 x 2 grid; the row of patch (1, 0), token 3, is known."""
    attention = np.full((2, 5, 5), 0.2)
    attention[0, 3] = [0.5, 0.1, 0.1, 0.1, 0.2]
    attention[1, 3] = [0.1, 0.3, 0.1, 0.1, 0.4]
    return attention


@pytest.mark.parametrize(
    ("head", "expected", "class_share"),
    [
        (0, [[0.2, 0.2], [0.2, 0.4]], 0.5),
        (1, [[1 / 3, 1 / 9], [1 / 9, 4 / 9]], 0.1),
        (None, [[2 / 7, 1 / 7], [1 / 7, 3 / 7]], 0.3),
    ],
)
def test_attention_of_a_patch_is_its_row_without_the_class_token_renormalised(head, expected, class_share):
    attention, share = patch_attention(maps(), (1, 0), (2, 2), head)
    np.testing.assert_allclose(attention, expected, atol=1e-12)
    assert attention.sum() == pytest.approx(1)
    assert share == pytest.approx(class_share)


def test_impossible_heads_and_patches_are_refused():
    with pytest.raises(ValueError, match="no head 2: the block has 2, 0 to 1"):
        patch_attention(maps(), (1, 0), (2, 2), 2)
    for query in ((2, 0), (0, 2), (-1, 0)):
        with pytest.raises(ValueError, match=r"no patch .* 2 rows and 2 columns"):
            patch_attention(maps(), query, (2, 2))


def test_an_attention_map_is_reddest_at_its_maximum_and_frames_the_patch_that_asks():
    attention = np.full(GRID, 0.02)
    attention[3, 1] = 0.86
    drawn = draw_attention(np.full((32, 16, 3), 100, np.uint8), attention, (0, 0)).astype(int)
    assert (drawn[0, :8] == QUERY).all()
    assert (drawn[:8, 0] == QUERY).all()
    assert (drawn[8, :8] != QUERY).any()
    red = drawn[..., 0] - drawn[..., 2]
    assert red[-1, -1] > 30
    assert red[12, 3] < 0


# cells


def test_a_reconstruction_cell_has_the_variants_by_name(monkeypatch):
    lines = texts(monkeypatch)
    painted = {"pasted": np.full_like(BLUE, 77), "whole": np.full_like(BLUE, 99)}
    name, cell = reconstruction_cell("a.jpg", BLUE, patches((0, 0)), painted)
    assert name == "a.jpg"
    assert lines == ["original", "masked", "pasted", "whole"]
    width = 8 * 16  # 256 / 32 = 8 times
    assert cell.shape[1] == 4 * width + 3 * 4
    assert (cell[:256, :width] == BLUE[0, 0]).all()
    assert (cell[:64, width + 4 : width + 68] == HIDDEN).all()
    assert (cell[:256, 2 * (width + 4) : 3 * width + 8] == 77).all()
    assert (cell[:256, 3 * (width + 4) :] == 99).all()


@pytest.mark.parametrize(
    ("chosen", "mask", "said"),
    [
        ({"head": [(0, 0), (0, 1)]}, [(0, 0), (0, 1), (2, 0)], ["drawn: head", "N_p 2 < N_m 3: 1 added"]),
        (
            {"left_leg": [(3, 0)], "head": [(0, 0), (0, 1), (3, 0)]},
            [(3, 0), (0, 1)],
            ["drawn: left_leg, head", "N_p 3 > N_m 2: 1 given up"],
        ),
        ({"head": [(0, 0)]}, [(0, 0)], ["drawn: head", "N_p 1 = N_m 1"]),
        ({"head": [(0, 0)]}, [(1, 0)], ["drawn: head", "N_p 1 = N_m 1: 1 added, 1 given up"]),
        ({}, [(1, 0)], ["drawn: nothing", "N_p 0 < N_m 1: 1 added"]),
    ],
)
def test_a_mask_cell_says_what_was_drawn_and_how_it_met_the_number(monkeypatch, chosen, mask, said):
    lines = texts(monkeypatch)
    chosen = {part: patches(*cells) for part, cells in chosen.items()}
    rectangles = {"head": [(0, 0, 0, 1)], "left_leg": [(2, 0, 3, 0)]}
    mask_cell("a", BLUE, np.array([[4.0, 4.0]]), rectangles, chosen, patches(*mask))
    assert lines[2:] == said


def test_a_mask_cell_of_a_crop_without_keypoints_says_so(monkeypatch):
    lines = texts(monkeypatch)
    mask_cell("a", BLUE, np.zeros((0, 2)), {"head": []}, {}, patches((0, 0)))
    assert lines[-1] == "no part is known here"


def test_what_is_drawn_and_no_part_has_a_colour_of_its_own():
    chosen = {"nose": patches((0, 0))}
    _, cell = mask_cell("a", BLUE, np.zeros((0, 2)), {"head": [(3, 0, 3, 0)]}, chosen, patches((0, 0)))
    head, nose = part_colours(["head", "nose"]).values()
    legend = cell[256:]
    assert (legend == head).all(-1).any()
    assert (legend == nose).all(-1).any()


def test_an_attention_cell_counts_from_the_upper_left_patch(monkeypatch):
    lines = texts(monkeypatch)
    attention = np.full(GRID, 0.02)
    attention[3, 1] = 0.86
    _, cell = attention_cell("a", BLUE, attention, (1, 0), 0.25, "left_wrist")
    assert lines[2:] == ["left_wrist: row 1, column 0", "most 0.860 at row 3, column 1", "class token had 0.250"]
    assert (cell[64, :64] == QUERY).all()  # patches of 8 x 8 pixels
    assert (cell[64, 132 : 132 + 64] == QUERY).all()


def test_small_crops_are_enlarged_by_whole_pixels_and_large_ones_left():
    assert pretrain.enlarged(np.zeros((128, 64, 3), np.uint8)).shape == (256, 128, 3)
    assert pretrain.enlarged(np.zeros((192, 96, 3), np.uint8)).shape == (192, 96, 3)
    assert pretrain.enlarged(np.zeros((384, 192, 3), np.uint8)).shape == (384, 192, 3)
    tiny = np.arange(2 * 1 * 3, dtype=np.uint8).reshape(2, 1, 3)
    assert (pretrain.enlarged(tiny)[::128] == tiny[:, :1].repeat(128, 1)).all()


def test_a_png_holds_the_pixels(tmp_path):
    sheet = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    write_picture(sheet, tmp_path / "new" / "sheet.png")
    assert (cv2.imread(str(tmp_path / "new" / "sheet.png"))[..., ::-1] == sheet).all()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["sheet.png"]
