"""Do measured means agree with what theory expects, their errors being correlated?"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from skyweave.errors import UserError


@dataclass(frozen=True)
class Agreement:
    """Hotelling's test: chi² per degree of freedom (about 1 when they agree), and its p-value."""

    chi2_per_dof: float
    p_value: float
    dof: int
    n: int

    def __str__(self) -> str:
        return f"chi²/dof {self.chi2_per_dof:.2f}, dof {self.dof}, {self.n} fields"


def agreement(differences: np.ndarray) -> Agreement:
    """Test that the mean of independent `differences` (n, p), measured less expected, is zero.

    T² = n d' S⁻¹ d with the sample covariance S; T² (n - p) / (p (n - 1)) follows F(p, n - p)
    exactly for Gaussian differences (Hotelling 1931), so that neither the correlation of the p
    numbers nor the noise of S makes it too strict. Raises `UserError` unless n > 5 p: with fewer
    the covariance is too noisy to find anything.
    """
    count, size = differences.shape
    if count <= 5 * size:
        raise UserError("agreement", f"more than {5 * size} samples of {size} numbers", count)
    mean = differences.mean(axis=0)
    scale = differences.std(axis=0, ddof=1)
    covariance = np.corrcoef(differences, rowvar=False).reshape(size, size)
    pull = mean / scale * np.sqrt(count)
    ratio = pull @ np.linalg.solve(covariance, pull) * (count - size) / (size * (count - 1))
    return Agreement(float(ratio), float(stats.f.sf(ratio, size, count - size)), size, count)


def grouped(differences: np.ndarray, groups: int) -> np.ndarray:
    """Columns of (n, p) in units of their scatter, neighbours averaged into at most `groups`."""
    scaled = differences / differences.std(axis=0, ddof=1)
    parts = np.array_split(scaled, min(groups, scaled.shape[1]), axis=1)
    return np.stack([part.mean(axis=1) for part in parts], axis=1)
