"""The probe on hand-made features, and the ridge regression in it against its normal equations."""

import numpy as np
import pytest
import torch

from unihap.data.catalog import load_dataset
from unihap.data.geometry import transform_points
from unihap.engine.ladder import Rung, markdown, spread, tabulate
from unihap.engine.probe import (
    METRICS,
    Poses,
    ProbeSets,
    attributes_probe,
    balanced_weights,
    blind_guess,
    keep_places,
    keypoints_probe,
    mean_max_pool,
    mean_pool,
    probe,
    reid_probe,
)
from unihap.engine.ridge import MIDDLE, STRENGTHS, choose_strength, fit_ridges
from unihap.models.encoder import Encoder
from unihap.structures import Dataset, Record, ReIDLabel

TORSO = (5, 12)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ------------------------------------------------------------------------------------------------- ridge


def normal_equations(features, targets, weights, strength):
    """Prediction map of one column by solving for weights and intercept together."""
    z = (features - features.mean(axis=0)) / features.std(axis=0)
    share = weights / weights.sum()
    design = np.column_stack([z, np.ones(len(z))])
    penalty = np.diag([*np.full(z.shape[1], strength * z.shape[1]), 0.0])
    solved = np.linalg.solve(design.T @ (share[:, None] * design) + penalty, design.T @ (share * targets))
    return solved[:-1], solved[-1]


@pytest.mark.parametrize("shape", [(30, 4), (8, 20)], ids=["more samples", "more features"])
def test_both_forms_solve_the_weighted_normal_equations(rng, shape):
    features, targets = rng.normal(3, 2, shape), rng.random((shape[0], 3))
    weights = rng.random((shape[0], 3))
    weights[1, 0] = 0
    for strength in (1e-3, 0.5):
        (fit,) = fit_ridges(features, targets, weights, [strength])
        for k in range(3):
            weight, bias = normal_equations(features, targets[:, k], weights[:, k], strength)
            assert fit.weight[:, k] == pytest.approx(weight, abs=1e-9)
            assert fit.bias[k] == pytest.approx(bias, abs=1e-9)


def test_one_feature_by_hand():
    """z = -1, 1; y = 0, 1: the slope minimises ((0.5 - v)^2) + s v^2, so v = 0.5 / (1 + s)."""
    fits = fit_ridges(np.array([[4.0], [8.0]]), np.array([[0.0], [1.0]]), np.ones((2, 1)), [1.0, 0.25])
    assert [fit.weight.item() for fit in fits] == pytest.approx([0.25, 0.4])
    assert fits[0](np.array([[4.0], [6.0], [8.0]])).ravel() == pytest.approx([0.25, 0.5, 0.75])


def test_what_weighs_nothing_is_not_looked_at(rng):
    features, targets, weights = rng.normal(size=(20, 3)), rng.random((20, 1)), np.ones((20, 1))
    weights[::4] = 0
    other = np.where(weights == 0, 1e6, targets)
    (a,), (b,) = (fit_ridges(features, t, weights, [0.01]) for t in (targets, other))
    assert np.array_equal(a.weight, b.weight)
    assert fit_ridges(features, targets, 0 * weights, [0.01])[0](features).ravel() == pytest.approx(MIDDLE)


def test_a_constant_feature_changes_nothing(rng):
    features, targets, weights = rng.normal(size=(20, 3)), rng.random((20, 1)), np.ones((20, 1))
    more = np.column_stack([features, np.full(20, 0.1, np.float32)])
    a, b = fit_ridges(features, targets, weights, [0.04])[0], fit_ridges(more, targets, weights, [0.03])[0]
    assert a(features) == pytest.approx(b(more))  # 0.04 * 3 = 0.03 * 4


def test_the_held_back_fifth_chooses_little_shrinkage_for_truth_and_much_for_noise(rng):
    features = rng.normal(size=(100, 30))
    truth, noise = features[:, :1] * 0.1 + 0.5, rng.random((100, 1))
    assert choose_strength(features, truth, np.ones((100, 1))) == STRENGTHS[0]
    assert choose_strength(features, noise, np.ones((100, 1))) >= 0.03
    misleading = truth.copy()
    misleading[80:] = 1 - misleading[80:]  # the last fifth contradicts the rest
    assert choose_strength(features, misleading, np.ones((100, 1))) == STRENGTHS[-1]


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="two training samples at least, got 1"):
        choose_strength(np.ones((1, 2)), np.ones((1, 1)), np.ones((1, 1)))


