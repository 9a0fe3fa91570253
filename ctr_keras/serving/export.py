"""A model as a SavedModel that TensorFlow alone loads and TF Serving runs."""

import json
import os
import pathlib
import shutil
import tempfile

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ctr_keras import files
from ctr_keras.encoding import FeatureEncoder
from ctr_keras.examples import parse_examples, raw_dtype
from ctr_keras.models import CTRModel
from ctr_keras.schema import Feature
from ctr_keras.serving.versions import SCHEMA_FILE, latest_version


def export(
    model: CTRModel,
    path: str | os.PathLike,
    *,
    version: int | None = None,
    text_encoder: keras.Model | None = None,
) -> pathlib.Path:
    """Write `path/<version>/`, a SavedModel that takes raw columns.

    Looking ids up, hashing and padding are part of the graph, vocabularies are its assets, and
    the schema lies in `assets.extra/schema.json`. Two signatures return `{"probability":
    (batch,)}` as float32:

    - `serving_default`: one argument a feature, named as in the schema; sequences as `(batch, any
      length)`, padded on the right with `""`, -1, or 0 for ids that are their own vocabulary.
    - `serving_examples`: `examples`, serialized `tf.train.Example`s `(batch,)`.

    What only training needs is left out. The directory appears whole or not at all.

    Args:
        model: A model of this package.
        path: Base path of the model, as TF Serving's `model_base_path`.
        version: Version number. Defaults to the highest there plus one.
        text_encoder: Of a model with encoded texts: the `ck.pretraining.TextEncoder` that made
            their vectors. It becomes part of the graph, which then takes the texts themselves and
            needs the operations of `tensorflow_text` (TF Serving has them).

    Returns:
        The path of the version.

    Raises:
        ValueError: the version exists, or a vocabulary file is not to be found.
    """
    if not isinstance(model, CTRModel):
        raise TypeError(
            "`model` must be a model of ctr_keras (a copy by `clone_model` is none; use "
            f"`type(model).from_config(model.get_config())`). Received: `model={model!r}`"
        )
    _check_text_encoder(model, text_encoder)
    base = pathlib.Path(path)
    base.mkdir(parents=True, exist_ok=True)
    version = (latest_version(base) or 0) + 1 if version is None else version
    target = base / str(version)
    if not isinstance(version, int) or version < 1 or target.exists():
        raise ValueError(
            "`version` must be a positive integer that is not there yet in "
            f"{str(base)!r}. Received: `version={version!r}`"
        )
    # A folder of its own, so that two exports at once do not write into each other's.
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{version}.", dir=base))
    try:
        _save(model, text_encoder, temporary)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.sync(base)
    return target


def _check_text_encoder(model: CTRModel, text_encoder: keras.Model | None) -> None:
    widths = {f.name: f.width for f in model.schema.inputs if f.is_encoded_text}
    if text_encoder is None and widths:
        raise ValueError(
            f"The model takes the vectors of texts, {', '.join(widths)}: `text_encoder` must be "
            "the encoder that made them. Received: `text_encoder=None`"
        )
    if text_encoder is not None and set(widths.values()) != {text_encoder.width}:
        raise ValueError(
            "`text_encoder` must be as wide as the model's encoded texts. Received: "
            f"`text_encoder.width={text_encoder.width}`, the texts {widths}"
        )


def _save(model: CTRModel, text_encoder: keras.Model | None, folder: pathlib.Path) -> None:
    module = _ServingModule(model, text_encoder)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), module.signatures(), options)
    _forget_gradients(folder)
    schema = json.dumps(model.schema.to_dict(), indent=2, ensure_ascii=False)
    files.write_atomic(folder / SCHEMA_FILE, schema.encode())
    folder.chmod(0o755)  # `mkdtemp` made it for this user alone; a server may be another.
    for file in folder.rglob("*"):
        if file.is_file():
            files.sync(file)


class _ServingModule(tf.Module):
    """Encoder and inference graph; tracks their variables and tables and nothing else."""

    def __init__(self, model: CTRModel, text_encoder: keras.Model | None):
        super().__init__(name="serving")
        self._inputs = model.schema.inputs
        self.encoder = FeatureEncoder(model.schema)
        inference = model.inference_model()
        self._infer = lambda features: inference(features, training=False)
        self._texts = [f.name for f in self._inputs if f.is_encoded_text]
        variables = list(inference.variables)
        if text_encoder is not None:
            self._encode_text = lambda texts: text_encoder(texts, training=False)
            variables += text_encoder.variables
        self.weights = [variable.value for variable in variables]

    def signatures(self) -> dict:
        columns = {f.name: column_spec(f) for f in self._inputs}
        examples = tf.TensorSpec((None,), tf.string, name="examples")
        return {
            "serving_default": tf.function(self._from_columns).get_concrete_function(**columns),
            "serving_examples": tf.function(self._from_examples).get_concrete_function(examples),
        }

    def _from_columns(self, **columns):
        features = self.encoder(columns)
        for name in self._texts:
            features[name] = self._encode_text(features[name])
        probability = self._infer(features)
        return {"probability": tf.squeeze(probability, axis=-1)}

    def _from_examples(self, examples):
        return self._from_columns(**parse_examples(self._inputs, examples))


def column_spec(feature: Feature) -> tf.TensorSpec:
    """What the `serving_default` signature takes for a feature."""
    shape: tuple = (None,)
    if feature.is_sequence:
        shape = (None, None)
    elif feature.kind == "vector":
        shape = (None, *feature.shape)
    return tf.TensorSpec(shape, raw_dtype(feature), name=feature.name)


def _forget_gradients(folder: pathlib.Path) -> None:
    """Remove the names of custom gradients, of which TensorFlow would warn at each load."""
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                node.attr.pop("_gradient_op_type", None)
    file.write_bytes(saved.SerializeToString(deterministic=True))
    # It holds a checksum of the file as it was; TensorFlow does without.
    (folder / "fingerprint.pb").unlink(missing_ok=True)
