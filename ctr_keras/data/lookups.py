"""Vectors that are no part of the rows, looked up as rows are read."""

import dataclasses
import os
import pathlib

import tensorflow as tf

from ctr_keras.data.vector_table import ITEM_VECTORS, TEXT_VECTORS, VectorTable, beside
from ctr_keras.encoding import FeatureEncoder
from ctr_keras.schema import Feature, Schema


@dataclasses.dataclass(frozen=True)
class Lookups:
    """The encoded texts and the vectors of items that a schema asks for.

    While rows are shuffled they are numbers of table rows; a batch gets the vectors.

    Attributes:
        sources: By the name of a feature that is looked up, the stored one that tells what to look
            up: itself for a text, else the ids that it is of.
        tables: The table of each, by name.
    """

    sources: dict[str, Feature]
    tables: dict[str, VectorTable]

    @classmethod
    def of(
        cls,
        folder: pathlib.Path,
        schema: Schema,
        text_vectors: str | os.PathLike | None,
        item_vectors: str | os.PathLike | None,
    ) -> "Lookups":
        """Of a split's folder; the tables lie beside it unless their paths are given."""
        paths = {TEXT_VECTORS: text_vectors, ITEM_VECTORS: item_vectors}
        opened: dict[str, VectorTable] = {}
        tables = {}
        features = tuple(f for f in schema.inputs if f.is_encoded_text or f.of is not None)
        for feature in features:
            kind = TEXT_VECTORS if feature.is_encoded_text else ITEM_VECTORS
            if kind not in opened:
                path = paths[kind]
                opened[kind] = VectorTable.open(beside(folder, kind) if path is None else path)
            tables[feature.name] = table = opened[kind]
            if feature.width != table.width:
                raise ValueError(
                    f"The vectors in {table.folder} are {table.width} wide. Received: the feature "
                    f"{feature.name!r} with `width={feature.width}`"
                )
        return cls({f.name: schema[f.of or f.name] for f in features}, tables)

    @property
    def source_names(self) -> list[str]:
        """The stored columns that tell what to look up."""
        return [source.name for source in self.sources.values()]

    def numbered(self, raw: dict, encode: FeatureEncoder) -> dict:
        """The table row of each value: `(rows,)`, or `(rows, length)` padded with 0."""
        return {name: self._rows(name, raw, encode) for name in self.sources}

    def _rows(self, name: str, raw: dict, encode: FeatureEncoder) -> tf.Tensor:
        source, table = self.sources[name], self.tables[name]
        values, required = raw[source.name], source.is_encoded_text
        if not isinstance(values, tf.RaggedTensor):
            return table.rows_of(values, required=required)
        rows = table.rows_of(values.flat_values, required=required)
        # Cut as the ids are, whatever the role of their vectors: each stays beside its own.
        return encode.fit_length(source, values.with_flat_values(rows))

    def joined(self, columns: dict, label: tf.Tensor) -> tuple[dict, tf.Tensor]:
        """A batch with vectors in the place of numbers."""
        vectors = {name: table.take(columns[name]) for name, table in self.tables.items()}
        return {**columns, **vectors}, label
