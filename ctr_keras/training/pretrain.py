"""Pre-training of an encoder on pairs, from a published one or where it stopped."""

import dataclasses
import os
import pathlib
from typing import Any

import keras

from ctr_keras import files
from ctr_keras.pretraining import ContrastiveModel, image_weights
from ctr_keras.pretraining import text_encoder as text_encoders
from ctr_keras.pretraining.encoder_file import is_file
from ctr_keras.pretraining.memory_bank import SIZE
from ctr_keras.pretraining.text_weights import MINILM
from ctr_keras.seed import set_seed
from ctr_keras.training.checkpoint import Checkpoint, diverged_loss, key_of, write_whole
from ctr_keras.training.pair_sources import (
    PicturePairs,
    TextPairs,
    TitledPictures,
    pictures_digest,
)
from ctr_keras.training.progress import progress_bar

SMALL = "small"
_MONITOR = "val_accuracy_at_1"
_TEXT_LAYERS = 2
_MAX_TOKENS = 32
_STATES = "states"
TITLED = "text-picture"


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
    """What a pre-training depends on.

    Args:
        data: Folder that `ctr-keras prepare pairs` or `simulate pictures` made.
        out: Where checkpoints, the best model and its encoder go.
        images: Of pairs of pictures: the folder that their paths are within.
        skip_corrupt: Whether pairs with a picture that cannot be decoded are left out; otherwise it
            is an error.
        encoder: What to start from, as `ck.pretraining.TextEncoder.from_preset` takes it, or of
            pictures `ImageEncoder.from_preset`. By default a published text encoder, or of pictures
            `"small"`: `ImageEncoder.small()`, which knows nothing yet.
        max_tokens: Tokens of a text, at most. By default 32; a `.keras` file of a text encoder has
            its own, and pairs of pictures alone have no texts.
        layers: How many of the encoder's last layers learn. By default 2 of a text encoder, all of
            an image encoder. Those of a text encoder that do not learn are without dropout.
        epochs: Number of epochs.
        batch_size: Pairs a batch.
        learning_rate: Of Adam. By default 2e-5, of `"small"` 1e-3.
        bank_size: Slots of the memory bank, 0 for none. By default 196,800, of titles and of
            `"small"`, which learns faster by the batch alone, none.
        momentum: Of the encoder's copy.
        triplet_weight: Weight of the triplet loss, 0 for none. By default 1, of titles 0.
        margin: Of the triplet loss.
        patience: Epochs without a better validation Acc@1 before it stops, or `None`.
        states: Folder of what the layers that do not learn make of each text, which trainings of
            one encoder share: `4 * width` bytes a token. By default `states` in `out`.
        views: What a pair is, as for `ck.pretraining.read_pairs`; it is tested on queries always.
            With `"text-picture"`, the item's title and its picture, where there are no queries it
            is tested on titles, each of which is to find its picture.
        text_encoder: Of titles, as `ck.pretraining.TextEncoder.from_preset` takes it; it stays as
            it is. By default a published one.
        seed: Of the order of pairs and of dropout.
    """

    data: str
    out: str
    images: str | None = None
    skip_corrupt: bool = False
    encoder: str | None = None
    max_tokens: int | None = None
    layers: int | None = None
    epochs: int = 3
    batch_size: int = 64
    learning_rate: float | None = None
    bank_size: int | None = None
    momentum: float = 0.999
    triplet_weight: float | None = None
    margin: float = 0.2
    patience: int | None = None
    states: str | None = None
    views: str = "query"
    text_encoder: str | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """What a pre-training came to.

    Attributes:
        encoder: File of the best epoch's encoder, which `from_preset` of its class takes.
        history: Losses and accuracies of each epoch.
        before: Acc@1 and Acc@5 on the test pairs of the encoder that it started from.
        after: Those of the best epoch's.
    """

    encoder: str
    history: list[dict[str, float]]
    before: dict[str, float]
    after: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        lines = [f"{'test pairs':<16}{'Acc@1':>9}{'Acc@5':>9}"]
        for name, found in (("before", self.before), ("after", self.after)):
            lines.append(f"{name:<16}{found['acc_1']:>9.4f}{found['acc_5']:>9.4f}")
        return "\n".join([*lines, self.encoder])


