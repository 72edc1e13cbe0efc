import json
from pathlib import Path

import numpy as np
import pytest

from unihap.evaluation import reid
from unihap.evaluation.reid import ranking_metrics
from unihap.evaluation.reid_rerank import reranked_distances
from unihap.structures import Dataset, Record, ReIDLabel

A, B = 1, 2  # two people


def retrieve(*gallery: tuple[int, int], angles: tuple[float, ...] | None = None) -> dict[str, float]:
    """One query of person A from camera 0; ``gallery`` lists (person, camera), nearest first unless angles say so."""
    ids, cameras = np.array(gallery).T
    angle = np.radians(np.arange(1, len(gallery) + 1) if angles is None else angles)
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return ranking_metrics(np.array([[2.0, 0.0]]), [A], [0], 3 * features, ids, cameras)


def dataset(*labels: tuple[int, int, str]) -> Dataset:
    records = [Record(str(i), f"{i}.jpg", ReIDLabel(*label)) for i, label in enumerate(labels)]
    return Dataset("toy_test", "reid", records)


def rows(data: Dataset, features: np.ndarray) -> list[dict]:
    return [reid.row({"feature": f}, r, data) for r, f in zip(data.records, features, strict=True)]


def random_people(rng: np.random.Generator, num_query: int = 30, num_gallery: int = 80) -> tuple:
    def side(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = rng.integers(0, 8, n)
        return rng.normal(size=(8, 6))[ids] + rng.normal(size=(n, 6)), ids, rng.integers(0, 3, n)

    return *side(num_query), *side(num_gallery)


def test_perfect_ranking_scores_100():
    assert retrieve((A, 1), (A, 2), (B, 1)) == dict.fromkeys(("mAP", "mINP", "rank1", "rank5", "rank10"), 100.0)


def test_hand_computed_average_precision_and_inverse_penalty():
    # matches at ranks 1 and 3: AP = (1/1 + 2/3) / 2 = 5/6, INP = 2/3
    result = retrieve((A, 1), (B, 1), (A, 2), (B, 2))
    assert result["mAP"] == pytest.approx(100 * 5 / 6)
    assert result["mINP"] == pytest.approx(100 * 2 / 3)
    assert result["rank1"] == 100


def test_worst_ranking_is_hand_computed_too():
    # the only match is sixth of six
    result = retrieve(*[(B, 1)] * 5, (A, 1))
    assert result == pytest.approx({"mAP": 100 / 6, "mINP": 100 / 6, "rank1": 0, "rank5": 0, "rank10": 100})


def test_same_person_same_camera_is_junk_not_a_hit():
    # the nearest image is junk; without it the only match is at rank 2
    assert retrieve((A, 0), (B, 1), (A, 1)) == pytest.approx(
        {"mAP": 50, "mINP": 50, "rank1": 0, "rank5": 100, "rank10": 100}
    )


def test_distractors_of_the_querys_camera_stay():
    assert retrieve((0, 0), (A, 1))["mAP"] == pytest.approx(50)


def test_equal_distances_are_ordered_by_gallery_index():
    assert retrieve((B, 1), (A, 1), angles=(10, 10))["rank1"] == 0
    assert retrieve((A, 1), (B, 1), angles=(10, 10))["rank1"] == 100
    # closer than the resolution of 1e-10, so a tie although the second is nearer
    assert retrieve((B, 1), (A, 1), angles=(10 + 1e-11, 10))["rank1"] == 0
    assert retrieve((B, 1), (A, 1), angles=(10 + 1e-7, 10))["rank1"] == 100
    # +10 and -10 degrees are equally far, whatever the last bits of their cosines
    assert retrieve((B, 1), (A, 1), angles=(10, -10))["mAP"] == pytest.approx(50)


def test_collapsed_features_rank_like_a_stable_sort():
    # all distances are equal: matches stand at the ranks of their indices, 2 and 4
    assert retrieve((B, 1), (A, 1), (B, 2), (A, 2), angles=(0, 0, 0, 0))["mAP"] == pytest.approx(50)


def test_a_query_without_a_match_is_skipped():
    query, gallery = np.eye(3)[:2], np.eye(3)
    result = ranking_metrics(query, [A, 7], [0, 0], gallery, [A, B, B], [1, 1, 1])
    assert result["mAP"] == 100


def test_ranks_agree_with_a_full_sort_of_the_gallery():
    query, q_ids, q_cams, gallery, g_ids, g_cams = random_people(np.random.default_rng(0))
    unit_q, unit_g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery))
    expected = []
    for q, i, c in zip(unit_q, q_ids, q_cams, strict=True):
        order = np.argsort(((unit_g - q) ** 2).sum(axis=1), kind="stable")
        order = order[~((g_ids[order] == i) & (g_cams[order] == c))]
        hits = np.flatnonzero(g_ids[order] == i) + 1
        if len(hits):
            expected.append(np.mean(np.arange(1, len(hits) + 1) / hits))
    result = ranking_metrics(query, q_ids, q_cams, gallery, g_ids, g_cams)
    assert result["mAP"] == pytest.approx(100 * np.mean(expected), abs=1e-9)


