"""One process at a time in a folder, on any file system and from any host of a cluster."""

import json
import os
import random
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skyweave.errors import UserError

#: Seconds between two signs of life.
BEAT_S = 15.0
#: Seconds without one after which a holder on another host counts as gone. Far more than a beat
#: and than the minute for which NFS may show old times.
STALE_S = 300.0


class Lock:
    """Hold `folder` while the block runs.

    A holder is a file ``lock-<number>`` that names its process; its time of change is renewed by
    a thread, so that a long step does not look dead. On its own host a holder that was killed is
    known at once; one elsewhere by `stale_s` without a sign of life. Raises `UserError` where
    another holds the folder.

    A stale holder is never removed before it is succeeded: its successor is made under the next
    number, which only one process can do. So two that find the same stale file cannot both win,
    and no process removes a file that it has not judged.
    """

    def __init__(
        self, folder: str | os.PathLike, *, beat_s: float = BEAT_S, stale_s: float = STALE_S
    ) -> None:
        self.folder, self.beat_s, self.stale_s = Path(folder), beat_s, stale_s
        self.path: Path | None = None
        self._about = json.dumps(_self() | {"key": secrets.token_hex(8)})
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(20):
            files = self._files()
            for path in files:
                self._refuse_if_held(path)
            path = self.folder / f"lock-{_number(files[-1]) + 1 if files else 0:06d}"
            if not self._create(path):
                continue
            # A slow process may have followed a file that was itself followed since; whoever
            # sees another living one gives way.
            try:
                for other in self._files():
                    if other != path:
                        self._refuse_if_held(other)
            except UserError:
                path.unlink(missing_ok=True)
                time.sleep(random.uniform(0, 0.2))
                continue
            for outdated in files:
                outdated.unlink(missing_ok=True)
            self.path = path
            self._ended.clear()
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
            return self
        raise UserError(self.folder, "no other process that trains here", "several that begin")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self.path is not None and self._mine():
            self.path.unlink(missing_ok=True)
        self.path = None

    def check(self) -> None:
        """Raise `UserError` if another has taken the folder; to be asked before writing to it."""
        if not self._mine():
            for path in self._files():
                self._refuse_if_held(path)
            raise UserError(self.folder, "the lock of this process", "that it was taken")

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("lock-[0-9]*"))

    def _create(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self._about)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return True

    def _mine(self) -> bool:
        try:
            return self.path is not None and self.path.read_text(encoding="utf-8") == self._about
        except FileNotFoundError:
            return False

    def _beat(self) -> None:
        while not self._ended.wait(self.beat_s):
            try:
                # Without a time of ours: the file server's clock, the same for all hosts.
                os.utime(self.path or "")
            except FileNotFoundError:
                return
            except OSError:
                continue

    def _refuse_if_held(self, path: Path) -> None:
        try:
            # Opened, not only looked at: NFS then asks the server how old the file is.
            with path.open(encoding="utf-8") as file:
                text, changed = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return
        try:
            holder = json.loads(text)
            name = f"process {holder['pid']} on {holder['host']}"
            alive = _alive(holder)
        except (ValueError, TypeError, KeyError):
            # Not written yet, or its writer died in between.
            name, alive = "a process", None
        age = max(self._now() - changed, 0.0)
        if alive is None:
            alive = age < self.stale_s
        if alive:
            raise UserError(
                self.folder,
                "no other process that trains here",
                f"{name}, which holds {path.name}, its last sign of life {age:.0f} s ago "
                f"(one elsewhere counts as gone after {self.stale_s:.0f} s)",
            )

    def _now(self) -> float:
        """The file system's time: clocks of hosts differ."""
        probe = self.folder / f".lock-{secrets.token_hex(8)}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("lock-"))


def _self() -> dict[str, Any]:
    """This process: its number means something only under the same boot and PID namespace."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "start": _start(pid), "space": _space()}


def _space() -> str | None:
    """Where process numbers are ours: this boot of this machine, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _start(pid: int) -> str | None:
    """When a process started, in ticks since the boot; None for one that is gone or dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before the last ")" may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _alive(holder: dict[str, Any]) -> bool | None:
    """Whether the holder runs; None where only its signs of life can tell."""
    if holder["space"] is None or holder["space"] != _space():
        return None
    return holder["start"] == _start(holder["pid"])