def pretrain(
    config: PretrainingConfig, *, restart: bool = False, progress: bool = True
) -> Pretraining:
    """Train an encoder on pairs and keep the one with the best validation Acc@1.

    After each epoch everything is saved, the memory bank included. Called again after a kill, it
    goes on after the last complete epoch.

    Args:
        config: What to train.
        restart: Whether to discard an earlier training in `config.out`.
        progress: Whether to show progress on standard error.

    Raises:
        ValueError: the data, a picture or a setting is not usable, `config.out` holds a training
            with other settings, or the loss of an epoch is not finite.
    """
    if config.epochs < 1:
        raise ValueError(f"`epochs` must be positive. Received: `epochs={config.epochs}`")
    if config.max_tokens is not None and config.images is not None and config.views != TITLED:
        raise ValueError(
            "`max_tokens` is of texts, and pairs of pictures have none. Received: "
            f"`max_tokens={config.max_tokens}`, `views={config.views!r}`"
        )
    config = _with_defaults(config)
    out = files.make_folder(config.out)
    with files.locked(out, wait=False):
        return _pretrain(config, out, restart, progress)


def _pretrain(
    config: PretrainingConfig, out: pathlib.Path, restart: bool, progress: bool
) -> Pretraining:
    key = _key_of(config)
    pairs = _pairs_of(config, progress)
    key |= encoder_identities(config.images, config.encoder, config.text_encoder)
    checkpoint = Checkpoint(out, key, config.patience, _MONITOR)
    set_seed(config.seed)
    model = None if restart else checkpoint.restore()
    if model is None:
        model = _new_model(pairs, config)
        checkpoint.discard()  # Once all settings are known to be of use.
    epoch = len(checkpoint.history)
    if epoch < config.epochs and not checkpoint.is_over:
        rows = pairs.read("train", shuffle=True, seed=config.seed, epoch=epoch)
        with progress_bar(rows, progress) as bar:
            model.fit(
                rows,
                validation_data=pairs.read("valid"),
                initial_epoch=epoch,
                epochs=config.epochs,
                callbacks=[_PairAccuracy(pairs), *bar, checkpoint],
                verbose=0,
                shuffle=False,  # The reader shuffles.
            )
    best = keras.models.load_model(checkpoint.best_file)
    encoder_file = out / "encoder.keras"
    if not _is_made_after(encoder_file, checkpoint.best_file):
        write_whole(encoder_file, pairs.with_trained(best.encoder).save)
    set_seed(config.seed)
    before = pairs.accuracy(pairs.encoder(), "test", pairs.query_encoder())
    after = pairs.accuracy(best.encoder, "test", best.query_encoder)
    return Pretraining(str(encoder_file), checkpoint.history, before, after)


def _key_of(config: PretrainingConfig) -> dict[str, Any]:
    """What must be the same for it to go on, besides the encoders."""
    key = key_of(config)
    del key["states"]
    # Where the pictures lie may change, not what they show.
    images = config.images
    key["images"] = False if images is None else pictures_digest(config.data, images)
    return key


def encoder_identities(
    images: str | None, encoder: str | None, text_encoder: str | None
) -> dict[str, dict[str, str]]:
    """What tells the encoders that a pre-training starts from, and that of titles, from others.

    Args:
        images: As of `PretrainingConfig`.
        encoder: Likewise.
        text_encoder: Likewise.
    """
    if images is None:
        return {"encoder": text_encoders.identity(encoder or MINILM)}
    is_small = encoder in (None, SMALL)
    return {
        "encoder": {"encoder": SMALL} if is_small else image_weights.identity(str(encoder)),
        "text_encoder": text_encoders.identity(text_encoder or MINILM),
    }


