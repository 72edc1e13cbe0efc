import math

import numpy as np
import pytest
import torch

from unihap.data.loader import collate
from unihap.structures import Batch, Dataset, DetectionLabel, Prediction, Record, Sample, Supervision, Target
from unihap.tasks import TaskOptions
from unihap.tasks.detection import DetectionCriterion, decode, detection_task, encode

OPTIONS = TaskOptions(loss_weights={"detection": {"class": 2.0, "l1": 5.0, "giou": 3.0}}, num_patterns=2, num_anchors=3)
TASK = detection_task("pedestrian_detection", OPTIONS, train_datasets=(), test_datasets=())
NOBODY = torch.zeros(0, 4)


def prediction():
    """Two queries with logit 0: one box near the person of ``target``, one far away."""
    return Prediction(
        logit=torch.zeros(1, 2, requires_grad=True),
        box=torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]]], requires_grad=True),
    )


def target(*people, ignore=NOBODY):
    return Target(box=[torch.tensor(people).reshape(-1, 4)], ignore_box=[ignore])


def test_the_loss_of_a_layer_is_focal_l1_and_giou_of_the_matched_boxes():
    terms = DetectionCriterion(2.0, 5.0, 3.0)([prediction()], target([0.4, 0.3, 0.2, 0.2]), 1.0)
    # A positive of logit 0 has 0.25 * 0.5^2 * log 2, a negative 0.75 * 0.5^2 * log 2.
    assert terms["class"].item() == pytest.approx(2 * math.log(2) / 4, rel=1e-6)
    assert terms["l1"].item() == pytest.approx(5 * 0.1, rel=1e-5)
    # Overlap 0.1 x 0.2 of a union of 0.3 x 0.2, which is its own enclosure: GIoU = IoU = 1/3
    assert terms["giou"].item() == pytest.approx(3 * (1 - 1 / 3), rel=1e-4)


def test_all_terms_are_divided_by_the_number_of_people():
    one, four = (DetectionCriterion(2.0, 5.0, 3.0)([prediction()], target([0.4, 0.3, 0.2, 0.2]), n) for n in (1, 4))
    for term in ("class", "l1", "giou"):
        assert four[term].item() == pytest.approx(one[term].item() / 4)


def test_every_layer_is_matched_and_counted_on_its_own():
    near, far = prediction(), prediction()
    far.box = torch.tensor([[[0.4, 0.3, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2]]])
    terms = DetectionCriterion(1.0, 1.0, 1.0)([near, far, near], target([0.4, 0.3, 0.2, 0.2]), 1.0)
    assert terms["l1"].tolist() == pytest.approx([0.1, 0.0, 0.1], abs=1e-6)
    assert terms["class"].shape == terms["giou"].shape == (3,)
    assert TASK.spec.supervision is Supervision.LAYERS


def test_an_image_without_people_has_a_finite_loss_that_only_teaches_the_class():
    p = prediction()
    terms = DetectionCriterion(2.0, 5.0, 3.0)([p], target(), 1.0)
    assert terms["class"].item() == pytest.approx(2 * 2 * 0.75 * math.log(2) / 4, rel=1e-6)
    assert (terms["l1"].item(), terms["giou"].item()) == (0.0, 0.0)
    torch.stack([term.sum() for term in terms.values()]).sum().backward()
    assert (p.logit.grad > 0).all()
    assert p.box.grad is None or not p.box.grad.any()


def test_a_query_inside_an_ignored_region_is_no_mistake():
    region = torch.tensor([[0.8, 0.8, 0.4, 0.4]])
    terms = DetectionCriterion(1.0, 1.0, 1.0)([prediction()], target(ignore=region), 1.0)
    assert terms["class"].item() == pytest.approx(0.75 * math.log(2) / 4, rel=1e-6)


def test_items_are_people():
    people = [torch.zeros(3, 4), NOBODY, torch.zeros(1, 4)]
    assert TASK.count_items(Target(box=people, ignore_box=[NOBODY] * 3)) == 4


