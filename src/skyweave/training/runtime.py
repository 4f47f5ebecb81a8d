"""What a process that trains sets before the first operation."""

import keras


def prepare(seed: int, threads: int | None = None) -> None:
    """Seed all generators, ask for deterministic operations, and keep to `threads` threads.

    To be called before a network is built: TensorFlow fixes its threads at the first operation.
    """
    keras.utils.set_random_seed(seed % 2**32)
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
