"""Which denoising runs of a study differ by the share of generated images in their training."""

from skyweave.config import Config, DenoisingRun

#: Settings by which runs of a group may differ.
_FREE = {"alpha", "repeat", "generated"}


def alphas(study: Config) -> dict[str, dict[str, tuple[float, int]]]:
    """Denoising runs, `alpha` and `repeat`, by dataset, where some have no alpha and others more.

    Those of a dataset are alike but for `alpha` and `repeat`, and one run `generated` the images of
    all that mix some in; of several such groups the largest counts, of two as large the first by
    its runs' names. Of runs that are the same network, the first by name is taken.
    """
    runs = {name: run for name, run in sorted(study.runs.items()) if isinstance(run, DenoisingRun)}
    kinds = {name: run.model_dump_json(exclude=_FREE) for name, run in runs.items()}
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for name, run in runs.items():
        networks: dict[tuple[float, int], str] = {}
        for other, one in runs.items():
            if kinds[other] == kinds[name] and (not one.alpha or one.generated == run.generated):
                networks.setdefault((one.alpha, one.repeat), other)
        able = bool(run.alpha) and any(not alpha for alpha, _ in networks)
        if able and len(networks) > len(found.get(run.dataset, ())):
            found[run.dataset] = {other: key for key, other in networks.items()}
    return dict(sorted(found.items()))
