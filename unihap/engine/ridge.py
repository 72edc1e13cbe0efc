"""Weighted ridge regression in closed form, with a strength chosen on training samples that are held back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

STRENGTHS = tuple(10.0 ** (half / 2) for half in range(-12, 3))  # see ``fit_ridges``
HELD_BACK = 5  # the last 1/5 of the samples chooses among them
MIDDLE = 0.5  # of targets between 0 and 1: the answer where nothing is known


@dataclass(frozen=True)
class Ridge:
    """A fitted linear map; one column for each of K targets.

    Attributes:
        mean: (F,) of the training features.
        scale: (F,) their deviation, 1 where they are constant.
        weight: (F, K) for standardised features.
        bias: (K,).
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N, K) predictions of (N, F) features."""
        return (features - self.mean) / self.scale @ self.weight + self.bias


def fit_ridges(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: Sequence[float]
) -> list[Ridge]:
    r"""Weighted ridge regressions with an intercept, one for each strength, in float64.

    For every column k, with z the standardised features and w the weights of its samples,

    .. math:: \min_{v, b} \sum_n w_n (y_n - b - v^T z_n)^2 / \sum_n w_n + \text{strength} \cdot F \cdot |v|^2.

    With the factor F, the sum of the variances of z, a strength means the same for any number of features.  A column
    without weights predicts ``MIDDLE``.

    Args:
        features: (N, F).
        targets: (N, K); what weighs 0 is not looked at.
        weights: (N, K), at least 0.
        strengths: positive.
    """
    features = features.astype(np.float64)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale <= 1e-6 * np.abs(features).max(initial=0)] = 1  # constant, or nothing but rounding
    standard = (features - mean) / scale
    weight = np.zeros((len(strengths), features.shape[1], targets.shape[1]))
    bias = np.full((len(strengths), targets.shape[1]), MIDDLE)
    penalties = [strength * features.shape[1] for strength in strengths]
    distinct, which = np.unique(weights, axis=1, return_inverse=True)
    for number, given in enumerate(distinct.T):
        columns = np.flatnonzero(which.ravel() == number)
        rows = np.flatnonzero(given)
        if rows.size:
            share = given[rows] / given[rows].sum()
            solved = _solve(standard[rows], targets[np.ix_(rows, columns)], share, penalties)
            weight[:, :, columns], bias[:, columns] = solved
    return [Ridge(mean, scale, w, b) for w, b in zip(weight, bias, strict=True)]


def _solve(
    features: np.ndarray, targets: np.ndarray, share: np.ndarray, penalties: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """(S, F, K) weights and (S, K) intercepts for (N, F) features, (N, K) targets and (N,) weights that sum to 1."""
    centre, middle = share @ features, share @ targets
    root = np.sqrt(share)[:, None]
    x, y = root * (features - centre), root * (targets - middle)
    few = len(x) < x.shape[1]  # the smaller of the two equivalent systems
    gram, right = (x @ x.T, y) if few else (x.T @ x, x.T @ y)
    ones = np.eye(len(gram))
    solved = [scipy.linalg.solve(gram + penalty * ones, right, assume_a="pos") for penalty in penalties]
    weight = np.stack([x.T @ dual for dual in solved] if few else solved)
    return weight, middle - centre @ weight


def choose_strength(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """The strength whose fit to all but the last samples has the smallest weighted squared error on these.

    Args:
        features: (N, F).
        targets: (N, K).
        weights: (N, K).

    Raises:
        ValueError: fewer than two samples.
    """
    if len(features) < 2:
        raise ValueError(f"a regression needs two training samples at least, got {len(features)}")
    cut = len(features) - max(1, len(features) // HELD_BACK)
    fits = fit_ridges(features[:cut], targets[:cut], weights[:cut], STRENGTHS)
    errors = [(weights[cut:] * (fit(features[cut:]) - targets[cut:]) ** 2).sum() for fit in fits]
    return STRENGTHS[int(np.argmin(errors))]


def fit_chosen(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[Ridge, float]:
    """``fit_ridges`` to all samples with the strength of ``choose_strength``, and that strength."""
    strength = choose_strength(features, targets, weights)
    return fit_ridges(features, targets, weights, [strength])[0], strength
