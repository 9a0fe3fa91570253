"""Our model of a case, with DeepCTR's weights."""

from collections.abc import Mapping

import keras
import numpy as np

import ctr_keras as ck
from deepctr_comparison import scenario_weights
from deepctr_comparison.cases import (
    ATTENTION_UNITS,
    DIM,
    EXPERTS,
    TOWER_UNITS,
    UNITS,
    Case,
    Column,
)

Arrays = Mapping[str, np.ndarray]


def predict(case: Case, weights: Arrays, inputs: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Logits and probabilities of our model with these weights of DeepCTR's."""
    model = build(case)
    assign(model, case, weights)
    logits = keras.Model(model.input, model.tensors["logit"]).predict(dict(inputs), verbose=0)
    return logits.reshape(-1), model.predict(dict(inputs), verbose=0).reshape(-1)


def build(case: Case) -> keras.Model:
    options = {"embedding_dim": DIM, "units": UNITS, "activation": case.activation}
    if case.model == "DIN":
        options["attention_units"] = ATTENTION_UNITS
        options["attention_normalize"] = "softmax" if case.softmax else None
    if case.scenarios:
        options["tower_units"] = TOWER_UNITS
    if case.model == "MMoE":
        options["num_experts"] = EXPERTS
    if case.model == "PLE":
        options["num_levels"] = case.levels
    features = [feature(column) for column in case.columns]
    return getattr(ck.models, case.model)(ck.Schema(features), **options)


def feature(column: Column) -> ck.Feature:
    if column.width == 1:
        return ck.Feature(column.name, column.role, kind="number")
    if column.width:
        return ck.Feature(column.name, column.role, kind="vector", width=column.width)
    vocabulary = None if column.shares else ck.Vocabulary.of_size(column.ids)
    return ck.Feature(
        column.name, column.role, vocabulary=vocabulary, length=column.length, shares=column.shares
    )


def assign(model: keras.Model, case: Case, theirs: Arrays) -> None:
    """Every weight of ours from theirs; raises if one on either side is left over."""
    theirs = dict(theirs)
    ours = {weight.path: weight for weight in model.weights}
    del ours["recalibration/negative_ratio"]  # 1: the model saw every negative.
    assign_table(ours, model.get_layer("embedding"), case, theirs, "sparse")
    if case.model in ("DeepFM", "WideDeep"):
        assign_table(ours, model.get_layer("linear"), case, theirs, "linear0sparse")
    for path, values in translated(case, theirs).items():
        weight = ours.pop(path)
        weight.assign(values.reshape(weight.shape))
    if ours or theirs:
        raise ValueError(f"Without a counterpart: ours {sorted(ours)}, theirs {sorted(theirs)}")


def assign_table(ours: dict, layer, case: Case, theirs: dict, prefix: str) -> None:
    """DeepCTR has one table a feature, named after the sequence where one uses it."""
    sequences = {c.shares or c.name: c.their_name for c in case.sequences}
    for column in case.columns:
        if column.ids and column.shares is None:
            name = f"emb_{column.name}"
            if column.name in sequences:
                name = f"seq_emb_{sequences[column.name]}"
            layer.assign_rows(column.name, theirs.pop(f"{prefix}_{name}/embeddings"))
    for table in layer.weights:
        del ours[table.path]


def translated(case: Case, theirs: dict) -> dict[str, np.ndarray]:
    """Our weights by path; takes theirs out of `theirs`."""
    if case.scenarios:
        return scenario_weights.translated(case, theirs, lambda x: reordered(case, x, {}))
    dense = mlp(theirs, "dnn", ["mlp/dense_0", "mlp/dense_1"])
    if case.activation == "dice":
        dense |= dice(theirs, "dnn", ["mlp/activation_0", "mlp/activation_1"])
    projections = {column.name: projection(column) for column in case.numbers}
    dense["mlp/dense_0/kernel"] = reordered(case, dense["mlp/dense_0/kernel"], projections)
    for name, values in projections.items():
        dense[f"embedding_{name}/kernel"] = values
    for column in case.numbers:
        if column.width == 1:
            dense |= identity_scale(f"{column.name}_scale")
    bias, last = theirs.pop("prediction_layer/global_bias"), theirs.pop("dense/kernel")
    if case.model == "DIN":
        return {**dense, **attention(case, theirs), "logit/kernel": last, "logit/bias": bias}
    return {**dense, **linear(case, theirs), "mlp_logit/kernel": last, "linear_bias/bias": bias}


def mlp(theirs: dict, name: str, layers: list[str]) -> dict[str, np.ndarray]:
    return {
        f"{layer}/{part}": theirs.pop(f"{name}/{part}{i}")
        for i, layer in enumerate(layers)
        for part in ("kernel", "bias")
    }


def dice(theirs: dict, name: str, layers: list[str]) -> dict[str, np.ndarray]:
    weights = {}
    for layer, count in zip(layers, ("", "_1"), strict=True):
        weights[f"{layer}/alpha"] = theirs.pop(f"{name}/dice{count}/dice_alpha")
        for part in ("moving_mean", "moving_variance"):
            their_name = f"{name}/dice{count}/batch_normalization{count}/{part}"
            weights[f"{layer}/{part}"] = theirs.pop(their_name)
    return weights


def attention(case: Case, theirs: dict) -> dict[str, np.ndarray]:
    """Our softmax is of scores over sqrt(width), DeepCTR's of the scores."""
    name = "attention_sequence_pooling_layer/local_activation_unit"
    scale = (DIM * len(case.histories)) ** 0.5 if case.softmax else 1.0
    return {
        **mlp(theirs, f"{name}/dnn", ["attention", "attention/hidden/dense_0"]),
        **dice(
            theirs, f"{name}/dnn", ["attention/first_activation", "attention/hidden/activation_0"]
        ),
        "attention/score/kernel": scale * theirs.pop(f"{name}/kernel"),
        "attention/score/bias": scale * theirs.pop(f"{name}/bias"),
    }


def linear(case: Case, theirs: dict) -> dict[str, np.ndarray]:
    """The linear weights of the numbers, which DeepCTR has in one kernel."""
    if not case.numbers:
        return {}
    blocks = cut(theirs.pop("linear/linear_kernel"), {c.name: c.width for c in case.numbers})
    return {f"linear_{name}/kernel": values for name, values in blocks.items()}


def reordered(case: Case, kernel: np.ndarray, projections: Arrays) -> np.ndarray:
    """The rows of the first kernel from DeepCTR's order of features to ours.

    A number `x` is multiplied by `W` there, and by `P V` here, `P` projecting it to the width of an
    embedding: `V = P^T W`, as the rows of `P` are orthonormal.
    """
    pooled = [c for c in case.columns if not (case.model == "DIN" and c.is_history)]
    widths = {c.name: DIM for c in pooled if c.ids and c.length is None}
    widths |= {c.name: DIM for c in pooled if c.length is not None}
    if case.model == "DIN":
        widths["attention"] = DIM * len(case.histories)
    widths |= {c.name: c.width for c in case.numbers}
    blocks = cut(kernel, widths)
    for name, values in projections.items():
        blocks[name] = values.T @ blocks[name]
    order = [c.name for c in pooled] + ["attention"] * (case.model == "DIN")
    return np.concatenate([blocks[name] for name in order])


def cut(kernel: np.ndarray, widths: dict[str, int]) -> dict[str, np.ndarray]:
    """The rows of a kernel, by feature."""
    ends = np.cumsum(list(widths.values()))
    if ends[-1] != len(kernel):
        raise ValueError(f"A kernel of {len(kernel)} rows is not that of {widths}")
    return dict(zip(widths, np.split(kernel, ends[:-1]), strict=True))


def projection(column: Column) -> np.ndarray:
    """Random orthonormal rows."""
    rng = np.random.default_rng(column.width)
    return np.linalg.qr(rng.normal(size=(DIM, column.width)))[0].T


def identity_scale(layer: str) -> dict[str, np.ndarray]:
    """A scale that leaves a number as it is."""
    values = {
        "gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0, "batches": 1.0
    }  # fmt: skip
    return {f"{layer}/{part}": np.array([value]) for part, value in values.items()}
