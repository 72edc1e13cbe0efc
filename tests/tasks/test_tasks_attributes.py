import math

import numpy as np
import pytest
import torch

from unihap.structures import AttributesLabel, Batch, Dataset, Prediction, Record, Target
from unihap.tasks import Statistics, TaskOptions
from unihap.tasks.attributes import AttributesCriterion, attributes_task, decode, encode, statistics

RATIO = torch.tensor([0.25, 0.5, 0.0])


def dataset(rows):
    records = [
        Record(str(i), f"{i}.jpg", AttributesLabel(np.array(values, dtype=np.int8))) for i, values in enumerate(rows)
    ]
    return Dataset("toy", "attributes", records, ("hat", "bag", "coat"))


def test_the_loss_is_the_weighted_cross_entropy_summed_over_attributes_and_averaged_over_images():
    """UniHCP Eq. 9 and 10; every logit is 0, so every cross entropy is log 2 and the weights show."""
    target = Target(probability=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    terms = AttributesCriterion(RATIO, 1.0)([Prediction(logit=torch.zeros(2, 3))], target, 99.0)
    first = math.exp(0.75) + math.exp(0.5) + math.exp(0.0)  # present weighs exp(1 - ratio), absent exp(ratio)
    second = math.exp(0.25) + math.exp(0.5) + math.exp(0.0)
    assert terms["probability"].shape == (1,)
    assert terms["probability"].item() == pytest.approx(math.log(2) * (first + second) / 2, rel=1e-6)


def test_the_term_has_its_weight():
    target = Target(probability=torch.ones(1, 3))
    p = [Prediction(logit=torch.zeros(1, 3))]
    one, three = (AttributesCriterion(RATIO, weight)(p, target, 1.0)["probability"].item() for weight in (1.0, 3.0))
    assert three == pytest.approx(3 * one)


def test_unknown_labels_are_left_out_of_the_loss_but_not_of_the_number_of_images():
    logit = torch.zeros(2, 3, requires_grad=True)
    target = Target(probability=torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]]))
    loss = AttributesCriterion(RATIO, 1.0)([Prediction(logit=logit)], target, 1.0)["probability"].sum()
    assert loss.item() == pytest.approx(math.log(2) * math.exp(0.75) / 2, rel=1e-6)
    loss.backward()
    assert logit.grad.count_nonzero() == 1


def test_two_layers_are_refused_because_the_last_one_alone_is_supervised():
    p = Prediction(logit=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="too many values"):
        AttributesCriterion(RATIO, 1.0)([p, p], Target(probability=torch.ones(1, 3)), 1.0)


def test_positive_ratios_count_known_labels_alone():
    known = statistics(dataset([[1, 0, 0], [1, -1, 0], [0, 1, -1], [1, -1, -1]]))
    assert known.positive_ratio.tolist() == [0.75, 0.5, 0.0]  # 3 of 4, 1 of 2, never


def test_an_attribute_that_nobody_is_known_to_have_has_ratio_zero():
    assert statistics(dataset([[1, -1, 0]])).positive_ratio.tolist() == [1.0, 0.0, 0.0]


def test_an_attribute_that_is_never_positive_has_a_finite_loss():
    target = Target(probability=torch.zeros(2, 3))
    terms = AttributesCriterion(torch.zeros(3), 1.0)([Prediction(logit=torch.zeros(2, 3))], target, 1.0)
    assert terms["probability"].item() == pytest.approx(3 * math.log(2), rel=1e-6)


def test_ratios_are_checked_when_the_loss_is_made():
    task = attributes_task("toy", TaskOptions(loss_weights={"attributes": {"probability": 1.0}}), num_attributes=3)
    assert task.criterion(Statistics(positive_ratio=RATIO), 8).positive_ratio.tolist() == RATIO.tolist()
    with pytest.raises(ValueError, match=r"task toy needs 3 positive ratios, got \(2,\)"):
        task.criterion(Statistics(positive_ratio=torch.zeros(2)), 8)
    with pytest.raises(ValueError, match="task toy needs 3 positive ratios, got None"):
        task.criterion(Statistics(), 8)
    with pytest.raises(ValueError, match=r"must lie in 0 \.\.\. 1"):
        task.criterion(Statistics(positive_ratio=torch.tensor([0.0, 1.5, 0.0])), 8)


def test_labels_become_float_targets_and_unknown_stays_minus_one():
    fields = encode(AttributesLabel(np.array([1, 0, -1], dtype=np.int8)), (8, 8))
    assert fields["probability"].dtype == torch.float32
    assert fields["probability"].tolist() == [1.0, 0.0, -1.0]


def test_the_answer_is_the_sigmoid_of_the_logit():
    batch = Batch("toy", torch.zeros(2, 3, 2, 2), None, Target(), [], np.zeros((2, 2, 3)), [(2, 2)] * 2)
    results = decode(Prediction(logit=torch.tensor([[0.0, math.log(3.0)], [-math.log(3.0), 0.0]])), batch)
    np.testing.assert_allclose([r["probability"] for r in results], [[0.5, 0.75], [0.25, 0.5]], rtol=1e-6)


def test_a_batch_counts_as_one_item():
    task = attributes_task("toy", TaskOptions(), num_attributes=3)
    assert task.count_items(Target(probability=torch.zeros(5, 3))) == 1
