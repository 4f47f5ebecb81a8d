"""The scale between fluxes and what networks see, and point-spread functions."""

import json

import numpy as np
import pytest
from scipy.special import erf

from skyweave.config.galaxies import Psf, Stretch
from skyweave.errors import UserError
from skyweave.images import psf
from skyweave.images.stretch import Scale, fit

ASINH = Scale("asinh", 0.05, 4.0)
LINEAR = Scale("linear", None, 4.0)


@pytest.mark.parametrize("scale", [ASINH, LINEAR])
def test_nothing_is_minus_one_and_top_is_one(scale):
    ends = scale.apply(np.array([0.0, 4.0]))
    assert ends.dtype == np.float32
    np.testing.assert_allclose(ends, [-1, 1], atol=2e-7)


def test_asinh_bends_at_its_softening():
    # A straight line of slope 1/softening at 0, a logarithm far above.
    height = np.arcsinh(80) / 2
    low, twice = ASINH.apply(np.array([1e-3, 2e-3]))
    assert (twice - low) * height == pytest.approx(1e-3 / 0.05, rel=1e-3)
    high, twice = ASINH.apply(np.array([50.0, 100.0]))
    assert (twice - high) * height == pytest.approx(np.log(2), rel=1e-5)


def test_linear_is_a_line():
    np.testing.assert_allclose(LINEAR.apply(np.array([-2.0, 2.0, 8.0])), [-2, 0, 3], atol=1e-6)


@pytest.mark.parametrize("scale", [ASINH, LINEAR])
def test_undo_is_the_inverse(scale):
    size = np.geomspace(1e-6, 400, 2000).astype(np.float32).reshape(4, 10, 50)
    fluxes = np.concatenate([-size, size])
    back = scale.undo(scale.apply(fluxes))
    assert (back.dtype, back.shape) == (np.float32, fluxes.shape)
    # A stretched value is known to about 1e-7, of flux 0 (-1) too.
    error = np.abs(back - fluxes) / (np.abs(fluxes) + (scale.softening or scale.top))
    assert error.max() < 3e-6


def test_fit_takes_bright_pixels_of_each_image_over_bands_together():
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 1, (50, 2, 32, 32)).astype(np.float32)
    images[:, 1] *= 0.4  # Dim in one band: below half the brightest pixel of the image.
    images *= np.linspace(1, 20, 50)[:, None, None, None]
    scale = fit(Stretch(), images)
    bright = np.concatenate([image[0][image[0] > image.max() / 2] for image in images])
    assert scale.top == pytest.approx(np.percentile(bright, 99.9), rel=1e-6)
    assert scale.softening == pytest.approx(scale.top / 100)
    assert scale.kind == "asinh"


def test_fit_takes_what_is_set():
    nothing = np.zeros((2, 8, 8))
    assert fit(Stretch(top=3), nothing) == Scale("asinh", 0.03, 3)
    assert fit(Stretch(top=3, softening=2), nothing) == Scale("asinh", 2, 3)
    assert fit(Stretch(kind="linear", top=3), nothing) == Scale("linear", None, 3)


def test_fit_passes_over_images_without_flux():
    images = np.zeros((3, 8, 8), np.float32)
    images[1] -= 1
    with pytest.raises(UserError, match=r"stretch\.top: expected images with flux above 0"):
        fit(Stretch(), images)
    images[2, 4, 4] = 5
    assert fit(Stretch(), images).top == 5


@pytest.mark.parametrize("scale", [ASINH, LINEAR])
def test_scales_are_plain_values(scale):
    assert Scale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


@pytest.mark.parametrize(
    "change",
    [{"kind": "log"}, {"softening": None}, {"softening": -1}, {"top": 0}, {"top": "bright"}],
)
def test_other_values_are_refused(change):
    with pytest.raises(UserError, match="stretch: expected"):
        Scale.from_dict(ASINH.to_dict() | change)
    with pytest.raises(UserError, match="stretch: expected"):
        Scale.from_dict(LINEAR.to_dict() | {"softening": 1.0})


def test_gaussian_is_integrated_over_pixels():
    kernel = psf.gaussian(0.7)
    edge = erf(np.arange(-0.5, 5) / (0.7 * np.sqrt(2))) / 2
    row = np.diff(edge)  # Pixels 0 to 4.
    middle = len(kernel) // 2
    assert len(kernel) % 2 == 1
    np.testing.assert_allclose(
        kernel[middle : middle + 4, middle : middle + 4],
        np.outer(row, row)[:4, :4],
        atol=1e-6,
    )
    assert kernel.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 6.0])
def test_gaussian_has_its_width(sigma):
    kernel = psf.gaussian(sigma)
    place = np.arange(len(kernel)) - len(kernel) // 2
    # A pixel's own variance comes on top.
    assert place**2 @ kernel.sum(0) == pytest.approx(sigma**2 + 1 / 12, rel=1e-4)


def test_gaussian_without_width_is_a_single_one():
    assert psf.gaussian(0.0).tolist() == [[1.0]]


@pytest.mark.parametrize("width", [0.02, 0.5, 3.0, 20.0])
@pytest.mark.parametrize(
    ("kind", "beta"), [("gaussian", 4.765), ("moffat", 1.5), ("moffat", 4.765)]
)
def test_kernels_are_symmetric_positive_and_sum_to_one(kind, beta, width):
    kernel = psf.kernel(Psf(kind=kind, fwhm_arcsec=width * 0.03, beta=beta), 0.03)
    side = len(kernel)
    assert (kernel.shape, side % 2, kernel.dtype) == ((side, side), 1, np.float64)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert kernel.min() > -1e-15
    for other in (kernel[::-1], kernel[:, ::-1], kernel.T):
        np.testing.assert_allclose(kernel, other, atol=1e-15)


