"""What a Gaussian sky has in its holes, given what is seen around them: the mean, and draws.

Of a Gaussian field x that is stationary on a periodic area the covariance C and its inverse Q are
diagonal in Fourier modes. Unseen pixels u, given the seen pixels o, are Gaussian with mean
-Q_uu⁻¹ Q_uo x_o = C_uo C_oo⁻¹ x_o and covariance Q_uu⁻¹ (Hoffman & Ribak 1991, ApJ 380 L5). A patch
that is not periodic lies in a larger area, whose other pixels are not seen either.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
from scipy import linalg

from skyweave.errors import UserError
from skyweave.estimators.wiener import FLOOR
from skyweave.flat.covariance import Covariance
from skyweave.flat.fourier import forward, inverse
from skyweave.flat.grid import PatchGrid

#: Error of the mean by conjugate gradients, at most, as a share of the scatter that is left; it is
#: a tenth of that in practice.
TOLERANCE = 1e-2

#: Most steps of conjugate gradients.
MOST = 3000

#: Numbers of unknowns up to which matrices are used: of a hole of one map, of a hole shared by
#: maps, and where conjugate gradients do not converge (half a gigabyte).
ALONE, SHARED, LAST_RESORT = 600, 7000, 8000

#: Maps worked on at once: bounds the memory, not the result.
_CHUNK = 16

#: Rows of a matrix that are built at once.
_ROWS = 256

#: Share of the patch's side by which the area reaches beyond its edges, where it is not periodic.
#: The mean of the CMB differs from that of a much larger area by 0.5 % of the scatter that is left
#: in a hole in the middle, 2 % in random holes and 6 % in a corner: by 0.4 % at most in variance.
_BEYOND = 0.25


class Constrained:
    """Fills holes of patches of `fields` with what a Gaussian sky has there.

    A `periodic` patch is its own area. `tolerance` is the error of the mean, at most, as a share of
    the scatter of a sky that is known so far; it acts where matrices would be too large. `mean` is
    what skies scatter about, a value a field in the maps' unit; None are zeros. Raises `UserError`
    for one of another length or not finite.
    """

    def __init__(
        self,
        covariance: Covariance,
        grid: PatchGrid,
        fields: Sequence[str],
        *,
        periodic: bool = False,
        tolerance: float = TOLERANCE,
        beyond: float = _BEYOND,
        mean: Sequence[float] | None = None,
    ) -> None:
        self.grid, self.fields, self.tolerance = grid, tuple(fields), tolerance
        self._margin = 0 if periodic else int(np.ceil(beyond * grid.pixels))
        pixels = grid.pixels + 2 * self._margin
        #: The periodic area that the patch lies in the middle of, its pixels as large.
        self.area = PatchGrid(grid.size_deg * pixels / grid.pixels, pixels)
        # Of unit variance a pixel, white noise has the power of a pixel's area.
        self._c = covariance.on_modes(self.area, self.fields, FLOOR) / self.area.pixel_rad**2
        self._q = _by_mode(np.linalg.inv, self._c)
        self._kept: tuple[bytes, _Matrix] | None = None
        self._about: float | np.ndarray = 0.0
        if mean is not None:
            self._about = np.array(mean, float)[..., None, None]
            if self._about.shape != (len(self.fields), 1, 1) or not np.isfinite(self._about).all():
                raise UserError("mean", f"{len(self.fields)} finite values, one a field", mean)

    def mean(self, maps: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """Maps (n, f, y, x), the holes (n, y, x), or (y, x), filled with their expectation.

        What is seen comes back bit for bit, in the maps' own precision; what maps hold in their
        holes does not matter. Raises `UserError` for other shapes and for values that are seen but
        not finite, and `RuntimeError` where conjugate gradients do not converge.
        """
        maps, holes = np.asarray(maps), np.asarray(holes)
        self._check(maps.shape, holes)
        seen = ~holes[..., None, :, :]
        if not np.isfinite(maps).all(where=seen):
            raise UserError("maps", "finite values where they are seen", "others")
        filled = maps.copy()
        for rows in _chunks(len(maps)):
            hole = holes if holes.ndim == 2 else holes[rows]
            data = np.where(hole[..., None, :, :], 0.0, maps[rows] - self._about)
            expected = self._cut(self._expected(self._wide(data), ~self._wide(~hole))) + self._about
            np.copyto(filled[rows], expected, where=hole[..., None, :, :], casting="same_kind")
        return filled

    def fluctuation(
        self, holes: np.ndarray, random: np.random.Generator | Sequence[np.random.Generator]
    ) -> np.ndarray:
        """What skies have in their holes beside the mean: draws (n, f, y, x) float64, 0 where seen.

        Their covariance is that of all skies that agree with what is seen. A sky is drawn, and its
        own mean taken away: that of map i by generator i, or of one after the other by the only
        one. Holes are (n, y, x), or (y, x) with n generators.
        """
        holes = np.asarray(holes)
        if isinstance(random, np.random.Generator):
            random = [random] * (len(holes) if holes.ndim == 3 else 1)
        draws = np.zeros((len(random), len(self.fields), *holes.shape[-2:]))
        self._check(draws.shape, holes)
        for rows in _chunks(len(draws)):
            hole = holes if holes.ndim == 2 else holes[rows]
            sky = np.stack([self._sky(one) for one in random[rows]])
            unseen = ~self._wide(~hole)
            expected = self._expected(np.where(unseen[..., None, :, :], 0.0, sky), unseen)
            draws[rows] = np.where(hole[..., None, :, :], self._cut(sky - expected), 0.0)
        return draws

    def error(self, hole: np.ndarray) -> np.ndarray:
        """Standard deviation (f, y, x) of a sky about its mean in a hole (y, x), 0 where seen.

        By matrices, whatever their size: a minute and gigabytes for 15 000 unknowns.
        """
        hole = np.asarray(hole)
        self._check((1, len(self.fields), *hole.shape), hole)
        out = np.zeros((len(self.fields), *hole.shape))
        if hole.any():
            variance = _Matrix(self.area, self._c, self._q, ~self._wide(~hole)).variance()
            out = np.where(hole, np.sqrt(self._cut(variance)), 0.0)
        return out

    def _check(self, shape: tuple[int, ...], holes: np.ndarray) -> None:
        pixels = self.grid.pixels
        expected = (len(self.fields), pixels, pixels)
        if len(shape) != 4 or shape[1:] != expected:
            raise UserError("maps", f"shape (n, {', '.join(map(str, expected))})", shape)
        if holes.dtype != bool or holes.shape not in ((pixels,) * 2, (shape[0], pixels, pixels)):
            raise UserError(
                "holes",
                f"bool ({pixels}, {pixels}) or ({shape[0]}, {pixels}, {pixels})",
                f"{holes.dtype} {holes.shape}",
            )

    def _wide(self, values: np.ndarray) -> np.ndarray:
        """Values (..., y, x) of the patch on the area, zero around it."""
        around = ((0, 0),) * (values.ndim - 2) + ((self._margin, self._margin),) * 2
        return np.pad(values, around)

    def _cut(self, values: np.ndarray) -> np.ndarray:
        inside = slice(self._margin, self._margin + self.grid.pixels)
        return values[..., inside, inside]

    def _sky(self, random: np.random.Generator) -> np.ndarray:
        """A sky (f, y, x) of the area."""
        white = random.standard_normal((1, len(self.fields), *(self.area.pixels,) * 2))
        return _filtered(white, self._root, self.area)[0]

    @cached_property
    def _root(self) -> np.ndarray:
        return _by_mode(np.linalg.cholesky, self._c)

    def _expected(self, data: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        """The mean (n, f, y, x) where the area is not seen, (n, y, x) or (y, x); else anything.

        data: zero where not seen.
        """
        if unseen.ndim == 2:
            if self._unknowns(unseen) <= SHARED:
                return self._matrix(unseen)(data)
            return self._iterated(data, np.broadcast_to(unseen, (len(data), *unseen.shape)))
        out = np.empty_like(data)
        small = np.array([self._unknowns(one) <= ALONE for one in unseen], bool)
        for index in np.flatnonzero(small):
            out[index] = self._matrix(unseen[index])(data[index][None])[0]
        if not small.all():
            out[~small] = self._iterated(data[~small], unseen[~small])
        return out

    def _unknowns(self, unseen: np.ndarray) -> int:
        """Size of the smaller of the two matrices that know the mean."""
        count = int(unseen.sum())
        return len(self.fields) * min(count, unseen.size - count)

    def _matrix(self, unseen: np.ndarray) -> "_Matrix":
        """That of this hole; the last one is kept."""
        name = unseen.tobytes()
        if self._kept is None or self._kept[0] != name:
            self._kept = None
            self._kept = name, _Matrix(self.area, self._c, self._q, unseen)
        return self._kept[1]

    def _iterated(self, data: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        """The mean by conjugate gradients for Q_uu, preconditioned by C_uu.

        As C_uu ≥ Q_uu⁻¹, the error in units of the scatter that is left, squared and summed, is
        never more than the product of the residual and the preconditioned residual.
        """
        out = np.zeros_like(data)
        left, mask = np.arange(len(data)), unseen[:, None].astype(float)
        holes = self._cut(mask)
        count = len(self.fields) * _sums(holes, holes)
        goal = np.where(count > 0, self.tolerance**2 * count, np.inf)
        x = np.zeros_like(data)
        residual = -mask * _filtered(data, self._q, self.area)
        direction = z = mask * _filtered(residual, self._c, self.area)
        product = _sums(residual, z)
        for _ in range(MOST):
            if (done := product <= goal).any():
                out[left[done]] = x[done]
                left, mask, goal, product, x, residual, z, direction = (
                    one[~done] for one in (left, mask, goal, product, x, residual, z, direction)
                )
            if not left.size:
                return out
            image = mask * _filtered(direction, self._q, self.area)
            step = (product / _sums(direction, image))[:, None, None, None]
            x += step * direction
            residual -= step * image
            z = mask * _filtered(residual, self._c, self.area)
            product, before = _sums(residual, z), product
            direction = z + (product / before)[:, None, None, None] * direction
        for index in left:
            if (unknowns := self._unknowns(unseen[index])) > LAST_RESORT:
                raise RuntimeError(
                    f"a hole of {unknowns} unknowns was not filled to {self.tolerance:g} in {MOST} "
                    "steps: the covariance spans too many orders of magnitude"
                )
            out[index] = self._matrix(unseen[index])(data[index][None])[0]
        return out


class _Matrix:
    """The mean of one hole by the Cholesky factor of C_oo or of Q_uu, whichever is smaller."""

    def __init__(self, area: PatchGrid, c: np.ndarray, q: np.ndarray, unseen: np.ndarray) -> None:
        self._area, self._c, self._q = area, c, q
        self._unseen, self._seen = np.flatnonzero(unseen), np.flatnonzero(~unseen)
        self._by_seen = self._seen.size <= self._unseen.size
        self._own = self._seen if self._by_seen else self._unseen
        matrix = _pairs(c if self._by_seen else q, self._own, self._own, area)
        if not self._own.size:
            return
        # Symmetric: its transpose is in the order that LAPACK overwrites.
        self._factor = linalg.cholesky(matrix.T, lower=True, overwrite_a=True, check_finite=False)

    def __call__(self, data: np.ndarray) -> np.ndarray:
        """The mean (n, f, y, x) of data that are zero where not seen."""
        if not self._own.size:
            return np.zeros_like(data)
        known = data if self._by_seen else _filtered(data, self._q, self._area)
        known = known.reshape(*data.shape[:2], -1)
        solved = np.zeros(known.shape)
        # One by one: a map's bytes don't depend on its neighbours.
        for one, out in zip(known, solved, strict=True):
            right = one[:, self._own].ravel()
            found = linalg.cho_solve((self._factor, True), right, check_finite=False)
            out[:, self._own] = found.reshape(len(one), -1)
        solved = solved.reshape(data.shape)
        return _filtered(solved, self._c, self._area) if self._by_seen else -solved

    def variance(self) -> np.ndarray:
        """What the mean leaves of the variance, (f, y, x), zero where seen."""
        fields, pixels = len(self._c), self._area.pixels
        if self._by_seen:
            weight = self._area.mode_weight / pixels**2
            prior = [np.sum(weight * self._c[index, index]) for index in range(fields)]
            cross = _pairs(self._c, self._seen, self._unseen, self._area)
            if self._own.size:
                cross = linalg.solve_triangular(self._factor, cross, lower=True, overwrite_b=True)
            left = np.repeat(prior, self._unseen.size) - np.einsum("ij,ij->j", cross, cross)
        else:
            root = linalg.lapack.dtrtri(self._factor, lower=1)[0]
            left = np.einsum("ij,ij->j", np.tril(root), np.tril(root))
        out = np.zeros((fields, pixels * pixels))
        out[:, self._unseen] = left.reshape(fields, -1)
        return out.reshape(fields, pixels, pixels)


def _filtered(maps: np.ndarray, factor: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """Maps (n, f, y, x), their modes multiplied by matrices (f, f) of each mode."""
    modes = forward(maps, grid)
    if len(factor) == 1:
        modes *= factor[0]
    else:
        modes = np.einsum("ijyx,njyx->niyx", factor, modes)
    return inverse(modes, grid)


def _by_mode(function: Callable[[np.ndarray], np.ndarray], factor: np.ndarray) -> np.ndarray:
    """A function of the matrices (f, f) of each mode."""
    return np.moveaxis(function(np.moveaxis(factor, (0, 1), (-2, -1))), (-2, -1), (0, 1)).copy()


def _pairs(
    factor: np.ndarray, rows: np.ndarray, columns: np.ndarray, grid: PatchGrid
) -> np.ndarray:
    """The matrix of `_filtered` between pixels, (fields · rows, fields · columns)."""
    fields, pixels = len(factor), grid.pixels
    width = 2 * pixels - 1
    shift = np.arange(1 - pixels, pixels) % pixels
    (row_y, row_x), (column_y, column_x) = (np.divmod(one, pixels) for one in (rows, columns))
    first = (row_y + pixels - 1) * width + row_x + pixels - 1
    second = column_y * width + column_x
    out = np.empty((fields, rows.size, fields, columns.size))
    for field in range(fields):
        point = np.zeros((1, fields, pixels, pixels))
        point[0, field, 0, 0] = 1
        response = _filtered(point, factor, grid)[0][:, shift[:, None], shift]
        for other, kernel in enumerate(response.reshape(fields, -1)):
            for start in range(0, rows.size, _ROWS):
                part = slice(start, start + _ROWS)
                out[other, part, field] = kernel[first[part, None] - second]
    return out.reshape(fields * rows.size, fields * columns.size)


def _sums(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sums of products of each of two stacks of maps, (n,)."""
    return np.sum((first * second).reshape(len(first), -1), axis=1)


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        yield slice(start, min(start + _CHUNK, count))
