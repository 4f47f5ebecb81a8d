"""Which runs of a study can be compared by what their training cost."""

from skyweave.config import Config, ReconstructionRun

_CORRELATIONS = ("correlation", "pixel_correlation")


def comparable(study: Config) -> dict[str, tuple[str, ...]]:
    """Runs by simulated dataset, where two or more have their epochs compared by one correlation.

    That is one of the same fields over the same multipoles; of several such groups on a dataset the
    largest counts, of two as large the first by its runs' names.
    """
    groups: dict[str, dict[tuple, list[str]]] = {}
    for name, run in sorted(study.runs.items()):
        if not isinstance(run, ReconstructionRun) or study.datasets[run.dataset].kind != "cmb":
            continue
        select = run.training.select
        if select.by in _CORRELATIONS:
            key = (select.by, frozenset(select.fields or run.targets), select.ell)
            groups.setdefault(run.dataset, {}).setdefault(key, []).append(name)
    largest = {name: max(found.values(), key=len) for name, found in groups.items()}
    return {name: tuple(runs) for name, runs in sorted(largest.items()) if len(runs) > 1}
