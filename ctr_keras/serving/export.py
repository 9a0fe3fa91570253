"""A model as a SavedModel that TensorFlow alone loads and TF Serving runs."""

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ctr_keras import files
from ctr_keras.encoding import FeatureEncoder
from ctr_keras.examples import parse_examples
from ctr_keras.models import CTRModel
from ctr_keras.models.candidates import score_candidates
from ctr_keras.serving.model_card import MODEL_CARD_FILE, check_learned_from, model_card
from ctr_keras.serving.server_files import write_server_files
from ctr_keras.serving.signatures import expected_signatures
from ctr_keras.serving.versions import SCHEMA_FILE, all_versions
from ctr_keras.serving.warmup_requests import require_serving_api, write_warmup


def export(
    model: CTRModel,
    path: str | os.PathLike,
    *,
    version: int | None = None,
    text_encoder: keras.Model | None = None,
    made_by: Mapping[str, str] | None = None,
    item_vectors: Mapping[str, str] | None = None,
    warmup: str | os.PathLike | None = None,
    data: str | os.PathLike | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Write `path/<version>/`, a SavedModel that takes raw columns.

    Looking ids up, hashing and padding are part of the graph, vocabularies are its assets, and
    the schema lies in `assets.extra/schema.json`. The signatures return `{"probability":
    (batch,)}` as float32:

    - `serving_default`: one argument a feature, named as in the schema; sequences as `(batch, any
      length)`, padded on the right with `""`, -1, or 0 for ids that are their own vocabulary.
    - `serving_examples`: `examples`, serialized `tf.train.Example`s `(batch,)`.
    - `rank`: the arguments of `serving_default`, for one user and many items. Features of role
      `item`, and vectors of the target item, have a row for each item, all others have batch 1.
      What depends on the user alone is computed once. Only where the schema has both.

    What only training needs is left out. Beside the schema lie `model_card.json`, which tells what
    the version is, and `tf_serving_warmup_requests` where `warmup` is given. Beside `path` lie the
    files to start TensorFlow's server with, made for a folder of models that it knows as `/models`:
    `models.config`, to which the model is added, and `batching.config`. What they hold already
    stays.

    The version appears last, and whole or not at all.

    Args:
        model: A model of this package.
        path: Base path of the model, as TF Serving's `model_base_path`.
        version: Version number. Defaults to the highest there plus one.
        text_encoder: Of a model with encoded texts: the `ck.pretraining.TextEncoder` that made
            their vectors. It becomes part of the graph, which then takes the texts themselves and
            needs the operations of `tensorflow_text` (TF Serving has them).
        made_by: What tells that encoder from others, as in `ck.data.VectorTable.encoder`, for the
            model card.
        item_vectors: Of a model of item vectors: what made those that it learned from, likewise.
            `Ranker` refuses others. By default those in `data`.
        warmup: Folder that `ck.data.write` made, such as `tf_data/movielens/valid`. Of its first
            100 rows the server runs a request a signature before the version takes traffic.
        data: Prepared folder that the model was trained on, for the model card.
        metrics: How good the model is, for the model card.

    Returns:
        The path of the version.

    Raises:
        ValueError: the version exists, a vocabulary file or data is not to be found, the model
            cannot have learned from `data`, or `models.config` is none.
        ImportError: `warmup` is given and the extra `serving` is not installed.
    """
    if not isinstance(model, CTRModel):
        raise TypeError(
            "`model` must be a model of ctr_keras (a copy by `clone_model` is none; use "
            f"`type(model).from_config(model.get_config())`). Received: `model={model!r}`"
        )
    _check_text_encoder(model, text_encoder)
    if warmup is not None:
        require_serving_api()
    base = files.make_folder(path)
    _number(base, version)  # Refused before the work.
    if data is not None:
        check_learned_from(model.schema, data)
    models, name = os.path.split(os.path.abspath(base))
    # A folder of its own, so that two exports at once do not write into each other's.
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".export.", dir=base))
    try:
        signatures = _save(model, text_encoder, temporary)
        if warmup is not None:
            write_warmup(temporary, name, model.schema, signatures, warmup)
        card = model_card(model, name, signatures, data, metrics, made_by, item_vectors)
        _make_lasting(temporary)
        write_server_files(pathlib.Path(models), name)
        with files.locked(base):  # Another export may have taken the number meanwhile.
            number = _number(base, version)
            _write_json(temporary / MODEL_CARD_FILE, {"version": number, **card})
            target = base / str(number)
            os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.sync(base)
    return target


def _number(base: pathlib.Path, version: int | None) -> int:
    """The number of a new version: the one that is wanted, or the next."""
    there = all_versions(base)
    number = max(there, default=0) + 1 if version is None else version
    if not isinstance(number, int) or number < 1 or number in there:
        raise ValueError(
            "`version` must be a positive integer that is not there yet in "
            f"{str(base)!r}. Received: `version={version!r}`"
        )
    return number


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


def _save(model: CTRModel, text_encoder: keras.Model | None, folder: pathlib.Path) -> list[str]:
    """Write the SavedModel and its schema; return the names of its signatures."""
    module = _ServingModule(model, text_encoder)
    signatures = module.signatures()
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures, options)
    _forget_gradients(folder)
    _write_json(folder / SCHEMA_FILE, model.schema.to_dict())
    return list(signatures)


def _write_json(path: pathlib.Path, content: dict) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    files.write_atomic(path, f"{text}\n".encode())


def _make_lasting(folder: pathlib.Path) -> None:
    folder.chmod(0o755)  # `mkdtemp` made it for this user alone; a server may be another.
    for file in folder.rglob("*"):
        if file.is_file():
            files.sync(file)


class _ServingModule(tf.Module):
    """Encoder and inference graph; tracks their variables and tables and nothing else."""

    def __init__(self, model: CTRModel, text_encoder: keras.Model | None):
        super().__init__(name="serving")
        self._schema = model.schema
        self.encoder = FeatureEncoder(model.schema)
        inference = model.inference_model()
        self._infer = lambda features: inference(features, training=False)
        self._score = lambda user, items: score_candidates(inference, user, items)
        self._texts = [f.name for f in model.schema.inputs if f.is_encoded_text]
        variables = list(inference.variables)
        if text_encoder is not None:
            self._encode_text = lambda texts: text_encoder(texts, training=False)
            variables += text_encoder.variables
        self.weights = [variable.value for variable in variables]

    def signatures(self) -> dict:
        functions = {
            "serving_default": self._from_columns,
            "serving_examples": self._from_examples,
            "rank": self._rank,
        }
        return {
            name: tf.function(functions[name], autograph=False).get_concrete_function(**specs)
            for name, specs in expected_signatures(self._schema).items()
        }

    def _from_columns(self, **columns):
        return _named(self._infer(self._encode(columns)))

    def _rank(self, **columns):
        user, items = {}, {}
        for name, x in columns.items():
            if self._schema.is_of_item(name):
                items[name] = x
            else:
                user[name] = tf.ensure_shape(x, (1, *x.shape[1:]))
        items = _of_one_length(items)
        return _named(self._score(self._encode(user), self._encode(items)))

    def _encode(self, columns):
        features = self.encoder(columns)
        for name in set(self._texts) & set(features):
            features[name] = self._encode_text(features[name])
        return features

    def _from_examples(self, examples):
        return self._from_columns(**parse_examples(self._schema.inputs, examples))


def _named(probability: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"probability": tf.squeeze(probability, axis=-1)}


def _of_one_length(columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The same columns, on which an error depends where some have more rows than others."""
    lengths = tf.stack([tf.shape(x)[0] for x in columns.values()])
    message = f"These must have a row for each item: {', '.join(columns)}. Received rows:"
    check = tf.Assert(tf.reduce_all(lengths == lengths[0]), [message, lengths])
    with tf.control_dependencies([check]):
        return {name: tf.identity(x) for name, x in columns.items()}


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