def sample(number, height, width, boxes):
    label = DetectionLabel(np.array(boxes, dtype=np.float64).reshape(-1, 4), np.zeros((0, 4)))
    return Sample(
        record=Record(str(number), "", label),
        image=torch.zeros(3, height, width, dtype=torch.uint8),
        target=encode(label, (height, width)),
        matrix=np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5]]),  # twice as large: pixel 0 goes to 0.5
        source_size=(height // 2, width // 2),
    )


def test_boxes_become_fractions_of_the_padded_input_and_come_back_in_source_pixels():
    batch = collate("pedestrian_detection", [sample(0, 20, 40, [10, 4, 30, 16]), sample(1, 30, 24, [])], 16)
    assert batch.images.shape == (2, 3, 32, 48)
    torch.testing.assert_close(batch.target.box[0], torch.tensor([[20 / 48, 10 / 32, 20 / 48, 12 / 32]]))
    assert batch.target.box[1].shape == batch.target.ignore_box[0].shape == (0, 4)
    box = torch.stack([batch.target.box[0], torch.tensor([[0.5, 0.5, 1.0, 1.0]])])
    results = decode(Prediction(logit=torch.zeros(2, 1), box=box), batch)
    np.testing.assert_allclose(results[0]["boxes"], [[5, 2, 15, 8]], atol=1e-5)
    np.testing.assert_allclose(results[1]["boxes"], [[0, 0, 24, 16]], atol=1e-5)
    assert [result["size"] for result in results] == [(10, 20), (15, 12)]


def test_an_input_that_is_no_whole_number_of_patches_was_padded_inside_the_model():
    record = Record("0", "", DetectionLabel(np.zeros((0, 4)), np.zeros((0, 4))))
    images = torch.zeros(1, 3, 33, 16, dtype=torch.uint8)  # the model sees 48 x 16
    matrix = np.array([[[1.0, 0, 0], [0, 1, 0]]])
    batch = Batch("pedestrian_detection", images, None, Target(), [record], matrix, [(33, 16)])
    (result,) = decode(Prediction(logit=torch.zeros(1, 1), box=torch.tensor([[[0.5, 0.5, 0.5, 0.5]]])), batch)
    np.testing.assert_allclose(result["boxes"], [[4, 12, 12, 36]], atol=1e-6)
    prediction = Prediction(logit=torch.zeros(1, 1), box=torch.tensor([[[0.5, 0.5, 0.5, 0.5]]]))
    (result,) = decode(prediction, batch, patch_size=8)  # patches of 8: the model sees 40 x 16
    np.testing.assert_allclose(result["boxes"], [[4, 10, 12, 30]], atol=1e-6)


def test_boxes_come_best_first_with_their_scores():
    record = Record("0", "", DetectionLabel(np.zeros((0, 4)), np.zeros((0, 4))))
    matrix = np.array([[[1.0, 0, 0], [0, 1, 0]]])
    batch = Batch("pedestrian_detection", torch.zeros(1, 3, 16, 16), None, Target(), [record], matrix, [(16, 16)])
    box = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0], [0.75, 0.5, 0.5, 1.0]]])
    (result,) = decode(Prediction(logit=torch.tensor([[0.0, -math.log(3), math.log(3)]]), box=box), batch)
    np.testing.assert_allclose(result["scores"], [0.75, 0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(result["boxes"][:, 0], [8, 0, 0], atol=1e-6)
    np.testing.assert_allclose(result["boxes"][:, 2], [16, 8, 16], atol=1e-6)


def test_the_lowest_score_that_counts_is_an_option():
    result = {"boxes": np.array([[0.0, 0, 4, 4], [0, 0, 2, 2]]), "scores": np.array([0.5, 0.04]), "size": (8, 8)}
    record = Record("0", "", DetectionLabel(np.array([[0.0, 0, 4, 4]]), np.zeros((0, 4))))
    data = Dataset("toy", "detection", [record], ("person",))
    assert len(TASK.evaluator.row(result, record, data)["dtboxes"]) == 1


def test_statistics_are_not_needed():
    known = TASK.statistics(Dataset("toy", "detection", []))
    assert known.positive_ratio is None
    assert TASK.criterion(known, 8).weights == {"class": 2.0, "l1": 5.0, "giou": 3.0}
