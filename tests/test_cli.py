"""The command `skyweave`: words to a task, and mistakes to one line."""

import pytest
from pydantic import ValidationError

from skyweave.cli import main
from skyweave.config import Prediction
from skyweave.errors import UserError
from skyweave.tasks import sky_inpainting

INPAINT = ["inpaint", "network", "map.fits", "mask.fits", "-o", "out.fits"]
PLAIN = {"unit": None, "sampled": True, "overwrite": False, "threads": None}


@pytest.fixture
def asked(monkeypatch):
    """What the task is called with."""
    calls = []
    monkeypatch.setattr(
        sky_inpainting, "inpaint_map", lambda *files, **words: calls.append((files, words))
    )
    return calls


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ([], {}),
        (["--mean"], {"sampled": False}),
        (["--unit", "K_CMB", "--threads", "3"], {"unit": "K_CMB", "threads": 3}),
        (["--overwrite"], {"overwrite": True}),
    ],
)
def test_inpaint_says_what_to_fill(asked, words, changed):
    assert main([*INPAINT, *words]) == 0
    ((files, found),) = asked
    assert files == ("network", "map.fits", "mask.fits", "out.fits")
    assert found.pop("command") == " ".join(["skyweave", *INPAINT, *words])
    assert found == PLAIN | changed


def test_a_refused_inpainting_is_one_line(monkeypatch, capsys):
    def refuse(*files, **words):
        raise UserError("mask.fits", "holes", "none")

    monkeypatch.setattr(sky_inpainting, "inpaint_map", refuse)
    assert main(INPAINT) == 1
    assert capsys.readouterr().err == "skyweave: mask.fits: expected holes, found none\n"


def test_an_inpainting_without_a_network_is_one_line(tmp_path, capsys):
    words = ["inpaint", str(tmp_path / "none"), "map.fits", "mask.fits", "-o", "out.fits"]
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("expected the folder of a trained network, found none")


@pytest.mark.parametrize("words", [INPAINT[:3], INPAINT[:4], [*INPAINT, "--tapered"]])
def test_other_words_are_refused(asked, words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert not asked
    assert "usage: skyweave" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [("tapered", True), ("convention", "iau"), ("pixel_arcmin", 5.0), ("format", "npz")],
)
def test_a_mask_has_no_settings_of_flat_maps_beside_it(key, value):
    plain = {"run": "holes", "path": "map.fits"}
    assert Prediction(**plain, mask="mask.fits").mask == "mask.fits"
    assert getattr(Prediction(**plain, **{key: value}), key) == value
    with pytest.raises(ValidationError, match=f"{key}: expected none beside `mask`"):
        Prediction(**plain, mask="mask.fits", **{key: value})
