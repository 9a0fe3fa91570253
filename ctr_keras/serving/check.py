"""Whether an exported version is right for TensorFlow's own server."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from google.protobuf.text_format import ParseError
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework import op_def_registry

from ctr_keras.extras import require
from ctr_keras.schema import Schema
from ctr_keras.serving.batching_parameters import BatchingParameters
from ctr_keras.serving.errors import ServingError
from ctr_keras.serving.loaded_model import LoadedModel
from ctr_keras.serving.server_files import BATCHING_FILE, MODELS_FILE
from ctr_keras.serving.signature import callable_protos
from ctr_keras.serving.signatures import expected_signatures
from ctr_keras.serving.tensors import get_arrays
from ctr_keras.serving.versions import require_text, saved_schema, version_folder
from ctr_keras.serving.warmup_requests import read_requests, require_serving_api

# Of tensorflow_text, which TF Serving is built with.
_TEXT_OPERATIONS = ("FastBertNormalize", "FastWordpieceTokenizeWithOffsets")
# How far `rank` may be from `serving_default`, which computes the same in another order: some ten
# times the precision of a number.
_TOLERANCES = {tf.bfloat16: 5e-2, tf.float16: 1e-2, tf.float32: 1e-6}
# What checks raise of files that are damaged, missing or wrong.
_PROBLEMS = (ValueError, OSError, ServingError, ParseError, DecodeError, tf.errors.OpError)


@dataclasses.dataclass(frozen=True)
class Check:
    """What was found of a version.

    Attributes:
        folder: The version.
        passed: By the name of a check, what it saw.
        problems: By the name of a check, what is wrong.
    """

    folder: pathlib.Path
    passed: dict[str, str]
    problems: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "passed": self.passed, "problems": self.problems}

    def to_text(self) -> str:
        passed = [f"ok      {name:<12}{text}" for name, text in self.passed.items()]
        problems = [f"FAILED  {name:<12}{text}" for name, text in self.problems.items()]
        return "\n".join([str(self.folder), *passed, *problems])


def check(path: str | os.PathLike) -> Check:
    """Check an exported version with TensorFlow's own parts and TF Serving's own messages.

    - `loader`: TensorFlow's C++ loader, which TF Serving uses, loads it, its variables included.
    - `operations`: each operation of its graph is one of TensorFlow (or of tensorflow_text: named).
    - `signatures`: names, types and shapes are those that its schema asks for.
    - `warm-up`: a session of the C++ runtime answers each recorded request with probabilities, and
      `rank` gives those rows what `serving_default` gives them: to 1e-6, or to 1e-2 where the
      graph computes in float16, 5e-2 in bfloat16.
    - `server`: TF Serving's messages parse `models.config`, in which the model is listed, and
      `batching.config`, which does not pad.

    Args:
        path: Base path of a model (its highest version is checked) or a version.

    Raises:
        ValueError: no version is there.
        ImportError: the extra `serving` is not installed.
    """
    folder = pathlib.Path(os.path.abspath(version_folder(path)))
    require_serving_api()
    schema = saved_schema(folder)
    require_text(schema)
    checks: dict[str, Callable[[pathlib.Path, Schema], str]] = {
        "loader": _loader,
        "operations": _operations,
        "signatures": _signatures,
        "warm-up": _warmup,
        "server": _server,
    }
    passed, problems = {}, {}
    for name, run in checks.items():
        try:
            passed[name] = run(folder, schema)
        except _PROBLEMS as error:
            problems[name] = str(error)
    return Check(folder, passed, problems)


def _loader(folder: pathlib.Path, schema: Schema) -> str:
    LoadedModel(folder).close()
    return "LoadSavedModel of TensorFlow's C++"


def _operations(folder: pathlib.Path, schema: Schema) -> str:
    graph = _meta_graph(folder).graph_def
    functions = {function.signature.name for function in graph.library.function}
    operations = {node.op for node in _nodes(graph)} - functions
    unknown = sorted(name for name in operations if op_def_registry.get(name) is None)
    if unknown:
        raise ValueError(f"TensorFlow does not know the operations {', '.join(unknown)}")
    of_text = sorted(operations & set(_TEXT_OPERATIONS))
    others = f", of tensorflow_text: {', '.join(of_text)}" if of_text else ""
    return f"{len(operations)} of TensorFlow{others}"


def _signatures(folder: pathlib.Path, schema: Schema) -> str:
    found = callable_protos(_meta_graph(folder).signature_def)
    expected = expected_signatures(schema)
    names = list(found)
    if names != sorted(expected):
        raise ValueError(f"Expected the signatures {sorted(expected)}. Received: {names}")
    for name, specs in expected.items():
        _check_tensors(f"inputs of {name!r}", found[name].inputs, specs)
        outputs = {"probability": tf.TensorSpec((None,), tf.float32)}
        _check_tensors(f"outputs of {name!r}", found[name].outputs, outputs)
    return ", ".join(names)


def _check_tensors(where: str, found: Any, specs: dict[str, tf.TensorSpec]) -> None:
    there = {
        name: (tf.as_dtype(info.dtype).name, tf.TensorShape(info.tensor_shape).as_list())
        for name, info in found.items()
    }
    wanted = {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()}
    for name in sorted({*there, *wanted}):
        if there.get(name) != wanted.get(name):
            raise ValueError(
                f"The {where} must have `{name}` as {wanted.get(name)}. Received: {there.get(name)}"
            )


def _warmup(folder: pathlib.Path, schema: Schema) -> str:
    requests = list(_requests(folder))
    if not requests:
        return "no requests were recorded"
    with _full_precision(), contextlib.closing(LoadedModel(folder)) as model:
        for number, (signature, inputs) in enumerate(requests):
            if signature not in model.signatures:
                raise ValueError(f"A request is to the signature {signature!r}, which is not there")
            answer = _probabilities(model, signature, inputs)
            if not np.all((answer >= 0) & (answer <= 1)):
                raise ValueError(
                    f"Request {number} to {signature!r} must be answered by probabilities. "
                    f"Received: {answer}"
                )
        rows = [inputs for signature, inputs in requests if signature == "serving_default"]
        compared = _compare_rank(model, rows, _precision(folder))
    return f"{len(requests)} requests answered{compared}"


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Without TF32, in which GPUs multiply float32 matrices with the precision of float16."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _compare_rank(
    model: LoadedModel, rows: list[dict[str, np.ndarray]], precision: tf.DType
) -> str:
    """`rank` of the first row's user with the items of all rows, against the same rows tiled."""
    if "rank" not in model.signatures or not rows:
        return ""
    stacked = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    specs = model.signatures["rank"].inputs
    of_user = [name for name in stacked if (specs[name].shape or (None,))[0] == 1]
    ranked = _probabilities(model, "rank", stacked | {name: rows[0][name] for name in of_user})
    tiled = {name: np.repeat(rows[0][name], len(rows), axis=0) for name in of_user}
    by_rows = _probabilities(model, "serving_default", stacked | tiled)
    difference = float(np.abs(ranked - by_rows).max())
    tolerance = _TOLERANCES[precision]
    if not difference <= tolerance:
        raise ValueError(
            f"`rank` must give what `serving_default` gives to {tolerance}, in {precision.name}. "
            f"Received: a difference of {difference}"
        )
    return (
        f", rank of {len(rows)} items as by rows to {difference:.0e} "
        f"({tolerance:.0e} may be, in {precision.name})"
    )


