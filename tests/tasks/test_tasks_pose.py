import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from unihap.data.geometry import transform_points
from unihap.data.skeletons import SKELETONS
from unihap.structures import Batch, Dataset, PoseLabel, Prediction, Record, Supervision, Target
from unihap.tasks import TaskOptions
from unihap.tasks.pose import PoseCriterion, pose_task, statistics

OPTIONS = TaskOptions(loss_weights={"pose": {"heatmap": 1.0, "probability": 1.0}})
TASK = pose_task("coco_pose", OPTIONS, skeleton="coco")
BOX = np.array([0.0, 0, 10, 10])


def target(truth=1.0):
    """One image, two keypoints of 1 x 2 cells; the first is labelled."""
    return Target(heatmap=torch.full((1, 2, 1, 2), truth), heatmap_weight=torch.tensor([[1.0, 0.0]]))


def test_the_loss_of_a_layer_is_the_masked_squared_error_plus_the_weighted_presence():
    """UniHCP Eq. 11 and 10: means over all keypoints, of which an unlabelled one has no heatmap error."""
    p = Prediction(logit=torch.zeros(1, 2), heatmap=torch.tensor([[[[0.0, 3.0]], [[9.0, 9.0]]]]))
    terms = PoseCriterion(torch.tensor([0.5, 0.25]), 1.0, 1.0)([p], target(), 99.0)
    assert terms["heatmap"].tolist() == pytest.approx([((0 - 1) ** 2 + (3 - 1) ** 2) / 2 / 2])
    # present weighs exp(1 - 0.5), absent exp(0.25); the cross entropy of a logit of 0 is log 2
    assert terms["probability"].item() == pytest.approx(math.log(2) * (math.exp(0.5) + math.exp(0.25)) / 2, rel=1e-6)


def test_every_supervised_layer_has_a_value_of_its_own_and_each_term_its_weight():
    layers = [Prediction(logit=torch.zeros(1, 2), heatmap=torch.full((1, 2, 1, 2), value)) for value in (1.0, 3.0, 2.0)]
    terms = PoseCriterion(torch.tensor([0.5, 0.5]), 10.0, 0.001)(layers, target(), 1.0)
    assert terms["heatmap"].tolist() == pytest.approx([0.0, 10 * 4 / 2, 10 * 1 / 2])
    assert terms["probability"].tolist() == pytest.approx([0.001 * math.log(2) * math.exp(0.5)] * 3, rel=1e-5)
    assert TASK.spec.supervision is Supervision.LAYERS_AND_QUERIES


def test_positive_ratios_are_the_share_of_people_whose_keypoint_is_labelled():
    def person(*visible):
        return Record(str(visible), "", PoseLabel(np.array([[5.0, 5.0, v] for v in visible]), BOX, 1))

    data = Dataset("toy", "pose", [person(1, 0, 2), person(1, 0, 0)], ("a", "b", "c"))
    assert statistics(data).positive_ratio.tolist() == [1.0, 0.0, 0.5]


def test_a_keypoint_outside_the_crop_is_absent():
    keypoints = np.zeros((17, 3))
    keypoints[0], keypoints[1] = (50, 60, 1), (-200, 60, 1)
    fields = TASK.encode(PoseLabel(keypoints, BOX, 1), (256, 192))
    assert fields["heatmap_weight"].tolist() == [1.0] + [0.0] * 16
    assert fields["heatmap"].shape == (17, 64, 48)


