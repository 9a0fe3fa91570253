"""DeepCTR 0.9.4's own DIEN, in the graph mode of TensorFlow 1 that its authors' example asks for.

Its recurrences are copies of TensorFlow 1's, which call names that TensorFlow 2.15 has moved; they
are put back where it looks for them. Keras' newer optimizers need eager execution, so that the
variants `adam` and `legacy` are the same here: the fused Adam of Keras before 2.11.

With the auxiliary loss the negative history comes with the batch, drawn beforehand in its favour.
"""

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import (
    array_ops,
    array_ops_stack,
    cond,
    control_flow_assert,
    control_flow_ops,
    while_loop,
)
from tensorflow.python.util import nest

from training_bench.workload import RESERVED_IDS

MOVED = (
    (array_ops, "stack", array_ops_stack.stack),
    (array_ops, "unstack", array_ops_stack.unstack),
    (control_flow_ops, "Assert", control_flow_assert.Assert),
    (control_flow_ops, "cond", cond.cond),
    (control_flow_ops, "while_loop", while_loop.while_loop),
    (nest, "is_sequence", nest.is_nested),
)


def model_of(workload):
    from deepctr import models
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    columns = [SparseFeat(name, size, workload.dim) for name, size in workload.ids]
    for name in ("hist_item_id", "neg_hist_item_id")[: 1 + workload.negatives]:
        shared = SparseFeat(
            name, dict(workload.ids)["item_id"], workload.dim, embedding_name="item_id"
        )
        columns.append(VarLenSparseFeat(shared, maxlen=workload.history, length_name="seq_length"))
    return models.DIEN(
        columns, ["item_id"], gru_type="AUGRU", use_negsampling=workload.negatives,
        dnn_hidden_units=workload.units, att_hidden_units=workload.attention_units,
        l2_reg_embedding=0, seed=workload.seed,
    )  # fmt: skip


def inputs_of(workload, features):
    history = features["history_item_id"]
    inputs = {name: array for name, array in features.items() if name != "history_item_id"}
    inputs["hist_item_id"] = history
    inputs["seq_length"] = (history > 0).sum(axis=-1, dtype="int32")
    if workload.negatives:
        rng = np.random.default_rng(workload.seed)
        drawn = rng.integers(RESERVED_IDS, dict(workload.ids)["item_id"], history.shape, "int32")
        inputs["neg_hist_item_id"] = np.where(history > 0, drawn, 0)
    return inputs


def build(workload, features, labels):
    tf.compat.v1.disable_eager_execution()
    for module, name, moved in MOVED:
        setattr(module, name, moved)
    tf.compat.v1.set_random_seed(workload.seed)
    model = model_of(workload)
    model.compile(tf.keras.optimizers.legacy.Adam(1e-3), "binary_crossentropy")
    inputs = inputs_of(workload, features)
    batches = iter(range(len(labels)))

    def step():
        i = next(batches)
        return model.train_on_batch({name: array[i] for name, array in inputs.items()}, labels[i])

    return step
