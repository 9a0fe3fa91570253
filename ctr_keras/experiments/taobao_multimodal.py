"""The tables and figures of Taobao's multimodal representations.

On pairs of a query and the item it led to (`ctr-keras prepare pairs`):

- table 2: encoders before and after they learn from such pairs, and what each part brings

Pairs may be of pictures too (`ctr-keras simulate pictures`).

On prepared data whose items have vectors (`ctr-keras encode --items`):

- table 3: ways to use representations in a ranker, against the ranker of ids alone
- figure 3: rankers of ids, of representations and of both, epoch after epoch
- figure 6a: the encoders of table 2, and the ranker with the vectors of each
- figure 6b: what representations bring to rare and to frequent items
- figure 6c: epochs that MAKE learns before the ranker

Reference:
    [Sheng et al., 2024: Enhancing Taobao Display Advertising with Multimodal
    Representations](https://arxiv.org/abs/2407.19467)
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ctr_keras import files
from ctr_keras.argument_checks import check_positive_integers
from ctr_keras.data import picture_files
from ctr_keras.data.split import SPLITS
from ctr_keras.datasets import prepared
from ctr_keras.experiments import jobs
from ctr_keras.experiments.comparison import Comparison, Method
from ctr_keras.experiments.encoder_comparison import EncoderComparison
from ctr_keras.experiments.figures import Figure
from ctr_keras.experiments.multimodal_figures import (
    accuracy_figure,
    epochs_figure,
    frequency_figure,
    sweep_figure,
)
from ctr_keras.experiments.pretraining_runs import PretrainingRun
from ctr_keras.experiments.runs import Run
from ctr_keras.experiments.settings import (
    base_options,
    din_attention,
    runs_of,
    set_widths,
)
from ctr_keras.json_values import digest
from ctr_keras.pretraining import (
    encode_item_images,
    encode_items,
    image_weights,
    text_encoder,
)
from ctr_keras.pretraining.encoder_file import is_file
from ctr_keras.pretraining.text_weights import MINILM
from ctr_keras.schema import Schema
from ctr_keras.training.pair_sources import pictures_digest
from ctr_keras.training.pretrain import SMALL, TITLED, max_tokens_of

TABLES = ("2", "3")
FIGURES = ("3", "6a", "6b", "6c")
IDS = "ids alone"
METHODS = {
    "Vector": "VectorFusion",
    "SimScore": "SimScore",
    "SimTier": "SimTier",
    "MAKE": "MAKE",
    "SimTier + MAKE": "SimTierMAKE",
}
BEST = "SimTier + MAKE"
REPRESENTATIONS = "representations alone"
FROZEN = "generic, as it is"
UNTRAINED = "untrained"
SCL = "SCL"
ON_ITEMS: dict[str, dict[str, Any]] = {
    "generic, tuned on items alone": {"views": "item", "bank_size": 0, "triplet_weight": 0.0}
}
ON_TITLES: dict[str, dict[str, Any]] = {
    "tuned on titles and pictures": {"views": TITLED, "bank_size": 0, "triplet_weight": 0.0}
}
# What each encoder of table 2 changes in the last one.
ENCODERS: dict[str, dict[str, Any]] = {
    "SCL without triplet and bank": {"bank_size": 0, "triplet_weight": 0.0},
    "SCL without triplet": {"triplet_weight": 0.0},
    SCL: {},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all trainings of the experiments have in common.

    Args:
        seeds: How many seeds each method is trained with.
        epochs: Epochs at most.
        batch_size: Rows a batch.
        learning_rate: Of `LazyAdam`.
        patience: Epochs without a better validation AUC before training stops.
        base: The ranker of ids.
        embedding_dim: Width of the embeddings.
        units: Widths of the ranker's layers.
        attention_units: Widths of the activation unit, of DIN and of MAKE's extractor.
        dropout: Of those layers.
        make_units: Widths of the layers of MAKE's extractor.
        make_projection: Width that MAKE brings representations to first, or `None`.
        make_epochs: Epochs that MAKE's extractor learns before the ranker, at most.
        make_sweep: Those of figure 6c, at most too; with 0 it learns with the ranker alone.
        curve_epochs: Epochs of figure 3, which never stops early.
        item_groups: Groups of items of figure 6b.
        encoder: The generic text encoder that pre-training starts from.
        image_encoder: The image encoder that pre-training starts from; `"small"` knows nothing.
        max_tokens: Tokens of a text, at most. By default 32; a `.keras` encoder has its own.
        scl_layers: How many of the text encoder's last layers learn.
        image_layers: How many of the image encoder's do, or `None` for all.
        scl_epochs: Epochs of a pre-training; the one of the best validation Acc@1 counts.
        scl_batch_size: Pairs a batch.
        scl_learning_rate: Of Adam.
        bank_size: Slots of the memory bank.
        momentum: Of the encoder's slow copy, whose vectors it holds.
        text: Column of the items that figure 6a encodes, with pairs of texts.
    """

    seeds: int = 5
    epochs: int = 20
    batch_size: int = 1024
    learning_rate: float = 1e-3
    patience: int = 3
    base: str = "DIN"
    embedding_dim: int = 16
    units: tuple[int, ...] = (128, 64)
    attention_units: tuple[int, ...] = (32, 16)
    dropout: float = 0.5
    make_units: tuple[int, ...] = (128, 64, 32)
    make_projection: int | None = 64
    make_epochs: int = 20
    make_sweep: tuple[int, ...] = (0, 1, 3, 10, 20)
    curve_epochs: int = 8
    item_groups: int = 8
    encoder: str = MINILM
    image_encoder: str = SMALL
    max_tokens: int | None = None
    scl_layers: int = 2
    image_layers: int | None = None
    scl_epochs: int = 3
    scl_batch_size: int = 64
    scl_learning_rate: float = 2e-5
    bank_size: int = 16_384
    momentum: float = 0.999
    text: str = "title"

    def __post_init__(self) -> None:
        check_positive_integers(
            self, "seeds", "epochs", "batch_size", "patience", "embedding_dim", "make_epochs",
            "curve_epochs", "item_groups", "scl_epochs", "scl_batch_size", "bank_size",
        )  # fmt: skip
        set_widths(self, "units", "attention_units", "make_units")
        sweep = self.make_sweep
        if isinstance(sweep, int) or not sweep or len(set(sweep)) < len(sweep):
            raise ValueError(
                "`make_sweep` must be different numbers of epochs, such as `[0, 1, 3]`. "
                f"Received: `make_sweep={sweep!r}`"
            )
        if self.max_tokens is not None:
            check_positive_integers(self, "max_tokens")

    def options(self, model: str, make_epochs: int | None = None) -> dict[str, Any]:
        """Arguments of a model, `make_epochs` other than usual where it is given."""
        if model == "KnowledgeExtractor":
            units = {"units": list(self.make_units), "projection": self.make_projection}
            return {**units, **din_attention(self.attention_units)}
        options = base_options(self, self.base)
        if model == self.base:
            return options
        wrapped: dict[str, Any] = {"base": self.base, "base_options": options}
        if model in ("MAKE", "SimTierMAKE"):
            epochs = self.make_epochs if make_epochs is None else make_epochs
            wrapped["extractor"] = self.options("KnowledgeExtractor")
            wrapped["extractor_epochs"] = epochs
            wrapped["joint"] = epochs == 0
        return wrapped

    def pretrainings(
        self,
        pairs: str | os.PathLike,
        images: str | os.PathLike | None,
        encoders: Mapping[str, dict[str, Any]],
    ) -> dict[str, list[PretrainingRun]]:
        """A pre-training a seed of each encoder, which tells what it changes in the options."""
        folder = None if images is None else str(images)
        pictures = None if folder is None else pictures_digest(str(pairs), folder)
        common: dict[str, Any] = {
            "encoder": self.encoder if images is None else self.image_encoder,
            "layers": self.scl_layers if images is None else self.image_layers,
            "epochs": self.scl_epochs,
            "batch_size": self.scl_batch_size,
            "learning_rate": self.scl_learning_rate,
            "bank_size": self.bank_size,
            "momentum": self.momentum,
        }
        runs = {}
        for label, changes in encoders.items():
            options = {**common, **changes}
            if images is None or options.get("views") == TITLED:
                options["max_tokens"] = self.max_tokens
            runs[label] = [
                PretrainingRun(str(pairs), options, seed, folder, pictures)
                for seed in range(1, self.seeds + 1)
            ]
        return runs


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The tables and figures on one data set.

    Args:
        data: Prepared folder with the vectors of its items; table 2 does without.
        out: Folder that keeps what was trained, so that an interrupted reproduction goes on.
        settings: What the trainings have in common.
        jobs: How many to train at a time.
        report: Told of each training.
        pairs: Folder that `ctr-keras prepare pairs` or `simulate pictures` made, for table 2 and
            figure 6a.
        images: Of pairs of pictures: the folder that their paths are within.
        item_images: Of pairs of pictures, for figure 6a: the pictures of the data's items, as
            `ck.pretraining.encode_item_images` takes them.
    """

    data: str | os.PathLike
    out: str | os.PathLike
    settings: Settings
    jobs: int = 1
    report: Callable[[str], Any] = lambda line: None
    pairs: str | os.PathLike | None = None
    images: str | os.PathLike | None = None
    item_images: str | os.PathLike | None = None

    def table(self, number: str) -> Comparison | EncoderComparison:
        """A table of the paper."""
        if number not in TABLES:
            raise ValueError(f"`table` must be one of {TABLES}. Received: `table={number!r}`")
        return self._encoders() if number == "2" else self._methods()

    def figure(self, number: str) -> Figure:
        """A figure of the paper."""
        if number not in FIGURES:
            raise ValueError(f"`figure` must be one of {FIGURES}. Received: `figure={number!r}`")
        return {
            "3": self._epochs,
            "6a": self._accuracy_and_gauc,
            "6b": self._frequency,
            "6c": self._make_epochs,
        }[number]()

    def _encoders(self) -> EncoderComparison:
        outcomes = self._trained(self._pretrainings())
        accuracies = {label: [o.after for o in found] for label, found in outcomes.items()}
        start = UNTRAINED if self._start == SMALL else FROZEN
        return EncoderComparison(
            f"Table 2: encoders, {self.pairs}",
            {start: [outcome.before for outcome in outcomes[SCL]], **accuracies},
            baseline=SCL,
        )

    def _accuracy_and_gauc(self) -> Figure:
        """The encoders of the first seed, each with rankers of all seeds."""
        if (self.images is None) != (self.item_images is None):
            raise ValueError(
                "Figure 6a encodes the items as the pairs are: with `images`, the pictures of "
                "pairs, `item_images` must be those of the data's items. Received: "
                f"`images={self.images!r}`, `item_images={self.item_images!r}`"
            )
        runs = {label: found[:1] for label, found in self._pretrainings().items()}
        trained = self._trained(runs)
        encoders: dict[str, str | os.PathLike] = {}
        accuracies = {}
        if self._start != SMALL:  # Which knows nothing.
            encoders[FROZEN], accuracies[FROZEN] = self._start, trained[SCL][0].before
        encoders |= {label: found[0].encoder_in(self.out) for label, found in runs.items()}
        accuracies |= {label: found[0].after for label, found in trained.items()}
        model = METHODS["SimTier"]
        items = self.item_images
        pictures = None if items is None else picture_files.digest_of(items)
        rankers = {
            label: self._runs(model, data=self._encoded(encoder, pictures))
            for label, encoder in encoders.items()
        }
        outcomes = self._trained({IDS: self._runs(self.settings.base), **rankers})
        methods = [Method(IDS, outcomes[IDS]), *(Method(m, outcomes[m], IDS) for m in encoders)]
        title = f"Figure 6a: Acc@1 of the encoder and GAUC of SimTier with it, {self.data}"
        comparison = Comparison(title, methods, metrics=("gauc", "auc"))
        return accuracy_figure(comparison, {m: found["acc_1"] for m, found in accuracies.items()})

    def _encoded(self, encoder: str | os.PathLike, digest_of_pictures: str | None) -> pathlib.Path:
        """The data with the vectors of an encoder."""
        source, pictures = pathlib.Path(self.data), self.item_images
        text = self.settings.text
        # Those of a pre-training, which its encoder keeps.
        max_tokens = None if is_file(encoder) else max_tokens_of(encoder, self.settings.max_tokens)
        if pictures is None:
            made_by = [text_encoder.identity(encoder), text, max_tokens]
        else:
            made_by = [image_weights.identity(encoder), digest_of_pictures]
        made_by += [
            files.sha256(source / prepared.ITEMS_FILE),
            prepared.rows_digest(source),
            jobs.code_digest("data", "datasets", "pretraining"),
        ]
        target = pathlib.Path(self.out) / "encoded" / digest(made_by)[:16]
        target.mkdir(parents=True, exist_ok=True)
        Schema.load(source).save(target)
        prepared.link(source, target, [*SPLITS, prepared.ITEMS_FILE])
        if pictures is None:
            encode_items(target, text, encoder, max_tokens=max_tokens, progress=False)
        else:
            encode_item_images(target, pictures, encoder, progress=False, report=self.report)
        return target

    @property
    def _start(self) -> str:
        """The encoder that pre-trainings start from."""
        settings = self.settings
        return settings.encoder if self.images is None else settings.image_encoder

    def _pretrainings(self) -> dict[str, list[PretrainingRun]]:
        if self.pairs is None:
            raise ValueError(
                "Encoders learn from pairs: `pairs` must be a folder that `ctr-keras prepare "
                "pairs` made. Received: `pairs=None`"
            )
        encoders = {**(ON_ITEMS if self.images is None else ON_TITLES), **ENCODERS}
        return self.settings.pretrainings(self.pairs, self.images, encoders)

    def _methods(self) -> Comparison:
        runs = {label: self._runs(model) for label, model in METHODS.items()}
        outcomes = self._trained({IDS: self._runs(self.settings.base), **runs})
        methods = [Method(IDS, outcomes[IDS]), *(Method(m, outcomes[m], IDS) for m in METHODS)]
        title = f"Table 3: representations in {self.settings.base}, {self.data}"
        return Comparison(title, methods, metrics=("gauc", "auc"))

    def _epochs(self) -> Figure:
        changes: dict[str, Any] = {"epochs": self.settings.curve_epochs, "patience": None}
        models = {
            IDS: self.settings.base,
            REPRESENTATIONS: "KnowledgeExtractor",
            BEST: METHODS[BEST],
        }
        runs = {label: self._runs(model, **changes) for label, model in models.items()}
        return epochs_figure(f"Figure 3: epoch after epoch, {self.data}", self._trained(runs))

    def _frequency(self) -> Figure:
        outcomes = self._trained(
            {IDS: self._runs(self.settings.base), BEST: self._runs(METHODS[BEST])}
        )
        title = f"Figure 6b: {BEST} against {IDS}, by training rows of the item, {self.data}"
        return frequency_figure(title, outcomes[IDS], outcomes[BEST])

    def _make_epochs(self) -> Figure:
        sweep = self.settings.make_sweep
        runs = {f"{epochs} epochs": self._runs("MAKE", make_epochs=epochs) for epochs in sweep}
        outcomes = self._trained({IDS: self._runs(self.settings.base), **runs})
        methods = [Method(IDS, outcomes[IDS]), *(Method(m, outcomes[m], IDS) for m in runs)]
        title = f"Figure 6c: epochs at most that MAKE learns before the ranker, {self.data}"
        comparison = Comparison(title, methods, metrics=("gauc", "auc"))
        return sweep_figure(comparison, "epochs of MAKE alone, at most", sweep)

    def _runs(
        self,
        model: str,
        *,
        data: str | os.PathLike | None = None,
        make_epochs: int | None = None,
        **changes: Any,
    ) -> list[Run]:
        options = self.settings.options(model, make_epochs)
        others = {"item_groups": self.settings.item_groups, **changes}
        return runs_of(self.settings, data or self.data, model, options, **others)

    def _trained(self, runs: Mapping[str, list]) -> dict[str, list]:
        return jobs.run_labelled(runs, self.out, jobs=self.jobs, report=self.report)
