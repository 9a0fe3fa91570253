"""Whether vectors are of the encoder that made those that a model learned from."""

import json
import os
import pathlib
from collections.abc import Mapping

from ctr_keras.data.vector_table import TEXT_VECTORS, VectorTable, encoder_of
from ctr_keras.serving.model_card import MODEL_CARD_FILE
from ctr_keras.training.checkpoint import text_encoder_of
from ctr_keras.training.made_by import check_encoder, is_same_encoder


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
    expected = text_encoder_of(model)
    if expected is None and data is not None:
        expected = encoder_of(pathlib.Path(data) / TEXT_VECTORS)
    if expected is not None and not is_same_encoder(expected, encoder):
        raise ValueError(
            f"The model learned from vectors that another encoder made, {expected}: `--encoder` "
            "and `--max-tokens` must be those of `ctr-keras encode`. "
            f"Received: `encoder={dict(encoder)}`"
        )


def check_item_vectors(version: str | os.PathLike, vectors: VectorTable) -> None:
    """Refuse vectors of items that others made than those that a version's model learned from.

    What made those, its model card tells; where it does not, any may be.

    Args:
        version: Folder of the version.
        vectors: The vectors.

    Raises:
        ValueError: another encoder made them, or from another text or picture.
    """
    card = pathlib.Path(version) / MODEL_CARD_FILE
    expected = json.loads(card.read_text()).get("item_vectors") if card.is_file() else None
    check_encoder(expected, vectors.folder, "item")
