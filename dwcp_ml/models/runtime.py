"""TensorFlow, imported late: seeded, deterministic, with a fixed number of threads."""

from __future__ import annotations

import os

from dwcp_ml.contract.errors import DwcpError, ErrorCode

DEFAULT_THREADS = 1


def start(threads: int | None = None) -> None:
    """Import TensorFlow with the Keras backend that the exports need, and pin its threads.

    ``None`` keeps the threads of a TensorFlow that already runs. Raises ``DwcpError`` if this
    process already runs TensorFlow with another number of threads, or Keras with another backend.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise DwcpError(
            f"Keras runs on {keras.backend.backend()}, the exports need TensorFlow; "
            "set KERAS_BACKEND=tensorflow."
        )
    tf.get_logger().setLevel("ERROR")  # it reports the second training in a process as "retracing"
    running = tf.config.threading.get_intra_op_parallelism_threads()
    requested = threads or running or DEFAULT_THREADS
    try:
        tf.config.threading.set_intra_op_parallelism_threads(requested)
        tf.config.threading.set_inter_op_parallelism_threads(requested)
    except RuntimeError as error:
        if threads is None:
            return
        raise DwcpError(
            f"TensorFlow already runs with {running} threads in this process, not {threads}; "
            "start another process.",
            code=ErrorCode.CONFLICT,
            subject="threads",
        ) from error


def seed_everything(seed: int) -> None:
    """Make initial weights and all operations of TensorFlow reproducible."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
