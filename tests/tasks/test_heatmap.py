import math

import numpy as np
import pytest
import torch

from unihap.tasks.heatmap import HeatmapCodec

SIZES = [((256, 192), (64, 48)), ((384, 288), (96, 72))]
CODEC = HeatmapCodec(*SIZES[0])
STRIDE_X, STRIDE_Y = 191 / 47, 255 / 63


def in_cells(*joints):
    """(K, 3) visible keypoints whose positions are given in cells of ``CODEC``."""
    return np.array([[x * STRIDE_X, y * STRIDE_Y, 1.0] for x, y in joints])


@pytest.mark.parametrize("sizes", SIZES)
def test_decoding_an_encoding_returns_the_keypoints(sizes):
    codec = HeatmapCodec(*sizes)
    height, width = sizes[0]
    random = np.random.default_rng(0)
    margin = 11 * 4  # the Gaussian (6 cells) and the blur (5) must not meet the border
    xy = random.uniform((margin, margin), (width - margin, height - margin), (50, 2))
    heatmap, weight = codec.encode(np.column_stack([xy, np.ones(50)]))
    points, peak = codec.decode(heatmap[None])
    assert weight.tolist() == [1.0] * 50
    np.testing.assert_allclose(points[0].numpy(), xy, atol=0.1)
    assert (peak > 0.93).all()  # half a cell off in x and y: exp(-0.5 / 8)


def test_the_corners_of_map_and_input_coincide():
    heatmap, _ = CODEC.encode(np.array([[0.0, 0, 1], [191, 255, 1]]))
    assert heatmap[0, 0, 0] == 1
    assert heatmap[1, 63, 47] == 1


def test_hand_computed_values_around_a_centre_between_cells():
    heatmap, weight = CODEC.encode(in_cells((20.25, 30.5)))
    assert weight.tolist() == [1.0]
    assert heatmap[0, 30, 20].item() == pytest.approx(math.exp(-(0.25**2 + 0.5**2) / 8))
    assert heatmap[0, 33, 18].item() == pytest.approx(math.exp(-(2.25**2 + 2.5**2) / 8))


def test_the_gaussian_ends_six_cells_from_the_nearest_cell():
    heatmap, _ = CODEC.encode(in_cells((20.25, 30.0)))
    rows, columns = heatmap[0].nonzero().T
    assert (rows.min().item(), rows.max().item()) == (24, 36)
    assert (columns.min().item(), columns.max().item()) == (14, 26)


@pytest.mark.parametrize(
    ("joint", "weight"),
    [((-7.4, 30), 1), ((-7.6, 30), 0), ((53.4, 30), 1), ((53.6, 30), 0), ((20, 69), 1), ((20, 70), 0)],
)
def test_a_joint_counts_while_its_patch_touches_the_map(joint, weight):
    heatmap, actual = CODEC.encode(in_cells(joint))
    assert actual.item() == weight
    assert bool(heatmap.any()) == bool(weight)


def test_an_unlabelled_joint_has_no_target_even_without_a_position():
    heatmap, weight = CODEC.encode(np.array([[np.nan, np.nan, 0], [50, 50, 0]]))
    assert weight.tolist() == [0, 0]
    assert not heatmap.any()


def test_a_labelled_joint_without_a_position_is_refused():
    with pytest.raises(ValueError, match=r"keypoints \[1\] is not finite"):
        CODEC.encode(np.array([[50, 50, 1], [np.nan, 3, 1]]))


def test_targets_are_float32_tensors_of_the_size_of_the_map_also_without_joints():
    heatmap, weight = CODEC.encode(np.zeros((0, 3)))
    assert (heatmap.shape, weight.shape) == ((0, 64, 48), (0,))
    assert heatmap.dtype == weight.dtype == torch.float32


def test_decoding_is_independent_of_height_and_of_the_other_maps():
    heatmap, _ = CODEC.encode(in_cells((20.3, 30.6), (10.2, 50.9)))
    scaled = torch.stack([heatmap, 0.5 * heatmap.flip(0)])
    points, peak = CODEC.decode(scaled)
    torch.testing.assert_close(points[1], points[0].flip(0), atol=0.02, rtol=0)
    torch.testing.assert_close(peak[1], 0.5 * peak[0].flip(0))


def test_the_peak_is_the_raw_maximum():
    heatmap = torch.zeros(1, 1, 64, 48)
    heatmap[0, 0, 30, 20] = 3.5
    points, peak = CODEC.decode(heatmap)
    assert peak.item() == 3.5
    torch.testing.assert_close(points[0, 0], torch.tensor([20 * STRIDE_X, 30 * STRIDE_Y]))


