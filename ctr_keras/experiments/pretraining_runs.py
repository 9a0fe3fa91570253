"""One pre-training of an experiment, and how well the encoder finds the items of test queries."""

import dataclasses
import functools
import os
import pathlib
import time
from typing import Any, ClassVar

from ctr_keras import data, training
from ctr_keras.experiments import jobs
from ctr_keras.json_values import digest
from ctr_keras.training.pretrain import encoder_identities

_CODE = ("data", "losses", "metrics", "optimizers", "pretraining", "training")
_ENCODER_FILE = "encoder.keras"
_STATES = "states"  # Beside the folders of the trainings, which share it.


@dataclasses.dataclass(frozen=True)
class PretrainingOutcome:
    """What a pre-training came to.

    Attributes:
        before: Acc@1 and Acc@5 on the test pairs of the encoder that it started from.
        after: Those of the best epoch's.
        history: Losses and accuracies of each epoch.
        seconds: Time it took; `None` where it went on after an interruption.
    """

    before: dict[str, float]
    after: dict[str, float]
    history: list[dict[str, float]]
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class PretrainingRun:
    """A pre-training of an encoder, which stays.

    Args:
        pairs: Folder that `ctr-keras prepare pairs` or `simulate pictures` made.
        options: Fields of `training.PretrainingConfig` other than the folders and the seed.
        seed: Of the order of pairs and of dropout, and of the weights of a small encoder.
        images: Of pairs of pictures: the folder that their paths are within.
        pictures: Of pairs of pictures: their `pair_sources.pictures_digest`. There are thousands,
            which all trainings share, so that it is made once.
    """

    pairs: str
    options: dict[str, Any]
    seed: int = 1
    images: str | None = None
    pictures: str | None = None

    def __post_init__(self) -> None:
        if (self.images is None) != (self.pictures is None):
            raise ValueError(
                "`images` and `pictures` go together. Received: "
                f"`images={self.images!r}`, `pictures={self.pictures!r}`"
            )

    outcome_type: ClassVar[type] = PretrainingOutcome

    @functools.cached_property
    def key(self) -> str:
        """Of its pairs, their pictures, settings and code; see `jobs.Job`."""
        splits = ("train", "valid", "test")
        config = {
            "options": self.options,
            "seed": self.seed,
            "encoders": encoder_identities(
                self.images, self.options.get("encoder"), self.options.get("text_encoder")
            ),
            "pairs": [data.Manifest.load(f"{self.pairs}/{name}").digest for name in splits],
            "pictures": self.pictures,
            "code": jobs.code_digest(*_CODE),
        }
        return digest(config)[:16]

    def encoder_in(self, out: str | os.PathLike) -> pathlib.Path:
        """File of the encoder, where `jobs.run_all` keeps outcomes in `out`."""
        return pathlib.Path(out) / self.key / _ENCODER_FILE

    def perform(self, work: pathlib.Path, keep: pathlib.Path) -> PretrainingOutcome:
        """Train, test, and keep the encoder."""
        is_resumed = work.exists()
        started = time.perf_counter()
        found = training.pretrain(
            self._config(str(work), str(keep.parent / _STATES)), progress=False
        )
        seconds = time.perf_counter() - started
        os.replace(found.encoder, keep / _ENCODER_FILE)
        return PretrainingOutcome(
            found.before, found.after, found.history, None if is_resumed else seconds
        )

    def describe(self, outcome: PretrainingOutcome) -> str:
        """A line on how good the encoder is."""
        seconds = "" if outcome.seconds is None else f", {outcome.seconds:.0f} s"
        return f"seed {self.seed}: Acc@1 {outcome.after['acc_1']:.4f}{seconds}  {self.options}"

    def _config(self, out: str, states: str) -> training.PretrainingConfig:
        return training.PretrainingConfig(
            data=self.pairs, out=out, images=self.images, states=states, seed=self.seed,
            **self.options,
        )  # fmt: skip
