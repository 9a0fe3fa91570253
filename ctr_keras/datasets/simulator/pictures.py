"""Pictures of the world's items, and of what shoppers photographed before they bought one."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from ctr_keras.argument_checks import check_positive_integers
from ctr_keras.data.split import SPLITS
from ctr_keras.data.write import write
from ctr_keras.datasets import prepared, search_pairs
from ctr_keras.datasets.simulator.picture_looks import MARK, Looks, Views, draw, looks_of
from ctr_keras.datasets.simulator.picture_texts import titles_of
from ctr_keras.datasets.simulator.world import VIEW_STREAM, World, WorldConfig
from ctr_keras.datasets.truth import PROBABILITY, file_of, is_whole
from ctr_keras.sources import Report, to_stderr

PICTURES = "pictures"
_FORMAT = 3
_PAIRS_STREAM, _GRAIN_STREAM = 7, 8
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class PicturesConfig:
    """What is photographed, and how.

    Args:
        pairs: How many pairs of a query picture and the item bought.
        size: Side of the pictures, in pixels.
        noise: How much looks tell beside the latent vectors, in units of what those tell.
        candidates: Items a shopper chooses from, the one photographed included.
        likeness: Weight of an item's likeness to what was photographed.
        held_out: Share of the photographed items whose pairs are validated on, and tested on.
    """

    pairs: int = 20_000
    size: int = 64
    noise: float = 0.2
    candidates: int = 8
    likeness: float = 8.0
    held_out: float = 0.1

    def __post_init__(self):
        check_positive_integers(self, "pairs", "size", "candidates")
        for name in ("noise", "likeness"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be at least 0. Received: `{name}={value}`")
        if not 0 < self.held_out < 0.5:
            raise ValueError(
                f"`held_out` must be in (0, 0.5). Received: `held_out={self.held_out}`"
            )


@dataclasses.dataclass(frozen=True)
class SimulatedPictures:
    """What `prepare` made.

    Attributes:
        folder: It holds `schema.json`, `train/`, `valid/`, `test/` and `pictures/`.
        items: How many items there are pictures of.
        pairs: Pairs of each split.
        best_accuracy: By split, the mean probability of the item that was the likeliest to be
            bought: what one who knows all probabilities, and nothing else, gets right.
    """

    folder: pathlib.Path
    items: int
    pairs: dict[str, int]
    best_accuracy: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "folder": str(self.folder)}

    def to_text(self) -> str:
        lines = [f"{self.folder}: pictures of {self.items:,} items, and of what led to them"]
        for name, pairs in self.pairs.items():
            best = self.best_accuracy[name]
            lines.append(f"  {name:<6}{pairs:>9,} pairs   likeliest item bought {best:6.1%}")
        return "\n".join(lines)


def prepare(
    out: str | os.PathLike,
    world: WorldConfig | None = None,
    config: PicturesConfig | None = None,
    *,
    report: Report = to_stderr,
) -> SimulatedPictures:
    """Draw the items of a world, and make pairs for contrastive pre-training.

    Each item has a picture of the shop's, `pictures/items/<item id>.png`; how it looks is what
    `simulator.picture_looks` makes of its latent vector. Its imitation, in `pictures/imitations`,
    looks the same but for the mark, which is that of another item: a hard negative.

    A pair begins with an item `j` that a shopper saw somewhere, drawn in proportion to popularity,
    and photographed from the hand on any ground, `pictures/queries/<number>.png`. Among it and
    other items of its category (drawn in proportion to popularity, the same one perhaps more than
    once) the shopper buys `i` with the probability

        p(i | j) = sum_{k = i} exp(b <v_j, v_k>) / sum_k exp(b <v_j, v_k>),   b = `likeness`

    All pairs of a photographed item are in one split. Rows are those of `datasets.search_pairs`,
    with paths within `pictures` in the place of texts, and the item's `title`, which says some of
    what its picture shows: `ck.pretraining.read_pairs` reads the files with `images`. Each split
    keeps `truth.parquet`, in the order of its rows: `query_item_id`, `item_id`,
    `true_probability`, and `best_probability`, that of the likeliest item.

    Args:
        out: Folder to make. It keeps its old content until the new is whole.
        world: Sizes and seed.
        config: What is photographed, and how.
        report: Called with lines for the user; by default they go to stderr.

    Raises:
        ValueError: an argument is not what it should be, or a split would be empty.
        OSError: the disk is full.

    Example:

    >>> simulator.pictures.prepare("tf_data/pictures", simulator.WorldConfig(items=5000))
    >>> ck.pretraining.read_pairs("tf_data/pictures/train", images="tf_data/pictures/pictures")
    """
    config = config or PicturesConfig()
    made = World(world or WorldConfig())
    pairs = _pairs(made, config)
    splits = search_pairs.split_by_query(
        pairs["query_item_id"].astype(str), config.held_out, made.config.seed
    )
    settings = {
        "simulated": "pictures",
        "format": _FORMAT,
        "world": dataclasses.asdict(made.config),
        "config": dataclasses.asdict(config),
    }
    key = prepared.key_of(settings)
    if search_pairs.up_to_date(out, key, PICTURES) is not None and is_whole(out):
        report(f"{out} is up to date")
    else:
        _write(out, key, made, config, pairs, splits, report)
    counts = {name: int((splits == number).sum()) for number, name in enumerate(SPLITS)}
    best = pairs["best_probability"].groupby(splits).mean()
    return SimulatedPictures(
        folder=pathlib.Path(out),
        items=made.config.items,
        pairs=counts,
        best_accuracy={name: float(best[number]) for number, name in enumerate(SPLITS)},
    )


def _pairs(world: World, config: PicturesConfig) -> pd.DataFrame:
    """What was photographed (`place`, its position in the world), and what was bought then."""
    random = np.random.default_rng([world.config.seed, VIEW_STREAM, _PAIRS_STREAM])
    seen = world.popular_items(random, (config.pairs,))
    of_category = np.repeat(world.item_category[seen][:, None], config.candidates - 1, axis=1)
    offered = np.column_stack([seen, world.items_of(of_category, random)])
    likeness = np.einsum("pd,pcd->pc", world.item_vector[seen], world.item_vector[offered])
    logits = config.likeness * likeness.astype(np.float64)
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    chosen = np.argmax(np.log(share) + random.gumbel(size=share.shape), axis=1)
    # An item that is offered twice is bought for either.
    probability = np.einsum("pcd,pd->pc", offered[:, :, None] == offered[:, None, :], share)
    rows = np.arange(config.pairs)
    return pd.DataFrame(
        {
            "place": seen,
            "query_item_id": world.item_id[seen],
            "item_id": world.item_id[offered[rows, chosen]],
            PROBABILITY: probability[rows, chosen],
            "best_probability": probability.max(axis=1),
        }
    )


def _write(
    out: str | os.PathLike,
    key: str,
    world: World,
    config: PicturesConfig,
    pairs: pd.DataFrame,
    splits: np.ndarray,
    report: Report,
) -> None:
    """Pictures, pairs, and the probabilities that they were drawn with."""
    with prepared.replacing(out, key, own=(PICTURES,), report=report) as staging:
        looks = looks_of(world, config.noise)
        _draw_all(staging / PICTURES, world, config, looks, pairs["place"].to_numpy(), report)
        metadata = search_pairs.metadata_of(key, staging / PICTURES)
        titles = pd.Series(titles_of(looks), world.item_id)
        schema = search_pairs.TITLED_SCHEMA.save(staging)
        for name, part in search_pairs.split_parts(pairs, splits, config.held_out):
            write(staging / name, schema, _rows(part, titles), metadata=metadata)
            truth = ["query_item_id", "item_id", PROBABILITY, "best_probability"]
            part[truth].to_parquet(file_of(staging, name), index=False)
            report(f"{name}: {len(part):,} pairs")


def _rows(pairs: pd.DataFrame, titles: pd.Series) -> pd.DataFrame:
    """The pairs as `search_pairs` has them, with paths and titles."""
    item_id = pairs["item_id"].astype(str)
    return pd.DataFrame(
        {
            "query": "queries/" + pairs.index.astype(str) + ".png",
            "item": "items/" + item_id + ".png",
            "negative": "imitations/" + item_id + ".png",
            "title": pairs["item_id"].map(titles),
            "item_id": pairs["item_id"],
            "label": 1.0,
        }
    )


def _draw_all(
    folder: pathlib.Path,
    world: World,
    config: PicturesConfig,
    looks: Looks,
    seen: np.ndarray,
    report: Report,
) -> None:
    """All pictures of the items, their imitations and the queries."""
    random = np.random.default_rng([world.config.seed, VIEW_STREAM, _GRAIN_STREAM])
    items = np.arange(world.config.items)
    names = world.item_id.astype(str)
    marked = _others(random, len(items))
    imitated = {name: look[marked] if name in MARK else look for name, look in looks.items()}
    shop, shoppers = Views.of_shop, lambda count: Views.of_shoppers(random, count)
    jobs = (
        ("items", looks, items, names, shop),
        ("imitations", imitated, items, names, shop),
        ("queries", looks, seen, np.arange(len(seen)).astype(str), shoppers),
    )
    for name, of_items, places, file_names, views in jobs:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for part in _batches(len(places)):
            chosen: Looks = {key: look[places[part]] for key, look in of_items.items()}
            pixels = draw(chosen, views(len(part)), config.size, random)
            for picture, file_name in zip(pixels, file_names[part], strict=True):
                content = tf.io.encode_png(picture).numpy()
                (folder / name / f"{file_name}.png").write_bytes(content)
        report(f"drew {len(places):,} {name}")


def _others(random: np.random.Generator, count: int) -> np.ndarray:
    """Another item for each item, each once: the next one of a circle in random order."""
    order = random.permutation(count)
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)  # A permutation alone would leave about one item in place.
    return others


def _batches(count: int) -> Iterator[np.ndarray]:
    for first in range(0, count, _BATCH):
        yield np.arange(first, min(first + _BATCH, count))
