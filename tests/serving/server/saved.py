"""Small SavedModels with known answers."""

import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from ctr_keras.serving.tensors import to_proto

WARMUP = "assets.extra/tf_serving_warmup_requests"


class Clicks(tf.Module):
    """`sigmoid(weight * age + number of ids + length of the word)`, whole or user by items."""

    def __init__(self, weight: float, ballast: int):
        super().__init__()
        self.weight = tf.Variable(np.float32(weight))
        self.ballast = tf.Variable(np.arange(ballast, dtype=np.float32))  # something to corrupt

    def score(self, age, ids, word):
        lengths = tf.cast(tf.strings.length(word), tf.float32)
        known = tf.reduce_sum(tf.cast(ids > 0, tf.float32), axis=1)
        return {"probability": tf.sigmoid(self.weight * age + known + lengths)}

    @tf.function
    def columns(self, age, ids, word):
        return self.score(age, ids, word)

    @tf.function
    def rank(self, age, ids, word):
        return self.score(age, ids, word)

    @tf.function
    def slow(self, steps):
        """Takes about a microsecond a step."""
        total = tf.constant(0.0)
        for step in tf.range(tf.squeeze(steps)):
            total += tf.sin(tf.cast(step, tf.float32)) * self.ballast[0]
        return {"total": tf.reshape(total, [1])}

    @tf.function
    def bytes_of(self, word):
        return {"word_bytes": word + b"\xff", "length": tf.strings.length(word)}

    @tf.function
    def checked(self, ids):
        with tf.control_dependencies([tf.debugging.assert_less(ids, np.int64(100))]):
            return {"ids": tf.identity(ids)}


def spec(dtype, *shape, name):
    return tf.TensorSpec(shape, dtype, name=name)


def save(folder: pathlib.Path, weight: float = 0.5, ballast: int = 1000) -> pathlib.Path:
    model = Clicks(weight, ballast)
    ids, word = spec(tf.int64, None, None, name="ids"), spec(tf.string, None, name="word")
    tf.saved_model.save(
        model,
        str(folder),
        {
            "serving_default": model.columns.get_concrete_function(
                age=spec(tf.float32, None, name="age"), ids=ids, word=word
            ),
            "rank": model.rank.get_concrete_function(
                age=spec(tf.float32, 1, name="age"),
                ids=spec(tf.int64, 1, None, name="ids"),
                word=word,
            ),
            "slow": model.slow.get_concrete_function(steps=spec(tf.int64, 1, name="steps")),
            "bytes": model.bytes_of.get_concrete_function(word=word),
            "checked": model.checked.get_concrete_function(ids=spec(tf.int64, None, name="ids")),
        },
    )
    return folder


def save_changed_schema(folder: pathlib.Path) -> pathlib.Path:
    """`age` is a whole number here, and there are no other inputs."""

    class Changed(tf.Module):
        @tf.function
        def columns(self, age):
            return {"probability": tf.sigmoid(tf.cast(age, tf.float32)), "age": age}

    model = Changed()
    function = model.columns.get_concrete_function(age=spec(tf.int64, None, name="age"))
    tf.saved_model.save(model, str(folder), {"serving_default": function})
    return folder


def expected(inputs, weight: float = 0.5) -> np.ndarray:
    """What `Clicks` should say, by NumPy."""
    age, ids = np.asarray(inputs["age"], np.float64), np.asarray(inputs["ids"])
    lengths = np.array([len(word) for word in inputs["word"]])
    return 1 / (1 + np.exp(-(weight * age + (ids > 0).sum(axis=1) + lengths)))


def make_inputs(rows: int, seed: int = 0, width: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "age": rng.normal(-8, 1, rows).astype(np.float32),
        "ids": rng.integers(0, 3, (rows, width)),
        "word": np.array([b"x" * rng.integers(0, 5) for _ in range(rows)], object),
    }


def publish(version: pathlib.Path, base: pathlib.Path, number: int) -> pathlib.Path:
    """Copy a version to a base path as `export` does: aside, then renamed."""
    base.mkdir(parents=True, exist_ok=True)
    aside = base / f".{number}.aside"
    shutil.copytree(version, aside)
    os.rename(aside, base / str(number))
    return base / str(number)


def add_warmup(version: pathlib.Path, *inputs, signature: str = "serving_default") -> None:
    path = version / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for one in inputs:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            for name, array in one.items():
                request.inputs[name].CopyFrom(to_proto(np.asarray(array)))
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())
