"""Settings of experiments: dataclasses, made from what a command line says."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from ctr_keras.experiments.runs import Run
from ctr_keras.layers.mlp import check_units


def settings_of(cls: type, options: dict[str, Any]) -> Any:
    """An instance of a settings dataclass from some of its values by name, the others by default.

    Raises:
        ValueError: there is no such setting.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"The settings are {', '.join(known)}. Received: `{unknown[0]}`")
    return cls(**options)


def set_widths(settings: Any, *names: str) -> None:
    """Make attributes of a frozen dataclass tuples, where a user may give one width or several.

    Raises:
        ValueError: one of them is no width.
    """
    for name in names:
        object.__setattr__(settings, name, tuple(check_units(getattr(settings, name), name)))


def din_attention(units: Sequence[int]) -> dict[str, Any]:
    """Arguments of DIN's attention, chosen on the validation rows of MovieLens."""
    return {"attention_units": list(units), "attention_normalize": "softmax"}


def base_options(settings: Any, model: str) -> dict[str, Any]:
    """Arguments of a base ranker, by the widths that experiments on rankers have in common."""
    options: dict[str, Any] = {"embedding_dim": settings.embedding_dim}
    if model != "FM":
        options |= {"units": list(settings.units), "dropout": settings.dropout}
    if model == "DIN":
        options |= din_attention(settings.attention_units)
    return options


def runs_of(
    settings: Any, data: str | os.PathLike, model: str, options: dict[str, Any], **others: Any
) -> list[Run]:
    """A run a seed, by the settings that all experiments have, or other values of `Run`."""
    common = {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "patience": settings.patience,
        **others,
    }
    return [
        Run(data=str(data), model=model, options=options, seed=seed, **common)
        for seed in range(1, settings.seeds + 1)
    ]
