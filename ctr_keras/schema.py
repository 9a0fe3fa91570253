"""What a row is: the one source for writers, readers, model inputs and serving signatures."""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ctr_keras import files
from ctr_keras.argument_checks import check_positive_integer

SCHEMA_VERSION = 1
PADDING_ID = 0
OUT_OF_VOCABULARY_ID = 1
RESERVED_IDS = 2
MISSING_INT = -1

ROLES = ("user", "item", "history", "context", "scenario", "vector", "label", "group", "time")
KINDS = ("id", "number", "text", "vector")
_INPUT_ROLES = ("user", "item", "history", "context", "scenario", "vector")
FEATURE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """How the raw values of an id feature become the ids `0 ... size - 1`.

    Id 0 is padding and id 1 is out of vocabulary, whatever the kind. Make one with:

    - `Vocabulary.of_size(size)`: the raw values are ids already.
    - `Vocabulary.from_file(path)`: line `n` of a text file (from 0) is id `n + 2`; what no line
      holds is id 1. The file's SHA-256 is kept, so that a changed vocabulary is noticed.
    - `Vocabulary.hashing(buckets)`: ids `2 ... buckets + 1` by a hash, no file, collisions
      possible.

    Attributes:
        size: Number of ids, padding and out of vocabulary included: the rows of a table.
        file: Path of the vocabulary file, or `None`.
        sha256: Hexadecimal digest of that file.
        hashed: Whether ids come from a hash.
    """

    size: int
    file: str | None = None
    sha256: str | None = None
    hashed: bool = False

    def __post_init__(self):
        size = self.size.item() if hasattr(self.size, "item") else self.size
        object.__setattr__(self, "size", size)  # A NumPy integer becomes Python's.
        if not isinstance(size, int) or size < RESERVED_IDS:
            raise ValueError(
                "A vocabulary needs a `size` of at least 2 (padding and out of vocabulary). "
                f"Received: `size={self.size!r}`"
            )

    @classmethod
    def of_size(cls, size: int) -> "Vocabulary":
        """Raw values are ids in `0 ... size - 1`."""
        return cls(size=size)

    @classmethod
    def hashing(cls, buckets: int) -> "Vocabulary":
        """Raw values are hashed into `buckets` buckets."""
        check_positive_integer("buckets", buckets)
        return cls(size=buckets + RESERVED_IDS, hashed=True)

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "Vocabulary":
        """Raw values are looked up in a UTF-8 text file, one value a line."""
        path = pathlib.Path(path).resolve()
        if not path.is_file():
            raise ValueError(
                "The vocabulary file does not exist; `ctr-keras prepare` makes those of a data "
                f"set. Received: `path={str(path)!r}`"
            )
        return cls(
            size=_count_lines(path) + RESERVED_IDS, file=str(path), sha256=files.sha256(path)
        )

    @classmethod
    def write(cls, path: str | os.PathLike, values: Iterable[Any]) -> "Vocabulary":
        """Write `values`, in their order, as a vocabulary file and return its vocabulary."""
        tokens = [str(value) for value in values]
        for token in tokens:
            if not token or "\n" in token or "\r" in token:
                raise ValueError(
                    "A vocabulary value must be a non-empty line of text. "
                    f"Received: `value={token!r}` for {str(path)!r}"
                )
        twice, count = collections.Counter(tokens).most_common(1)[0] if tokens else ("", 0)
        if count > 1:
            raise ValueError(
                f"A vocabulary names each value once. Received: `value={twice!r}` {count} times "
                f"for {str(path)!r}"
            )
        files.write_atomic(path, "".join(f"{token}\n" for token in tokens).encode())
        return cls.from_file(path)

    @property
    def is_encoded(self) -> bool:
        """Whether raw values are ids already: neither looked up nor hashed."""
        return self.file is None and not self.hashed

    def to_dict(self, name: str) -> dict[str, Any]:
        """The JSON form, a file lying at `vocabularies/<name>.txt` beside the schema."""
        if self.hashed:
            return {"hash_buckets": self.size - RESERVED_IDS}
        if self.file is None:
            return {"size": self.size}
        return {"file": f"vocabularies/{name}.txt", "size": self.size, "sha256": self.sha256}

    @classmethod
    def from_dict(
        cls, config: dict[str, Any], folder: str | os.PathLike | None = None
    ) -> "Vocabulary":
        """Read what `to_dict` wrote; the file is checked where `folder` is given.

        Without a folder a file at an absolute path (`Schema.to_config`) counts only if it is still
        the same: it may be another machine's.
        """
        _check_keys(config, {"hash_buckets", "file", "size", "sha256"}, "vocabulary")
        if "hash_buckets" in config:
            return cls.hashing(config["hash_buckets"])
        if "file" not in config:
            return cls.of_size(config.get("size"))  # type: ignore[arg-type]
        if folder is None:
            file = pathlib.Path(config["file"])
            if file.is_absolute() and not _is_file_of(file, config["sha256"]):
                file = pathlib.Path(file.name)
            return cls(size=config["size"], file=str(file), sha256=config["sha256"])
        found = cls.from_file(pathlib.Path(folder) / config["file"])
        found._check_sha256(config.get("sha256", found.sha256))
        return found

    def check_file(self) -> None:
        """Refuse a file that is no longer what it was.

        Raises:
            ValueError: its SHA-256 is another one.
        """
        if self.file is not None and not _is_file_of(pathlib.Path(self.file), self.sha256):
            Vocabulary.from_file(self.file)._check_sha256(self.sha256)

    def _check_sha256(self, expected: str | None) -> None:
        if self.sha256 != expected:
            raise ValueError(
                f"The vocabulary {self.file!r} changed after its schema was written: it now has "
                f"{self.size} ids and another SHA-256, so ids would no longer mean what a model "
                "learned. Restore the file, or prepare the data and train again. Received: "
                f"`sha256={self.sha256!r}`, expected {expected!r}"
            )


