import math
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from unihap.data.images import BadImageError
from unihap.data.label_maps import LabelMapReader
from unihap.structures import Batch, Dataset, ParsingLabel, Prediction, Record, Supervision, Target
from unihap.tasks import Statistics, TaskOptions
from unihap.tasks.parsing import ParsingCriterion, decode, encode, parsing_task, statistics

POINTS = 16
make_criterion = partial(ParsingCriterion, num_points=POINTS, ignored_pixels="ignore")
OPTIONS = TaskOptions(loss_weights={"parsing": {"probability": 0.25, "mask": 5.0, "dice": 2.0}}, num_points=POINTS)
RATIO = torch.tensor([0.25, 0.5])


def full_of(*classes, size=8):
    """(B, H, W): every image is full of one class."""
    return torch.stack([torch.full((size, size), c, dtype=torch.uint8) for c in classes])


def layer(mask_logit, batch=1):
    return Prediction(logit=torch.zeros(batch, 2), heatmap=torch.full((batch, 2, 4, 4), mask_logit))


@pytest.fixture
def middle_points(monkeypatch):
    """Every mask is sampled in the middle of the image, where maps of one value have that value."""

    def middle(logit, image, category, num_points, **rest):
        return logit.new_full((len(image), num_points, 2), 0.5)

    monkeypatch.setattr("unihap.losses.masks.sample_points", middle)


@pytest.mark.usefixtures("middle_points")
def test_the_loss_is_the_presence_of_every_class_and_the_mask_of_every_present_one():
    """UniHCP Eq. 12 and 10: presence is a mean over B * Q, the absent class 0 has no mask."""
    terms = make_criterion(RATIO, 0.25, 5.0, 2.0)([layer(1.0)], Target(label_map=full_of(1)), 1.0)
    p = 1 / (1 + math.exp(-1.0))
    presence = math.log(2) * (math.exp(0.25) + math.exp(1 - 0.5)) / 2
    assert terms["probability"].item() == pytest.approx(0.25 * presence, rel=1e-6)
    assert terms["mask"].item() == pytest.approx(5 * -math.log(p), rel=1e-6)
    dice = 1 - (2 * POINTS * p + 1) / (POINTS * p + POINTS + 1)
    assert terms["dice"].item() == pytest.approx(2 * dice, rel=1e-5)


@pytest.mark.usefixtures("middle_points")
def test_masks_are_summed_and_divided_by_the_masks_of_a_batch_averaged_over_batches():
    target = Target(label_map=full_of(0, 1))
    one, four = (make_criterion(RATIO, 1.0, 1.0, 1.0)([layer(2.0, batch=2)], target, n) for n in (1.0, 4.0))
    assert one["mask"].item() == pytest.approx(2 * math.log1p(math.exp(-2.0)), rel=1e-5)
    assert four["mask"].item() == pytest.approx(one["mask"].item() / 4)
    assert four["dice"].item() == pytest.approx(one["dice"].item() / 4)
    assert four["probability"].item() == one["probability"].item()


@pytest.mark.usefixtures("middle_points")
def test_every_supervised_layer_has_a_value_of_its_own():
    layers = [layer(value) for value in (0.0, 1.0, -1.0)]
    terms = make_criterion(RATIO, 1.0, 1.0, 1.0)(layers, Target(label_map=full_of(1)), 1.0)
    assert terms["mask"].tolist() == pytest.approx([math.log1p(math.exp(-value)) for value in (0.0, 1.0, -1.0)])
    assert terms["dice"].shape == terms["probability"].shape == (3,)
    assert parsing_task("toy", OPTIONS, num_classes=2).spec.supervision is Supervision.LAYERS_AND_QUERIES


def test_an_image_whose_pixels_are_all_ignored_has_no_mask_and_no_present_class():
    p = layer(1.0)
    p.heatmap.requires_grad_()
    terms = make_criterion(RATIO, 1.0, 1.0, 1.0)([p], Target(label_map=full_of(255)), 1.0)
    assert (terms["mask"].item(), terms["dice"].item()) == (0.0, 0.0)
    assert terms["probability"].item() == pytest.approx(math.log(2) * (math.exp(0.25) + math.exp(0.5)) / 2, rel=1e-6)


