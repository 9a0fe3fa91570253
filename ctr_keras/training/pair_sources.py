"""What a pre-training learns from: pairs of texts, of pictures, or of both, and their encoder."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ctr_keras import files, metrics
from ctr_keras.data.manifest import Manifest
from ctr_keras.data.split import SPLITS
from ctr_keras.json_values import digest
from ctr_keras.losses.info_nce import unit_vectors
from ctr_keras.pretraining import ImageEncoder, TextEncoder, pair_texts, read_pairs
from ctr_keras.pretraining.corrupt_images import CorruptImages
from ctr_keras.pretraining.text_encoder import identity
from ctr_keras.pretraining.text_head import TextHead
from ctr_keras.pretraining.token_states import TokenStates
from ctr_keras.sources import Report, to_stderr

_TEXTS = ("query", "item", "negative")
_COMMON_WIDTH = 128


def pair_accuracy(
    encoder: TextEncoder | ImageEncoder,
    path: str | os.PathLike,
    images: str | os.PathLike | None = None,
) -> dict[str, float]:
    """Acc@1 and Acc@5 of an encoder on the pairs of a split.

    Each query is compared with all items of the split's pairs.

    Args:
        encoder: Of texts, or of pictures.
        path: Folder of a split.
        images: Of pairs of pictures: the folder that their paths are within.
    """
    return _accuracy(encoder.encode, path, images)


def _accuracy(
    encode: Callable[[list[str]], np.ndarray],
    path: str | os.PathLike,
    images: str | os.PathLike | None = None,
    left_out: Sequence[str] = (),
) -> dict[str, float]:
    queries, items, own = pair_texts(path, images, left_out)
    return _found(encode(queries), encode(items), own)


def _found(queries: Any, items: Any, own: np.ndarray) -> dict[str, float]:
    """Acc@1 and Acc@5 of vectors of queries among those of all items."""
    return {f"acc_{n}": metrics.top_n_accuracy(queries, items, n=n, own=own) for n in (1, 5)}


def _texts_of(data: str, read: Iterable[tuple[str, str]]) -> set[str]:
    """The distinct texts of some splits, each with its views."""
    return {
        text.decode()
        for split, views in read
        for batch in read_pairs(f"{data}/{split}", 4096, views=views).as_numpy_iterator()
        for name in _TEXTS
        for text in np.unique(batch[name])
    }


def _paths_of(data: str) -> list[str]:
    """The paths of the pictures that pairs name, of all splits."""
    return sorted(_texts_of(data, {(split, "query") for split in SPLITS}) - {""})


def pictures_digest(data: str, images: str) -> str:
    """Of the pictures that pairs name: of their paths within a folder, wherever it lies, and their
    content.

    Args:
        data: Folder of the splits.
        images: Folder that the paths are within.

    Raises:
        ValueError: a picture is not there (it is named).
    """
    paths = _paths_of(data)
    try:
        return digest({path: files.sha256(f"{images}/{path}") for path in paths})
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"`images` must be the folder of the pictures that pairs name; {error.filename} is not "
            f"there. Received: `images={images!r}`"
        ) from None


def _check_queries(data: str, views: str, advice: str) -> None:
    """Refuse data of which a split has no queries."""
    for split in SPLITS:
        if not any(pair_texts(f"{data}/{split}")[0]):
            raise ValueError(
                f"{data}/{split} has no queries; {advice}. Received: `views={views!r}`"
            )


class TextPairs:
    """Pairs of texts, for the last layers of an encoder: what the others do is done once.

    Args:
        data: Folder that `ctr-keras prepare pairs` made.
        batch_size: Pairs a batch.
        encoder: What to start from, as `preset` of `TextEncoder.from_preset`.
        max_tokens: Tokens of a text, at most; `None` of a file, which has its own.
        layers: How many of the encoder's last layers learn.
        views: As for `read_pairs`.
        states: Folder of what the other layers make of the texts.
        progress: Whether to show on standard error how that is made.

    Raises:
        ValueError: the pairs are of pictures, or a split has no queries.
    """

    def __init__(
        self,
        data: str,
        batch_size: int,
        *,
        encoder: str,
        max_tokens: int | None,
        layers: int,
        views: str,
        states: str,
        progress: bool,
    ):
        self.data = data
        self.batch_size = batch_size
        self.preset = encoder
        self.max_tokens = max_tokens
        self.layers = layers
        self.views = views
        self._check_texts()
        whole = self._whole()
        self._start = whole.head()
        # It is tested on queries, whatever it learns from.
        read = {("train", views), ("valid", views), ("valid", "query"), ("test", "query")}
        self.states = TokenStates.of(
            _texts_of(data, read), whole, identity(encoder), states, progress=progress
        )

    def _check_texts(self) -> None:
        for split in SPLITS:
            if "title" in Manifest.load(f"{self.data}/{split}").schema.names:
                raise ValueError(
                    f"{self.data}/{split} holds pairs of pictures, not texts: give `images`, the "
                    f"folder that their paths are within. Received: `data={self.data!r}`"
                )
        _check_queries(self.data, self.views, "whatever it learns from, it is tested on queries")

    def _whole(self) -> TextEncoder:
        encoder = TextEncoder.from_preset(self.preset, self.max_tokens)
        encoder.train_last(self.layers)
        return encoder

    def encoder(self) -> TextHead:
        """What learns, as it starts."""
        encoder = TextHead.from_config(self._start.get_config())
        encoder.set_weights(self._start.get_weights())
        return encoder

    def with_trained(self, encoder: TextHead) -> TextEncoder:
        """The encoder of texts, with what was learned."""
        whole = self._whole()
        whole.head().set_weights(encoder.get_weights())
        return whole

    def read(self, split: str, **shuffling: Any) -> tf.data.Dataset:
        """Batches of a split, for `ContrastiveModel`."""

        def with_states(batch: dict[str, tf.Tensor]) -> dict[str, Any]:
            return {**batch, **{name: self.states.take(batch[name]) for name in _TEXTS}}

        rows = read_pairs(f"{self.data}/{split}", self.batch_size, views=self.views, **shuffling)
        return rows.map(with_states, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def query_encoder(self) -> None:
        """There is none beside `encoder`."""

    def accuracy(
        self, encoder: TextHead, split: str, query_encoder: None = None
    ) -> dict[str, float]:
        """As `pair_accuracy`."""
        return _accuracy(functools.partial(self.states.vectors, encoder), f"{self.data}/{split}")


class PicturePairs:
    """Pairs of pictures, for an encoder as it is.

    Args:
        data: Folder that `ctr-keras simulate pictures` made, or one alike.
        batch_size: Pairs a batch.
        encoder: What to start from, as `preset` of `ImageEncoder.from_preset`, or `None` for a
            small one that knows nothing yet.
        layers: How many of the encoder's last layers learn, or `None` for all.
        views: As for `read_pairs`.
        images: Folder that the paths of pictures are within.
        skip_corrupt: Whether pairs with a picture that cannot be decoded are left out; otherwise it
            is an error.
        report: Called with a line for the user if there are such pictures.

    Raises:
        ValueError: a picture cannot be decoded (it is named), or a split has no queries, or no
            pairs whose pictures can be decoded.
    """

    def __init__(
        self,
        data: str,
        batch_size: int,
        *,
        encoder: str | None,
        layers: int | None,
        views: str,
        images: str,
        skip_corrupt: bool,
        report: Report = to_stderr,
    ):
        self.data = data
        self.batch_size = batch_size
        self.preset = encoder
        self.layers = layers
        self.views = views
        self.images = images
        self._check_queries()
        self.corrupt = self._corrupt(skip_corrupt, report)

    def _check_queries(self) -> None:
        _check_queries(self.data, self.views, "`views='text-picture'` does without")

    def _corrupt(self, skip: bool, report: Report) -> list[str]:
        """Paths of the pictures that cannot be decoded."""
        paths = _paths_of(self.data)
        encoder = self.encoder()
        found = CorruptImages(skip)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            errors = pool.map(lambda path: encoder.error_of(f"{self.images}/{path}"), paths)
            for path, error in zip(paths, errors, strict=True):
                if error:
                    found.add(path, error)
        found.tell(len(paths), report)
        if found.names:
            for split in SPLITS:  # Each must have some pairs left.
                pair_texts(f"{self.data}/{split}", left_out=found.names)
        return found.names

    def encoder(self) -> ImageEncoder:
        """What learns, as it starts."""
        encoder = self._untrained()
        encoder.train_last(self.layers)
        return encoder

    def _untrained(self) -> ImageEncoder:
        if self.preset is None:
            return ImageEncoder.small()
        return ImageEncoder.from_preset(self.preset)

    def query_encoder(self) -> keras.layers.Layer | None:
        """What makes vectors of queries, as it starts; `None` where `encoder` does."""
        return None

    def with_trained(self, encoder: ImageEncoder) -> ImageEncoder:
        """The encoder of pictures, which all of it learned."""
        return encoder

    def read(self, split: str, **shuffling: Any) -> tf.data.Dataset:
        """Batches of a split, for `ContrastiveModel`."""
        return read_pairs(
            f"{self.data}/{split}", self.batch_size, views=self.views, images=self.images,
            left_out=self.corrupt, **shuffling,
        )  # fmt: skip

    def accuracy(
        self,
        encoder: ImageEncoder,
        split: str,
        query_encoder: keras.layers.Layer | None = None,
    ) -> dict[str, float]:
        """As `pair_accuracy`."""
        path = f"{self.data}/{split}"
        return _accuracy(encoder.encode, path, self.images, self.corrupt)


class TitledPictures(PicturePairs):
    """Titles and pictures of items, for an image encoder beside a text encoder that stays as it is.

    Titles are encoded once. A linear layer brings their vectors to those of pictures; an image
    encoder that knows something already gets one behind it too.

    Args:
        data: Folder that `ctr-keras prepare titled-pictures` or `simulate pictures` made. Where it
            has queries, what is learned is tested on them; elsewhere titles search for pictures.
        batch_size: Pairs a batch.
        text_encoder: As `preset` of `TextEncoder.from_preset`.
        max_tokens: Tokens of a title, at most; `None` of a file, which has its own.
        **kwargs: As for `PicturePairs`.

    Raises:
        ValueError: the data has no titles, or a picture cannot be decoded (it is named).
    """

    def __init__(
        self,
        data: str,
        batch_size: int,
        *,
        text_encoder: str,
        max_tokens: int | None,
        **kwargs: Any,
    ):
        paths = {split: f"{data}/{split}" for split in SPLITS}
        titles = [pair_texts(path, query="title")[0] for path in paths.values()]
        distinct = sorted({title for found in titles for title in found})
        super().__init__(data, batch_size, views="text-picture", **kwargs)
        self._has_queries = {split: any(pair_texts(path)[0]) for split, path in paths.items()}
        vectors = TextEncoder.from_preset(text_encoder, max_tokens).encode(distinct)
        with tf.init_scope():
            self._vectors = tf.constant(vectors)
            places = tf.lookup.KeyValueTensorInitializer(distinct, np.arange(len(distinct)))
            self._places = tf.lookup.StaticHashTable(places, default_value=-1)

    def _check_queries(self) -> None:
        """There may be none."""

    def _vectors_of(self, titles: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._vectors, self._places.lookup(titles))

    def _untrained(self) -> ImageEncoder:
        encoder = super()._untrained()
        return encoder if self.preset is None else encoder.projected(_COMMON_WIDTH)

    def query_encoder(self) -> keras.layers.Layer:
        project = keras.layers.Dense(_COMMON_WIDTH, use_bias=False, name="title_projection")
        project.build((None, self._vectors.shape[1]))
        return project

    def read(self, split: str, **shuffling: Any) -> tf.data.Dataset:
        """Batches of a split, for `ContrastiveModel`, whose queries are vectors of titles."""
        rows = super().read(split, **shuffling)
        return rows.map(lambda batch: {**batch, "query": self._vectors_of(batch["query"])})

    def accuracy(
        self,
        encoder: ImageEncoder,
        split: str,
        query_encoder: keras.layers.Layer | None = None,
    ) -> dict[str, float]:
        """As `pair_accuracy`, or of titles and their pictures where there are no queries."""
        if self._has_queries[split]:
            return super().accuracy(encoder, split)
        assert query_encoder is not None
        path = f"{self.data}/{split}"
        titles, pictures, own = pair_texts(path, self.images, self.corrupt, query="title")
        queries = unit_vectors(query_encoder(self._vectors_of(tf.constant(titles))))
        return _found(queries, encoder.encode(pictures), own)
