"""Losses for TensorBoard, beside the state, by TensorFlow's own writer."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skyweave.errors import UserError


class Events:
    """A file of events for each process that trained, in `folder`, if it is `wanted`.

    With `anew` those of a training that gave way are removed. Raises `UserError` where TensorFlow
    is not installed.
    """

    def __init__(self, folder: Path, *, wanted: bool, anew: bool) -> None:
        self._writer: Any = None
        if not wanted:
            return
        try:
            import tensorflow as tf
        except ImportError:
            raise UserError(
                "training.tensorboard", "TensorFlow installed, whose writer it is", "none"
            ) from None
        self._tf = tf
        if anew:
            for path in folder.glob("events.out.tfevents.*"):
                path.unlink()
        self._writer = tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def epoch(self, row: Mapping[str, float]) -> None:
        """Write an epoch's results; one that a killed process wrote too is written again."""
        if self._writer is None:
            return
        # What `tf.summary.scalar` writes, which itself asks for TensorBoard to be installed.
        metadata = self._tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
        metadata.plugin_data.plugin_name = "scalars"
        with self._writer.as_default(step=int(row["epoch"])):
            for name, value in row.items():
                if name != "epoch":
                    number = self._tf.constant(value, "float32")
                    self._tf.summary.write(name, number, metadata=metadata)
        self._writer.flush()