def test_encoding_and_decoding_through_a_crop_returns_the_keypoints_in_source_pixels():
    rng = np.random.default_rng(0)
    matrices = np.array([[[0.5, 0.0, -30.0], [0.0, 0.5, 12.0]], [[1.6, 0.2, 4.0], [-0.2, 1.6, 20.0]]])
    inputs = rng.uniform((50, 50), (142, 206), (2, 17, 2))  # far from the border, where decoding is exact
    inverse = [np.linalg.inv(np.vstack([m, [0, 0, 1]]))[:2] for m in matrices]
    source = np.stack([transform_points(m, xy) for m, xy in zip(inverse, inputs, strict=True)])
    fields = [TASK.encode(PoseLabel(np.insert(xy, 2, 1, axis=1), BOX, 1), (256, 192)) for xy in inputs]
    heatmap = torch.stack([f["heatmap"] for f in fields])
    records = [Record(str(i), "", PoseLabel(np.zeros((17, 3)), BOX, 1)) for i in range(2)]
    batch = Batch("coco_pose", torch.zeros(2, 3, 256, 192), None, Target(), records, matrices, [(400, 400)] * 2)
    results = TASK.decode(Prediction(logit=torch.zeros(2, 17), heatmap=heatmap), batch)
    for result, xy, zoom in zip(results, source, (0.5, 1.6), strict=True):
        np.testing.assert_allclose(result["keypoints"][:, :2], xy, atol=0.1 / zoom)
        np.testing.assert_array_equal(result["probability"], np.full(17, 0.5, dtype=np.float32))
    peaks = heatmap.amax(dim=(2, 3)).numpy()
    np.testing.assert_array_equal([r["keypoints"][:, 2] for r in results], peaks)


def test_unflipping_twice_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    p = Prediction(logit=torch.rand(2, 17, generator=generator), heatmap=torch.rand(2, 17, 4, 3, generator=generator))
    twice = TASK.unflip(TASK.unflip(p))
    assert torch.equal(twice.logit, p.logit)
    assert torch.equal(twice.heatmap, p.heatmap)


def test_unflipping_reverses_columns_and_exchanges_left_and_right():
    heatmap, logit = torch.zeros(1, 17, 2, 3), torch.zeros(1, 17)
    names = SKELETONS["coco"].names
    left, right, nose = names.index("left_wrist"), names.index("right_wrist"), names.index("nose")
    heatmap[0, left, 1, 0], logit[0, left] = 5.0, 2.0
    heatmap[0, nose, 0, 2], logit[0, nose] = 7.0, 3.0
    turned = TASK.unflip(Prediction(logit=logit, heatmap=heatmap))
    assert turned.heatmap[0, right, 1, 2] == 5.0
    assert turned.heatmap[0, nose, 0, 0] == 7.0
    assert turned.heatmap.sum() == 12.0
    assert (turned.logit[0, right], turned.logit[0, left], turned.logit[0, nose]) == (2.0, 0.0, 3.0)


def test_the_mirrored_prediction_of_a_mirrored_person_is_that_of_the_person():
    keypoints = np.column_stack([np.linspace(40, 150, 17), np.linspace(60, 200, 17), np.ones(17)])
    mirrored = keypoints.copy()
    mirrored[:, 0] = 191 - mirrored[:, 0]
    order = np.arange(17)
    for left, right in SKELETONS["coco"].mirror:
        order[[left, right]] = right, left
    plain, flipped = (
        TASK.encode(PoseLabel(k, BOX, 1), (256, 192))["heatmap"][None] for k in (keypoints, mirrored[order])
    )
    turned = TASK.unflip(Prediction(logit=torch.zeros(1, 17), heatmap=flipped))
    torch.testing.assert_close(turned.heatmap, plain, atol=1e-5, rtol=0)


def test_the_map_has_four_cells_along_every_patch():
    small = pose_task("coco_pose", replace(OPTIONS, input_size=(32, 24), patch_size=8), skeleton="coco")
    assert small.encode(PoseLabel(np.zeros((17, 3)), BOX, 1), (32, 24))["heatmap"].shape == (17, 16, 12)
    with pytest.raises(ValueError, match=r"INPUT_SIZE \[40, 24\] is not whole patches of 16 pixels"):
        pose_task("coco_pose", replace(OPTIONS, input_size=(40, 24)), skeleton="coco")


def test_a_batch_counts_as_one_item_and_the_map_has_stride_four():
    assert TASK.count_items(target()) == 1
    small = pose_task("coco_pose", replace(OPTIONS, input_size=(64, 48)), skeleton="coco")
    assert small.encode(PoseLabel(np.zeros((17, 3)), BOX, 1), (64, 48))["heatmap"].shape == (17, 16, 12)


@pytest.mark.parametrize("size", [(64,), (64, 0), (1, 2, 3)])
def test_an_input_size_that_is_not_two_positive_numbers_is_refused(size):
    with pytest.raises(ValueError, match="INPUT_SIZE must be two positive numbers"):
        pose_task("coco_pose", replace(OPTIONS, input_size=size), skeleton="coco")