def test_the_length_of_a_feature_does_not_matter():
    people = random_people(np.random.default_rng(1))
    longer = (people[0] * np.linspace(1, 9, len(people[0]))[:, None], *people[1:])
    assert ranking_metrics(*longer) == pytest.approx(ranking_metrics(*people), abs=1e-9)


def test_the_order_of_queries_and_gallery_does_not_matter():
    rng = np.random.default_rng(2)
    people = random_people(rng)
    q, g = rng.permutation(len(people[0])), rng.permutation(len(people[3]))
    shuffled = [x[q] for x in people[:3]] + [x[g] for x in people[3:]]
    assert ranking_metrics(*shuffled) == pytest.approx(ranking_metrics(*people), abs=1e-9)
    assert ranking_metrics(*shuffled, rerank=True) == pytest.approx(ranking_metrics(*people, rerank=True), abs=1e-9)


def dense_reranking(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """Zhong et al. 2017 with whole tables and sets, as the equations stand."""
    points = np.concatenate([query, gallery])
    d = ((points[:, None] - points) ** 2).sum(axis=-1)
    d /= d.max(axis=1, keepdims=True)
    nearest = np.argsort(d, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        return {int(j) for j in nearest[i, : k + 1] if i in nearest[j, : k + 1]}

    v = np.zeros_like(d)
    for i in range(len(points)):
        wide = reciprocal(i, k1)
        star = set(wide)
        for j in wide:
            other = reciprocal(j, round(k1 / 2))
            if len(wide & other) > 2 / 3 * len(other):
                star |= other
        members = sorted(star)
        v[i, members] = np.exp(-d[i, members])
    v /= v.sum(axis=1, keepdims=True)
    v = np.stack([v[nearest[i, :k2]].mean(axis=0) for i in range(len(points))])
    n = len(query)
    low = np.minimum(v[:n, None], v[None, n:]).sum(axis=-1)
    high = np.maximum(v[:n, None], v[None, n:]).sum(axis=-1)
    return (1 - weight) * (1 - low / high) + weight * d[:n, n:]


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 3, 0.3), (7, 1, 0.0), (200, 300, 0.5), (1, 1, 0.3)])
def test_reranked_distances_are_those_of_the_equations(k1, k2, weight):
    points = np.random.default_rng(3).normal(size=(40, 5))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    expected = dense_reranking(points[:12], points[12:], k1, k2, weight)
    np.testing.assert_allclose(reranked_distances(points[:12], points[12:], k1, k2, weight), expected, atol=1e-12)


def test_reranking_with_the_whole_weight_on_the_distance_changes_nothing():
    people = random_people(np.random.default_rng(4))
    plain = ranking_metrics(*people)
    assert ranking_metrics(*people, rerank=True, distance_weight=1.0) == pytest.approx(plain, abs=1e-9)
    assert ranking_metrics(*people, rerank=True, k1=8, k2=3)["mAP"] != pytest.approx(plain["mAP"], abs=0.01)


