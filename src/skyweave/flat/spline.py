"""Periodic maps read between their pixels, by a quintic B-spline on a grid twice as fine."""

from typing import Final

import numpy as np
from ducc0 import fft
from numba import njit

#: How many times finer than the map the spline's knots are. A wave at m times the map's Nyquist
#: multipole loses (m / (2 REFINEMENT - m))^6 of its amplitude between them: 5e-5 at m = 0.65,
#: where a spline with knots at the pixels loses 1 %.
REFINEMENT: Final = 2

#: Knots repeated behind the last, so that no index has to wrap: the five that a place there needs,
#: and one for a place that rounding puts at the end itself.
_REACH: Final = 6

#: Places read at a time: their knots and weights stay in the processor's cache.
_BLOCK: Final = 2**14

#: That of the maps that are kept; a vector holds twice as many numbers as of float64.
_PRECISION: Final = np.float32


class Displacer:
    """Reads `count` periodic maps of `pixels` a side at displaced places, as `displace` does.

    It keeps the memory that it works in, which costs as much to get as to fill.
    """

    def __init__(self, count: int, pixels: int) -> None:
        fine = REFINEMENT * pixels
        self._pixels, self._fine = pixels, fine
        self._filter = _prefilter(fine, pixels)
        self._coefficients = np.empty((fine + _REACH, fine + _REACH, count), _PRECISION)
        self._modes = np.empty((pixels, pixels // 2 + 1), dtype=complex)
        self._half_done = np.zeros((fine, pixels // 2 + 1), np.complex64)
        self._padded = np.zeros((fine, fine // 2 + 1), np.complex64)
        # Of the six knots around a place the third stands before it.
        self._axis = np.arange(pixels) - 2 / REFINEMENT
        self._rows = max(_BLOCK // pixels, 1)
        block = self._rows * pixels
        self._y, self._x = (
            (np.empty(block, np.int32), np.empty((6, block), _PRECISION)) for _ in "yx"
        )

    def __call__(self, maps: np.ndarray, shift_y: np.ndarray, shift_x: np.ndarray) -> np.ndarray:
        """`displace` of maps (count, y, x)."""
        coefficients, fine = self._coefficients, self._fine
        for index, field in enumerate(maps):
            fft.r2c(field, axes=(0, 1), out=self._modes)
            self._pad()
            fft.c2r(
                self._padded,
                axes=(1,),
                lastsize=fine,
                forward=False,
                out=coefficients[:fine, :fine, index],
            )
        coefficients[fine:] = coefficients[:_REACH]
        coefficients[:, fine:] = coefficients[:, :_REACH]
        out = np.empty((len(maps), self._pixels**2), _PRECISION)
        splines, fields = coefficients.reshape(fine + _REACH, -1), tuple(range(len(maps)))
        for first in range(0, self._pixels, self._rows):
            rows = slice(first, first + self._rows)
            _knots(((self._axis[rows, None] + shift_y[rows]) * REFINEMENT).ravel(), fine, *self._y)
            _knots(((self._axis[None, :] + shift_x[rows]) * REFINEMENT).ravel(), fine, *self._x)
            part = out[:, first * self._pixels : (first + self._rows) * self._pixels]
            _read(splines, *self._y, *self._x, part, fields)
        return out.reshape(maps.shape)

    def _pad(self) -> None:
        """The map's modes as coefficients of the finer grid, transformed along y already.

        A Nyquist line is one wave of two directions: each gets half of it.
        """
        pixels, modes, padded = self._pixels, self._modes, self._half_done
        modes *= self._filter
        half, low = pixels // 2, (pixels + 1) // 2
        padded[:low] = modes[:low]
        padded[-half:] = modes[-half:]
        if pixels % 2 == 0:
            padded[half] = modes[half]
            padded[half] *= 0.5
            padded[-half] *= 0.5
            padded[:, half] *= 0.5
        # The columns beyond are zero and stay so.
        fft.c2c(padded, axes=(0,), forward=False, out=self._padded[:, : half + 1])


def displace(maps: np.ndarray, shift_y: np.ndarray, shift_x: np.ndarray) -> np.ndarray:
    """Read periodic maps (n, y, x) at x + shift, shifts (y, x) in pixels.

    Returns float32 (n, y, x): out(x) = map(x + shift(x)), exact at whole pixels. Between them
    the map is that of its Fourier modes, to the accuracy of `REFINEMENT`.
    """
    maps = np.asarray(maps, dtype=float)
    return Displacer(maps.shape[0], maps.shape[-1])(maps, shift_y, shift_x)


def _prefilter(fine: int, pixels: int) -> np.ndarray:
    """Factor (pixels, pixels // 2 + 1) from a map's modes to its spline's coefficients.

    The spline with coefficients c is Σ c(k) β(x - k), at the knots c convolved with β's values
    there: 66, 26 and 1 over 120 (Unser 1999, IEEE Signal Process. Mag. 16, 22).
    """
    w_y = 2 * np.pi * np.fft.fftfreq(pixels) * pixels / fine
    w_x = 2 * np.pi * np.fft.rfftfreq(pixels) * pixels / fine
    sampled_y, sampled_x = ((66 + 52 * np.cos(w) + 2 * np.cos(2 * w)) / 120 for w in (w_y, w_x))
    return 1 / (sampled_y[:, None] * sampled_x[None, :] * pixels**2)


@njit(inline="always")
def quintic_weights(t):
    """β at the six knots around a point, t in [0, 1) behind the third of them."""
    u = 1 - t
    t2, u2 = t * t, u * u
    return (
        u2 * u2 * u / 120,
        (26 + t * (-50 + t * (20 + t * (20 + t * (-20 + 5 * t))))) / 120,
        (66 + t2 * (-60 + t2 * (30 - 10 * t))) / 120,
        (66 + u2 * (-60 + u2 * (30 - 10 * u))) / 120,
        (26 + u * (-50 + u * (20 + u * (20 + u * (-20 + 5 * u))))) / 120,
        t2 * t2 * t / 120,
    )


# fastmath lets the processor take sums in vectors; so does what has neither branch nor test:
# unsigned indices, which numba does not look at for wrapping, and a modulus by `floor`.
@njit(cache=True, fastmath=True, error_model="numpy")
def _knots(places, fine, knot, weights):
    """First knot (n,) and weights (6, n) of places (n,) along an axis of `fine` periodic knots."""
    w0, w1, w2, w3, w4, w5 = weights[0], weights[1], weights[2], weights[3], weights[4], weights[5]
    for p in range(places.size):
        place = max(places[p] - fine * np.floor(places[p] / fine), 0.0)
        first = np.floor(place)
        knot[p] = np.int32(first)
        w0[p], w1[p], w2[p], w3[p], w4[p], w5[p] = quintic_weights(place - first)


@njit(cache=True, fastmath=True, error_model="numpy")
def _read(coefficients, knot_y, weight_y, knot_x, weight_x, out, fields):
    """Evaluate interleaved splines (knots, knots · count) at n places into `out` (count, n).

    fields: a tuple of `count` numbers; of a tuple the compiler knows the length.
    """
    count, points = len(fields), out.shape[1]
    stride, one = np.uint64(count), np.uint64(1)
    width = 6 * count
    row = np.empty(width, coefficients.dtype)
    for p in range(points):
        k0, start = np.uint64(knot_y[p]), stride * np.uint64(knot_x[p])
        k1 = k0 + one
        k2 = k1 + one
        k3 = k2 + one
        k4 = k3 + one
        k5 = k4 + one
        a0, a1, a2 = weight_y[0, p], weight_y[1, p], weight_y[2, p]
        a3, a4, a5 = weight_y[3, p], weight_y[4, p], weight_y[5, p]
        for q in range(width):
            at = start + np.uint64(q)
            row[np.uint64(q)] = (
                a0 * coefficients[k0, at]
                + a1 * coefficients[k1, at]
                + a2 * coefficients[k2, at]
                + a3 * coefficients[k3, at]
                + a4 * coefficients[k4, at]
                + a5 * coefficients[k5, at]
            )
        for c in range(count):
            out[c, p] = (
                weight_x[0, p] * row[c]
                + weight_x[1, p] * row[count + c]
                + weight_x[2, p] * row[2 * count + c]
                + weight_x[3, p] * row[3 * count + c]
                + weight_x[4, p] * row[4 * count + c]
                + weight_x[5, p] * row[5 * count + c]
            )
