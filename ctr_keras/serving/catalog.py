"""The users and items of a prepared folder: what a ranker needs beside the model."""

import dataclasses
import os
import pathlib
from typing import Any

import pandas as pd

from ctr_keras.data.vector_table import ITEM_VECTORS, VectorTable
from ctr_keras.schema import Schema


@dataclasses.dataclass(frozen=True)
class Catalog:
    """Raw features of every user and item.

    Attributes:
        schema: The features.
        items: A row an item: its features, and what is to be shown, such as the title.
        users: A row a user: features and history as of the end of the data.
        item_vectors: The vectors of the items, if the folder has any.
    """

    schema: Schema
    items: pd.DataFrame
    users: pd.DataFrame
    item_vectors: VectorTable | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Catalog":
        """Load `items.parquet`, `users.parquet` and the items' vectors of a prepared folder."""
        folder = pathlib.Path(folder)
        tables = {}
        for name in ("items", "users"):
            path = folder / f"{name}.parquet"
            if not path.is_file():
                raise ValueError(
                    f"{path} is missing; `ctr-keras prepare` writes it. "
                    f"Received: `folder={str(folder)!r}`"
                )
            tables[name] = pd.read_parquet(path)
        has_vectors = (folder / ITEM_VECTORS).exists()
        vectors = VectorTable.of_items(folder) if has_vectors else None
        return cls(Schema.load(folder), **tables, item_vectors=vectors)

    @property
    def user_key(self) -> str:
        """Name of the id feature that tells users apart."""
        return self._key("user")

    @property
    def item_key(self) -> str:
        """Name of the id feature that tells items apart."""
        return self._key("item")

    def user(self, key: str | int) -> dict[str, Any]:
        """One user's raw features and history."""
        found = self.users[self.users[self.user_key].astype(str) == str(key)]
        if found.empty:
            examples = ", ".join(self.users[self.user_key].astype(str).head(3))
            raise ValueError(
                f"No such user among {len(self.users)} (there are {examples}, ...). "
                f"Received: `{self.user_key}={key!r}`"
            )
        return {str(name): value for name, value in found.iloc[0].items()}

    def new_items(self, user: dict[str, Any]) -> pd.DataFrame:
        """The items that are not in the user's history."""
        for feature in self.schema.by_role("history"):
            if feature.shares == self.item_key:
                return self.items[~self.items[self.item_key].isin(list(user[feature.name]))]
        return self.items

    def _key(self, role: str) -> str:
        key = self.schema.key(role)
        if key is None:
            raise ValueError(
                f"The schema has no id feature of one value with role {role!r}. "
                f"Received: `features={self.schema.names}`"
            )
        return key
