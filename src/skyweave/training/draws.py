"""Several draws of noise as inputs of a network, and what is made of its outputs."""

from dataclasses import dataclass
from typing import Any

from keras import ops


@dataclass(frozen=True)
class Draws:
    """`count` draws of `channels` channels of noise at the end of inputs (n, y, x, channels)."""

    channels: int = 0
    count: int = 1

    def parts(self, x: Any) -> list[Any]:
        """The fields, and then the noise of each draw, if there is any."""
        if not self.channels:
            return [x]
        ends = [x.shape[-1] - self.channels * left for left in range(self.count, 0, -1)]
        return list(ops.split(x, ends, axis=-1))

    def inputs(self, x: Any) -> Any:
        """Fields and noise of each draw, one draw behind the other, (count · n, y, x, …)."""
        if self.count == 1:
            return x
        fields, *noise = self.parts(x)
        return ops.concatenate([ops.concatenate([fields, one], -1) for one in noise], axis=0)

    def first(self, output: Any) -> Any:
        """An output (count · n, …) of `inputs`: that of the first draw, (n, …)."""
        return output if self.count == 1 else self._apart(output)[0]

    def mean(self, output: Any) -> Any:
        """As `first`, the mean over the draws, float32."""
        if self.count == 1:
            return output
        return ops.mean(ops.cast(self._apart(output), "float32"), axis=0)

    def _apart(self, output: Any) -> Any:
        return ops.reshape(output, (self.count, -1, *output.shape[1:]))
