"""Retrieval of people: the Market-1501 protocol (Zheng et al. 2015, ICCV, section 5) and mINP.

mINP is Ye et al. 2021, arXiv:2001.04193, Eq. 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unihap.evaluation.checks import finite, integers, paired_rows, same_shape
from unihap.evaluation.reid_rerank import reranked_distances
from unihap.structures import Dataset, Record, ReIDLabel

MAIN_METRIC = "mAP"
NEIGHBOURS = 4

# Cosines are compared in steps of 2**-33 (1.2e-10).  A float64 dot product of unit vectors is good to about 1e-15 and
# its last bits depend on how the BLAS cuts the matrix, so that without steps two copies of one image could be ordered
# by chance; a power of two scales without rounding.
STEPS = 2.0**33
K1, K2, DISTANCE_WEIGHT = 50, 15, 0.3  # UniHCP's re-ranking; Zhong et al. 2017 use 20, 6, 0.3
CHUNK = 256  # queries whose distances are held at once: 33 MB for the gallery of Market-1501


def ranking_metrics(
    query_features: np.ndarray,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_features: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    rerank: bool = False,
    *,
    k1: int = K1,
    k2: int = K2,
    distance_weight: float = DISTANCE_WEIGHT,
) -> dict[str, float]:
    """Mean average precision, mean inverse negative penalty and cumulative matching rates.

    Features are L2-normalised and ranked by squared Euclidean distance in float64 (which ranks like the cosine).
    Gallery images of the query's identity *and* camera are junk: they are removed, neither hits nor misses.  A query
    without a remaining match is skipped.  Distances that agree to 1e-10 are ties, ordered by gallery index like a
    stable sort.  Distractors (identity 0) stay; leave images of identity -1 out before calling.

    Args:
        query_features: (Nq, F).
        query_ids: (Nq,) identities.
        query_cameras: (Nq,) cameras.
        gallery_features: (Ng, F).
        gallery_ids: (Ng,).
        gallery_cameras: (Ng,).
        rerank: order by k-reciprocal re-ranked distances instead, see ``reranked_distances``.
        k1: neighbours in the reciprocal sets.
        k2: neighbours in the local query expansion.
        distance_weight: lambda, the share of the original distance.

    Returns:
        ``mAP``, ``mINP``, ``rank1``, ``rank5``, ``rank10`` in percent.

    Raises:
        ValueError: shapes that do not fit, NaN, an empty set, a feature of length 0, or no query with a true match.
    """
    judged = judge_queries(
        *(query_features, query_ids, query_cameras),
        *(gallery_features, gallery_ids, gallery_cameras),
        rerank,
        k1=k1,
        k2=k2,
        distance_weight=distance_weight,
    )
    precision, penalty, first = judged[:, ~np.isnan(judged[0])]
    if not len(first):
        raise ValueError(
            f"no query has a true match: none of the {judged.shape[1]} queries has a gallery image of its identity "
            "from another camera"
        )
    metrics = {"mAP": np.mean(precision), "mINP": np.mean(penalty)}
    metrics |= {f"rank{k}": np.mean(first <= k) for k in (1, 5, 10)}
    return {name: 100 * float(value) for name, value in metrics.items()}


def judge_queries(
    query_features: np.ndarray,
    query_ids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_features: np.ndarray,
    gallery_ids: np.ndarray,
    gallery_cameras: np.ndarray,
    rerank: bool = False,
    *,
    k1: int = K1,
    k2: int = K2,
    distance_weight: float = DISTANCE_WEIGHT,
) -> np.ndarray:
    """What ``ranking_metrics`` takes the mean of; same arguments and refusals, but that queries need no match.

    Returns:
        (3, Nq): average precision, inverse negative penalty (both 0-1) and rank of the first match of every query, NaN
        for a query without a true match.
    """
    query, gallery = _unit("query features", query_features), _unit("gallery features", gallery_features)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query features have {query.shape[1]} dimensions, gallery features {gallery.shape[1]}")
    ids = integers("query ids", query_ids, 1), integers("gallery ids", gallery_ids, 1)
    cameras = integers("query cameras", query_cameras, 1), integers("gallery cameras", gallery_cameras, 1)
    for side, (features, one, other) in enumerate(zip((query, gallery), ids, cameras, strict=True)):
        name = ("query", "gallery")[side]
        same_shape(**{f"{name} features": features[:, 0], f"{name} ids": one, f"{name} cameras": other})

    if rerank:
        distances = reranked_distances(query, gallery, k1, k2, distance_weight)

        def nearness(start: int, stop: int) -> np.ndarray:
            return np.rint(distances[start:stop] * -STEPS)
    else:
        query *= STEPS

        def nearness(start: int, stop: int) -> np.ndarray:
            chunk = query[start:stop] @ gallery.T
            return np.rint(chunk, out=chunk)

    return _judge(nearness, ids, cameras)


def row(result: dict, record: Record, dataset: Dataset) -> dict:
    """What ``summary`` keeps of one image: ``id`` and ``feature`` (F,) float32."""
    return {"id": record.id, "feature": np.asarray(result["feature"], dtype=np.float32)}


def summary(rows: list[dict], dataset: Dataset, rerank: bool = False) -> dict[str, float]:
    """Ranks the gallery for every query; see ``ranking_metrics``.

    When all records have the role ``train``, every image serves as query and as gallery: same identity and same camera
    is junk, so an image never retrieves itself.  Records without a row are left out.

    Raises:
        ValueError: rows and records that do not fit, or roles that allow no ranking.
    """
    query, gallery, ids, cameras, features = _arrays(rows, dataset)
    return ranking_metrics(
        *(features[query], ids[query], cameras[query]),
        *(features[gallery], ids[gallery], cameras[gallery]),
        rerank=rerank,
    )


def scores(rows: list[dict], dataset: Dataset, rerank: bool = False) -> list[float | None]:
    """Average precision of each query, percent; ``None`` for gallery images and for queries without a true match."""
    query, gallery, ids, cameras, features = _arrays(rows, dataset)
    precision = np.full(len(query), np.nan)
    precision[query] = judge_queries(
        *(features[query], ids[query], cameras[query]),
        *(features[gallery], ids[gallery], cameras[gallery]),
        rerank=rerank,
    )[0]
    return [None if np.isnan(value) else 100 * float(value) for value in precision]


def company(chosen: Sequence[int], rows: list[dict], dataset: Dataset, number: int = NEIGHBOURS) -> list[int]:
    """What must be seen beside some queries: the gallery images nearest to them, junk left out.

    Args:
        chosen: places of the queries in ``rows``.
        rows: as for ``scores``.
        dataset: its split.
        number: gallery images for each query.

    Returns:
        Their places in ``rows``, each once, ascending.
    """
    _, gallery, ids, cameras, features = _arrays(rows, dataset)
    places = np.flatnonzero(gallery)
    candidates = features[places] / np.linalg.norm(features[places], axis=1, keepdims=True)
    nearest: set[int] = set()
    for q in chosen:
        junk = (ids[places] == ids[q]) & (cameras[places] == cameras[q])
        near = np.where(junk, -np.inf, candidates @ features[q])
        order = np.argsort(-near, kind="stable")[:number]
        nearest.update(places[order[~junk[order]]].tolist())
    return sorted(nearest)


def conventions(dataset: Dataset, rerank: bool = False) -> dict[str, Any]:
    """See ``unihap.evaluation``; ``rerank`` as in ``summary``."""
    return {
        "metrics": "Market-1501's: gallery images of the query's person by the query's camera are left out",
        "distance": "Euclidean, of features of length 1",
        "rerank": {"k1": K1, "k2": K2, "distance_weight": DISTANCE_WEIGHT} if rerank else None,
        "score": "average precision of the query, %",
    }


def chance(dataset: Dataset) -> dict[str, float]:
    """The expected mAP of a random ranking.

    Of n gallery images r match.  The image at rank k is a match with probability r/n, and then (k-1)(r-1)/(n-1) of
    the images before it are expected to match, so that with H_n = 1 + 1/2 + ... + 1/n

        E[AP] = (H_n + (r - 1)/(n - 1) * (n - H_n)) / n.
    """
    query, gallery, ids, cameras = _roles(dataset)
    harmonic = np.cumsum(1 / np.arange(1, gallery.sum() + 1))
    expected = []
    for identity, camera in zip(ids[query], cameras[query], strict=True):
        same = ids[gallery] == identity
        junk = same & (cameras[gallery] == camera)
        n, r = int(np.sum(~junk)), int(np.sum(same & ~junk))
        if r:
            rest = (r - 1) / (n - 1) * (n - harmonic[n - 1]) if n > 1 else 0.0
            expected.append((harmonic[n - 1] + rest) / n)
    return {MAIN_METRIC: 100 * float(np.mean(expected)) if expected else 0.0}


def _unit(name: str, features: np.ndarray) -> np.ndarray:
    """(N, F) float64 rows of length 1."""
    unit = finite(name, features, 2).astype(np.float64)
    length = np.linalg.norm(unit, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(f"{name}: number {int(np.argmin(length))} has length 0 and thus no direction")
    unit /= length
    return unit


def _judge(
    nearness: Callable[[int, int], np.ndarray],
    ids: tuple[np.ndarray, np.ndarray],
    cameras: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """See ``judge_queries``.

    Args:
        nearness: (start, stop) of the queries -> (stop - start, Ng), larger is nearer.
        ids: identities of (queries, gallery).
        cameras: cameras of (queries, gallery).
    """
    judged = np.full((3, len(ids[0])), np.nan)
    for start in range(0, len(ids[0]), CHUNK):
        near = nearness(start, min(start + CHUNK, len(ids[0])))
        for q, scores in enumerate(near, start):
            same = np.flatnonzero(ids[1] == ids[0][q])
            junk = cameras[1][same] == cameras[0][q]
            if junk.all():  # also when nothing has the identity
                continue
            scores[same[junk]] = -np.inf
            ranks = _ranks(scores, same[~junk])
            hits = np.arange(1, len(ranks) + 1)
            judged[:, q] = np.mean(hits / ranks), len(ranks) / ranks[-1], ranks[0]
    return judged


def _ranks(scores: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """Ranks (1 = nearest), ascending, of the gallery indices ``matches`` in a stable descending sort of ``scores``.

    Values are sorted but never indices, which is several times faster than an argsort of the gallery.
    """
    ordered, wanted = np.sort(scores), scores[matches]
    left, right = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
    ranks = len(scores) - right + 1
    for value in np.unique(wanted[right - left > 1]):
        tied, mine = np.flatnonzero(scores == value), wanted == value
        ranks[mine] += np.searchsorted(tied, matches[mine])
    return np.sort(ranks)


def _arrays(rows: list[dict], dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``_roles`` of the records that have a row, and the features of their rows."""
    pairs = paired_rows(rows, dataset)
    return (
        *_roles(replace(dataset, records=[record for record, _ in pairs])),
        np.stack([row["feature"] for _, row in pairs]),
    )


def _roles(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Masks of queries and of gallery, then identities and cameras, all in record order."""
    labels = [record.label for record in dataset.records if isinstance(record.label, ReIDLabel)]
    assert len(labels) == len(dataset.records), f"{dataset.name} holds labels of another kind"
    roles = np.array([label.role for label in labels])
    ids = np.array([label.identity for label in labels])
    cameras = np.array([label.camera for label in labels])
    query, gallery = roles == "query", roles == "gallery"
    if (roles == "train").all():
        query = gallery = np.ones(len(roles), dtype=bool)
    if not query.any() or not gallery.any():
        raise ValueError(
            f"{dataset.name} has {int(query.sum())} queries and {int(gallery.sum())} gallery images among "
            f"{len(roles)} records; both are needed (or all records with the role 'train')"
        )
    return query, gallery, ids, cameras
