"""Images of Sérsic profiles (Sérsic 1963), integrated over their pixels."""

from dataclasses import dataclass

import numpy as np

from skyweave import seeds
from skyweave.config.galaxies import SersicDataset

#: Relative error that the expansion about a pixel's middle may have; where it has more it must be
#: less than this share of the whole flux.
_TOLERANCE = 1e-4
_NEGLIGIBLE = 1e-8

#: Distances from the centre, in lengths of a pixel where the profile is round: nearer pixels are
#: never expanded, and nearer edges need more nodes.
_CUSP = 5.0
_CLOSE = 2.5

#: Along an edge, in e-foldings of the distance: as far from its end as anything can matter, and
#: where most of it lies.
_REACH = 20.0
_HEAD = 4.0


def _gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


_NODES, _WEIGHTS = _gauss_legendre(8)
_MANY_NODES, _MANY_WEIGHTS = _gauss_legendre(24)


@dataclass(frozen=True)
class Profile:
    """A Sérsic profile: its centre (arcsec from that of the frame), shape and total flux.

    `radius_arcsec` is the geometric mean of the half-light ellipse's axes, `angle` that of the
    long one from +x towards +y in radians.
    """

    x_arcsec: float
    y_arcsec: float
    radius_arcsec: float
    index: float
    axis_ratio: float
    angle: float
    flux: float


def draw(settings: SersicDataset, seed: int, name: str, realization: int) -> Profile:
    """Profile of a realization of dataset `name`, each parameter evenly drawn; flux in nJy."""
    rng = seeds.generator(seed, name, realization, "sersic")
    x, y = rng.uniform(-settings.offset_arcsec, settings.offset_arcsec, 2)
    return Profile(
        x_arcsec=float(x),
        y_arcsec=float(y),
        radius_arcsec=rng.uniform(*settings.radius_arcsec),
        index=rng.uniform(*settings.index),
        axis_ratio=rng.uniform(*settings.axis_ratio),
        angle=rng.uniform(0, np.pi),
        flux=10 ** (0.4 * (31.4 - rng.uniform(*settings.magnitude))),
    )


def render(profile: Profile, pixels: int, pixel_arcsec: float) -> np.ndarray:
    """Flux (y, x) float64 in each pixel of a frame, in the unit of `profile.flux`.

    Where the profile is smooth over a pixel, its value and Laplacian in the middle give the
    integral. Elsewhere the divergence theorem does: with F(r) the share of the flux within the
    ellipse r, the pixel has the integral of F / 2π over the angle, around its edges. So nothing
    diverges at the cusp.
    """
    light = _Light(profile, pixels, pixel_arcsec)
    image, error = light.expanded()
    near = (light.radius < _CUSP * light.long) | (
        (error > _TOLERANCE) & (error * image > _NEGLIGIBLE)
    )
    if near.any():
        image[near] = light.integrated(near)
    return profile.flux * np.maximum(image, 0)


