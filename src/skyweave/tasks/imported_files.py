"""What the files of imported datasets hold, by their headers alone."""

from collections.abc import Mapping

from skyweave.config import Config, ImportedDataset, parse
from skyweave.data.arrays import ArrayFile, open_arrays
from skyweave.errors import UserError


def counted(study: Config) -> Config:
    """The study with the numbers of realizations and pixels of its imported datasets.

    Only the files' headers are read. Raises `UserError` for files that do not hold what the
    settings say, and for settings that do not fit what they hold.
    """
    found = {
        name: _counted(name, dataset)
        for name, dataset in study.datasets.items()
        if isinstance(dataset, ImportedDataset)
    }
    if not found:
        return study
    values = study.model_dump(mode="json")
    values["datasets"] |= {name: one.model_dump(mode="json") for name, one in found.items()}
    return parse(values)


def _counted(name: str, dataset: ImportedDataset) -> ImportedDataset:
    where = f"datasets.{name}"
    counts = [_check_file(open_arrays(path), dataset, where) for path in dataset.paths]
    pixels, total = counts[0][1], sum(count for count, _ in counts)
    for path, (_, other) in zip(dataset.paths, counts, strict=True):
        if other != pixels:
            raise UserError(path, f"maps of {pixels} x {pixels} pixels, as in the first", other)
    if dataset.pixels not in (None, pixels):
        raise UserError(f"{where}.pixels", f"{pixels}, as in the files", dataset.pixels)
    if dataset.realizations is not None and dataset.realizations > total:
        expected = f"at most the files' {total}"
        raise UserError(f"{where}.realizations", expected, dataset.realizations)
    if pixels < 16 or pixels % 4:
        expected = "maps of 16 pixels a side or more, a multiple of 4"
        raise UserError(dataset.paths[0], expected, f"{pixels} x {pixels}")
    taken = dataset.realizations or total
    if taken < 10:
        raise UserError(f"{where}.path", "at least 10 realizations", taken)
    return dataset.model_copy(update={"pixels": pixels, "realizations": taken})


def _check_file(file: ArrayFile, dataset: ImportedDataset, where: str) -> tuple[int, int]:
    """Number of realizations and of pixels a side of a file that holds the dataset's fields."""
    shapes = {}
    for field, name in array_names(file, dataset.fields, where).items():
        shape = file.shapes[name]
        if len(shape) != 3 or shape[1] != shape[2]:
            raise UserError(file.path, f"{name!r} as square maps (n, y, x)", shape)
        shapes[field] = shape
    first = next(iter(shapes.values()))
    for field, shape in shapes.items():
        if shape != first:
            expected = f"arrays of one shape ({next(iter(shapes))}: {first})"
            raise UserError(file.path, expected, f"{field}: {shape}")
    size = file.number("size_deg")
    if size is None and file.number("pixel_arcmin") is not None:
        size = (file.number("pixel_arcmin") or 0) * first[1] / 60
    for key, said in (("size_deg", size), ("taper_deg", file.number("taper_deg"))):
        given = getattr(dataset, key)
        if said is not None and abs(said - given) > 1e-3 * max(abs(said), abs(given)):
            raise UserError(f"{where}.{key}", f"{said:g}, as {file.path} says", f"{given:g}")
    return first[0], first[1]


def array_names(file: ArrayFile, fields: Mapping[str, str], where: str) -> dict[str, str]:
    """The file's array of each field: the one named in the settings, else of the field's name."""
    names = {}
    for field, name in fields.items():
        names[field] = next((key for key in (name, field) if key in file.shapes), "")
        if not names[field]:
            known = ", ".join(sorted(file.shapes)) or "no arrays"
            raise UserError(file.path, f"an array {name!r} ({where}.fields.{field})", known)
    return names
