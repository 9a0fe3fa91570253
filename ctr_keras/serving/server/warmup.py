"""The requests that an exported model brings along to be warmed up with."""

import time

from ctr_keras.serving.loaded_model import LoadedModel
from ctr_keras.serving.server.model_name import DEFAULT_SIGNATURE
from ctr_keras.serving.tensors import get_arrays
from ctr_keras.serving.warmup_requests import read_requests

# Beside a version that answers, warming up takes a tenth of a core: it rests nine times as long as
# it ran.
_REST = 9.0
_LONGEST_REST = 0.5  # seconds


def warm_up(model: LoadedModel, gently: bool = False) -> int:
    """Run the recorded requests, so that no user waits for what is done once.

    Args:
        model: A model that nobody uses yet.
        gently: Rest between them, so that those who use another one do not notice.

    Returns:
        How many there were; 0 without a file.

    Raises:
        ValueError: a record is no prediction, or there are more than TF Serving takes.
        ServingError: the model failed on one.
    """
    count = 0
    for request in read_requests(model.folder):
        count += 1
        started = time.perf_counter()
        signature = request.model_spec.signature_name or DEFAULT_SIGNATURE
        model.run(signature, get_arrays(request.inputs), request.output_filter)
        if gently:
            took = time.perf_counter() - started
            time.sleep(min(_LONGEST_REST, _REST * took))
    return count