class _Light:
    """A profile of flux 1 on a frame, in units of its pixels.

    Positions are those in which it is round: along its axes, times the roots of the axis ratio
    and of the inverse, so that areas stay.
    """

    def __init__(self, profile: Profile, pixels: int, pixel_arcsec: float) -> None:
        from scipy.special import gammaincinv, gammaln

        self.index, self.ratio = profile.index, profile.axis_ratio
        self.scale = profile.radius_arcsec / pixel_arcsec
        self.steepness = float(gammaincinv(2 * self.index, 0.5))
        self.brightness = np.exp(
            2 * self.index * np.log(self.steepness) - gammaln(2 * self.index + 1)
        ) / (np.pi * self.scale**2)
        # What a step of a pixel in x, and one in y, is along and across.
        cos, sin, root = np.cos(profile.angle), np.sin(profile.angle), np.sqrt(self.ratio)
        self.steps = np.array([[cos * root, -sin / root], [sin * root, cos / root]])
        self.long = 1 / root
        axis = np.arange(pixels) - (pixels - 1) / 2
        self.x = axis - profile.x_arcsec / pixel_arcsec
        self.y = axis - profile.y_arcsec / pixel_arcsec
        self.along = self.x * self.steps[0, 0] + self.y[:, None] * self.steps[1, 0]
        self.across = self.x * self.steps[0, 1] + self.y[:, None] * self.steps[1, 1]
        self.radius = np.hypot(self.along, self.across)

    def expanded(self) -> tuple[np.ndarray, np.ndarray]:
        """Fluxes by the expansion to second order, and bounds of their relative errors."""
        radius = np.maximum(self.radius, 1e-3)
        depth = self.steepness * (radius / self.scale) ** (1 / self.index)
        value = self.brightness * np.exp(-depth)
        slope = depth / self.index
        inverse = radius**-2
        gradient = (self.ratio * self.along**2 + self.across**2 / self.ratio) * inverse
        curvature = (slope + 2 - 1 / self.index) * gradient - self.ratio - 1 / self.ratio
        laplacian = slope * inverse * curvature
        error = ((slope + 3) * self.long / radius) ** 4 / 1920
        return value * (1 + laplacian / 24), error

    def integrated(self, near: np.ndarray) -> np.ndarray:
        """Fluxes of the pixels where `near` (y, x) is true."""
        rows, columns = near.shape
        lower, left = np.zeros((rows + 1, columns)), np.zeros((rows, columns + 1))
        wanted = np.zeros(lower.shape, bool)
        wanted[:-1] = near
        wanted[1:] |= near
        lower[wanted] = self._edges(wanted, self.steps[0])
        wanted = np.zeros(left.shape, bool)
        wanted[:, :-1] = near
        wanted[:, 1:] |= near
        left[wanted] = self._edges(wanted, self.steps[1])
        return (lower[:-1] + left[:, 1:] - lower[1:] - left[:, :-1])[near]

    def _edges(self, wanted: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Integrals along the edges that start at the lower left corners of `wanted` pixels."""
        length = np.hypot(*step)
        row, column = np.nonzero(wanted)
        corner = self.x[0] - 0.5 + column, self.y[0] - 0.5 + row
        start = corner[0][:, None] * self.steps[0] + corner[1][:, None] * self.steps[1]
        # Of the edge's line: its distance from the centre, signed, and where on it the edge starts.
        offset = (start[:, 0] * step[1] - start[:, 1] * step[0]) / length
        first = start @ step / length
        apart = np.hypot(offset, np.maximum(first, 0) - np.minimum(first + length, 0))
        found = np.empty(offset.size)
        close = apart < _CLOSE * self.long
        found[close] = self._from_foot(offset[close], first[close] + length)
        found[close] -= self._from_foot(offset[close], first[close])
        offset, first = offset[~close, None], first[~close, None]
        squares = offset**2 + (first + length * _NODES) ** 2
        found[~close] = length * (offset * self._within(squares) / squares) @ _WEIGHTS
        return found

    def _from_foot(self, offset: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Integrals along lines from their closest points to the centre to `end`, signed.

        At offset d, l = d sinh t takes the peak of the angle's d / (d² + l²) away.
        """
        distance = np.maximum(np.abs(offset), 1e-30)
        last = np.arcsinh(np.abs(end) / distance)
        middle = np.maximum(last - _HEAD, 0)
        total = np.zeros(offset.size)
        for low, high in ((np.maximum(last - _REACH, 0), middle), (middle, last)):
            cosh = np.cosh(low[:, None] + (high - low)[:, None] * _MANY_NODES)
            share = self._within((distance[:, None] * cosh) ** 2)
            total += (high - low) * ((share / cosh) @ _MANY_WEIGHTS)
        return np.sign(offset) * np.sign(end) * total

    def _within(self, squares: np.ndarray) -> np.ndarray:
        """Share of the flux within a radius, by its square, over 2π."""
        from scipy.special import gammainc

        depth = self.steepness * (squares / self.scale**2) ** (0.5 / self.index)
        return gammainc(2 * self.index, depth) / (2 * np.pi)
