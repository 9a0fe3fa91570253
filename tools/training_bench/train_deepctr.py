"""DeepCTR 0.9.4's own models on TensorFlow 2.15 with its Keras 2 Adam.

Variants: `adam`, Keras 2.15's Adam; `legacy`, the fused Adam of Keras before 2.11, which DeepCTR
was written for. XLA is no variant: it takes three times as long.

Its MMOE, PLE and SharedBottom are of several tasks: all towers train on all rows, as they cannot
choose one by the scenario, and the weights that would leave the others out are spared them.
"""

import keras
import tensorflow as tf
from deepctr import models
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from training_bench import tensorflow_steps, train_deepctr_dien, worker


def columns(workload):
    ids = [SparseFeat(name, size, embedding_dim=workload.dim) for name, size in workload.ids]
    if not workload.history:
        return ids
    shared = SparseFeat("hist_item_id", dict(workload.ids)["item_id"], workload.dim,
                        embedding_name="item_id")  # fmt: skip
    return [*ids, VarLenSparseFeat(shared, maxlen=workload.history)]


def din(workload):
    return models.DIN(
        columns(workload), ["item_id"], dnn_hidden_units=workload.units,
        att_hidden_size=workload.attention_units, att_activation="dice",
        l2_reg_dnn=0, l2_reg_embedding=0, seed=workload.seed,
    )  # fmt: skip


def deepfm(workload):
    return models.DeepFM(
        columns(workload), columns(workload), dnn_hidden_units=workload.units,
        l2_reg_linear=0, l2_reg_embedding=0, l2_reg_dnn=0, seed=workload.seed,
    )  # fmt: skip


def multi_task(workload):
    name = {"MMoE": "MMOE"}.get(workload.model, workload.model)
    options = {
        "MMoE": {"num_experts": workload.experts, "expert_dnn_hidden_units": workload.units},
        "PLE": {"num_levels": 1, "expert_dnn_hidden_units": workload.units},
        "SharedBottom": {"bottom_dnn_hidden_units": workload.units},
    }[workload.model]
    tasks = [f"scenario_{n}" for n in range(workload.scenarios)]
    return getattr(models, name)(
        columns(workload), tower_dnn_hidden_units=workload.tower_units, l2_reg_embedding=0,
        task_names=tasks, task_types=["binary"] * len(tasks), seed=workload.seed, **options,
    )  # fmt: skip


def build(workload, features, labels, variant):
    if workload.model == "DIEN":
        return train_deepctr_dien.build(workload, features, labels)
    tf.keras.utils.set_random_seed(workload.seed)
    model = {"DIN": din, "DeepFM": deepfm}.get(workload.model, multi_task)(workload)
    optimizers = tf.keras.optimizers.legacy if variant == "legacy" else tf.keras.optimizers
    model.compile(optimizers.Adam(1e-3), "binary_crossentropy")
    features = {name: array[..., None] for name, array in features.items()}
    if workload.history:
        features["hist_item_id"] = features.pop("history_item_id")[..., 0]
    labels = labels[..., None]
    if workload.scenarios:
        labels = (labels,) * workload.scenarios
    return tensorflow_steps.steps(model, features, labels)


if __name__ == "__main__":
    worker.main(build, {"deepctr": "0.9.4", "keras": keras.__version__,
                        "tensorflow": tf.__version__})  # fmt: skip
