"""The one place where backends differ: gradients, and the compiling of steps.

A step is written once, as plain Keras: networks are called, optimizers applied, variables assigned.
TensorFlow compiles it as it stands; for JAX it becomes a pure function of all variables' values.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np

from skyweave.errors import UserError

#: Between the seeds of two devices.
_APART = 1_000_003

#: A function of tensors that gives its outputs and anything else.
Function = Callable[..., tuple[Any, Any]]


class Seam(ABC):
    """Gradients and compiled steps over some variables: all that the steps read or change.

    With several devices (`runtime.prepare`) each takes its share of the examples; the rest is alike
    on all. TensorFlow's batch statistics are then those of a share, JAX's of the whole batch.
    """

    def __init__(self, variables: Sequence[keras.Variable], *, xla: bool) -> None:
        self.variables, self.xla = list(variables), xla

    @abstractmethod
    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`step` as a compiled function of arrays; it may change the variables.

        The first axis of an array, if it has one, is that of the examples. What the step gives are
        scalars, means over examples or the same on all devices.
        """

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


def mean_of_devices(gradients: Sequence[Any]) -> list[Any]:
    """Gradients of the whole batch, from the device's own; part of a step."""
    if _tensorflow_devices() == 1:
        return list(gradients)  # JAX's are the batch's already.
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return list(context.all_reduce(tf.distribute.ReduceOp.MEAN, list(gradients)))


def apply(optimizer: keras.Optimizer, gradients: Sequence[Any], model: keras.Model) -> None:
    """Update the model's weights by gradients that are alike on all devices; part of a step."""
    # With several devices of TensorFlow Keras sums what each of them gives.
    devices = _tensorflow_devices()
    gradients = [one / devices for one in gradients] if devices > 1 else list(gradients)
    optimizer.apply(gradients, model.trainable_variables)


def _tensorflow_devices() -> int:
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _shardings() -> tuple[Any, Any]:
    """Of what is alike on all of JAX's devices, and of examples that they share; None for one."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    distribution = keras.distribution.distribution()
    if distribution is None:
        return None, None
    mesh = Mesh(np.array(jax.devices()[: distribution.device_mesh.devices.size]), ("batch",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))


class _TensorFlow(Seam):
    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        devices = strategy.num_replicas_in_sync
        if devices == 1:
            # Said either way, so that no default of TensorFlow decides. XLA draws other dropout
            # masks.
            return tf.function(step, jit_compile=self.xla, autograph=False)

        # Each device has these for itself: generators, which would draw the same masks, and
        # statistics of its share, of which all are to keep the mean.
        own = [v for v in self.variables if not v.trainable and v.aggregation == "none"]
        masks = [v for v in own if v.path.endswith("seed_generator_state")]
        statistics = [v for v in own if "float" in v.dtype]

        def shared(*arguments: Any) -> Any:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group

            def share(array: Any) -> Any:
                size, rest = divmod(array.shape[0], devices) if array.shape.rank else (0, 0)
                return array[number * size : (number + 1) * size] if size and not rest else array

            for state in masks:
                state.assign(state + tf.cast([number * _APART, 0], state.dtype))
            found = step(*tf.nest.map_structure(share, arguments))
            for state in masks:
                state.assign(state - tf.cast([number * _APART, 0], state.dtype))
            means = mean_of_devices([statistic.value for statistic in statistics])
            for statistic, value in zip(statistics, means, strict=True):
                statistic.assign(value)
            return found

        def whole(*arguments: Any) -> Any:
            found = strategy.run(
                shared, args=tf.nest.map_structure(tf.convert_to_tensor, arguments)
            )
            return tf.nest.map_structure(
                lambda value: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None), found
            )

        return tf.function(whole, autograph=False)

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
        known = {id(variable) for variable in self.variables}
        if not known.issuperset(scope.state_mapping):
            raise ValueError("a step changes a variable that its seam was not given")

    def _current(self) -> list[Any]:
        return [self._scopes[-1].get_current_value(variable) for variable in self.variables]

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        import jax

        alike, shared = _shardings()

        @partial(jax.jit, out_shardings=alike)
        def pure(values: Any, *arguments: Any) -> Any:
            with self._values(values):
                found = step(*arguments)
                return found, self._current()

        def share(array: Any) -> Any:
            fits = shared and np.ndim(array) and len(array) % shared.num_devices == 0
            return jax.device_put(array, shared if fits else alike)

        def compiled(*arguments: Any) -> Any:
            if shared:
                arguments = jax.tree.map(share, arguments)
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
