"""The main job on MovieLens: from the raw file to a ranked list from the exported model."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from ctr_keras import data, serving, training
from ctr_keras.datasets import movielens
from ctr_keras.extras import is_installed
from ctr_keras.training import Evaluation, TrainingConfig

# Chosen on the validation rows: `tools/compare_movielens.py`.
MODEL = "DIN"
OPTIONS = {
    "embedding_dim": 16,
    "units": [128, 64],
    "attention_units": [32, 16],
    "activation": "dice",
    "attention_normalize": "softmax",
    "dropout": 0.5,
}
EPOCHS = 8
USER = "196"


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """What each step of the quickstart came to."""

    description: data.Description
    evaluation: Evaluation
    saved_model: pathlib.Path
    ranking: serving.RankedList

    def to_dict(self) -> dict[str, Any]:
        return {
            "description": self.description.to_dict(),
            "evaluation": self.evaluation.to_dict(),
            "saved_model": str(self.saved_model),
            "ranking": self.ranking.to_dict(),
        }

    def to_text(self) -> str:
        parts = (self.description, self.evaluation, self.ranking)
        return "\n\n".join(part.to_text() for part in parts)


def quickstart(
    data_folder: str | pathlib.Path = "tf_data/movielens",
    model_folder: str | pathlib.Path = "saved_models/movielens-din",
    *,
    raw: str | pathlib.Path | None = None,
    user: str = USER,
    top: int = 10,
    report: Callable[[str], None],
) -> Quickstart:
    """Prepare MovieLens-100k, train DIN, evaluate and export it, and rank films for a user.

    Args:
        data_folder: Where the prepared data goes.
        model_folder: Where checkpoints and SavedModel versions go.
        raw: Raw files on disk, if they are not to be downloaded.
        user: MovieLens' number of a user.
        top: How many films to rank.
        report: Told before each step.
    """
    source, target = pathlib.Path(data_folder), pathlib.Path(model_folder)
    report("prepare: MovieLens-100k to TFRecords")
    movielens.prepare(source, raw=raw, report=report)
    report("describe: what is in the data")
    description = data.describe(source)
    report(f"train: {MODEL}, {EPOCHS} epochs at most")
    config = TrainingConfig(
        data=str(source),
        out=str(target / "training"),
        model=MODEL,
        options=OPTIONS,
        epochs=EPOCHS,
        batch_size=512,
        learning_rate=5e-4,
        patience=1,
    )
    trained = training.train(config)
    model = training.load_model(trained.model)
    report("evaluate: on the test rows, the newest tenth")
    evaluation = training.evaluate(model, source / "test")
    warmup = source / "valid" if is_installed("tensorflow_serving") else None
    report("export: SavedModel" + ("" if warmup else ", without warm-up: no extra `serving`"))
    saved_model = serving.export(
        model,
        target,
        warmup=warmup,
        data=source,
        metrics=evaluation.to_dict(),
    )
    report(f"rank: films that user {user} has not liked yet, by {saved_model}")
    catalog = serving.Catalog.load(source)
    profile = catalog.user(user)
    table = serving.Ranker(saved_model).rank(profile, catalog.new_items(profile), top)
    ranking = serving.RankedList(user, catalog.item_key, table)
    return Quickstart(description, evaluation, saved_model, ranking)