def decode_one(heatmap):
    """The published procedure for one map, cell by cell, in cells."""
    height, width = heatmap.shape
    kernel = np.exp(-(np.arange(-5, 6) ** 2) / 8)
    kernel /= kernel.sum()
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    continued = np.pad(heatmap, 5, mode="reflect")

    def value(x, y):
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        blurred = kernel @ continued[y : y + 11, x : x + 11] @ kernel
        return math.log(min(max(blurred, 1e-3), 50))

    v = {(i, j): value(column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    gradient = np.array([v[1, 0] - v[-1, 0], v[0, 1] - v[0, -1]]) / 2
    mixed = (v[1, 1] - v[1, 0] - v[0, 1] + 2 * v[0, 0] - v[-1, 0] - v[0, -1] + v[-1, -1]) / 2
    hessian = np.array([[v[1, 0] - 2 * v[0, 0] + v[-1, 0], mixed], [mixed, v[0, 1] - 2 * v[0, 0] + v[0, -1]]])
    return np.array([column, row]) - np.linalg.solve(hessian, gradient)


@pytest.mark.parametrize(
    ("centre", "height"),
    [
        ((20.3, 30.6), 1),
        ((20.3, 30.6), 85),  # the blurred maximum, and nothing else, is above the limit of 50
        ((0.4, 0.7), 1),
        ((46.8, 62.3), 1),
        ((2.2, 61.5), 1),
        ((45.6, 10.1), 1),
    ],
)
def test_one_newton_step_on_the_logarithm_of_the_blurred_map_also_at_the_border(centre, height):
    # a slanted Gaussian with a second, lower one beside it
    y, x = np.mgrid[:64, :48] - np.array([centre[1], centre[0]])[:, None, None]
    heatmap = np.exp(-(x**2 + y**2 + x * y) / 8) + 0.3 * np.exp(-((x - 3) ** 2 + (y + 2) ** 2) / 8)
    heatmap *= height
    points, _ = CODEC.decode(torch.from_numpy(heatmap)[None, None])
    expected = decode_one(heatmap) * (STRIDE_X, STRIDE_Y)
    np.testing.assert_allclose(points[0, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, -1.0, 1.0, 1e6])
def test_a_flat_map_gives_its_first_cell(value):
    points, peak = CODEC.decode(torch.full((1, 1, 64, 48), value))
    assert points.flatten().tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert peak.item() == value


def test_a_ridge_gives_its_first_cell():
    # every row is the same Gaussian: the Hessian is singular
    row = torch.exp(-((torch.arange(48) - 20.3) ** 2) / 8)
    points, _ = CODEC.decode(row.expand(1, 1, 64, 48))
    assert points[0, 0].tolist() == pytest.approx([20 * STRIDE_X, 0.0])


def test_noise_never_sends_a_point_farther_than_the_blur_reaches():
    heatmap = torch.randn(4, 50, 64, 48, generator=torch.Generator().manual_seed(0))
    points, peak = CODEC.decode(heatmap)
    index = heatmap.flatten(2).argmax(dim=2)
    cell = torch.stack([index % 48 * STRIDE_X, index // 48 * STRIDE_Y], dim=2)
    assert points.isfinite().all()
    assert (points - cell).abs().max() <= 5 * STRIDE_X + 1e-3
    assert torch.equal(peak, heatmap.amax(dim=(2, 3)))


def test_half_precision_maps_are_decoded_in_float32():
    heatmap, _ = CODEC.encode(in_cells((20.3, 30.6)))
    points, peak = CODEC.decode(heatmap[None].bfloat16())
    assert points.dtype == peak.dtype == torch.float32
    assert points[0, 0].tolist() == pytest.approx([20.3 * STRIDE_X, 30.6 * STRIDE_Y], abs=0.5)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"must be \(B, K, 64, 48\), got \(1, 2, 48, 64\)"):
        CODEC.decode(torch.zeros(1, 2, 48, 64))


def test_keypoints_without_visibility_are_refused():
    with pytest.raises(ValueError, match=r"\(K, 3\)"):
        CODEC.encode(np.zeros((17, 2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(((256, 192), (64, 1)), "at least 2"), (((256, 192), (64, 48), 0.0), "sigma must be positive")],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeatmapCodec(*arguments)


def test_targets_of_the_original(golden):
    arrays = np.load(golden / "unihcp" / "pose.npz")
    for b in range(2):
        keypoints = arrays["target_keypoints"][b].copy()
        keypoints[:, 2] = arrays["target_visible"][b]
        heatmap, weight = CODEC.encode(keypoints)
        np.testing.assert_array_equal(weight, arrays["target_weight"][b, :, 0])
        np.testing.assert_allclose(heatmap[:, ::4, ::4], arrays["target_heatmap_every4"][b], atol=1e-6)
        np.testing.assert_allclose(heatmap.sum(dim=(1, 2)), arrays["target_heatmap_sum"][b], rtol=1e-5)
