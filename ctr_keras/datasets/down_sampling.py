"""Down-sampling in a preparation: of the training rows alone, what is judged stays whole."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

from ctr_keras.columns import Columns
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.negatives import check_seed, down_sample_negatives
from ctr_keras.data.split import SPLITS
from ctr_keras.data.write import write
from ctr_keras.datasets import prepared
from ctr_keras.datasets.prepared import Prepared
from ctr_keras.negative_ratio import check_negative_ratio
from ctr_keras.schema import Schema


@dataclasses.dataclass(frozen=True)
class DownSampling:
    """Which negatives of the training rows a preparation keeps, by their default key.

    Args:
        ratio: Share of the negatives to keep, in (0, 1]; 1 keeps all rows.
        seed: Another seed keeps other negatives.

    Raises:
        ValueError: one of them is not what it should be.
    """

    ratio: float = 1.0
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "ratio", check_negative_ratio("negative_ratio", self.ratio))
        check_seed(self.seed)

    @property
    def settings(self) -> dict[str, Any]:
        """What it adds to the settings that decide what a prepared folder holds."""
        return {} if self.ratio == 1 else {"down_sampling": [self.ratio, self.seed]}

    def write(
        self,
        staging: pathlib.Path,
        split: str,
        key: str,
        schema: Schema,
        chunks: Iterable[Columns],
        layout: str,
    ) -> Manifest:
        """Write a split, unless an interrupted preparation with the same key did."""
        if prepared.is_written(staging, split, key):
            return Manifest.load(staging / split)
        ratio = self.ratio if split == SPLITS[0] else 1.0
        if ratio < 1:
            chunks = down_sample_negatives(schema, chunks, ratio, seed=self.seed)
        return write(
            staging / split,
            schema,
            chunks,
            layout=layout,
            metadata={"key": key},
            negative_ratio=ratio,
        )

    def applied(self, whole: Prepared, train: Manifest) -> Prepared:
        """The numbers of all rows, with those of the training rows that are kept."""
        if self.ratio == 1:
            return whole
        name = SPLITS[0]
        clicks = whole.rows[name] * whole.click_rate[name]
        return dataclasses.replace(
            whole,
            rows={**whole.rows, name: train.rows},
            click_rate={**whole.click_rate, name: clicks / train.rows},
            negative_ratio=self.ratio,
        )
