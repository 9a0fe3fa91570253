"""How near a user's past items and the target item lie in the space of the embeddings."""

import os
from typing import Any

import numpy as np
from keras import ops

from ctr_keras import data
from ctr_keras.models import CTRModel
from ctr_keras.models.inference import inference_function

BINS = 40


def relevance(model: CTRModel, path: str | os.PathLike) -> dict[str, Any] | None:
    """Cosine of the mean past item and the target item over the rows of a data set.

    Args:
        model: A trained model.
        path: The data. Rows without a past item are left out.

    Returns:
        `clicked` and `other`: the mean cosine of clicked and of other rows; `clicked_counts`,
        `other_counts`: a histogram of `BINS` even bins over [-1, 1]. `None` for a model without a
        history, or without rows of both kinds that have one.
    """
    if "history" not in model.tensors:
        return None
    names = ("target", "history", "history_mask")
    embed = inference_function(model, {name: model.tensors[name] for name in names})
    cosines, labels, rows = [], [], []
    for x, y in data.read(path, model.schema, 4096):
        value, has_history = _cosine(embed(x))
        cosines.append(value.numpy())
        rows.append(has_history.numpy())
        labels.append(y.numpy() == 1)
    kept = np.concatenate(rows)
    values, clicked = np.concatenate(cosines)[kept], np.concatenate(labels)[kept]
    if clicked.all() or not clicked.any():
        return None
    result: dict[str, Any] = {}
    for name, part in (("clicked", values[clicked]), ("other", values[~clicked])):
        result[name] = float(part.mean())
        result[f"{name}_counts"] = np.histogram(part, BINS, (-1, 1))[0].tolist()
    return result


def _cosine(tensors: dict) -> tuple:
    mask = ops.cast(tensors["history_mask"], "float32")
    count = ops.sum(mask, axis=1)
    past = ops.sum(ops.cast(tensors["history"], "float32") * mask[..., None], axis=1)
    target = ops.cast(tensors["target"], "float32")
    # The cosine of a sum is that of the mean.
    product = ops.sum(past * target, axis=-1)
    norms = ops.norm(past, axis=-1) * ops.norm(target, axis=-1)
    return ops.clip(product / ops.maximum(norms, 1e-12), -1, 1), count > 0
