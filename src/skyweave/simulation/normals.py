"""Normal random numbers as a function of their identity, many at once.

Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405) turns a key and a counter into 128
random bits; here the counter is (block, component, realization), so that no state is kept, and any
number can be had without those before it. Box and Muller's transform makes two normal numbers of
64 bits. In loops without branches the processor makes several at once; numpy's generators,
which make one after the other, would be the largest part of the cost of a patch.
"""

import math
import zlib
from typing import Protocol

import numpy as np
from numba import njit

#: Blocks of four numbers that are made together; the order of the numbers depends on it.
_CHUNK = 1024


class Random(Protocol):
    """What gives normal numbers: `Normals`, or a generator of numpy."""

    def standard_normal(self, size: int | tuple[int, ...], /) -> np.ndarray:
        """Array of shape `size`, float64."""
        ...


class Normals:
    """Standard normal numbers of one component of one realization.

    `key` is two 32-bit words, of `seeds.key`. Later calls go on where the last one ended (rounded
    up to whole chunks); the first numbers are the same however many are asked for.
    """

    def __init__(self, key: tuple[int, int], realization: int, component: str) -> None:
        self._words = (zlib.crc32(component.encode()), realization & 0xFFFFFFFF, realization >> 32)
        self._key, self._start = key, 0

    def standard_normal(self, size: int | tuple[int, ...], /) -> np.ndarray:
        """Array of shape `size`, float64; the numbers have the precision of float32."""
        count = size if isinstance(size, int) else math.prod(size)
        numbers = np.empty((-(-count // (4 * _CHUNK)), 4, _CHUNK))
        _fill(numbers, np.array([self._start, *self._words, *self._key], np.uint64))
        self._start += len(numbers) * _CHUNK
        return numbers.reshape(-1)[:count].reshape(size)


@njit(cache=True, fastmath=True, error_model="numpy")
def _fill(out, words):
    """Normal numbers (chunks, 4, blocks); words: first block, rest of the counter, key."""
    chunks, _, blocks = out.shape
    bits = np.empty((4, blocks), np.uint32)
    for chunk in range(chunks):
        start = words[0] + np.uint64(chunk * blocks)
        philox(start, words[1:4], words[4:], bits[0], bits[1], bits[2], bits[3])
        _box_muller(bits[0], bits[1], out[chunk, 0], out[chunk, 1])
        _box_muller(bits[2], bits[3], out[chunk, 2], out[chunk, 3])


@njit(cache=True)
def philox(start, words, key, out0, out1, out2, out3):
    """Philox4x32-10 of the counters (start + i, *words), all as uint64 below 2^32.

    words (3,), key (2,); the out arrays (blocks,) uint32 take the four words of each.
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    word1, word2, word3 = words
    key0, key1 = key
    for i in range(out0.size):
        a, b, c, d = (start + np.uint64(i)) & low, word1, word2, word3
        k, m = key0, key1
        for _ in range(10):
            p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
            a, b, c, d = (q >> half) ^ b ^ k, q & low, (p >> half) ^ d ^ m, p & low
            k, m = (k + np.uint64(0x9E3779B9)) & low, (m + np.uint64(0xBB67AE85)) & low
        out0[i], out1[i], out2[i], out3[i] = a, b, c, d


@njit(cache=True, fastmath=True, error_model="numpy")
def _box_muller(radius_bits, angle_bits, out_cos, out_sin):
    """Two normal numbers of each pair of words: sqrt(-2 ln u) times cos and sin of an angle.

    Logarithm, sine and cosine are the single-precision polynomials of the Cephes library, with
    errors below 1e-6 of a normal number.
    """
    f = np.float32
    count = radius_bits.size
    uniform = np.empty(count, np.float32)
    mantissa_bits = np.empty(count, np.int32)
    uniform_bits, mantissa = uniform.view(np.int32), mantissa_bits.view(np.float32)
    for i in range(count):
        # In (0, 1]: 31 bits, and half of the last beyond.
        uniform[i] = f(np.int32(radius_bits[i] >> np.uint32(1))) * f(2.0**-31) + f(2.0**-33)
    for i in range(count):
        mantissa_bits[i] = (uniform_bits[i] & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
    for i in range(count):
        exponent = f((uniform_bits[i] >> np.int32(23)) - np.int32(127))
        large = mantissa[i] > f(math.sqrt(2))
        x = (mantissa[i] * f(0.5) if large else mantissa[i]) - f(1)
        exponent = exponent + f(1) if large else exponent
        series = f(7.0376836292e-2)
        series = series * x - f(1.1514610310e-1)
        series = series * x + f(1.1676998740e-1)
        series = series * x - f(1.2420140846e-1)
        series = series * x + f(1.4249322787e-1)
        series = series * x - f(1.6668057665e-1)
        series = series * x + f(2.0000714765e-1)
        series = series * x - f(2.4999993993e-1)
        series = series * x + f(3.3333331174e-1)
        log = x + (series * x - f(0.5)) * x * x + exponent * f(math.log(2))
        radius = np.sqrt(f(-2) * log)
        # The angle is a number of quarter turns and a rest of at most an eighth.
        word = np.int32(angle_bits[i])
        quarter = (word + np.int32(1 << 29)) >> np.int32(30)
        rest = f(word - (quarter << np.int32(30))) * f(2 * math.pi * 2.0**-32)
        square = rest * rest
        sine = f(-1.9515295891e-4) * square + f(8.3321608736e-3)
        sine = (sine * square - f(1.6666654611e-1)) * square * rest + rest
        cosine = f(2.443315711809948e-5) * square - f(1.388731625493765e-3)
        cosine = (cosine * square + f(4.166664568298827e-2)) * square * square
        cosine = cosine - f(0.5) * square + f(1)
        odd = (quarter & np.int32(1)) != 0
        turned_cos, turned_sin = (sine if odd else cosine), (cosine if odd else sine)
        out_cos[i] = radius * (
            -turned_cos if ((quarter + np.int32(1)) & np.int32(2)) != 0 else turned_cos
        )
        out_sin[i] = radius * (-turned_sin if (quarter & np.int32(2)) != 0 else turned_sin)