def _with_defaults(config: PretrainingConfig) -> PretrainingConfig:
    """The settings, with what was left to the kind of pairs and encoder."""
    is_titled = config.views == TITLED
    is_small = config.images is not None and config.encoder in (None, SMALL)
    text_encoder = (config.text_encoder if is_titled else config.encoder) or MINILM
    defaults: dict[str, Any] = {
        "max_tokens": max_tokens_of(text_encoder, config.max_tokens),
        "learning_rate": 1e-3 if is_small else 2e-5,
        "bank_size": 0 if is_titled or is_small else SIZE,
        "triplet_weight": 0.0 if is_titled else 1.0,
    }
    missing = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    return dataclasses.replace(config, **missing)


def max_tokens_of(encoder: str | os.PathLike, given: int | None) -> int | None:
    """Tokens of a text that an encoder of texts reads in a pre-training.

    Args:
        encoder: As `preset` of `TextEncoder.from_preset`.
        given: `None` for the default, which is `None` for a file too: it has its own.
    """
    return _MAX_TOKENS if given is None and not is_file(encoder) else given


def _is_made_after(path: pathlib.Path, other: pathlib.Path) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns


class _PairAccuracy(keras.callbacks.Callback):
    """Adds Acc@1 and Acc@5 on validation pairs to the logs of each epoch."""

    def __init__(self, pairs: TextPairs | PicturePairs):
        super().__init__()
        self.pairs = pairs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Vectors of a model that is lost are none; the checkpoint says what to do.
        if logs is not None and diverged_loss(logs) is None:
            found = self.pairs.accuracy(self.model.encoder, "valid", self.model.query_encoder)
            logs |= {f"val_accuracy_at_{n}": found[f"acc_{n}"] for n in (1, 5)}


def _pairs_of(config: PretrainingConfig, progress: bool) -> TextPairs | PicturePairs:
    """What it learns from, and what to start from."""
    pictures: dict[str, Any] = {
        "encoder": None if config.encoder == SMALL else config.encoder,
        "layers": config.layers,
        "images": config.images,
        "skip_corrupt": config.skip_corrupt,
    }
    if config.views == TITLED:
        if config.images is None or config.triplet_weight or config.bank_size:
            raise ValueError(
                "Titles and pictures need `images`, and have neither hard negatives nor a bank. "
                f"Received: `images={config.images!r}`, `triplet_weight={config.triplet_weight}`, "
                f"`bank_size={config.bank_size}`"
            )
        return TitledPictures(
            config.data,
            config.batch_size,
            text_encoder=config.text_encoder or MINILM,
            max_tokens=config.max_tokens,
            **pictures,
        )
    if config.text_encoder is not None:
        raise ValueError(
            f"`text_encoder` goes with `views={TITLED!r}`. Received: `views={config.views!r}`"
        )
    if config.images is None:
        if config.skip_corrupt:
            raise ValueError(
                "`skip_corrupt` is of pictures: it needs `images`. Received: "
                f"`images=None`, `skip_corrupt={config.skip_corrupt}`"
            )
        return TextPairs(
            config.data,
            config.batch_size,
            encoder=config.encoder or MINILM,
            max_tokens=config.max_tokens,
            layers=_TEXT_LAYERS if config.layers is None else config.layers,
            views=config.views,
            states=config.states or f"{config.out}/{_STATES}",
            progress=progress,
        )
    return PicturePairs(config.data, config.batch_size, views=config.views, **pictures)


def _new_model(pairs: TextPairs | PicturePairs, config: PretrainingConfig) -> ContrastiveModel:
    options = {
        name: getattr(config, name)
        for name in ("bank_size", "momentum", "triplet_weight", "margin")
    }
    model = ContrastiveModel(pairs.encoder(), query_encoder=pairs.query_encoder(), **options)
    model.compile(keras.optimizers.Adam(config.learning_rate))
    return model
