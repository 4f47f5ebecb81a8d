"""Spectra: CAMB's against published numbers, the tables that users bring, the file between."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skyweave.config import Cosmology, Grid, Spectra
from skyweave.errors import UserError
from skyweave.flat.grid import PatchGrid
from skyweave.simulation.cosmologies import camb_parameters
from skyweave.simulation.optical_depth import tau_cl
from skyweave.simulation.spectra import LENSED, UNLENSED, SpectraTable, compute
from skyweave.simulation.tables import read_spectra

LMAX = 2500


@pytest.fixture(scope="module")
def planck() -> SpectraTable:
    return compute(Spectra(lmax=LMAX))


def dl(table: SpectraTable, name: str) -> np.ndarray:
    return table.ell * (table.ell + 1) * table.cl[name] / (2 * np.pi)


def test_parameters_of_planck():
    """arXiv:1807.06209, table 2: 100 theta* 1.04110 ± 0.00031, r_drag 147.09 ± 0.26 Mpc, age
    13.797 ± 0.023 Gyr."""
    import camb

    derived = camb.get_background(camb_parameters("planck2018", 200)).get_derived_params()
    assert_allclose(derived["thetastar"], 1.04110, atol=0.00031)
    assert_allclose(derived["rdrag"], 147.09, atol=0.26)
    assert_allclose(derived["age"], 13.797, atol=0.023)


def test_first_peak_of_planck(planck):
    """arXiv:1807.06205: at ell 220.6 ± 0.6, 5733 ± 39 µK²."""
    assert tuple(planck.cl) == (*UNLENSED, *LENSED)
    assert planck.lmax == LMAX
    tt = dl(planck, "lensed_tt")
    assert_allclose(tt.argmax(), 220.6, atol=1.2)
    assert_allclose(tt.max(), 5733, atol=78)
    assert_allclose(dl(planck, "te")[[150, 310]] < 0, [True, False])


def test_lensing_of_planck(planck):
    """RMS deflection 2.46' (arXiv:1807.06210) and B like white noise of 5 µK-arcmin."""
    ell = planck.ell[2:].astype(float)
    deflection = 4 * planck.cl["kk"][2:] / (ell * (ell + 1))
    rms = np.sqrt(np.sum((2 * ell + 1) / (4 * np.pi) * deflection))
    assert_allclose(np.rad2deg(rms) * 60, 2.46, rtol=0.02)
    level = np.rad2deg(np.sqrt(planck.cl["lensed_bb"][100])) * 60
    assert_allclose(level, 5, rtol=0.05)
    assert not planck.cl["bb"].any()


def test_lensing_keeps_the_variance(planck):
    weight = 2 * planck.ell + 1
    unlensed, lensed = (np.sum(weight * planck.cl[name]) for name in ("tt", "lensed_tt"))
    assert_allclose(lensed, unlensed, rtol=1e-3)


def test_tensors_make_primordial_b():
    """At r = 0.1 the recombination peak of B, near ell 80, is D = 0.0067 µK²."""
    table = compute(Spectra(cosmology=Cosmology(r=0.1), lmax=200))
    bb = dl(table, "bb")
    assert 70 < 30 + bb[30:].argmax() < 95
    assert_allclose(bb[30:].max(), 0.0067, rtol=0.05)
    assert np.all(table.cl["lensed_bb"][2:] > 0.9 * table.cl["bb"][2:])


def test_tau_table_of_the_paper():
    cl = tau_cl(9500)
    ell = np.array([2, 70, 470, 1970, 4000, 8000])
    expected = np.array([0.0002, 1.3, 8.9, 2.8, 0.5, 0.017]) * 1e-6
    assert_allclose(ell * (ell + 1) * cl[ell] / (2 * np.pi), expected, rtol=1e-9)
    assert np.all(cl[2:9000] >= 0)
    assert cl[8999] > 0
    assert not cl[[0, 1]].any()
    assert not cl[9000:].any()
    assert_allclose(tau_cl(500), cl[:501], rtol=0)


def test_tau_rms_on_the_grid_of_the_paper():
    """arXiv:2101.01214's model on 5°, 128²: 0.004542, by the sum over the modes."""
    grid = PatchGrid(5.0, 128)
    cl = np.interp(grid.ell, np.arange(9001), tau_cl(9000))
    rms = np.sqrt(np.sum(cl * grid.mode_weight) / grid.area_sr)
    assert_allclose(rms, 0.004542, atol=5e-7)


