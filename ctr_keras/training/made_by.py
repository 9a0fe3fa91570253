"""Whether vectors are of the encoder that made those that a model learned from."""

import os
from collections.abc import Mapping

from ctr_keras.data.vector_table import ITEM_VECTORS, TEXT_VECTORS, beside, encoder_of
from ctr_keras.training.checkpoint import item_vectors_of, text_encoder_of


def is_same_encoder(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether both tell of one encoder, as `ck.data.VectorTable.encoder` does."""
    return _essence(one) == _essence(other)


def check_encoder(expected: Mapping[str, str] | None, folder: str | os.PathLike, kind: str) -> None:
    """Refuse vectors that others made than those that a model learned from.

    Args:
        expected: What made those; where it is not known, any may be.
        folder: Of the vectors, if there are any.
        kind: What they are of, `"text"` or `"item"`.

    Raises:
        ValueError: another encoder made them, or from another text or picture.
    """
    found = encoder_of(folder)
    if expected is not None and found is not None and not is_same_encoder(expected, found):
        raise ValueError(
            f"The model learned from vectors of {kind}s made by {dict(expected)}, and "
            f"{folder} has others. Received: `{kind}_vectors.encoder={found}`"
        )


def check_vectors_beside(model: str | os.PathLike, split: str | os.PathLike) -> None:
    """As `check_encoder`, of the vectors that go with a split.

    What a model learned from, the state of the training tells that lies beside its file.

    Args:
        model: File of the model.
        split: Folder of the split.
    """
    check_encoder(text_encoder_of(model), beside(split, TEXT_VECTORS), "text")
    check_encoder(item_vectors_of(model), beside(split, ITEM_VECTORS), "item")


def _essence(encoder: Mapping[str, str]) -> dict[str, str]:
    """Without its name, where more tells it from others: its folder may have been moved."""
    more = {name: value for name, value in encoder.items() if name != "encoder"}
    return more or dict(encoder)
