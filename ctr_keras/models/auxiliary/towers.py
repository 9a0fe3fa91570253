"""One side of a match: features to a vector that is compared with the other side's."""

from collections.abc import Sequence

import keras

from ctr_keras.layers import MLP
from ctr_keras.layers.mlp import check_units


def tower(units: Sequence[int], name: str, activation: str | None = None) -> keras.Sequential:
    """Dense layers of these widths, ReLU between them and `activation` after the last."""
    units = check_units(units)
    hidden = [MLP(units[:-1], name="hidden")] if units[:-1] else []
    last = keras.layers.Dense(units[-1], activation=activation, name="last")
    return keras.Sequential([*hidden, last], name=name)
