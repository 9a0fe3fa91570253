"""A ranking as people and machines read it."""

import dataclasses
from typing import Any

import pandas as pd


@dataclasses.dataclass(frozen=True)
class RankedList:
    """The best items for a user, best first.

    Attributes:
        user: Id of the user.
        item_key: Column of `table` with the items' ids.
        table: What `Ranker.rank` returned.
    """

    user: str
    item_key: str
    table: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        items = [
            {
                "item": row[self.item_key],
                **({"title": row["title"]} if "title" in row else {}),
                "probability": round(float(row["probability"]), 6),
            }
            for row in self.table.to_dict("records")
        ]
        return {"user": self.user, "items": items}

    def to_text(self) -> str:
        if self.table.empty:
            return f"no item is left that is not in the history of user {self.user}"
        shown = "title" if "title" in self.table else self.item_key
        lines = [f"the best for user {self.user}"]
        for rank, row in enumerate(self.table.to_dict("records"), start=1):
            lines.append(f"{rank:>4}  {row['probability']:.4f}  {row[shown]}")
        return "\n".join(lines)
