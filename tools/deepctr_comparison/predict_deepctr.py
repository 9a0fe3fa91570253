"""Runs in DeepCTR's environment: each case's model with random weights, to one .npz file a case."""

import argparse
import pathlib

import numpy as np
import tensorflow as tf
from deepctr import models
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepctr_comparison.cases import (
    ATTENTION_UNITS,
    CASES,
    DIM,
    EXPERTS,
    TOWER_UNITS,
    UNITS,
    Case,
    draw_inputs,
)


def main():
    parser = argparse.ArgumentParser(description="DeepCTR's weights, inputs and predictions.")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="where files go")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    for case in CASES.values():
        rng = np.random.default_rng(arguments.seed)
        np.savez(arguments.folder / f"{case.name}.npz", **predict(case, arguments.rows, rng))


def predict(case: Case, rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights by DeepCTR's names, inputs by ours, logits and probabilities."""
    tf.keras.backend.clear_session()  # Else the names of layers go on counting.
    model = build(case)
    for weight in model.weights:
        weight.assign(draw_weight(weight.name, weight.shape, rng))
    weights = {weight.name.removesuffix(":0"): weight.numpy() for weight in model.weights}
    inputs = draw_inputs(case, rows, rng)
    theirs = {column.their_name: inputs[column.name] for column in case.columns}
    names = case.scenarios or ["prediction_layer"]
    before_bias = tf.keras.Model(model.inputs, [model.get_layer(name).input for name in names])
    outputs = before_bias.predict(theirs, verbose=0)
    outputs = outputs if case.scenarios else [outputs]
    biases = [weights[f"{name}/global_bias"] for name in names]
    logits = np.concatenate([x + bias for x, bias in zip(outputs, biases, strict=True)], axis=1)
    probabilities = np.reshape(model.predict(theirs, verbose=0), (len(names), -1)).T
    if case.scenarios:
        logits, probabilities = of_scenarios(inputs["scene"], logits)
    return {
        **{f"weights/{name}": values for name, values in weights.items()},
        **{f"inputs/{name}": values for name, values in inputs.items()},
        "logits": logits.reshape(-1),
        "probabilities": probabilities.reshape(-1),
    }


def of_scenarios(scene: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's own task of those that DeepCTR predicts, all of them for an unknown scenario."""
    own = np.arange(logits.shape[1]) + 2 == scene[:, None]
    shares = np.where(own.any(axis=1, keepdims=True), own, 1 / logits.shape[1])
    logits = (logits * shares).sum(axis=1)
    return logits, 1 / (1 + np.exp(-logits))


def build(case: Case) -> tf.keras.Model:
    columns = feature_columns(case)
    if case.model == "DIN":
        return models.DIN(
            columns, [column.shares for column in case.histories], dnn_hidden_units=UNITS,
            dnn_activation=case.activation, att_hidden_size=ATTENTION_UNITS, att_activation="dice",
            att_weight_normalization=case.softmax,
        )  # fmt: skip
    if case.scenarios:
        return build_multi_task(case, columns)
    make = {"DeepFM": models.DeepFM, "WideDeep": models.WDL}[case.model]
    return make(columns, columns, dnn_hidden_units=UNITS, dnn_activation=case.activation)


def build_multi_task(case: Case, columns: list) -> tf.keras.Model:
    options = {
        "tower_dnn_hidden_units": TOWER_UNITS,
        "task_names": case.scenarios,
        "task_types": ["binary"] * len(case.scenarios),
    }
    if case.model == "SharedBottom":
        return models.SharedBottom(columns, bottom_dnn_hidden_units=UNITS, **options)
    options["expert_dnn_hidden_units"] = UNITS
    if case.model == "MMoE":
        return models.MMOE(columns, num_experts=EXPERTS, **options)
    return models.PLE(columns, num_levels=case.levels, **options)


def feature_columns(case: Case) -> list:
    """Single ids, sequences, numbers: the order in which DeepCTR concatenates anyway."""
    singles = [SparseFeat(c.name, c.ids, DIM) for c in case.scalars]
    sequences = [
        VarLenSparseFeat(
            SparseFeat(c.their_name, c.ids, DIM, embedding_name=c.shares or c.name), c.length
        )
        for c in case.sequences
    ]
    return [*singles, *sequences, *(DenseFeat(c.name, c.width) for c in case.numbers)]


def draw_weight(name: str, shape, rng: np.random.Generator) -> np.ndarray:
    """Of a size that leaves logits of a few units; the tables' row 0 is zero, as ours."""
    if "moving_variance" in name:
        return rng.uniform(0.5, 2.0, shape)
    if "kernel" in name:
        return rng.normal(scale=(2 / shape[0]) ** 0.5, size=shape)
    values = rng.normal(scale=0.5, size=shape)
    if "embeddings" in name:
        values[0] = 0
    return values


if __name__ == "__main__":
    main()
