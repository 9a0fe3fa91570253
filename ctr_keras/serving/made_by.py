"""Whether a text encoder is the one that made the vectors that a model learned from."""

import os
import pathlib
from collections.abc import Mapping

from ctr_keras.data.vector_table import TEXT_VECTORS, VectorTable
from ctr_keras.training.checkpoint import text_encoder_of


def check_made_by(
    encoder: Mapping[str, str], model: str | os.PathLike, data: str | os.PathLike | None = None
) -> None:
    """Refuse another encoder than the one whose vectors a model learned from.

    Which that is, the state of the training tells that lies beside the model, or else the vectors
    in the data; where neither is there, any may be.

    Args:
        encoder: What tells it from others, as in `ck.data.VectorTable.encoder`.
        model: File of the model.
        data: Prepared folder that the model was trained on.

    Raises:
        ValueError: it has other weights, or reads another number of tokens.
    """
    expected = text_encoder_of(model) or _by_data(data)
    if expected is not None and _essence(expected) != _essence(encoder):
        raise ValueError(
            f"The model learned from vectors that another encoder made, {expected}: `--encoder` "
            "and `--max-tokens` must be those of `ctr-keras encode`. "
            f"Received: `encoder={dict(encoder)}`"
        )


def _by_data(data: str | os.PathLike | None) -> dict[str, str] | None:
    if data is None or not (pathlib.Path(data) / TEXT_VECTORS).exists():
        return None
    return VectorTable.of_texts(data).encoder


def _essence(encoder: Mapping[str, str]) -> dict[str, str]:
    """Without its name: its folder may have been moved."""
    return {name: value for name, value in encoder.items() if name != "encoder"}
