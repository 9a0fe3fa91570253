import dataclasses
import json

import numpy as np
import pytest

import ctr_keras as ck


def feature(**kwargs):
    return ck.Feature(**{"name": "x", "role": "user", **kwargs})


def test_round_trip_keeps_everything(small_schema, tmp_path):
    saved = small_schema.save(tmp_path)
    assert saved.fingerprint == small_schema.fingerprint
    assert [f.to_dict() for f in saved] == [f.to_dict() for f in small_schema]
    assert (tmp_path / "vocabularies" / "item_id.txt").read_text().startswith("i0\ni1\n")
    # The folder alone is enough: it was moved, and loads.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert ck.Schema.load(moved / "schema.json").fingerprint == small_schema.fingerprint


def test_shared_feature_uses_the_owners_vocabulary(small_schema):
    assert small_schema.vocabulary("history_item_id").size == 42
    assert small_schema.vocabulary("group") is None


def test_inputs_leave_out_what_is_no_model_input(small_schema):
    names = [f.name for f in small_schema.inputs]
    assert "item_id" in names and "history_item_id" in names
    assert not {"label", "group", "time"} & set(names)
    assert not ck.Feature("shown", "item", kind="text").is_input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "9lives"}, "name='9lives'"),
        ({"role": "customer"}, "role='customer'"),
        ({"kind": "float"}, "kind='float'"),
        ({}, "vocabulary=None"),
        ({"role": "history", "shares": "item_id"}, "length=None"),
        ({"length": 0, "vocabulary": ck.Vocabulary.of_size(5)}, "length=0"),
        ({"kind": "vector"}, "width=None"),
        ({"kind": "number", "width": 3}, "width=3"),
        ({"kind": "number", "length": 3}, "length=3"),
        ({"kind": "number", "dtype": "string"}, "dtype='string'"),
        ({"dtype": "int8", "vocabulary": ck.Vocabulary.of_size(5)}, "dtype='int8'"),
        ({"role": "label", "kind": "id"}, "kind='id'"),
        ({"role": "group", "kind": "number"}, "kind='number'"),
        ({"kind": "text", "vocabulary": ck.Vocabulary.hashing(5)}, "length=None"),
        ({"vocabulary": ck.Vocabulary.of_size(5), "shares": "y"}, "shares='y'"),
    ],
)
def test_bad_feature_names_the_argument(kwargs, message):
    with pytest.raises(ValueError, match="Received") as error:
        feature(**kwargs)
    assert message in str(error.value)


@pytest.mark.parametrize("size", [1, 0, -3, 2.5])
def test_bad_vocabulary_size(size):
    with pytest.raises(ValueError, match="size="):
        ck.Vocabulary.of_size(size)


def test_vocabulary_file_must_exist_and_name_values_once(tmp_path):
    with pytest.raises(ValueError, match="nowhere.txt"):
        ck.Vocabulary.from_file(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match="'b'"):
        ck.Vocabulary.write(tmp_path / "v.txt", ["a", "b", "b"])
    with pytest.raises(ValueError, match=r"'a\\nb'"):
        ck.Vocabulary.write(tmp_path / "v.txt", ["a\nb"])
    assert not (tmp_path / "v.txt").exists()


def test_schema_rejects_duplicates_and_dangling_shares():
    user = feature(vocabulary=ck.Vocabulary.of_size(5))
    with pytest.raises(ValueError, match="name='x'"):
        ck.Schema([user, user])
    with pytest.raises(ValueError, match="shares='item_id'"):
        ck.Schema([user, ck.Feature("h", "history", length=3, shares="item_id")])
    with pytest.raises(ValueError, match="dtype"):
        ck.Schema([user, ck.Feature("h", "history", length=3, shares="x", dtype="string")])


def test_newer_version_is_refused(small_schema, tmp_path):
    small_schema.save(tmp_path)
    path = tmp_path / "schema.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "schema_version": 99}))
    with pytest.raises(ValueError, match="upgrade.*schema_version=99") as error:
        ck.Schema.load(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"features": []}', "schema_version"),
        ('{"schema_version": 1, "features": [{"name": "a", "rôle": "user"}]}', "rôle"),
        ('{"schema_version": 1, "features": [{"name": "a"}]}', "role"),
        ('{"schema_version": 1, "feature": []}', "feature"),
        ('{"schema_version": 1, "features": ["a"]}', "feature 'a'"),
        ('{"schema_version": 1, "features": {"a": 1}}', "feature 'a'"),
    ],
)
def test_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        ck.Schema.load(path)
    assert str(path) in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="No schema there"):
        ck.Schema.load(tmp_path)


def test_changed_vocabulary_is_noticed(small_schema, tmp_path):
    small_schema.save(tmp_path)
    path = tmp_path / "vocabularies" / "item_id.txt"
    path.write_text(path.read_text().replace("i3\n", "i3000\n"))
    with pytest.raises(ValueError, match="item_id.txt.*changed"):
        ck.Schema.load(tmp_path)


def test_key_is_the_conventional_name_or_the_first_id(small_schema):
    assert (small_schema.key("user"), small_schema.key("item")) == ("user_id", "item_id")
    size = ck.Vocabulary.of_size(5)
    odd = ck.Schema(
        [ck.Feature("sku", "item", vocabulary=size), ck.Feature("b", "item", vocabulary=size)]
    )
    assert odd.key("item") == "sku" and odd.key("user") is None


def test_two_times_are_refused():
    times = [ck.Feature(name, "time", kind="number") for name in ("a", "b")]
    with pytest.raises(ValueError, match="one time at most.*'a', 'b'"):
        ck.Schema(times)


def test_fingerprint_depends_on_meaning(small_schema):
    other = dataclasses.replace(small_schema["history_item_id"], length=8)
    features = [other if f.name == other.name else f for f in small_schema]
    assert ck.Schema(features).fingerprint != small_schema.fingerprint


def test_only_a_crossed_vector_of_one_value_is_unprojected():
    vector = {"kind": "vector", "width": 3, "unprojected": True}
    kept = ck.Schema([feature(**vector, crossed=True), feature(name="plain", kind="number")])
    assert ck.Schema.from_dict(kept.to_config())["x"].unprojected
    assert "unprojected" not in kept["plain"].to_dict()
    for wrong in (vector, {"kind": "number", "crossed": True, "unprojected": True}):
        with pytest.raises(ValueError, match="crossed vector of one value.*`unprojected=True`"):
            feature(**wrong)


def test_crossed_features_are_on_the_side_of_the_items():
    crossed = feature(role="context", kind="number", crossed=True)
    schema = ck.Schema([crossed, feature(name="plain", role="context", kind="number")])
    assert schema.is_of_item("x") and not schema.is_of_item("plain")
    assert ck.Schema.from_dict(schema.to_dict()) == schema
    assert "crossed" not in schema["plain"].to_dict()


def test_which_ids_are_known():
    schema = ck.Schema(
        [
            ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(9)),
            ck.Feature("past", "history", length=3, shares="user_id"),
            ck.Feature("group", "group"),
            ck.Feature("label", "label", kind="number"),
        ]
    )
    ids = np.array([-1, 0, 1, 2])
    assert schema.is_known("user_id", ids).tolist() == [False, False, False, True]
    assert schema.is_known("past", ids).tolist() == [False, False, False, True]
    assert schema.is_known("group", ids).tolist() == [False, True, True, True]