def test_moffat_holds_its_flux_within_radii():
    # Summed over a large square's pixels, against an integral over the square on a fine grid.
    width, beta = 2.5, 3.0
    kernel = psf.kernel(Psf(kind="moffat", fwhm_arcsec=width, beta=beta), 1.0)
    scale = width / (2 * np.sqrt(2 ** (1 / beta) - 1))
    fine = (np.arange(4000) + 0.5) / 4000 * 7.5
    values = (1 + (fine**2 + fine[:, None] ** 2) / scale**2) ** -beta
    inside = 4 * values.sum() * (7.5 / 4000) ** 2 * (beta - 1) / (np.pi * scale**2)
    middle = len(kernel) // 2
    square = kernel[middle - 7 : middle + 8, middle - 7 : middle + 8].sum()
    assert square == pytest.approx(inside, abs=2e-6)


def test_kernels_end_where_little_is_left():
    # (1 + (r/scale)²)^(1 - beta) = 1e-6 at 6.1 scales; slower wings end at the limit.
    scale = 4 / (2 * np.sqrt(2 ** (1 / 4.765) - 1))
    end = scale * np.sqrt(1e-6 ** (1 / (1 - 4.765)) - 1)
    kernel = psf.kernel(Psf(kind="moffat", fwhm_arcsec=4), 1)
    assert len(kernel) == 2 * int(np.ceil(end)) + 1
    assert len(psf.kernel(Psf(kind="moffat", fwhm_arcsec=4, beta=1.2), 1)) == 129
    assert len(psf.kernel(Psf(kind="moffat", fwhm_arcsec=30, beta=1.2), 1)) == 241
    assert len(psf.kernel(Psf(kind="gaussian", fwhm_arcsec=4), 1)) == 19


@pytest.mark.parametrize(
    ("kind", "beta"), [("gaussian", 4.765), ("moffat", 2.5), ("moffat", 4.765)]
)
@pytest.mark.parametrize("width", [0.4, 1.7, 5.0])
def test_kernels_are_galsims(kind, beta, width):
    galsim = pytest.importorskip("galsim")
    kernel = psf.kernel(Psf(kind=kind, fwhm_arcsec=width * 0.2, beta=beta), 0.2)
    precise = {"fwhm": width * 0.2, "gsparams": galsim.GSParams(xvalue_accuracy=1e-14)}
    made = galsim.Gaussian(**precise) if kind == "gaussian" else galsim.Moffat(beta, **precise)
    # Its inner pixels are integrated here.
    half = len(kernel) // 2
    inner = min(half, 2)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    places = (np.arange(-inner, inner + 1)[:, None] + nodes / 2).ravel() * 0.2
    fine = np.array([[made.xValue(x, y) for x in places] for y in places])
    fine = fine.reshape(2 * inner + 1, 20, 2 * inner + 1, 20) * (0.2 / 2) ** 2
    found = np.einsum("aibj,i,j", fine, weights, weights)
    middle = kernel[half - inner : half + inner + 1, half - inner : half + inner + 1]
    np.testing.assert_allclose(middle / middle.sum(), found / found.sum(), rtol=1e-6, atol=1e-9)
    # What the kernel leaves out, its pixels share.
    scale = width / (2 * np.sqrt(2 ** (1 / beta) - 1))
    beyond = 1e-6 if kind == "gaussian" else (1 + (half / scale) ** 2) ** (1 - beta)
    assert found.sum() * (1 - 1e-6) < middle.sum() < found.sum() * (1 + beyond + 1e-6)


def test_a_point_becomes_the_kernel():
    kernel = psf.kernel(Psf(kind="moffat", fwhm_arcsec=2, beta=4), 1.0)
    half = len(kernel) // 2
    images = np.zeros((2, len(kernel) + 10, len(kernel) + 4), np.float32)
    images[0, half + 7, half + 1] = 1
    images[1, half, half] = 3
    found = psf.convolve(images, kernel)
    assert (found.dtype, found.shape) == (np.float32, images.shape)
    side = len(kernel)
    np.testing.assert_allclose(found[0, 7 : 7 + side, 1 : 1 + side], kernel, atol=1e-8)
    np.testing.assert_allclose(found[1, :side, :side], 3 * kernel, atol=3e-8)


def test_convolution_keeps_flux_inside_and_loses_it_at_the_edge():
    kernel = psf.gaussian(2.0)
    images = np.zeros((3, 64, 64))
    images[0, 20:44, 20:44] = np.random.default_rng(0).uniform(0, 1, (24, 24))
    images[1, 0, 32] = 1
    images[2, 0, 0] = 1
    sums = psf.convolve(images, kernel).sum((1, 2))
    assert sums[0] == pytest.approx(images[0].sum(), rel=1e-10)
    middle = len(kernel) // 2
    assert sums[1] == pytest.approx(kernel[middle:].sum(), rel=1e-10)
    assert sums[2] == pytest.approx(kernel[middle:, middle:].sum(), rel=1e-10)


def test_a_kernel_may_be_larger_than_the_frame():
    kernel = psf.gaussian(5.0)
    images = np.zeros((1, 16, 16))
    images[0, 8, 8] = 1
    middle = len(kernel) // 2
    inner = slice(middle - 8, middle + 8)
    np.testing.assert_allclose(psf.convolve(images, kernel)[0], kernel[inner, inner], atol=1e-15)
