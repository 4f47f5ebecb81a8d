"""Datasets of images of galaxies: shards of rendered and of others' images, split and stretch."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal

from skyweave.config import ImagesDataset, SersicDataset, Split, Stretch
from skyweave.data.normalization import Normalization
from skyweave.data.shards import ShardSet
from skyweave.data.split import members, read_split
from skyweave.errors import UserError
from skyweave.images.psf import convolve, kernel
from skyweave.images.sersic import draw, render
from skyweave.images.stretch import Scale, fit
from skyweave.sky.fetch import COSMOS
from skyweave.tasks.images import import_images, prepare_images, read_stretch, render_sersic

PSF = {"fwhm_arcsec": 0.6}


def sersic(**changes: object) -> SersicDataset:
    small = {"kind": "sersic", "pixels": 32, "pixel_arcsec": 0.25, "realizations": 12}
    return SersicDataset(**(small | changes))


def rendered(folder: Path, dataset: SersicDataset, *shards: range, name: str = "set") -> ShardSet:
    paths = [folder / f"{number}.h5" for number in range(len(shards))]
    for path, realizations in zip(paths, shards, strict=True):
        render_sersic(path, dataset, realizations, seed=3, name=name)
    return ShardSet(paths)


def own(path: object = "images.npz", **changes: object) -> ImagesDataset:
    return ImagesDataset(**({"kind": "images", "path": str(path), "pixels": 16} | changes))


def imported(path: Path, dataset: ImagesDataset, files: Path | None = None) -> ShardSet:
    import_images(path, dataset, files=files, seed=3, name="set")
    return ShardSet([path])


def save(path: Path, number: int = 12, bands: tuple[str, ...] = ("image",), side: int = 20) -> Path:
    rng = np.random.default_rng(number)
    np.savez(
        path, **{band: np.float32(rng.standard_normal((number, side, side))) for band in bands}
    )
    return path


def test_a_shard_holds_the_profiles_that_are_drawn(tmp_path: Path) -> None:
    dataset = sersic(magnitude=(20, 24))
    images = rendered(tmp_path, dataset, range(4, 9))
    assert images.fields == ("image",)
    assert images.units == {"image": "nJy"}
    assert_allclose(images.size_deg, 32 * 0.25 / 3600)
    assert_array_equal(images.realizations, np.arange(4, 9))
    for row, realization in enumerate(range(4, 9)):
        profile = draw(dataset, 3, "set", realization)
        expected = render(profile, 32, 0.25).astype(np.float32)
        assert_array_equal(images.read("image", [realization])[0], expected)
        for label in ("x_arcsec", "y_arcsec", "radius_arcsec", "index", "axis_ratio", "angle"):
            assert images.labels[label][row] == getattr(profile, label)
        assert_allclose(profile.flux, 10 ** (0.4 * (31.4 - images.labels["magnitude"][row])))
    assert np.ptp(images.labels["magnitude"]) > 1


def test_any_number_of_shards_gives_the_same_bytes(tmp_path: Path) -> None:
    dataset = sersic(psf=PSF, noise=2.0)
    one = rendered(tmp_path / "one", dataset, range(12))
    three = rendered(tmp_path / "three", dataset, range(5), range(5, 6), range(6, 12))
    assert one.read("image").tobytes() == three.read("image").tobytes()
    for label, values in one.labels.items():
        assert_array_equal(three.labels[label], values)
    rendered(tmp_path / "again", dataset, range(12))
    contents = [(tmp_path / name / "0.h5").read_bytes() for name in ("one", "again")]
    assert contents[0] == contents[1]


def test_more_images_or_another_split_change_no_shard(tmp_path: Path) -> None:
    split = {"train": 0.6, "validation": 0.2, "test": 0.2}
    changed = sersic(realizations=50, shard_size=7, split=split, stretch={"kind": "linear"})
    for name, dataset in (("one", sersic()), ("other", changed)):
        rendered(tmp_path / name, dataset, range(3))
    assert (tmp_path / "one/0.h5").read_bytes() == (tmp_path / "other/0.h5").read_bytes()


def test_light_comes_in_from_outside_of_the_frame(tmp_path: Path) -> None:
    """As from a frame that is far larger than the point-spread function."""
    dataset = sersic(psf=PSF, pixels=16)
    found = rendered(tmp_path, dataset, range(3)).read("image")
    spread = kernel(dataset.psf, 0.25)
    for realization, image in enumerate(found):
        wide = render(draw(dataset, 3, "set", realization), 80, 0.25)
        expected = convolve(wide[None], spread)[0, 32:48, 32:48]
        assert_allclose(image, expected, rtol=1e-5)
        alone = convolve(wide[None, 32:48, 32:48], spread)[0]
        assert np.all(image[0] > 1.1 * alone[0])


def test_noise_is_white_and_each_images_own(tmp_path: Path) -> None:
    clean = rendered(tmp_path / "clean", sersic(psf=PSF), range(12)).read("image")
    one = rendered(tmp_path / "one", sersic(psf=PSF, noise=5.0), range(12)).read("image") - clean
    two = rendered(tmp_path / "two", sersic(psf=PSF, noise=10.0), range(12)).read("image") - clean
    assert_allclose(two, 2 * one, atol=1e-3)
    # 12 · 32² numbers: the rms has an error of 0.6 %, a correlation one of 0.9 %.
    assert_allclose(one.std(), 5, rtol=0.025)
    assert abs(one.mean()) < 4 * 5 / np.sqrt(one.size)
    assert abs(np.mean(one[:, :, 1:] * one[:, :, :-1]) / 25) < 0.036
    assert abs(np.mean(one[1:] * one[:-1]) / 25) < 0.036
    other = rendered(tmp_path / "other", sersic(noise=5.0), range(12), name="other")
    clean = rendered(tmp_path / "else", sersic(), range(12), name="other")
    apart = other.read("image") - clean.read("image")
    assert abs(np.mean(apart * one) / 25) < 0.036


def test_shards_of_other_settings_are_told_apart(tmp_path: Path) -> None:
    render_sersic(tmp_path / "0.h5", sersic(), range(3), seed=3, name="set")
    render_sersic(tmp_path / "1.h5", sersic(noise=1.0), range(3, 6), seed=3, name="set")
    with pytest.raises(UserError, match=r"1\.h5: expected provenance .*noise"):
        ShardSet([tmp_path / "0.h5", tmp_path / "1.h5"])


def test_images_of_others_are_kept_as_they_are(tmp_path: Path) -> None:
    path = save(tmp_path / "images.npz", 12, ("g", "r"))
    dataset = own(path, bands=("g", "r"), unit="nJy", pixel_arcsec=0.1)
    images = imported(tmp_path / "0.h5", dataset)
    assert images.units == {"g": "nJy", "r": "nJy"}
    assert_allclose(images.size_deg, 1.6 / 3600)
    assert_array_equal(images.realizations, np.arange(12))
    with np.load(path) as arrays:
        for band in ("g", "r"):
            assert_array_equal(images.read(band), arrays[band][:, 2:18, 2:18])
    first = imported(tmp_path / "1.h5", dataset.model_copy(update={"realizations": 10}))
    assert_array_equal(first.read("r"), images.read("r")[:10])
    assert first.provenance == images.provenance


def test_content_of_the_files_is_told_by_the_shard(tmp_path: Path) -> None:
    def content(path: Path) -> dict[str, str]:
        [said] = imported(tmp_path / "0.h5", own(path)).provenance["files"]
        return said

    before = content(save(tmp_path / "a.npz"))
    assert before["name"] == "a.npz"
    (tmp_path / "elsewhere").mkdir()
    assert content((tmp_path / "a.npz").rename(tmp_path / "elsewhere" / "a.npz")) == before
    assert content(save(tmp_path / "a.npz", 13))["content"] != before["content"]
    (tmp_path / "folder").mkdir()
    for number in range(10):
        np.save(tmp_path / "folder" / f"{number}.npy", np.full((16, 16), number))
    folder = content(tmp_path / "folder")
    np.save(tmp_path / "folder" / "7.npy", np.zeros((16, 16)))
    assert content(tmp_path / "folder")["content"] != folder["content"]


def test_scaled_images_have_larger_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "images.npz", side=48)
    images = imported(tmp_path / "0.h5", own(path, resize="scale", pixel_arcsec=0.1))
    assert_allclose(images.size_deg, 4.8 / 3600)
    with np.load(path) as arrays:
        blocks = arrays["image"].reshape(12, 16, 3, 16, 3).sum((2, 4))
    assert_allclose(images.read("image"), blocks, atol=1e-5)


def test_images_of_others_get_a_point_spread_function_and_noise(tmp_path: Path) -> None:
    path = save(tmp_path / "images.npz", 12, ("g", "r"), side=40)
    dataset = own(path, bands=("g", "r"), psf={"fwhm_arcsec": 0.3}, pixel_arcsec=0.1)
    smooth = imported(tmp_path / "0.h5", dataset)
    spread = kernel(dataset.psf, 0.1)
    with np.load(path) as arrays:
        expected = convolve(arrays["g"], spread)[:, 12:28, 12:28]
    assert_allclose(smooth.read("g"), expected, atol=1e-6)
    noisy = imported(tmp_path / "1.h5", dataset.model_copy(update={"noise": 0.5}))
    noise = np.stack([noisy.read(band) - smooth.read(band) for band in ("g", "r")])
    assert_allclose(noise.std(), 0.5, rtol=0.04)
    assert abs(np.mean(noise[0] * noise[1]) / 0.25) < 0.08


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (9, {}, r"images\.npz: expected at least 10 images, found 9"),
        (12, {"realizations": 13}, r"datasets\.set\.realizations: expected at most the 12 .* 13$"),
        (12, {"bands": ("g", "r")}, r"images\.npz: expected arrays g, r, or one array .*image"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_shard(number, changes, message, tmp_path: Path) -> None:
    path = save(tmp_path / "images.npz", number)
    with pytest.raises(UserError, match=message) as caught:
        imported(tmp_path / "0.h5", own(path, **changes))
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["images.npz"]


def test_a_broken_image_leaves_no_shard(tmp_path: Path) -> None:
    images = np.ones((12, 16, 16))
    images[11, 3, 3] = np.nan
    np.savez(tmp_path / "images.npz", image=images)
    with pytest.raises(UserError, match=r"images\.npz, image 11: expected finite values"):
        imported(tmp_path / "0.h5", own(tmp_path / "images.npz"))
    assert [file.name for file in tmp_path.iterdir()] == ["images.npz"]
    # What is not asked for is not looked at.
    assert imported(tmp_path / "0.h5", own(tmp_path / "images.npz", realizations=11)).pixels == 16


def test_stamps_of_cosmos_are_found_in_the_folder_of_the_fetched(tmp_path: Path) -> None:
    """Files of those names; what is in the true ones is tested where they are read."""
    catalogue, images = (tmp_path / name for name in COSMOS.names)
    stamps = np.random.default_rng(0).standard_normal((12, 70, 50)).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(), *map(fits.ImageHDU, stamps)]).writeto(images)
    columns = [
        fits.Column("IDENT", "J", array=np.arange(12)),
        fits.Column("GAL_FILENAME", "40A", array=np.array([images.name] * 12)),
        fits.Column("GAL_HDU", "J", array=np.arange(12, 0, -1)),
        fits.Column("PIXEL_SCALE", "D", array=np.full(12, 0.03)),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(catalogue)
    dataset = ImagesDataset(kind="images", source="cosmos")
    found = imported(tmp_path / "0.h5", dataset, tmp_path)
    assert (found.realizations.size, found.pixels, found.fields) == (12, 64, ("image",))
    assert_allclose(found.size_deg, 64 * 0.03 / 3600)
    assert found.provenance["files"][0]["name"] == catalogue.name
    assert_array_equal(found.read("image")[:, :, 7:57], stamps[::-1, 3:67])
    assert not found.read("image")[:, :, :7].any()
    with pytest.raises(UserError, match=r"set\.pixel_arcsec: expected 0\.03, as in .*found 0\.04"):
        imported(tmp_path / "1.h5", replaced(dataset, pixel_arcsec=0.04), tmp_path)
    with pytest.raises(UserError, match=r"set\.realizations: expected at most the 12 .*found 13"):
        imported(tmp_path / "1.h5", replaced(dataset, realizations=13), tmp_path)


def replaced(dataset: ImagesDataset, **changes: object) -> ImagesDataset:
    return ImagesDataset(**(dataset.model_dump() | changes))


def prepared(folder: Path, shards: ShardSet, **stretch: object) -> None:
    prepare_images(
        shards.paths,
        split_out=folder / "split.csv",
        normalization_out=folder / "normalization.json",
        stretch_out=folder / "stretch.json",
        split=Split(),
        stretch=Stretch(**stretch),
        seed=3,
        dataset="set",
    )


def test_stretch_is_measured_on_the_training_images_alone(tmp_path: Path) -> None:
    """The only bright image is one of the test set, and of the other band."""
    images = np.random.default_rng(0).uniform(0, 1, (2, 40, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "images.npz", g=images[0], r=3 * images[1])
    dataset = own(tmp_path / "images.npz", bands=("g", "r"))
    prepared(tmp_path, imported(tmp_path / "0.h5", dataset))
    parts = read_split(tmp_path / "split.csv")
    assert [len(members(parts, part)) for part in ("train", "validation", "test")] == [32, 4, 4]
    train = members(parts, "train")
    expected = fit(Stretch(), np.stack([images[0], 3 * images[1]], axis=1)[train])
    assert read_stretch(tmp_path / "stretch.json") == expected
    assert 2.9 < expected.top < 3

    images[:, members(parts, "test")] = 1000
    np.savez(tmp_path / "images.npz", g=images[0], r=3 * images[1])
    prepared(tmp_path, imported(tmp_path / "0.h5", dataset))
    assert read_stretch(tmp_path / "stretch.json") == expected


def test_stretch_is_of_images_from_all_over_the_catalogue(tmp_path: Path, monkeypatch) -> None:
    """Which is sorted by brightness: the first of it would tell a twentieth."""
    monkeypatch.setattr("skyweave.tasks.images._MEASURED", 40)
    images = np.random.default_rng(0).uniform(0, 1, (400, 16, 16))
    np.savez(tmp_path / "images.npz", image=images * np.linspace(0.01, 1, 400)[:, None, None])
    prepared(tmp_path, imported(tmp_path / "0.h5", own(tmp_path / "images.npz")), kind="linear")
    # Of the bright pixels of each image one in a thousand is brighter.
    assert 0.8 < read_stretch(tmp_path / "stretch.json").top <= 1


def test_images_are_split_and_not_normalized(tmp_path: Path) -> None:
    images = rendered(tmp_path, sersic(), range(7), range(7, 20))
    prepared(tmp_path, images, kind="linear", top=50.0)
    assert read_stretch(tmp_path / "stretch.json") == Scale("linear", None, 50.0)
    normalization = Normalization.from_json((tmp_path / "normalization.json").read_text())
    assert normalization.moments == {"image": (0.0, 1.0)}
    values = images.read("image")
    assert_array_equal(normalization.apply("image", values), values)
    before = read_split(tmp_path / "split.csv")
    prepared(tmp_path, rendered(tmp_path / "more", sersic(), range(30)))
    after = read_split(tmp_path / "split.csv")
    assert before.equals(after[:20])


def test_the_same_stretch_of_any_number_of_shards(tmp_path: Path) -> None:
    for name, shards in (("one", [range(20)]), ("two", [range(3), range(3, 20)])):
        prepared(tmp_path / name, rendered(tmp_path / name, sersic(), *shards))
    for file in ("split.csv", "normalization.json", "stretch.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_images_without_flux_have_no_stretch(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", image=np.zeros((12, 16, 16)))
    images = imported(tmp_path / "0.h5", own(tmp_path / "images.npz"))
    with pytest.raises(UserError, match=r"stretch\.top: expected images with flux above 0"):
        prepared(tmp_path, images)
    assert not (tmp_path / "split.csv").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "asinh", "softening": null, "top": 1}'])
def test_another_file_is_no_stretch(text: str, tmp_path: Path) -> None:
    path = tmp_path / "stretch.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"stretch\.json: expected") as caught:
        read_stretch(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"none\.json: expected a stretch"):
        read_stretch(tmp_path / "none.json")
