"""The probabilities that a simulator drew labels with: kept beside the rows, never in them."""

import os
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ctr_keras import files, metrics
from ctr_keras.data.split import SPLITS

TRUTH_FILE = "truth.parquet"
PROBABILITY = "true_probability"
# What tells a row whose probability is known, as a group that models do not see.
IMPRESSION = "group_impression_id"
_SOURCES = (IMPRESSION, "label", PROBABILITY)
_SCHEMA = pa.schema({"impression_id": pa.int64(), "label": pa.float32(), PROBABILITY: pa.float64()})


def file_of(folder: str | os.PathLike, split: str) -> pathlib.Path:
    """Where a prepared folder keeps the probabilities of a split."""
    return pathlib.Path(folder) / split / TRUTH_FILE


def is_whole(folder: str | os.PathLike) -> bool:
    """Whether a prepared folder has the probabilities of every split."""
    return all(file_of(folder, name).is_file() for name in SPLITS)


def copy(part: pathlib.Path, target: pathlib.Path) -> None:
    """Copy number, label and probability of a Parquet file's rows, whole or not at all."""
    temporary = target.with_suffix(".tmp")
    with (
        pyarrow.parquet.ParquetFile(part) as file,
        pyarrow.parquet.ParquetWriter(temporary, _SCHEMA) as writer,
    ):
        for batch in file.iter_batches(columns=list(_SOURCES)):
            columns = [batch[name] for name in _SOURCES]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
    files.replace(temporary, target)


def read(folder: str | os.PathLike, split: str) -> pa.Table:
    """The true probabilities of a split: `impression_id`, `label` and `true_probability`.

    The rows are in the order in which `ck.data.read` gives those of the split without `shuffle`.

    Args:
        folder: A prepared folder of simulated rows.
        split: `"train"`, `"valid"` or `"test"`.
    """
    path = file_of(folder, split)
    if not path.is_file():
        raise ValueError(
            f"{path} is missing; `ctr-keras simulate impressions` writes it, and `prepare antm2c` "
            "of what `simulate antm2c` wrote. "
            f"Received: `folder={str(folder)!r}`, `split={split!r}`"
        )
    return pyarrow.parquet.read_table(path)


def bounds(folder: str | os.PathLike) -> dict[str, dict[str, float]]:
    """AUC and log loss of the true probabilities, by split: no model is better but by luck."""
    found: dict[str, dict[str, Any]] = {"bayes_auc": {}, "bayes_log_loss": {}}
    for name in SPLITS:
        table = read(folder, name)
        label, probability = table["label"].to_numpy(), table[PROBABILITY].to_numpy()
        found["bayes_auc"][name] = float(metrics.auc(label, probability))
        found["bayes_log_loss"][name] = float(metrics.log_loss(label, probability))
    return found
