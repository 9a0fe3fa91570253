"""How many items, and how many rows, have no vector."""

import dataclasses
import os

import numpy as np

from ctr_keras.data.cold_slices import exposure_counts
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.vector_table import VectorTable


@dataclasses.dataclass(frozen=True)
class VectorCoverage:
    """What a table of item vectors lacks, of the rows of a split.

    Attributes:
        items: Distinct items of the rows.
        missing_items: Those without a vector.
        rows: Rows with an item.
        missing_rows: Those whose item has no vector.
    """

    items: int
    missing_items: int
    rows: int
    missing_rows: int

    def to_text(self) -> str:
        return (
            f"{self.missing_items:,} of {self.items:,} items have no vector "
            f"({self.missing_rows / max(self.rows, 1):.2%} of the rows): zeros stand for theirs"
        )


def vector_coverage(
    path: str | os.PathLike, table: VectorTable, *, item: str | None = None
) -> VectorCoverage:
    """Count the target items without a vector; the rows are streamed.

    Args:
        path: A split, a folder that `ck.data.write` made.
        table: The vectors, such as `ck.data.VectorTable.of_items("tf_data/movielens")`.
        item: Column that tells items apart; by default the item's id.

    Raises:
        ValueError: there is no data, or no column tells items apart.
    """
    schema = Manifest.load(path).schema
    item = item or schema.key("item")
    if item is None:
        raise ValueError(
            f"No column tells items apart: pass `item`. Received: `features={schema.names}`"
        )
    counts = exposure_counts(path, item)
    rows = np.fromiter(counts.values(), np.int64, len(counts))
    lacks = table.lacks(list(counts)) if counts else np.zeros(0, bool)
    return VectorCoverage(len(counts), int(lacks.sum()), int(rows.sum()), int(rows[lacks].sum()))
