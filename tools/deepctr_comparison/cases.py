"""What is compared, for both environments: only NumPy is needed."""

import dataclasses

import numpy as np

DIM = 4
UNITS = (16, 8)
TOWER_UNITS = (6,)
EXPERTS = 4
ATTENTION_UNITS = (6, 3)


@dataclasses.dataclass(frozen=True)
class Column:
    """An input of the models.

    Attributes:
        name: What our schema calls it.
        role: Its role there.
        ids: For ids: their number, padding included.
        length: For sequences of ids: how many a row has at most.
        shares: For histories: the column whose table it uses.
        width: For numbers: how many a row has.
    """

    name: str
    role: str
    ids: int = 0
    length: int | None = None
    shares: str | None = None
    width: int = 0

    @property
    def is_history(self) -> bool:
        return self.role == "history"

    @property
    def their_name(self) -> str:
        """DeepCTR's DIN finds the history of `item_id` by the name `hist_item_id`."""
        return f"hist_{self.shares}" if self.is_history else self.name


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
        name: What the table calls it.
        model: Name of our class.
        columns: In the order of our schema.
        activation: Activation of the MLP.
        softmax: Whether DIN's attention is normalized.
        levels: Levels of PLE.
    """

    name: str
    model: str
    columns: tuple[Column, ...]
    activation: str = "relu"
    softmax: bool = False
    levels: int = 1

    @property
    def scenarios(self) -> list[str]:
        """What DeepCTR calls the tasks that stand for our scenarios."""
        count = sum(column.ids - 2 for column in self.columns if column.role == "scenario")
        return [f"scene_{n}" for n in range(count)]

    @property
    def scalars(self) -> list[Column]:
        return [c for c in self.columns if c.ids and c.length is None]

    @property
    def sequences(self) -> list[Column]:
        return [c for c in self.columns if c.length is not None]

    @property
    def histories(self) -> list[Column]:
        return [c for c in self.columns if c.is_history]

    @property
    def numbers(self) -> list[Column]:
        return [c for c in self.columns if c.width]


# DeepCTR concatenates single ids, then sequences, then numbers; this order is another.
ALL = (
    Column("genres", "context", ids=9, length=4),
    Column("price", "context", width=1),
    Column("history_item_id", "history", ids=50, length=7, shares="item_id"),
    Column("user_id", "user", ids=40),
    Column("image", "vector", width=3),
    Column("item_id", "item", ids=50),
    Column("history_category_id", "history", ids=12, length=7, shares="category_id"),
    Column("category_id", "item", ids=12),
)
IDS = tuple(column for column in ALL if column.ids)
ONE_HISTORY = tuple(c for c in IDS if c.name in ("user_id", "item_id", "history_item_id"))
SCENES = (*IDS, Column("scene", "scenario", ids=5))
CASES = {
    case.name: case
    for case in (
        Case("DIN", "DIN", ONE_HISTORY),
        Case("DIN, two histories, numbers", "DIN", ALL),
        Case("DIN, softmax, Dice in the MLP", "DIN", ALL, activation="dice", softmax=True),
        Case("DeepFM", "DeepFM", IDS),
        Case("DeepFM, Dice", "DeepFM", IDS, activation="dice"),
        Case("WideDeep", "WideDeep", IDS),
        Case("WideDeep, numbers, Dice", "WideDeep", ALL, activation="dice"),
        Case("SharedBottom", "SharedBottom", SCENES),
        Case("MMoE", "MMoE", SCENES),
        Case("PLE", "PLE", SCENES),
        Case("PLE, three levels", "PLE", SCENES, levels=3),
    )
}


def draw_inputs(case: Case, rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random rows by our names: ids include 0, sequences are from empty to full."""
    inputs, masks = {}, {}
    for column in case.columns:
        if column.width:
            shape = rows if column.width == 1 else (rows, column.width)
            inputs[column.name] = rng.normal(size=shape).astype("float32")
        elif column.length is None:
            inputs[column.name] = rng.integers(0, column.ids, rows, dtype="int32")
        else:
            key = "history" if column.is_history else column.name  # The same past items.
            if key not in masks:
                masks[key] = _draw_mask(rows, column.length, rng)
            ids = rng.integers(1, column.ids, (rows, column.length), dtype="int32")
            inputs[column.name] = np.where(masks[key], ids, 0)
    return inputs


def _draw_mask(rows: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths from 0 to `length`; every other row has its padding in front."""
    mask = np.arange(length) < rng.integers(0, length + 1, (rows, 1))
    mask[1::2] = mask[1::2, ::-1]
    return mask