# -------------------------------------------------------------------------------------------------- ReID


def gallery_of(identities, cameras=(1, 2)):
    records = []
    for identity in range(identities):
        for camera in cameras:
            for role in ("query", "gallery"):
                label = ReIDLabel(identity=identity + 1, camera=camera, role=role)
                records.append(Record(f"{identity}_{camera}_{role}", "", label))
    return Dataset("people", "reid", records)


def test_one_direction_for_each_person_is_perfect_and_random_ones_are_chance(rng):
    dataset = gallery_of(40)
    sets = ProbeSets(dataset, (dataset, dataset), (dataset, dataset))
    identities = np.array([record.label.identity for record in sets.reid.records])
    lengths = rng.uniform(0.1, 10, (len(identities), 1))  # which must not matter
    assert reid_probe(np.eye(41)[identities] * lengths, dataset) == {"reid_mAP": 100, "reid_rank1": 100}
    random = [reid_probe(rng.normal(size=(len(identities), 16)), dataset)["reid_mAP"] for _ in range(5)]
    assert np.mean(random) == pytest.approx(6.3, abs=2)  # H_79 / 79 = 6.27 %: one match among 79 without junk


# -------------------------------------------------------------------------------------------- attributes


def test_features_that_hold_the_attributes_are_perfect_also_when_these_are_rare(rng):
    labels = (rng.random((300, 4)) < [0.5, 0.1, 0.9, 0.04]).astype(int)
    features = labels @ rng.normal(size=(4, 12)) + 5
    result = attributes_probe(features[:200], labels[:200], features[200:], labels[200:])
    assert result["attributes_mA"] == 100


def test_features_that_hold_nothing_are_chance(rng):
    labels = (rng.random((2000, 6)) < 0.2).astype(int)
    features = rng.normal(size=(2000, 8))
    result = attributes_probe(features[:1000], labels[:1000], features[1000:], labels[1000:])
    assert result["attributes_mA"] == pytest.approx(50, abs=3)


def test_present_and_absent_weigh_the_same_and_unknown_nothing():
    labels = np.array([[1, 0], [0, 0], [0, -1], [0, 0]])
    assert balanced_weights(labels) == pytest.approx(np.array([[1, 1 / 3], [1 / 3, 1 / 3], [1 / 3, 0], [1 / 3, 1 / 3]]))


# --------------------------------------------------------------------------------------------- keypoints


def people(rng, number):
    """People with a torso of 50 pixels or more, in crops of different places and sizes."""
    keypoints = np.concatenate([rng.uniform(0, 200, (number, 17, 2)), np.ones((number, 17, 1))], axis=-1)
    keypoints[:, TORSO[0], :2] = 50
    keypoints[:, TORSO[1], :2] = (80, 90)
    scales, shifts = rng.uniform(0.3, 2, number), rng.uniform(-30, 30, (number, 2))
    matrices = np.stack([np.column_stack([np.eye(2) * a, b]) for a, b in zip(scales, shifts, strict=True)])
    return Poses(keypoints, matrices, (128, 64))


def test_features_that_hold_the_places_are_perfect_whatever_unlabelled_keypoints_say(rng):
    train, test = people(rng, 200), people(rng, 50)
    mixing = rng.normal(size=(34, 60))
    features, test_features = train.fractions() @ mixing, test.fractions() @ mixing
    train.keypoints[:100, 3] = (1e5, 1e5, 0)
    result = keypoints_probe(features, train, test_features, test, TORSO)
    assert result["keypoints_PCK"] == 100


