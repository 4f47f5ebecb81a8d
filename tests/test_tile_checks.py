"""A sky through tiles and back, smaller than the one of the page, and the page itself."""

import pytest

from skyweave.flat.grid import PatchGrid
from skyweave.tasks import tile_checks as checks

#: Pixels and beam in the same proportion as the page's.
GRID, NSIDE, LMAX = PatchGrid(20.0, 160), 256, 700


@pytest.fixture(scope="module")
def trips():
    return [checks.round_trip(spin, GRID, NSIDE, LMAX) for spin in (0, 2)]


@pytest.mark.parametrize("spin", [0, 1])
def test_a_sky_comes_back(trips, spin):
    trip = trips[spin]
    assert trip.error < 1.5e-4
    assert trip.worst < 3e-3
    assert trip.seam == pytest.approx(1, abs=1e-4)
    assert trip.inside == pytest.approx(1, abs=1e-4)
    near = trip.spectra[trip.spectra.ell < 500]
    assert (near.ratio - 1).abs().max() < 2e-4


def test_e_stays_e(trips):
    leak = trips[1].spectra.leak
    assert (leak > 0).all()
    assert leak.max() < 1e-6


def test_the_page_shows_both(trips):
    text = checks.page(*trips, GRID, NSIDE)
    assert "174 tiles of 20°" in text
    assert "160² pixels of 7.5′" in text
    assert text.count("\n| ") == 1 + 1 + 5 + 2 + len(trips[0].spectra)
    assert f"| 0–100 | {trips[0].spectra.ratio[0]:.5f} |" in text