def test_no_query_with_a_true_match_is_refused():
    with pytest.raises(ValueError, match="no query has a true match"):
        retrieve((B, 1), (A, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.ones((2, 3))}, "3 dimensions, gallery features 2"),
        ({0: np.ones((1, 2))}, r"query features \(1,\), query ids \(2,\)"),
        ({0: np.array([[1.0, np.nan], [1, 1]])}, r"query features hold nan at \(0, 1\)"),
        ({0: np.array([[1.0, 1.0], [0, 0]])}, "query features: number 1 has length 0"),
        ({3: np.empty((0, 2))}, "gallery features are empty"),
        ({4: np.array([1, 2, 2.5])}, "gallery ids hold 2.5"),
        ({5: np.array([1, 2])}, r"gallery cameras \(2,\)"),
        ({0: np.ones(2)}, r"query features have shape \(2,\); expected 2 axes"),
    ],
)
def test_impossible_input_is_refused(change, message):
    arguments = [np.ones((2, 2)), np.array([A, B]), np.array([0, 0]), np.ones((3, 2)), np.array([A, B, B]), np.ones(3)]
    assert ranking_metrics(*arguments)["mAP"] > 0
    for place, value in change.items():
        arguments[place] = value
    with pytest.raises(ValueError, match=message):
        ranking_metrics(*arguments)


def test_reranking_parameters_out_of_range_are_refused():
    people = random_people(np.random.default_rng(5))
    with pytest.raises(ValueError, match="k1=0"):
        ranking_metrics(*people, rerank=True, k1=0)


def test_summary_uses_the_roles_of_the_records_and_not_the_order_of_the_rows():
    data = dataset((A, 0, "query"), (A, 1, "gallery"), (B, 1, "gallery"), (B, 2, "query"))
    made = rows(data, np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]]))
    assert reid.summary(made, data) == reid.summary(made[::-1], data)
    assert reid.summary(made, data)[reid.MAIN_METRIC] == 100


def test_a_training_split_queries_itself_and_never_retrieves_the_query():
    # each person has two cameras; features swap the people, so that the true match is last of the three others
    data = dataset((A, 0, "train"), (A, 1, "train"), (B, 0, "train"), (B, 1, "train"))
    made = rows(data, np.array([[1.0, 0], [0, 1], [1, 0.1], [0.1, 1]]))
    assert reid.summary(made, data)["rank1"] == 0
    assert reid.summary(rows(data, np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])), data)["rank1"] == 100


def test_a_second_row_of_a_record_is_dropped_and_an_unreadable_image_left_out():
    data = dataset((A, 0, "query"), (A, 1, "gallery"), (B, 1, "gallery"), (B, 2, "gallery"))
    made = rows(data, np.array([[1.0, 0], [1, 0.1], [0, 1], [1, 0]]))
    assert reid.summary([*made[:3], made[0]], data)["mAP"] == 100
    with pytest.raises(ValueError, match=r"1 results belong to no record of toy_test, e\.g\. 'x'"):
        reid.summary([*made, {"id": "x"}], data)
    with pytest.raises(ValueError, match="none of the 4 records"):
        reid.summary([], data)


def test_a_split_without_queries_is_refused():
    data = dataset((A, 0, "gallery"), (A, 1, "gallery"))
    with pytest.raises(ValueError, match="0 queries and 2 gallery images"):
        reid.summary(rows(data, np.eye(2)), data)


def test_chance_is_the_mean_over_all_rankings():
    # r = 2 matches among n = 3 are at ranks (1,2), (1,3) or (2,3): AP = 1, 5/6, 7/12; a junk image changes nothing
    data = dataset((A, 0, "query"), (A, 1, "gallery"), (A, 2, "gallery"), (B, 1, "gallery"), (A, 0, "gallery"))
    assert reid.chance(data)["mAP"] == pytest.approx(100 * (1 + 5 / 6 + 7 / 12) / 3)
    assert reid.chance(dataset((A, 0, "query"), (A, 1, "gallery")))["mAP"] == 100


def test_reid_agrees_with_fast_reid(golden: Path):
    with np.load(golden / "metrics" / "reid_features.npz") as f:
        sides = [f[f"{side}_{name}"] for side in "qg" for name in ("feat", "pid", "cam")]
    expected = json.loads((golden / "metrics" / "golden.json").read_text())["reid"]["expected"]["cosine"]
    result = ranking_metrics(*sides)
    # float64 distances on both sides: the reference's float32 ranking differs in the seventh digit of mAP
    assert result["mAP"] / 100 == pytest.approx(expected["mAP"], abs=1e-9)
    for name in ("mINP", "rank1", "rank5", "rank10"):
        assert result[name] / 100 == pytest.approx(expected[name], abs=1e-6)
