"""k-reciprocal re-ranking (Zhong et al. 2017, arXiv:1701.08398)."""

import numpy as np
from scipy import sparse

# Distances are multiples of 2**-33, so that the order of equal ones is not left to how the BLAS cuts a matrix.
STEPS = 2.0**33
CHUNK = 256  # rows of the (N, N) distances held at once; the whole table would need 3 GB on Market-1501


def reranked_distances(
    query: np.ndarray, gallery: np.ndarray, k1: int = 50, k2: int = 15, distance_weight: float = 0.3
) -> np.ndarray:
    """Distances d* = (1 - lambda) d_J + lambda d (Eq. 12) between queries and gallery.

    d is the squared Euclidean distance divided by the image's largest one, d_J the Jaccard distance of the expanded
    k-reciprocal neighbour sets (Eqs. 4, 5, 7, 10, 11).  As in the authors' code a set is expanded by the sets of its
    members with round(k1 / 2) neighbours if they share more than 2/3 with it, and every image counts as its own first
    neighbour.  Equal distances are ordered by index.

    Args:
        query: (Nq, F) float64 rows of length 1.
        gallery: (Ng, F) float64 rows of length 1.
        k1: neighbours of the reciprocal sets.
        k2: neighbours whose encodings are averaged (local query expansion).
        distance_weight: lambda.

    Returns:
        (Nq, Ng) float64.

    Raises:
        ValueError: k1 or k2 below 1, or lambda outside 0-1.
    """
    if k1 < 1 or k2 < 1 or not 0 <= distance_weight <= 1:
        raise ValueError(f"k1={k1} and k2={k2} must be at least 1, distance_weight={distance_weight} within 0-1")
    points = np.concatenate([query, gallery])
    neighbours, farthest = _neighbours(points, max(k1 + 1, k2))
    encoding = _encoding(points, neighbours, farthest, k1)
    if k2 > 1:  # Eq. 11
        nearest = neighbours[:, :k2]
        num_points, width = nearest.shape
        average = (np.full(nearest.size, 1 / width), nearest.ravel(), np.arange(num_points + 1) * width)
        encoding = sparse.csr_matrix(average, shape=(num_points, num_points)) @ encoding

    by_member = encoding[len(query) :].tocsc()  # which gallery images count a point as their neighbour
    out = np.empty((len(query), len(gallery)))
    for i in range(len(query)):
        mine = encoding[[i]]
        theirs = by_member[:, mine.indices]
        shared = np.minimum(theirs.data, np.repeat(mine.data, np.diff(theirs.indptr)))
        overlap = np.bincount(theirs.indices, weights=shared, minlength=len(gallery))
        jaccard = 1 - overlap / (2 - overlap)  # Eq. 10: encodings sum to 1, so the sum of maxima is 2 - sum of minima
        distance = (2 - 2 * (gallery @ query[i])) / farthest[i]
        out[i] = (1 - distance_weight) * jaccard + distance_weight * distance
    return out


def _neighbours(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, count) indices of the nearest points, nearest first, and (N,) the largest squared distance of each point."""
    count = min(count, len(points))
    nearest = np.empty((len(points), count), dtype=np.int64)
    farthest = np.empty(len(points))
    for start in range(0, len(points), CHUNK):
        distances = np.rint((2 - 2 * (points[start : start + CHUNK] @ points.T)) * STEPS) / STEPS
        farthest[start : start + CHUNK] = distances.max(axis=1)
        limits = np.partition(distances, count - 1, axis=1)[:, count - 1]
        for i, (distance, limit) in enumerate(zip(distances, limits, strict=True), start):
            distance[i] = -1.0  # itself, before any copy of itself
            near = np.flatnonzero(distance <= limit)
            nearest[i] = near[np.argsort(distance[near], kind="stable")[:count]]
    return nearest, np.maximum(farthest, np.finfo(np.float64).tiny)


def _encoding(points: np.ndarray, neighbours: np.ndarray, farthest: np.ndarray, k1: int) -> sparse.csr_matrix:
    """(N, N) sparse: Eq. 7 with each row divided by its sum."""
    half = round(k1 / 2)
    wide = [_reciprocal(neighbours, i, k1) for i in range(len(points))]
    narrow = [_reciprocal(neighbours, i, half) for i in range(len(points))]
    members, weights = [], []
    for i, own in enumerate(wide):
        others = [narrow[j] for j in own]
        joined = [other for other in others if np.isin(other, own).sum() > 2 / 3 * len(other)]  # Eq. 5
        member = np.unique(np.concatenate([own, *joined]))
        weight = np.exp(-(2 - 2 * (points[member] @ points[i])) / farthest[i])
        members.append(member)
        weights.append(weight / weight.sum())
    ends = np.concatenate([[0], np.cumsum([len(member) for member in members])])
    return sparse.csr_matrix((np.concatenate(weights), np.concatenate(members), ends), shape=(len(points),) * 2)


def _reciprocal(neighbours: np.ndarray, i: int, k: int) -> np.ndarray:
    """The k-reciprocal neighbours of point i, itself included (Eq. 4)."""
    forward = neighbours[i, : k + 1]
    return forward[(neighbours[forward, : k + 1] == i).any(axis=1)]