@dataclasses.dataclass(frozen=True)
class Feature:
    """One column of a row.

    Args:
        name: Column name, and the key of the feature in a batch and in serving requests.
        role: `"user"`, `"item"` (the target item), `"history"` (the user's past items, oldest
            first), `"context"`, `"scenario"`, `"vector"`, `"label"`, `"group"` (what GAUC
            groups by) or `"time"`.
        kind: `"id"`, `"number"`, `"text"` or `"vector"`. With a `vocabulary` a text is split into
            lower-case words, each an id; with a `width` it enters models as the vector that a
            text encoder makes of it; with neither it is carried for display.
        vocabulary: For ids and text: how raw values become ids.
        length: For sequences: how many values a row keeps. A longer history keeps its newest
            values, any other sequence its first; vectors stay with the ids that they are of.
        shares: Name of the feature whose vocabulary and embedding this one uses, as
            `history_item_id` shares those of `item_id`. Of vectors, the projection is shared.
        width: For vectors: the number of floats. For encoded texts: that of the encoder.
        dtype: Raw type of an id: `"int64"` (default) or `"string"`. Others follow from the kind.
        as_string: Whether a text enters models as it is, for those that encode it themselves.
        of: For vectors: the feature with the ids of the items that they describe. They lie in a
            table (`ck.data.VectorTable`), not in the rows, and are looked up as rows are read.
        crossed: Whether the value depends on the user and the target item together, as their
            similarity does. A ranker takes it like any other; auxiliary tasks, which ask who
            belongs to whom, would find the answer in it and leave it aside.
        unprojected: Whether a crossed vector joins the input of a model's MLP as it is, where
            other vectors are projected to the width of embeddings. A model without an MLP, such as
            `FM`, and those that adapt to a user or an item project it all the same.

    Example:

    >>> Feature("item_id", role="item", vocabulary=Vocabulary.hashing(100_000))
    >>> Feature("history_item_id", role="history", length=50, shares="item_id")
    """

    name: str
    role: str
    kind: str = "id"
    vocabulary: Vocabulary | None = None
    length: int | None = None
    shares: str | None = None
    width: int | None = None
    dtype: str = ""
    as_string: bool = False
    of: str | None = None
    crossed: bool = False
    unprojected: bool = False

    def __post_init__(self):
        if not isinstance(self.name, str) or not FEATURE_NAME.match(self.name):
            raise ValueError(
                "A feature's name must be letters, digits and underscores, a letter first. "
                f"Received: `name={self.name!r}`"
            )
        self._one_of("role", ROLES)
        self._one_of("kind", KINDS)
        self._check_shape()
        self._check_vocabulary()
        object.__setattr__(self, "dtype", self._raw_dtype())

    def _check_shape(self):
        if self.length is not None and (not isinstance(self.length, int) or self.length < 1):
            self._fail("`length` must be a positive integer", "length")
        if self.role == "history" and self.length is None:
            self._fail("a history needs a `length`", "length")
        if self.of is not None and self.kind != "vector":
            self._fail("only vectors are `of` another feature", "of")
        if self.kind == "vector" and self.length is not None and self.of is None:
            self._fail("several vectors a row must be `of` a feature with as many ids", "length")
        has_width = isinstance(self.width, int) and self.width > 0
        if self.kind == "vector" and not has_width:
            self._fail("a vector needs a positive `width`", "width")
        if self.kind == "text" and self.width is not None and not has_width:
            self._fail("the `width` of an encoded text must be positive", "width")
        if self.kind not in ("vector", "text") and self.width is not None:
            self._fail("only a vector or an encoded text has a `width`", "width")
        if self.kind == "number" and self.length is not None:
            self._fail("a number is one value a row; use a vector for more", "length")
        is_vector = self.kind == "vector" and self.length is None
        if self.unprojected and not (is_vector and self.crossed):
            self._fail("only a crossed vector of one value can be unprojected", "unprojected")
        if self.role == "label" and (self.kind != "number" or self.length is not None):
            self._fail("a label is one number, 0 or 1", "kind")
        if self.role in ("time", "group") and self.length is not None:
            self._fail(f"a {self.role} is one value a row", "length")
        if self.role == "group" and self.kind != "id":
            self._fail("a group is an id", "kind")
        if self.role == "time" and self.kind != "number":
            self._fail("a time is a number: seconds since 1970", "kind")
        if self.kind == "text" and self.vocabulary is not None and self.length is None:
            self._fail("a text with a vocabulary needs a `length`, its number of words", "length")
        if self.is_encoded_text and (self.vocabulary or self.shares or self.length):
            self._fail("a text is encoded or split into words, not both", "width")
        if self.as_string and (self.kind != "text" or self.is_encoded_text or self.is_embedded):
            self._fail("only a text that is neither encoded nor split is a string", "as_string")

    def _check_vocabulary(self):
        if self.kind not in ("id", "text"):
            if self.vocabulary is not None:
                self._fail("only ids and texts have a vocabulary", "vocabulary")
            if self.shares is not None and self.kind != "vector":
                self._fail("only ids, texts and vectors share", "shares")
            return
        if self.vocabulary is not None and self.shares is not None:
            self._fail("`vocabulary` or `shares` is given, not both", "shares")
        if self.kind == "id" and self.role in _INPUT_ROLES:
            if self.vocabulary is None and self.shares is None:
                self._fail("an id needs a `vocabulary` or `shares`", "vocabulary")
        if self.kind == "text" and self.vocabulary is not None:
            if not (self.vocabulary.hashed or self.vocabulary.file):
                self._fail("words are looked up in a file or hashed", "vocabulary")

    def _raw_dtype(self) -> str:
        if self.kind == "id":
            if self.dtype not in ("", "int64", "string"):
                self._fail('the raw type of an id is "int64" or "string"', "dtype")
            return self.dtype or "int64"
        natural = {"text": "string", "number": "float32", "vector": "float32"}[self.kind]
        if self.role == "time":
            natural = "int64"
        if self.dtype not in ("", natural):
            self._fail(f"the raw type of this feature is {natural!r}", "dtype")
        return natural

    def _one_of(self, argument: str, allowed: tuple[str, ...]):
        if getattr(self, argument) not in allowed:
            self._fail(f"`{argument}` must be one of {', '.join(allowed)}", argument)

    def _fail(self, expected: str, argument: str):
        raise ValueError(
            f"Feature {self.name!r}: {expected}. Received: `{argument}={getattr(self, argument)!r}`"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row's value, unless it is a sequence: `()` but for vectors."""
        if self.kind != "vector":
            return ()
        return tuple(size for size in (self.length, self.width) if size is not None)

    @property
    def is_sequence(self) -> bool:
        """Whether a raw row holds a list of values (a text is one string)."""
        return self.length is not None and self.kind not in ("text", "vector")

    @property
    def is_input(self) -> bool:
        """Whether models take it: not labels, groups, times, or texts kept for display."""
        if self.role not in _INPUT_ROLES:
            return False
        is_used = self.is_encoded_text or self.is_embedded or self.as_string
        return self.kind != "text" or is_used

    @property
    def is_encoded_text(self) -> bool:
        """Whether it is a text that enters models as the vector of a text encoder."""
        return self.kind == "text" and self.width is not None

    @property
    def is_embedded(self) -> bool:
        """Whether it is ids, or words, for which models have a row each in a table."""
        has_ids = self.vocabulary is not None or self.shares is not None
        return self.kind in ("id", "text") and has_ids

    @property
    def keeps_newest(self) -> bool:
        """Whether a sequence over its length loses its first values rather than its last.

        Of vectors that are `of` ids, those ids tell.
        """
        return self.role == "history"

    def to_dict(self) -> dict[str, Any]:
        config: dict[str, Any] = {"name": self.name, "role": self.role, "kind": self.kind}
        for key in ("dtype", "length", "shares", "width", "of"):
            value = getattr(self, key)
            if value is not None and not (key == "dtype" and self.kind != "id"):
                config[key] = value
        for key in ("as_string", "crossed", "unprojected"):
            if getattr(self, key):
                config[key] = True
        if self.vocabulary is not None:
            config["vocabulary"] = self.vocabulary.to_dict(self.name)
        return config

    @classmethod
    def from_dict(cls, config: dict[str, Any], folder: str | os.PathLike | None = None):
        fields = {field.name for field in dataclasses.fields(cls)}
        name = config.get("name") if isinstance(config, dict) else config
        _check_keys(config, fields, f"feature {name!r}")
        vocabulary = config.get("vocabulary")
        if vocabulary is not None:
            vocabulary = Vocabulary.from_dict(vocabulary, folder)
        return cls(**{**config, "vocabulary": vocabulary})


@dataclasses.dataclass(frozen=True)
class Schema:
    """The features of a row.

    A schema is saved as readable JSON with its vocabulary files beside it; that folder is all
    that a writer, a reader, a model or a server needs to agree on what a row means.

    Args:
        features: `Feature`s, in the order in which columns are shown.

    Example:

    >>> schema = ck.Schema([
    ...     ck.Feature("user_id", role="user", vocabulary=ck.Vocabulary.hashing(1000)),
    ...     ck.Feature("item_id", role="item", vocabulary=ck.Vocabulary.hashing(1000)),
    ...     ck.Feature("history_item_id", role="history", length=50, shares="item_id"),
    ...     ck.Feature("label", role="label", kind="number"),
    ... ])
    >>> schema.save("tf_data/mine/schema.json")
    """

    features: tuple[Feature, ...]

    def __post_init__(self):
        object.__setattr__(self, "features", tuple(self.features))
        names = [feature.name for feature in self.features]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"A schema names each feature once. Received: `name={name!r}`")
        for role in ("label", "time"):
            found = [feature.name for feature in self.features if feature.role == role]
            if len(found) > 1:
                raise ValueError(f"A schema has one {role} at most. Received: `names={found}`")
        for feature in self.features:
            self._check_shared(feature)
            self._check_described(feature)

    def _check_shared(self, feature: Feature):
        if feature.shares is None:
            return
        target = {f.name: f for f in self.features}.get(feature.shares)
        if feature.kind == "vector":
            if target is None or (target.kind, target.width) != ("vector", feature.width):
                raise ValueError(
                    f"Feature {feature.name!r} must share another vector of width {feature.width}. "
                    f"Received: `shares={feature.shares!r}`"
                )
            return
        if target is None or target.vocabulary is None:
            raise ValueError(
                f"Feature {feature.name!r} must share a feature that has a vocabulary of its own. "
                f"Received: `shares={feature.shares!r}`"
            )
        if (target.kind, target.dtype) != (feature.kind, feature.dtype):
            raise ValueError(
                f"Feature {feature.name!r} shares {target.name!r}, so both need the same kind and "
                f"dtype. Received: `kind={feature.kind!r}, dtype={feature.dtype!r}`"
            )

    def _check_described(self, feature: Feature):
        if feature.of is None:
            return
        target = {f.name: f for f in self.features}.get(feature.of)
        if target is None or target.kind != "id" or target.length != feature.length:
            raise ValueError(
                f"Feature {feature.name!r} must be of an id feature with `length={feature.length}`."
                f" Received: `of={feature.of!r}`"
            )

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def __contains__(self, name: str) -> bool:
        return any(feature.name == name for feature in self.features)

    def __getitem__(self, name: str) -> Feature:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(f"The schema has no feature {name!r}, only {self.names}")

    @property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """The features that enter a model."""
        return tuple(feature for feature in self.features if feature.is_input)

    @property
    def label(self) -> Feature:
        """The one feature with the role `"label"`."""
        for feature in self.features:
            if feature.role == "label":
                return feature
        raise ValueError('The schema has no feature with `role="label"`.')

    def by_role(self, role: str) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.role == role)

    @property
    def plain_texts(self) -> list[str]:
        """The texts that are not split into words, which an encoder may encode."""
        return [f.name for f in self if f.kind == "text" and not f.is_embedded]

    def with_encoded_texts(self, names: Iterable[str], width: int) -> "Schema":
        """The same features, some texts now model inputs by way of a text encoder.

        Args:
            names: The texts.
            width: Of the encoder's vectors.

        Raises:
            ValueError: one of them is no text of a row.
        """
        chosen = list(names)
        texts = [f.name for f in self if f.kind == "text" and f.role in _INPUT_ROLES]
        unknown = [name for name in chosen if name not in texts]
        if unknown:
            raise ValueError(
                f"To be encoded a feature must be a text: one of {texts}. Received: `{unknown[0]}`"
            )
        plain: dict[str, Any] = {"vocabulary": None, "length": None, "shares": None}
        plain |= {"width": width, "as_string": False}
        return Schema(
            tuple(dataclasses.replace(f, **plain) if f.name in chosen else f for f in self)
        )

    def with_item_vectors(self, width: int) -> "Schema":
        """The same features, and the vectors of the target item and of past items.

        They are called after the ids that they are of, `item_id_vector` and
        `history_item_id_vector`, are looked up as rows are read, and enter models like other
        features: beside the id, with which they make an item of the history.

        Args:
            width: Of the vectors.

        Raises:
            ValueError: no feature tells items apart.
        """
        key = self.key("item")
        if key is None:
            raise ValueError(f"The schema needs an id of items. Received: `features={self.names}`")
        item = f"{key}_vector"
        past = [f for f in self.by_role("history") if f.shares == key]
        vectors = [
            Feature(item, "item", kind="vector", width=width, of=key),
            *(
                Feature(
                    f"{f.name}_vector",
                    "history",
                    kind="vector",
                    width=width,
                    length=f.length,
                    of=f.name,
                    shares=item,
                )
                for f in past
            ),
        ]
        return Schema((*self.features, *vectors))

    def with_texts_as_strings(self) -> "Schema":
        """The same features, encoded texts now strings that a model encodes itself."""
        return Schema(
            tuple(
                dataclasses.replace(f, width=None, as_string=True) if f.is_encoded_text else f
                for f in self
            )
        )

    def vocabulary(self, name: str) -> Vocabulary | None:
        """The feature's own vocabulary or the one it shares."""
        feature = self[name]
        return self[feature.shares].vocabulary if feature.shares else feature.vocabulary

    def is_known(self, name: str, ids: Any) -> Any:
        """Which encoded ids of a feature, or keys of a group, stand for one value alone.

        Args:
            name: The feature.
            ids: Integer array or tensor.

        Returns:
            Booleans of the same shape: `False` where the value is missing or out of vocabulary.
        """
        return ids != MISSING_INT if self.vocabulary(name) is None else ids >= RESERVED_IDS

    def padding(self, name: str) -> str | int:
        """The raw value that fills a padded sequence, and stands for a missing id."""
        feature = self[name]
        if feature.dtype == "string":
            return ""
        return int(self.missing(name, 0))

    def missing(self, name: str, otherwise: float) -> float:
        """-1 for integer ids that are looked up or hashed, `otherwise` for other numbers."""
        feature = self[name]
        vocabulary = self.vocabulary(name)
        is_raw = feature.kind == "id" and not (vocabulary is not None and vocabulary.is_encoded)
        return MISSING_INT if is_raw else otherwise

    def key(self, role: str) -> str | None:
        """The id that tells users (`role="user"`) or items (`role="item"`) apart.

        By the field's convention it is `user_id` or `item_id`; else the first id of one value.
        `None` where there is none.
        """
        ids = [f.name for f in self.by_role(role) if f.kind == "id" and not f.is_sequence]
        return f"{role}_id" if f"{role}_id" in ids else next(iter(ids), None)

    def is_of_item(self, name: str) -> bool:
        """Whether a feature differs between the items that are ranked for one user.

        Features of role `item` do, and crossed ones of any role. One of role `vector` is on the
        side of the feature that it is `of`; of none, it represents the target item. All others, a
        history's vectors among them, are the user's or those of the moment.
        """
        feature = self[name]
        if feature.crossed:
            return True
        if feature.role == "vector" and feature.of is not None:
            return self.is_of_item(feature.of)
        return feature.role in ("item", "vector")

    @property
    def fingerprint(self) -> str:
        """Digest of everything that gives rows and ids their meaning."""
        canonical = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "features": [feature.to_dict() for feature in self.features],
        }

    def to_config(self) -> dict[str, Any]:
        """As `to_dict`, with the paths of the vocabulary files that are there.

        It is part of a model's configuration, so that a copy made of it has its vocabularies.
        """
        config = self.to_dict()
        for feature, described in zip(self.features, config["features"], strict=True):
            file = None if feature.vocabulary is None else feature.vocabulary.file
            if file is not None and os.path.isfile(file):
                described["vocabulary"]["file"] = os.path.abspath(file)
        return config

    @classmethod
    def from_dict(
        cls, config: dict[str, Any], folder: str | os.PathLike | None = None, source: str = "schema"
    ) -> "Schema":
        """Read what `to_dict` wrote.

        Args:
            config: The dictionary.
            folder: Where vocabulary files lie; they are checked against the schema. `None`
                leaves them unchecked, for reading the structure alone.
            source: What to call the schema in errors.
        """
        if not isinstance(config, dict):
            raise ValueError(f"{source}: expected a JSON object. Received: `{config!r}`")
        version = config.get("schema_version")
        if not isinstance(version, int):
            raise ValueError(
                f"{source}: expected an integer `schema_version`. "
                f"Received: `schema_version={version!r}`"
            )
        if version > SCHEMA_VERSION:
            raise ValueError(
                f"{source} is of a newer version than this package reads ({SCHEMA_VERSION}): "
                f"upgrade ctr-keras. Received: `schema_version={version}`"
            )
        try:
            _check_keys(config, {"schema_version", "features"}, "schema")
            return cls(tuple(Feature.from_dict(f, folder) for f in config.get("features", ())))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def of(cls, schema: "Schema | dict[str, Any]") -> "Schema":
        """The schema itself, or the one that a dictionary (a model's configuration) describes."""
        if isinstance(schema, cls):
            return schema
        if isinstance(schema, dict):
            return cls.from_dict(schema)
        raise TypeError(f"`schema` must be a `ck.Schema`. Received: `{schema=}`")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Schema":
        """Load `schema.json` (or the one in the folder `path`) and check its vocabularies."""
        path = _schema_file(path)
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"No schema there; `ctr-keras prepare` writes one. Received: `path={str(path)!r}`"
            ) from None
        except NotADirectoryError:
            raise files.not_prepared(path) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        return cls.from_dict(config, folder=path.parent, source=str(path))

    def save(self, path: str | os.PathLike) -> "Schema":
        """Save as JSON with the vocabulary files beside it; return the schema as saved there."""
        path = _schema_file(path)
        for feature in self.features:
            if feature.vocabulary is not None and feature.vocabulary.file is not None:
                target = path.parent / feature.vocabulary.to_dict(feature.name)["file"]
                if pathlib.Path(feature.vocabulary.file) != target.resolve():
                    files.write_atomic(target, pathlib.Path(feature.vocabulary.file).read_bytes())
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        files.write_atomic(path, text.encode())
        return Schema.load(path)


def _schema_file(path: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(path)
    return path if path.suffix == ".json" else path / "schema.json"


def _is_file_of(path: pathlib.Path, sha256: str | None) -> bool:
    return path.is_file() and files.sha256(path) == sha256


def _check_keys(config: dict[str, Any], known: set[str], what: str):
    if not isinstance(config, dict):
        raise ValueError(f"{what}: expected a JSON object. Received: `{config!r}`")
    unknown = sorted(set(config) - known)
    if unknown:
        raise ValueError(
            f"{what}: unknown key. Expected some of {sorted(known)}. Received: `{unknown[0]}`"
        )


def _count_lines(path: pathlib.Path) -> int:
    count, last = 0, b"\n"
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")
