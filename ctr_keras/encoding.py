"""From raw columns to what a model takes: the one transformation that reader and server share."""

import tensorflow as tf

from ctr_keras.schema import (
    MISSING_INT,
    OUT_OF_VOCABULARY_ID,
    PADDING_ID,
    RESERVED_IDS,
    Feature,
    Schema,
    Vocabulary,
)

# What lies between words of letters and digits. Marks belong to the letter before them, but those
# of what is no letter, such as of a picture, are no word.
_GAP = r"(^|[^\p{L}\p{M}\p{N}])[^\p{L}\p{N}]*"


class FeatureEncoder(tf.Module):
    """Turns raw columns into model inputs, inside a TensorFlow graph.

    Ids are looked up or hashed, texts are split into words, sequences are cut to their length
    and padded on the right with id 0, numbers become float32. A missing id (`""`, or a negative
    integer that is looked up or hashed) becomes id 0, a
    missing group -1. As a `tf.Module` it carries its lookup
    tables into a SavedModel, the vocabularies as assets.

    Words are compared letter by letter, so texts should come in one Unicode form, NFC: an accented
    letter is another word where its accent is a character of its own.

    Args:
        schema: The `ck.Schema`. Vocabulary files must be on disk.

    Example:

    >>> encoder = FeatureEncoder(schema)
    >>> encoder({"user_id": [7], "history_item_id": tf.ragged.constant([[1, 2]])})
    """

    def __init__(self, schema: Schema):
        super().__init__(name="feature_encoder")
        self._schema = schema
        # TensorFlow refuses a table without entries.
        self._tables = {
            feature.name: _lookup_table(feature, feature.vocabulary)
            for feature in schema
            if feature.vocabulary is not None
            and feature.vocabulary.file is not None
            and feature.vocabulary.size > RESERVED_IDS
        }

    def __call__(self, columns: dict) -> dict[str, tf.Tensor]:
        """Encode the columns that are given; others are left out.

        Args:
            columns: By feature name, a tensor `(batch,)`, or for sequences a `tf.RaggedTensor`
                or a right-padded tensor `(batch, any length)`.
        """
        return {
            feature.name: self._encode(feature, columns[feature.name])
            for feature in self._schema
            if feature.name in columns
        }

    def _encode(self, feature: Feature, values):
        if feature.kind == "number":
            return tf.cast(values, tf.int64 if feature.role == "time" else tf.float32)
        if feature.kind == "vector":
            return tf.ensure_shape(tf.cast(values, tf.float32), (None, *feature.shape))
        if feature.kind == "text":
            if self._schema.vocabulary(feature.name) is None:
                return values
            values = tf.strings.split(
                tf.strings.strip(
                    tf.strings.regex_replace(tf.strings.lower(values, "utf-8"), _GAP, " ")
                )
            )
        elif self._schema.vocabulary(feature.name) is None:
            keys = group_key(values)
            if values.dtype != tf.string:
                return keys
            return tf.where(_is_missing(values), tf.constant(MISSING_INT, tf.int64), keys)
        if isinstance(values, tf.RaggedTensor):
            values = values.with_flat_values(self._to_ids(feature, values.flat_values))
        else:
            values = self._to_ids(feature, values)
        return self.fit_length(feature, values)

    def _to_ids(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        owner = feature.shares or feature.name
        vocabulary = self._schema.vocabulary(feature.name)
        assert vocabulary is not None
        if vocabulary.file is not None:
            ids = tf.fill(tf.shape(values), tf.constant(OUT_OF_VOCABULARY_ID, tf.int64))
            if owner in self._tables:
                ids = self._tables[owner].lookup(values) + RESERVED_IDS
            ids = tf.where(_is_missing(values), tf.cast(PADDING_ID, ids.dtype), ids)
        elif vocabulary.hashed:
            ids = hash_ids(values, vocabulary.size - RESERVED_IDS)
        else:
            ids = values
        return tf.cast(ids, tf.int32 if vocabulary.size < 2**31 else tf.int64)

    def fit_length(self, feature: Feature, values):
        """Values `(batch, any)` at the feature's length, padded with 0; single ones as they are."""
        if feature.length is None:
            return values
        if not isinstance(values, tf.RaggedTensor):
            if values.shape[1] == feature.length:
                return values
            values = tf.RaggedTensor.from_tensor(values, lengths=_lengths(values))
        if feature.keeps_newest:
            values = newest(values, feature.length)
        return values.to_tensor(default_value=0, shape=(None, feature.length))


def newest(values: tf.RaggedTensor, length: int) -> tf.RaggedTensor:
    """Keep the last `length` values of each row."""
    lengths = values.row_lengths()
    position = tf.ragged.range(lengths)
    first = tf.repeat(tf.maximum(lengths - length, 0), lengths)
    kept = position.flat_values >= tf.cast(first, position.dtype)
    flat = tf.boolean_mask(values.flat_values, kept)
    return tf.RaggedTensor.from_row_lengths(flat, tf.minimum(lengths, length), validate=False)


def hash_ids(values: tf.Tensor, buckets: int) -> tf.Tensor:
    """Ids `2 ... buckets + 1` of strings (FarmHash64) or integers (SplitMix64); missing is 0.

    The same value has the same id on every machine and in every process.
    """
    if values.dtype == tf.string:
        bucket = tf.strings.to_hash_bucket_fast(values, buckets)
    else:
        bucket = tf.cast(split_mix(values) % tf.constant(buckets, tf.uint64), tf.int64)
    return tf.where(_is_missing(values), tf.constant(PADDING_ID, tf.int64), bucket + RESERVED_IDS)


def group_key(values: tf.Tensor) -> tf.Tensor:
    """An integer that names a group: the value itself, or a string's 63-bit fingerprint."""
    if values.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(values, 2**63 - 1)
    return tf.cast(values, tf.int64)


def split_mix(values: tf.Tensor) -> tf.Tensor:
    """SplitMix64's finalizer (Steele et al. 2014): 64 well-mixed bits of each integer."""
    x = tf.bitcast(tf.cast(values, tf.int64), tf.uint64)
    x += tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64)))
        x *= tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(31, tf.uint64)))


def _is_missing(values: tf.Tensor) -> tf.Tensor:
    if values.dtype == tf.string:
        return tf.equal(values, "")
    return values < 0


def _lengths(values: tf.Tensor) -> tf.Tensor:
    """Length of each right-padded row: up to its last value that is no padding."""
    present = values != tf.zeros((), values.dtype)
    position = tf.range(1, tf.shape(values)[1] + 1)
    return tf.reduce_max(tf.where(present, position, 0), axis=1)


def _lookup_table(feature: Feature, vocabulary: Vocabulary) -> tf.lookup.StaticHashTable:
    vocabulary.check_file()
    # An integer key is parsed from the line's first column; a string is the whole line.
    key_dtype = tf.int64 if feature.dtype == "int64" and feature.kind == "id" else tf.string
    key_index = 0 if key_dtype == tf.int64 else tf.lookup.TextFileIndex.WHOLE_LINE
    initializer = tf.lookup.TextFileInitializer(
        vocabulary.file,
        key_dtype=key_dtype,
        key_index=key_index,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        vocab_size=vocabulary.size - RESERVED_IDS,
    )
    return tf.lookup.StaticHashTable(initializer, OUT_OF_VOCABULARY_ID - RESERVED_IDS)