def dataset(folder, *maps):
    records = []
    for i, label_map in enumerate(maps):
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), np.array(label_map, dtype=np.uint8))
        records.append(Record(str(i), "", ParsingLabel(str(path))))
    return Dataset("toy", "parsing", records, ("a", "b", "c"), read_label_map=LabelMapReader((0, 1, 2)))


def test_positive_ratios_are_the_share_of_images_in_which_a_class_occurs(tmp_path):
    data = dataset(tmp_path, [[0, 0], [1, 255]], [[0, 0], [0, 0]], [[0, 1], [1, 1]], [[1, 1], [1, 255]])
    assert statistics(data).positive_ratio.tolist() == [0.75, 0.75, 0.0]


def test_a_label_map_that_cannot_be_used_is_refused_or_left_out(tmp_path):
    data = dataset(tmp_path, [[0, 0]], [[0, 7]], [[1, 1]])
    with pytest.raises(BadImageError, match=r"1\.png holds the value 7, but the classes are 0-2"):
        statistics(data)
    assert statistics(data, on_bad_image="skip").positive_ratio.tolist() == [0.5, 0.5, 0.0]


def test_leaving_out_every_label_map_is_refused(tmp_path):
    with pytest.raises(BadImageError, match="holds the value 9"):
        statistics(dataset(tmp_path, [[7, 7]], [[9, 9]]), on_bad_image="skip")


def test_items_are_the_classes_present_in_every_image():
    label_map = full_of(0, 1, 255)
    label_map[0, 0, 0] = 1
    label_map[2, 0, 0] = 1
    assert parsing_task("toy", OPTIONS, num_classes=2).count_items(Target(label_map=label_map)) == 2 + 1 + 1


def test_the_target_is_the_label_map_itself():
    label_map = np.array([[0, 1], [255, 1]], dtype=np.uint8)[:, ::-1]
    assert encode(ParsingLabel("", label_map), (2, 2))["label_map"].tolist() == label_map.tolist()


def batch_of(*source_sizes, input_size=(8, 8)):
    number = len(source_sizes)
    images = torch.zeros(number, 3, *input_size, dtype=torch.uint8)
    return Batch("toy", images, None, Target(), [], np.zeros((number, 2, 3)), list(source_sizes))


def test_the_class_of_a_pixel_is_the_largest_product_of_mask_and_class_probability():
    """Class 1 has the surer mask (0.9 over 0.8), class 0 the likelier presence: 0.8 * 0.9 > 0.9 * 0.5."""
    heatmap = torch.logit(torch.tensor([0.8, 0.9]))[:, None, None].expand(2, 2, 2)[None]
    unsure, sure = (torch.logit(torch.tensor([[0.9, q]])) for q in (0.5, 0.9))
    for logit, winner in ((unsure, 0), (sure, 1)):
        (result,) = decode(Prediction(logit=logit, heatmap=heatmap), batch_of((5, 3)))
        assert result["label_map"].dtype == np.uint8
        assert result["label_map"].tolist() == [[winner] * 3] * 5


def test_label_maps_come_at_the_size_of_their_source_images():
    heatmap = torch.full((2, 2, 2, 2), -9.0)
    heatmap[:, 0, :, 0], heatmap[:, 1, :, 1] = 9.0, 9.0  # class 0 left, class 1 right
    results = decode(Prediction(logit=torch.zeros(2, 2), heatmap=heatmap), batch_of((4, 6), (10, 2)))
    assert results[0]["label_map"].tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert results[1]["label_map"].tolist() == [[0, 1]] * 10


def test_the_loss_is_made_from_options_and_ratios():
    criterion = parsing_task("toy", OPTIONS, num_classes=2).criterion(Statistics(positive_ratio=RATIO), 8)
    assert (criterion.probability_weight, criterion.mask_weight, criterion.dice_weight) == (0.25, 5.0, 2.0)
    assert (criterion.num_points, criterion.ignored_pixels) == (POINTS, "ignore")