def _precision(folder: pathlib.Path) -> tf.DType:
    """The type of least precision among those that the graph computes in."""
    nodes = _nodes(_meta_graph(folder).graph_def)
    found = {attribute.type for node in nodes for attribute in node.attr.values()}
    return next((x for x in _TOLERANCES if x.as_datatype_enum in found), tf.float32)


def _probabilities(model: LoadedModel, signature: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return model.run(signature, inputs, ["probability"])["probability"]


def _requests(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    for request in read_requests(folder):
        yield request.model_spec.signature_name, get_arrays(request.inputs)


def _server(folder: pathlib.Path, schema: Schema) -> str:
    base = folder.parent
    file = base.parent / MODELS_FILE
    if not file.exists():
        return f"no {MODELS_FILE} lies in {base.parent}"
    messages = require("tensorflow_serving.config.model_server_config_pb2", "serving", "A check")
    config = messages.ModelServerConfig()
    text_format.Parse(file.read_text(encoding="utf-8"), config)
    models = config.model_config_list.config
    if base.name not in [model.name for model in models]:
        raise ValueError(f"{file} must list the model {base.name!r}")
    relative = [model.base_path for model in models if not model.base_path.startswith("/")]
    if relative:
        raise ValueError(f"{file}: TF Serving wants absolute paths. Received: {relative[0]!r}")
    batching = base.parent / BATCHING_FILE
    if not batching.exists():
        return f"{MODELS_FILE} with {len(models)} models"
    parameters = text_format.Parse(batching.read_text(encoding="utf-8"), BatchingParameters())
    if parameters.pad_variable_length_inputs:
        raise ValueError(
            f"{batching}: TensorFlow's server pads a sequence with the request's first value, and "
            "the model takes it for one more. Received: `pad_variable_length_inputs: true`"
        )
    return f"{MODELS_FILE} with {len(models)} models, {BATCHING_FILE}"


def _nodes(graph: graph_pb2.GraphDef) -> Iterator[node_def_pb2.NodeDef]:
    """Of the graph and of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _meta_graph(folder: pathlib.Path) -> meta_graph_pb2.MetaGraphDef:
    content = (folder / "saved_model.pb").read_bytes()
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return meta_graph
