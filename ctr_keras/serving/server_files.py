"""The files beside the models that TensorFlow's own server is started with."""

import json
import pathlib
import re

from ctr_keras import files

MODELS_FILE = "models.config"
BATCHING_FILE = "batching.config"
# Where the folder of models lies for the server: with Docker, `-v "$PWD/saved_models:/models"`.
SERVER_ROOT = "/models"

_LIST = re.compile(r"\bmodel_config_list\s*:?\s*\{")
_BATCHING = """\
# For --enable_batching --batching_parameters_file of tensorflow_model_server; yours to tune.
#
# A batch joins requests whose inputs all have as many rows: those to `serving_default`, with
# sequences padded to one length, and to `serving_examples`. A request to `rank` is refused under
# --enable_batching, as its user has one row: it is a batch by itself, so do without there.
max_batch_size { value: 1024 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }
# The server would pad by repeating a value, and the model take that for one more.
pad_variable_length_inputs: false
"""


def write_server_files(folder: pathlib.Path, name: str) -> None:
    """List a model in the `models.config` of a folder of models; write `batching.config` once.

    What is in either file already stays as it is: both are there to be edited.

    Raises:
        ValueError: `models.config` has no `model_config_list`.
    """
    with files.locked(folder):  # Two exports at once must not each leave out the other's model.
        path = folder / MODELS_FILE
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        try:
            after = with_model(before, name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if after != before:
            files.write_atomic(path, after.encode())
        if not (folder / BATCHING_FILE).exists():
            files.write_atomic(folder / BATCHING_FILE, _BATCHING.encode())


def with_model(text: str, name: str) -> str:
    """The text of a `ModelServerConfig` with a model of that name in it, comments kept."""
    without_comments = re.sub(r"#[^\n]*", lambda found: " " * len(found[0]), text)
    if re.search(rf"\bname\s*:\s*([\"']){re.escape(name)}\1", without_comments):
        return text
    quoted, base_path = (json.dumps(x, ensure_ascii=False) for x in (name, f"{SERVER_ROOT}/{name}"))
    entry = (
        "\n  config {\n"
        f"    name: {quoted}\n"
        f"    base_path: {base_path}\n"
        '    model_platform: "tensorflow"\n'
        "  }"
    )
    if not without_comments.strip():
        return f"{text}model_config_list {{{entry}\n}}\n"
    found = _LIST.search(without_comments)
    if found is None:
        raise ValueError(
            "expected a `model_config_list { ... }` to add the model to. "
            f"Received: `{without_comments.strip()[:60]}`"
        )
    return text[: found.end()] + entry + text[found.end() :]
