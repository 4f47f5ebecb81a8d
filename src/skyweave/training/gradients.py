"""The one place where backends differ: gradients, and the compiling of steps.

A step is written once, as plain Keras: networks are called, optimizers applied, variables assigned.
TensorFlow compiles it as it stands; for JAX it becomes a pure function of all variables' values.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from skyweave.errors import UserError

#: A function of tensors that gives its outputs and anything else.
Function = Callable[..., tuple[Any, Any]]


class Seam(ABC):
    """Gradients and compiled steps over some variables: all that the steps read or change."""

    def __init__(self, variables: Sequence[keras.Variable], *, xla: bool) -> None:
        self.variables, self.xla = list(variables), xla

    @abstractmethod
    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`step` as a compiled function of arrays; it may change the variables."""

    @abstractmethod
    def pullback(
        self,
        function: Function,
        variables: Sequence[keras.Variable] = (),
        tensors: Sequence[Any] = (),
    ) -> tuple[Any, Any, Callable[[Any], list[Any]]]:
        """Outputs of `function(*tensors)`, what else it gives, and its pullback, good for one call.

        That takes the gradient of a scalar by the outputs, of their structure, to its gradients by
        `variables` and then by `tensors`. To be called within a step.
        """

    def gradient(
        self,
        function: Function,
        variables: Sequence[keras.Variable] = (),
        tensors: Sequence[Any] = (),
    ) -> tuple[Any, Any, list[Any]]:
        """As `pullback`, of one scalar: its value, what else there is, and the gradients."""
        value, more, pull = self.pullback(function, variables, tensors)
        return value, more, pull(keras.ops.ones_like(value))


def seam(variables: Sequence[keras.Variable], *, xla: bool = False) -> Seam:
    """The seam of the running backend; raises `UserError` for one that has none.

    `xla` is TensorFlow's; JAX has no other way.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _TensorFlow(variables, xla=xla)
    if backend == "jax":
        return _Jax(variables, xla=xla)
    raise UserError("KERAS_BACKEND", "one of tensorflow, jax", backend)


class _TensorFlow(Seam):
    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        import tensorflow as tf

        # Said either way, so that no default of TensorFlow decides. XLA draws other dropout masks.
        return tf.function(step, jit_compile=self.xla, autograph=False)

    def pullback(
        self,
        function: Function,
        variables: Sequence[keras.Variable] = (),
        tensors: Sequence[Any] = (),
    ) -> tuple[Any, Any, Callable[[Any], list[Any]]]:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            watched = [tf.convert_to_tensor(tensor) for tensor in tensors]
            tape.watch(watched)
            outputs, more = function(*watched)
        sources = [variable.value for variable in variables] + watched

        def pull(cotangents: Any) -> list[Any]:
            return tape.gradient(
                tf.nest.flatten(outputs),
                sources,
                output_gradients=tf.nest.flatten(cotangents),
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        return outputs, more, pull


class _Jax(Seam):
    def __init__(self, variables: Sequence[keras.Variable], *, xla: bool) -> None:
        super().__init__(variables, xla=xla)
        #: The scopes that hold the variables' values while a step is traced, innermost last.
        self._scopes: list[keras.StatelessScope] = []

    @contextmanager
    def _values(self, values: Sequence[Any]) -> Iterator[None]:
        """Variables have these values within the block, and change nowhere else."""
        mapping = list(zip(self.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._scopes.append(scope)
            try:
                yield
            finally:
                self._scopes.pop()

    def _current(self) -> list[Any]:
        return [self._scopes[-1].get_current_value(variable) for variable in self.variables]

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        import jax

        @jax.jit
        def pure(values: Any, *arguments: Any) -> Any:
            with self._values(values):
                found = step(*arguments)
                return found, self._current()

        def compiled(*arguments: Any) -> Any:
            found, changed = pure([variable.value for variable in self.variables], *arguments)
            for variable, value in zip(self.variables, changed, strict=True):
                variable.assign(value)
            return found

        return compiled

    def pullback(
        self,
        function: Function,
        variables: Sequence[keras.Variable] = (),
        tensors: Sequence[Any] = (),
    ) -> tuple[Any, Any, Callable[[Any], list[Any]]]:
        import jax

        before = self._current()
        place = {id(variable): number for number, variable in enumerate(self.variables)}
        places = [place[id(variable)] for variable in variables]

        def pure(parameters: Any, tensors: Any) -> Any:
            values = list(before)
            for number, value in zip(places, parameters, strict=True):
                values[number] = value
            with self._values(values):
                outputs, more = function(*tensors)
                return outputs, (more, self._current())

        parameters = [before[number] for number in places]
        outputs, pull, (more, after) = jax.vjp(pure, parameters, list(tensors), has_aux=True)
        for number, variable in enumerate(self.variables):
            if number not in places:
                variable.assign(after[number])

        def pulled(cotangents: Any) -> list[Any]:
            by_parameters, by_tensors = pull(cotangents)
            return [*by_parameters, *by_tensors]

        return outputs, more, pulled