def test_features_that_hold_nothing_find_what_the_mean_pose_finds(rng):
    train, test = people(rng, 300), people(rng, 300)
    same = [Poses(p.keypoints, np.tile(np.eye(2, 3), (300, 1, 1)), p.size) for p in (train, test)]
    result = keypoints_probe(rng.normal(size=(300, 5)), same[0], rng.normal(size=(300, 5)), same[1], TORSO)
    # The torso's ends are where they always are; elsewhere a circle of 0.2 * 50 pixels in a square of 200.
    assert result["keypoints_PCK"] == pytest.approx(100 * (2 + 15 * np.pi * 100 / 200**2) / 17, abs=3)


def test_fractions_are_of_the_crop_and_go_back_to_the_source(rng):
    poses = people(rng, 4)
    by_hand = transform_points(poses.matrices[2], poses.keypoints[2, 7, :2]) / (64, 128)
    assert poses.fractions().reshape(4, 17, 2)[2, 7] == pytest.approx(by_hand)
    assert poses.to_source(poses.fractions()) == pytest.approx(poses.keypoints[..., :2])


# ---------------------------------------------------------------------------------------- from an encoder


def test_pools_by_hand():
    maps = torch.arange(12.0).view(1, 2, 3, 2)
    assert mean_pool(maps).tolist() == [[2.5, 8.5]]
    assert mean_max_pool(maps).tolist() == [[2.5, 8.5, 5.0, 11.0]]
    assert keep_places(maps).tolist() == [list(range(12))]


def test_an_encoder_is_probed_alike_twice_and_beside_a_blind_guess(toy_root):
    def load(name):
        return load_dataset(name, toy_root)

    sets = ProbeSets(
        load("market1501_test"),
        (load("pa100k_train"), load("pa100k_test")),
        (load("coco_keypoints_train"), load("coco_keypoints_val")),
    )
    torch.manual_seed(0)
    encoder = Encoder("vit_pico_patch16", (4, 2), drop_path=0.5).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    first, second = probe(encoder, sets, (64, 32)), probe(encoder, sets, (64, 32))
    assert first == second
    assert set(METRICS) <= set(first)
    assert all(0 <= first[metric] <= 100 for metric in METRICS)
    assert first["reid_mAP"] > 90  # every toy person has a colour of their own
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    blind = blind_guess(sets)
    assert list(blind) == list(METRICS)
    assert blind["attributes_mA"] == 50


# ------------------------------------------------------------------------------------------------ ladder


def rung(name, **by_seed):
    results = {
        int(seed[1:]): {"metrics": dict.fromkeys(METRICS, value), "checkpoint": "", "seconds": 1.0}
        for seed, value in by_seed.items()
    }
    return Rung(name, f"{name}.yaml", results)


def test_mean_and_deviation_over_seeds_and_steps_between_equal_seeds():
    """b - a is 2 and 4 on seeds 0 and 1; seed 2, which a lacks, counts for the mean of b alone."""
    table = tabulate([rung("a", s0=10.0, s1=20.0), rung("b", s0=12.0, s1=24.0, s2=36.0)], dict.fromkeys(METRICS, 5.0))
    a, b = table["rows"]
    assert a["metrics"]["reid_mAP"] == {"mean": 15.0, "std": pytest.approx(7.0710678), "num": 2}
    assert "difference" not in a
    assert b["metrics"]["reid_mAP"] == {"mean": 24.0, "std": 12.0, "num": 3}
    assert b["difference"]["reid_mAP"] == {"mean": 3.0, "std": pytest.approx(2**0.5), "num": 2}
    text = markdown(table)
    assert "| blind guess | | 5.0 | 5.0 | 5.0 |" in text
    assert "| b | 3 | 24.0 ± 12.0 |" in text
    assert "| a -> b | 2 | +3.0 ± 1.4 |" in text


def test_what_is_not_there_yet_has_no_number():
    assert spread([]) == {"mean": None, "std": None, "num": 0}
    assert spread([3.0]) == {"mean": 3.0, "std": None, "num": 1}
    text = markdown(tabulate([rung("a", s0=1.0), rung("b")], dict.fromkeys(METRICS, 5.0)))
    assert "| a | 1 | 1.0 | 1.0 | 1.0 |" in text
    assert "| b | 0 | - | - | - |" in text
    assert "| a -> b | 0 | - | - | - |" in text
