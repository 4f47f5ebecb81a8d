"""What a process that trains sets before the first operation."""

import os
import resource
from dataclasses import dataclass
from typing import Any

import keras

from skyweave.config import Training
from skyweave.errors import UserError


@dataclass(frozen=True)
class Numerics:
    """What `auto` in the settings means here."""

    precision: str
    xla: bool
    deterministic: bool
    devices: int = 1


def numerics(settings: Training, device: str | None = None) -> Numerics:
    """Precision, XLA and determinism on `device` (``cpu`` or ``gpu``; this process's if None).

    Raises `UserError` for settings that the running backend cannot have together, and for more
    devices than there are.
    """
    devices = _devices(settings)
    jax = keras.backend.backend() == "jax"
    if settings.xla is False and jax:
        raise UserError("training.xla", "`auto` or `true` with JAX, whose steps are XLA's", "false")
    if settings.xla is True and settings.deterministic is True and not jax:
        raise UserError(
            "training.xla",
            "`false` with `deterministic: true`: TensorFlow promises nothing for what XLA compiles",
            "true",
        )
    if settings.xla is True and devices > 1 and not jax:
        raise UserError("training.xla", "`false` with several devices of TensorFlow", "true")
    gpu = (device or _device()) == "gpu"
    deterministic = settings.deterministic
    if deterministic == "auto":
        deterministic = not gpu and (jax or settings.xla is not True)
    xla = settings.xla
    if xla == "auto":
        xla = jax or (gpu and not deterministic and devices == 1)
    precision = settings.precision
    if precision == "auto":
        precision = "bfloat16" if gpu and _has_bfloat16() else "float32"
    return Numerics(precision, xla, deterministic, devices)


def prepare(seed: int, threads: int | None = None, settings: Training | None = None) -> None:
    """Seed all generators, keep to `threads` threads, and set what `settings` say of numerics.

    Without settings operations are deterministic float32. To be called before a network is built:
    TensorFlow fixes its threads at the first operation, and layers take their precision when made.
    """
    tensorflow = keras.backend.backend() == "tensorflow"
    if settings is not None and settings.deterministic is True and not tensorflow:
        # Read when the first operation starts JAX, thus before its device can be asked for.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    if tensorflow and threads is not None:
        import tensorflow as tf

        # Before its devices are asked for, which starts it.
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    chosen = numerics(settings) if settings else Numerics("float32", False, True)
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[chosen.precision]
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(seed % 2**32)
    if not tensorflow:
        devices = keras.distribution.list_devices()[: chosen.devices]
        several = keras.distribution.DataParallel(devices=devices) if len(devices) > 1 else None
        keras.distribution.set_distribution(several)
        return
    import tensorflow as tf

    if chosen.deterministic:
        tf.config.experimental.enable_op_determinism()
        # It reorders sums, in one way or another each time a step is compiled.
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    if chosen.devices > 1:
        names = [device.name for device in _tensorflow_devices()[: chosen.devices]]
        # Sums in one order, so that the same bits come back; and the default, on processors,
        # confuses the sums of two networks.
        sums = tf.distribute.ReductionToOneDevice()
        strategy = tf.distribute.MirroredStrategy(names, cross_device_ops=sums)
        tf.distribute.experimental_set_strategy(strategy)


def memory_gb() -> float:
    """Most memory that a device has held so far, or this process where there is no accelerator."""
    if _device() == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    if keras.backend.backend() == "jax":
        import jax

        return max(device.memory_stats()["peak_bytes_in_use"] for device in jax.devices()) / 1e9
    import tensorflow as tf

    names = [device.name.split("device:")[1] for device in _tensorflow_devices()]
    return max(tf.config.experimental.get_memory_info(name)["peak"] for name in names) / 1e9


def _device() -> str:
    """``gpu`` where the running backend sees an accelerator, else ``cpu``."""
    if keras.backend.backend() == "jax":
        import jax

        return "cpu" if jax.default_backend() == "cpu" else "gpu"
    import tensorflow as tf

    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def _tensorflow_devices() -> list[Any]:
    """TensorFlow's GPUs, or its CPUs where there are none."""
    import tensorflow as tf

    kinds = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
    return next(found for found in kinds if found)


def _devices(settings: Training) -> int:
    """How many devices to train on."""
    if settings.devices == 1:
        return 1  # without asking, which starts the devices
    jax = keras.backend.backend() == "jax"
    there = len(keras.distribution.list_devices() if jax else _tensorflow_devices())
    wanted = there if settings.devices == "all" else settings.devices
    if wanted > there:
        raise UserError("training.devices", f"at most the {there} of this machine", wanted)
    if settings.batch % wanted:
        raise UserError("training.batch", f"a multiple of the {wanted} devices", settings.batch)
    return wanted


def _has_bfloat16() -> bool:
    """Whether the accelerator computes in bfloat16 itself: NVIDIA's do from capability 8.0 on."""
    if keras.backend.backend() == "jax":
        import jax

        capability = getattr(jax.devices()[0], "compute_capability", None)
        return capability is None or float(capability) >= 8
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    capability = details.get("compute_capability")
    return capability is not None and capability >= (8, 0)
