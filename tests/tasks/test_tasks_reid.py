import math
from functools import partial

import numpy as np
import pytest
import torch

from unihap.structures import Batch, Dataset, Prediction, Record, ReIDLabel, Supervision, Target, Unit
from unihap.tasks import Statistics, TaskOptions
from unihap.tasks.reid import ReIDCriterion, decode, merge, reid_task, statistics

make_task = partial(reid_task, "general_reid", train_datasets=(), test_datasets=())


def dataset(name, identities):
    records = [Record(f"r{i}", f"{i}.jpg", ReIDLabel(n, 1, "train")) for i, n in enumerate(identities)]
    return Dataset(name, "reid", records)


def identities(data):
    return [record.label.identity for record in data.records]


def prediction():
    """Four raw features on a line, and a normed one that the classifier reads."""
    return Prediction(
        feature=torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [3.0, 0.0]], requires_grad=True),
        normed_feature=torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 2.0]], requires_grad=True),
    )


IDENTITY = torch.tensor([0, 0, 1, 1])


def criterion(identity_weight=1.0, triplet_weight=1.0):
    made = ReIDCriterion(2, 2, identity_weight, triplet_weight)
    with torch.no_grad():
        made.classifier.weight.copy_(torch.eye(2))
    return made


def test_the_loss_is_cross_entropy_of_the_normed_feature_plus_triplet_of_the_raw_one():
    """UniHCP Eq. 8; the mean over images of each."""
    terms = criterion()([prediction()], Target(identity=IDENTITY), 1.0)
    # Logits are the normed feature itself: twice a margin of 1, twice one of 2.
    cross_entropy = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2
    # positive and negative distances: (1, 3), (1, 2), (0, 2), (0, 2)
    triplet = sum(math.log1p(math.exp(gap)) for gap in (1 - 3, 1 - 2, 0 - 2, 0 - 2)) / 4
    assert {name: term.shape for name, term in terms.items()} == {"identity": (1,), "triplet": (1,)}
    assert terms["identity"].item() == pytest.approx(cross_entropy, rel=1e-6)
    assert terms["triplet"].item() == pytest.approx(triplet, rel=1e-6)


def test_each_term_has_its_weight():
    plain = criterion()([prediction()], Target(identity=IDENTITY), 1.0)
    weighted = criterion(2.0, 0.5)([prediction()], Target(identity=IDENTITY), 1.0)
    assert weighted["identity"].item() == pytest.approx(2 * plain["identity"].item())
    assert weighted["triplet"].item() == pytest.approx(plain["triplet"].item() / 2)


def test_each_term_teaches_its_own_feature():
    p = prediction()
    criterion()([p], Target(identity=IDENTITY), 1.0)["identity"].sum().backward()
    assert p.normed_feature.grad.any()
    assert p.feature.grad is None


def test_two_layers_are_refused_because_the_last_one_alone_is_supervised():
    assert make_task(TaskOptions()).spec.supervision is Supervision.LAST
    with pytest.raises(ValueError, match="too many values"):
        criterion()([prediction(), prediction()], Target(identity=IDENTITY), 1.0)


def test_people_of_two_datasets_are_different_people():
    merged = merge([dataset("a", [7, 7, 9]), dataset("b", [7, 9, 9])])
    assert identities(merged) == [0, 0, 1, 2, 3, 3]
    assert merged.name == "a+b"
    assert statistics(merged).num_identities == 4


def test_ids_stay_unique_when_two_datasets_use_the_same_ones():
    merged = merge([dataset("a", [1, 2]), dataset("b", [1, 2])])
    assert [record.id for record in merged.records] == ["a/r0", "a/r1", "b/r0", "b/r1"]


def test_one_dataset_is_numbered_from_zero_without_gaps_and_keeps_its_ids():
    merged = merge([dataset("a", [12, 3, 12])])
    assert identities(merged) == [0, 1, 0]
    assert [record.id for record in merged.records] == ["r0", "r1", "r2"]


def test_an_identity_with_one_image_counts_and_has_a_finite_loss():
    merged = merge([dataset("a", [1, 1, 2])])
    assert statistics(merged).num_identities == 2
    p = prediction()
    terms = criterion()(
        [Prediction(feature=p.feature[:3], normed_feature=p.normed_feature[:3])],
        Target(identity=torch.tensor(identities(merged))),
        1.0,
    )
    # The lone image is its own positive at distance 0 (1e-6 by the clamp of the root).
    expected = sum(math.log1p(math.exp(gap)) for gap in (1 - 3, 1 - 2, 0 - 2)) / 3
    assert terms["triplet"].item() == pytest.approx(expected, rel=1e-5)


def test_merging_nothing_and_training_on_one_person_are_refused():
    with pytest.raises(ValueError, match="no training dataset given"):
        merge([])
    with pytest.raises(ValueError, match="at least 2 training identities, got 1"):
        ReIDCriterion(4, 1, 1.0, 1.0)


def test_the_classifier_has_a_row_per_identity_and_a_column_per_feature():
    options = TaskOptions(num_feature_queries=3, loss_weights={"reid": {"identity": 1.0, "triplet": 1.0}})
    made = make_task(options).criterion(Statistics(num_identities=5), 8)
    assert made.classifier.weight.shape == (5, 24)


def test_the_descriptor_is_the_raw_feature():
    batch = Batch("general_reid", torch.zeros(4, 3, 2, 2), None, Target(), [], np.zeros((4, 2, 3)), [(2, 2)] * 4)
    results = decode(Prediction(**{k: v.detach() for k, v in vars(prediction()).items() if v is not None}), batch)
    np.testing.assert_array_equal([r["feature"] for r in results], [[0, 0], [1, 0], [3, 0], [3, 0]])


def test_a_batch_counts_as_one_item_and_only_the_feature_unit_is_open():
    task = make_task(TaskOptions())
    assert task.count_items(Target(identity=IDENTITY)) == 1
    assert task.spec.units == {Unit.FEATURE}
    assert task.identity_batches
    assert task.unflip is None
