"""Requests made of the users and items of prepared data."""

import numpy as np

from ctr_keras.columns import Ragged, canonical_column
from ctr_keras.schema import Feature, Schema
from ctr_keras.serving import Catalog
from ctr_keras.serving.signature import Signature

Request = dict[str, np.ndarray]


def make_requests(
    data: str, signature: Signature, count: int, candidates: int, seed: int
) -> list[Request]:
    """Inputs of a signature: a user of the data, and so many of its items, drawn at random.

    A signature that takes one row of the user's features, `rank`, gets one; one that takes as many
    as there are items, `serving_default`, gets them repeated.
    """
    catalog = Catalog.load(data)
    rng = np.random.default_rng(seed)
    columns = {
        feature.name: _column(catalog, feature)
        for feature in catalog.schema.inputs
        if feature.name in signature.inputs
    }
    return [_request(catalog, signature, columns, candidates, rng) for _ in range(count)]


def _request(catalog: Catalog, signature: Signature, columns, candidates: int, rng) -> Request:
    user = rng.integers(len(catalog.users), size=1)
    items = rng.choice(len(catalog.items), candidates, replace=candidates > len(catalog.items))
    request = {}
    for name, column in columns.items():
        rows = items if name in catalog.items else user
        shape = signature.inputs[name].shape
        if name not in catalog.items and (shape is None or shape[0] != 1):
            rows = np.repeat(user, candidates)
        request[name] = _padded(catalog.schema, name, column, rows)
    return signature.arrays(request)


def _column(catalog: Catalog, feature: Feature) -> np.ndarray | Ragged:
    for table in (catalog.items, catalog.users):
        if feature.name in table:
            values = list(table[feature.name])
            rows = Ragged.from_lists(values) if feature.is_sequence else values
            return canonical_column(catalog.schema, feature, rows)
    raise ValueError(
        f"Neither the users nor the items of the data have it. Received: `feature={feature.name!r}`"
    )


def _padded(schema: Schema, name: str, column, rows: np.ndarray) -> np.ndarray:
    if isinstance(column, Ragged):
        return column.take(rows).to_padded(schema.padding(name))
    return np.asarray(column)[rows]