def test_csv_gives_the_same_bits_back(planck, tmp_path):
    planck.write(tmp_path / "spectra.csv")
    again = SpectraTable.read(tmp_path / "spectra.csv")
    assert list(again.cl) == list(planck.cl)
    for name, cl in planck.cl.items():
        assert np.array_equal(again.cl[name], cl), name
    assert (tmp_path / "spectra.csv").read_text().startswith("ell,cl_tt,cl_ee,cl_bb,cl_te,cl_kk")


def test_csv_with_a_gap_is_refused(planck, tmp_path):
    planck.write(path := tmp_path / "spectra.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:100] + lines[101:]))
    with pytest.raises(UserError, match="every 'ell' from 0 up"):
        SpectraTable.read(path)


def write_table(path: Path, table: SpectraTable, names: dict[str, str]) -> None:
    columns = np.column_stack([table.ell, *(dl(table, name) for name in names)])[2:]
    np.savetxt(path, columns, header=" ".join(["ell", *names.values()]), fmt="%.17g", comments="")


def test_table_of_the_user(planck, tmp_path):
    names = {name: f"dl_{name}" for name in ("tt", "ee", "bb", "te", "kk", "lensed_tt")}
    write_table(tmp_path / "mine.txt", planck, names)
    table = compute(Spectra(source="table", path=str(tmp_path / "mine.txt"), lmax=2000))
    assert table.lmax == 2000
    assert set(table.cl) == {*UNLENSED, "lensed_tt"}
    for name in (*UNLENSED, "lensed_tt"):
        assert_allclose(table.cl[name][2:], planck.cl[name][2:2001], rtol=1e-12, err_msg=name)


def test_table_in_steps_is_interpolated(tmp_path):
    ell = np.r_[2:50, 50:1010:10]
    smooth = 1000 / (1 + (ell / 300) ** 2)
    columns = [ell, smooth, 0.1 * smooth, 0 * ell, -0.2 * smooth, 1e-6 * smooth]
    path = tmp_path / "steps.csv"
    header = "# ell, dl_tt, dl_ee, dl_bb, dl_te, dl_kk"
    np.savetxt(path, np.column_stack(columns), header=header, comments="", delimiter=", ")
    table = compute(Spectra(source="table", path=str(path), lmax=1000))
    every = np.arange(2, 1001)
    assert_allclose(dl(table, "te")[2:], -200 / (1 + (every / 300) ** 2), rtol=1e-4)


HEADER = "ell dl_tt dl_ee dl_bb dl_te dl_kk\n"
GOOD = HEADER + "".join(f"{ell} 100 10 0 5 1\n" for ell in range(2, 201))
MISTAKES = {
    "missing column": (GOOD.replace(" dl_kk", " kappa", 1), "a column 'dl_kk' in the first line"),
    "not increasing": (GOOD.replace("\n50 ", "\n49 "), "'ell' to increase, found 49 after 49"),
    "decreasing": (GOOD.replace("\n50 ", "\n20 "), "'ell' to increase, found 20 after 49"),
    "not finite": (GOOD.replace("\n70 100 ", "\n70 nan "), "finite values in 'dl_tt', found nan"),
    "too short": (GOOD[: GOOD.index("\n150 ")], "up to spectra.lmax (200) at least, found 149"),
    "starts late": (HEADER + GOOD[GOOD.index("\n9 ") + 1 :], "start at 2 or below, found 9"),
    "negative": (GOOD.replace("\n70 100 10 ", "\n70 100 -1 "), "no negative value in 'dl_ee'"),
    "impossible": (GOOD.replace("\n70 100 10 0 5", "\n70 100 10 0 50"), "found more at ell 70"),
    "negative kappa": (
        GOOD.replace("\n70 100 10 0 5 1", "\n70 100 10 0 5 -1"),
        "in 'dl_kk', found",
    ),
    "prose": ("These are not spectra.\nThey are words.\n", "a column 'ell' in the first line"),
    "ragged": (GOOD.replace("\n70 100 ", "\n70 "), "6 values in line 70, found 5"),
    "words": (GOOD.replace("\n70 100 ", "\n70 many "), "numbers in line 70, found 70 many"),
    "no lines": (HEADER, "at least 2 lines of numbers, found 0"),
    "empty": ("", "a table of spectra, found an empty file"),
    "binary": ("\0\1", "a column 'ell'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_table_is_one_line(mistake, tmp_path):
    text, message = MISTAKES[mistake]
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        compute(Spectra(source="table", path=str(path), lmax=200))
    assert str(error.value).startswith(f"{path}: expected ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


TO_CL = 2 * np.pi / (np.arange(2501.0) * (np.arange(2501.0) + 1)).clip(1)
CMB = ("tt", "ee", "bb", "te")
#: Spectra, what their D_ell is times, the first column that is told, and as what.
SLIPS = {
    "C_ell": ((*CMB, "kk"), TO_CL, "tt", " (C_ell?)"),
    "C_ell of T": (("tt",), TO_CL, "tt", " (C_ell?)"),
    "C_ell of E": (("ee",), TO_CL, "ee", " (C_ell?)"),
    "C_ell of kappa": (("kk",), TO_CL, "kk", " (C_ell?)"),
    "C_ell of lensed T": (("lensed_tt",), TO_CL, "lensed_tt", " (C_ell?)"),
    "K²": (CMB, 1e-12, "tt", " (K²?)"),
    "K² of E": (("ee",), 1e-12, "ee", " (K²?)"),
    "C_ell in K²": (CMB, 1e-12 * TO_CL, "tt", " (C_ell in K²?)"),
    "nK²": (CMB, 1e6, "tt", ""),
    "D_ell twice": (("kk",), 1 / TO_CL, "kk", ""),
}
RANGES = {
    "tt": "10 to 1e+06 at ell 500 (D_ell in µK²)",
    "lensed_tt": "10 to 1e+06 at ell 500 (D_ell in µK²)",
    "ee": "0.02 to 1e+04 at ell 500 (D_ell in µK²)",
    "kk": "1e-05 to 1 at ell 500 (D_ell)",
}
COLUMNS = {name: f"dl_{name}" for name in ("tt", "ee", "bb", "te", "kk", "lensed_tt")}


def scaled(table: SpectraTable, names: tuple[str, ...], factor, lmax: int) -> SpectraTable:
    cl = {name: cl * (factor if name in names else 1) for name, cl in table.cl.items()}
    return SpectraTable({name: values[: lmax + 1] for name, values in cl.items()})


@pytest.mark.parametrize("slip", SLIPS)
def test_slip_of_kind_or_unit_is_told_by_size(slip, planck, tmp_path):
    names, factor, column, hint = SLIPS[slip]
    table = scaled(planck, names, factor, LMAX)
    write_table(path := tmp_path / "mine.txt", table, COLUMNS)
    with pytest.raises(UserError) as error:
        read_spectra(path, 2000)
    found = f"{dl(table, column)[500]:.3g}{hint}"
    expected = f"expected 'dl_{column}' of {RANGES[column]}, found {found}"
    assert str(error.value) == f"{path}: {expected}"


@pytest.mark.parametrize("lmax", [100, 180, 300, 420, 500])
def test_size_tells_d_ell_from_c_ell_wherever_a_table_ends(lmax, planck, tmp_path):
    path = tmp_path / "mine.txt"
    write_table(path, scaled(planck, (), 1, lmax), COLUMNS)
    assert_allclose(read_spectra(path, lmax)["kk"][2:], planck.cl["kk"][2 : lmax + 1], rtol=1e-12)
    for name in ("tt", "ee", "kk"):
        write_table(path, scaled(planck, (name,), TO_CL, lmax), COLUMNS)
        with pytest.raises(UserError, match=rf"'dl_{name}' of .* at ell {lmax} .*\(C_ell\?\)$"):
            read_spectra(path, lmax)


@pytest.mark.parametrize("name", ["ee", "kk"])
def test_spectrum_without_power_has_no_wrong_size(name, planck, tmp_path):
    path = tmp_path / "mine.txt"
    write_table(path, scaled(planck, (name, "te"), 0, LMAX), COLUMNS)
    assert not read_spectra(path, LMAX)[name].any()


def test_good_table_is_read(tmp_path):
    (tmp_path / "mine.txt").write_text(GOOD)
    assert compute(Spectra(source="table", path=str(tmp_path / "mine.txt"), lmax=200)).lmax == 200


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: expected a table of spectra, found no such"):
        compute(Spectra(source="table", path=str(tmp_path / "none.txt"), lmax=200))


def test_tau_table_of_the_user(tmp_path):
    path = tmp_path / "tau.txt"
    path.write_text("ell dl_tau\n" + "".join(f"{ell} {ell**2 * 1e-12}\n" for ell in (10, 50, 90)))
    cl = tau_cl(200, str(path))
    ell = np.arange(10, 91)
    assert_allclose(cl[10:91], 2 * np.pi * 1e-12 * ell / (ell + 1), rtol=1e-9)
    assert not cl[:10].any()
    assert not cl[91:].any()
    path.write_text("ell dl_tau\n2 1e-6\n3 1e-6\n")
    with pytest.raises(UserError, match="at least 3 lines of numbers, found 2"):
        tau_cl(200, str(path))


def write_tau(path: Path, factor: float | np.ndarray, start: int = 2, stop: int = 8000) -> None:
    """The built-in table in steps of 2, its D_ell times `factor` (of each ell or one)."""
    ell = np.arange(0, 8001, 2)
    values = ell * (ell + 1) / (2 * np.pi) * tau_cl(8000)[ell] * factor
    rows = np.column_stack([ell, values])[(ell >= start) & (ell <= stop)]
    np.savetxt(path, rows, header="ell dl_tau", comments="", fmt="%.17g")


@pytest.mark.parametrize("stop", [100, 300, 500, 8000])
@pytest.mark.parametrize("factor", [1.1e-3, 1, 0.9e3])
def test_tau_of_another_amplitude_is_read(factor, stop, tmp_path):
    write_tau(path := tmp_path / "tau.txt", factor, stop=stop)
    cl = tau_cl(8000, str(path))
    # A parabola beside the cut and at the rise from 2 differs a little.
    assert_allclose(cl[50 : stop - 1], factor * tau_cl(8000)[50 : stop - 1], rtol=1e-3)


@pytest.mark.parametrize("stop", [100, 300, 500, 8000])
def test_tau_as_c_ell_is_told_by_size(stop, tmp_path):
    ell = np.arange(0, 8001, 2)
    write_tau(path := tmp_path / "tau.txt", 2 * np.pi / (ell * (ell + 1)).clip(1), stop=stop)
    at = min(stop, 500)
    with pytest.raises(UserError) as error:
        tau_cl(8000, str(path))
    message = str(error.value)
    assert message.startswith(f"{path}: expected 'dl_tau' of ")
    assert f" at ell {at} (D_ell), found " in message
    assert message.endswith(" (C_ell?)")
    assert "\n" not in message
    write_tau(path, 1e4, stop=stop)
    with pytest.raises(UserError, match=rf"at ell {at} \(D_ell\), found [0-9.]+$"):
        tau_cl(8000, str(path))


def test_tau_without_the_multipoles_that_tell_is_read(tmp_path):
    """Below ell 100 D_ell and C_ell are too much alike; above 500 models differ too much."""
    write_tau(path := tmp_path / "tau.txt", 1e-4, stop=90)
    assert tau_cl(200, str(path))[80] > 0
    write_tau(path, 1e4, start=600)
    assert tau_cl(1000, str(path))[700] > 0
    write_tau(path, 0)
    assert not tau_cl(1000, str(path)).any()


def test_parameters_that_camb_refuses_are_one_line():
    with pytest.raises(UserError, match=r"^spectra\.cosmology: expected parameters that CAMB"):
        compute(Spectra(cosmology=Cosmology(YHe=1.0), lmax=200))


REFERENCE = os.environ.get("SKYWEAVE_REFERENCE")


@pytest.mark.skipif(not REFERENCE, reason="SKYWEAVE_REFERENCE names no folder of spectra")
def test_spectra_of_the_resunet_cmb_paper():
    """Against the CAMB files of the ResUNet-CMB repository, in bands of 500 up to ell 4500.

    0.5 % for the primordial spectra, 1 % for kappa and what it makes. TE changes sign: its
    difference is taken against the mean modulus.
    """
    folder = Path(str(REFERENCE)) / "resunet_cmb"
    files = {
        "scal": ("tt", "ee", "te"),
        "lensed": ("lensed_tt", "lensed_ee", "lensed_bb", "lensed_te"),
    }
    table = compute(Spectra(cosmology="resunet_cmb_2013", lmax=5000))
    read = {kind: np.loadtxt(folder / f"planck_wp_highL_{kind}Cls.dat") for kind in files}
    lens = np.loadtxt(folder / "planck_wp_highL_lenspotentialCls.dat")
    expected = {
        name: read[kind][:, column]
        for kind, names in files.items()
        for column, name in enumerate(names, 1)
    }
    # Column 5 is [L(L+1)]² C_phi / 2pi.
    expected["kk"] = lens[:, 5] / 4 * lens[:, 0] * (lens[:, 0] + 1)
    for name, values in expected.items():
        ours = dl(table, name)
        for low in range(30, 4500, 500):
            theirs = values[low - 2 : low + 498]
            difference = np.mean(ours[low : low + 500] - theirs) / np.mean(np.abs(theirs))
            bar = 0.01 if name == "kk" or name.startswith("lensed") else 0.005
            assert abs(difference) < bar, (name, low)


@pytest.mark.skipif(not REFERENCE, reason="SKYWEAVE_REFERENCE names no folder of spectra")
def test_taper_file_of_the_resunet_cmb_paper():
    from skyweave.flat.taper import cosine_taper

    with np.load(Path(str(REFERENCE)) / "resunet_cmb" / "window_info.npz") as window:
        grid = Grid()
        ours = cosine_taper(PatchGrid(grid.size_deg, grid.pixels), 1.5)
        assert np.array_equal(window["taper"], ours)
