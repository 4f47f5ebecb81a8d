"""What all tests share."""

import gc
import os
from collections.abc import Iterator

import pytest

# Patches are small: threads that wait for each other cost more than they bring, in NaMaster above
# all (seen: 8 ms a field with two threads, 0.04 ms with one). Set before the libraries load.
os.environ.setdefault("OMP_NUM_THREADS", "1")


#: Whose tests begin with what takes longest: another worker does the rest meanwhile.
FIRST = "test_study.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers take files of tests in this order."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.name != FIRST)


@pytest.fixture(scope="session", autouse=True)
def _no_slurm_but_in_its_own_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Snakemake's Slurm plugin asks an installed Slurm as soon as it is loaded, in vain for 9 s
    where that does not run; with an empty configuration its answer comes at once."""
    with pytest.MonkeyPatch.context() as patch:
        if not any(item.get_closest_marker("slurm") for item in request.session.items):
            patch.setenv("SLURM_CONF", os.devnull)
        yield


@pytest.fixture(scope="module", autouse=True)
def _nothing_old_is_searched_again() -> Iterator[None]:
    """What a module's tests leave, a million objects of libraries, would be looked through by each
    full garbage collection of the modules after it: a tenth of the time."""
    yield
    gc.collect()
    gc.freeze()
