"""The requests that an exported model brings along to be warmed up with."""

import time

import tensorflow as tf

from ctr_keras.serving.protocol import prediction_log_pb2
from ctr_keras.serving.server.loaded_model import LoadedModel
from ctr_keras.serving.tensors import to_array
from ctr_keras.serving.warmup_requests import MAX_RECORDS, WARMUP_FILE

# Beside a version that answers, warming up takes a tenth of a core: it rests nine times as long as
# it ran.
_REST = 9.0
_LONGEST_REST = 0.5  # seconds


def warm_up(model: LoadedModel, gently: bool = False) -> int:
    """Run the recorded requests, so that no user waits for what is done once.

    Args:
        model: A model that nobody uses yet.
        gently: Rest between them, so that those who use another version do not notice.

    Returns:
        How many there were; 0 without a file.

    Raises:
        ValueError: a record is no prediction, or there are more than TF Serving takes.
        ServingError: the model failed on one.
    """
    path = model.folder / WARMUP_FILE
    if not path.is_file():
        return 0
    count = 0
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        count += 1
        if count > MAX_RECORDS:
            raise ValueError(
                f"At most {MAX_RECORDS} warm-up records are read. Received: `file={str(path)!r}`"
            )
        started = time.perf_counter()
        _replay(model, prediction_log_pb2.PredictionLog.FromString(record), count)
        if gently:
            took = time.perf_counter() - started
            time.sleep(min(_LONGEST_REST, _REST * took))
    return count


def _replay(model: LoadedModel, log, number: int) -> None:
    if log.WhichOneof("log_type") != "predict_log":
        raise ValueError(
            f"Warm-up record {number} must be a `predict_log`. "
            f"Received: `log_type={log.WhichOneof('log_type')!r}`"
        )
    request = log.predict_log.request
    inputs = {name: to_array(proto) for name, proto in request.inputs.items()}
    signature = request.model_spec.signature_name or "serving_default"
    model.run(signature, inputs, request.output_filter)
