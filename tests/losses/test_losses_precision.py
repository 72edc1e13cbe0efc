import pytest
import torch

from unihap.losses.boxes import intersection_over_own_area
from unihap.losses.detection import detection_losses
from unihap.losses.heatmap import heatmap_mse
from unihap.losses.masks import point_mask_losses
from unihap.losses.probability import weighted_bce
from unihap.losses.triplet import soft_margin_triplet


def every_loss(dtype):
    """Every loss of arguments of one type, by name."""
    draw = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.rand(shape, generator=draw).bfloat16().to(dtype)  # the same numbers in every type

    box = random(1, 3, 4)
    labels = torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8)
    points = torch.Generator().manual_seed(0)
    mask, dice = point_mask_losses(random(1, 2, 3, 3), labels, num_masks=1.0, num_points=20000, generator=points)
    detection = detection_losses(random(1, 3), box, [random(2, 4)], [random(1, 4)], num_boxes=2.0)
    return {
        "probability": weighted_bce(random(2, 3), random(2, 3).round(), random(3)),
        "triplet": soft_margin_triplet(random(4, 8), torch.tensor([0, 0, 1, 1])),
        "heatmap": heatmap_mse(random(2, 3, 4, 4), random(2, 3, 4, 4), random(2, 3)),
        "share": intersection_over_own_area(random(2, 4), random(3, 4)),
        "mask": mask,
        "dice": dice,
        **detection,
    }


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_raised_to_float32_inside_and_outside_autocast(dtype, autocast):
    exact = every_loss(torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = every_loss(dtype)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32, name
        tolerance = 0.02 if name in ("mask", "dice") else 1e-5  # points are drawn in the type of the logits
        torch.testing.assert_close(loss.double(), exact[name], rtol=tolerance, atol=1e-6, msg=name)


def test_float64_is_kept():
    assert {loss.dtype for loss in every_loss(torch.float64).values()} == {torch.float64}
