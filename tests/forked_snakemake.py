"""Snakemake on the project's Snakefile, in processes forked from one that has loaded it.

Loading Snakemake and the package takes four times as long as most dry runs.
"""

import os
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parent.parent
FORKSERVER = get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "snakemake.cli",
        "skyweave.config",
        "skyweave.images.stamp_files",
        "skyweave.simulation.cosmologies",
        "skyweave.tasks.alphas",
        "skyweave.tasks.imported_files",
        "skyweave.tasks.training_cost",
    ]
)


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on the project's Snakefile in `folder`."""
    return as_typed(folder, "--snakefile", str(ROOT / "Snakefile"), *arguments)


def as_typed(folder: Path, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run `snakemake *words` in `folder`: what `subprocess.run` would return."""
    with tempfile.TemporaryDirectory() as said:
        paths = [Path(said) / name for name in ("stdout", "stderr")]
        process = FORKSERVER.Process(
            target=_main, args=(folder, list(words), paths, dict(os.environ))
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        texts = [path.read_text(encoding="utf-8") for path in paths]
        return subprocess.CompletedProcess(words, process.exitcode, *texts)


def _main(folder: Path, words: list[str], said: list[Path], environment: dict[str, str]) -> None:
    """The command in this process, its words written to two files."""
    for number, path in enumerate(said, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["snakemake", *words]

    from snakemake.cli import main

    main(words)
