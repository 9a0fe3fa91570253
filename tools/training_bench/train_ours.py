"""This package's models."""

import keras
import tensorflow as tf

import ctr_keras as ck
from training_bench import tensorflow_steps, worker


def schema(workload):
    features = [
        ck.Feature(
            name,
            role={"user_id": "user", "item_id": "item", "scene": "scenario"}.get(name, "context"),
            vocabulary=ck.Vocabulary.of_size(size),
        )
        for name, size in workload.ids
    ]
    if workload.history:
        length = workload.history
        features.append(
            ck.Feature("history_item_id", role="history", length=length, shares="item_id")
        )
    return ck.Schema([*features, ck.Feature("label", role="label", kind="number")])


def model_of(workload):
    options = {"embedding_dim": workload.dim, "units": workload.units}
    if workload.model == "DIN":
        options["attention_units"] = workload.attention_units
    if workload.model == "DIEN":
        options["interest_weight"] = float(workload.negatives)
    if workload.scenarios:
        options["tower_units"] = workload.tower_units
    if workload.model == "MMoE":
        options["num_experts"] = workload.experts
    return getattr(ck.models, workload.model)(schema(workload), **options)


def build(workload, features, labels, variant):
    keras.utils.set_random_seed(workload.seed)
    model = model_of(workload)
    model.compile(ck.optimizers.LazyAdam(1e-3), jit_compile=False, metrics=[])
    return tensorflow_steps.steps(model, features, labels)


if __name__ == "__main__":
    worker.main(build, {"keras": keras.__version__, "tensorflow": tf.__version__})
