import gzip

import numpy as np
import pandas as pd
import pytest
from scipy import special

from ctr_keras import metrics
from ctr_keras.datasets.antm2c_raw import COLUMNS, FEATURES
from ctr_keras.datasets.simulator import AntM2CConfig, antm2c, antm2c_exposures
from ctr_keras.datasets.simulator.antm2c_texts import KINDS, TOPICS

ROWS = 120_000
PUBLISHED_RATES = {"A": 0.0369, "B": 0.4788, "C": 0.0566, "D": 0.3644, "E": 0.1075}
TOPIC_OF = {word: number for number, topic in enumerate(TOPICS) for word in topic.split()}


def quiet(_):
    pass


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("antm2c") / "deep" / "rows.csv"
    return antm2c.write(path, AntM2CConfig(rows=ROWS, seed=5), report=quiet)


@pytest.fixture(scope="module")
def rows(written):
    frame = pd.read_csv(written.path, parse_dates=["log_time"])
    days = frame["log_time"].dt.normalize()
    return frame.assign(is_last=days == days.max())


def users_with(counts):
    """Share of users with each number of rows, by the power law of a mean of 5."""
    config = AntM2CConfig()
    exponent = antm2c_exposures.find_user_exponent(config)
    at_least = np.append(np.arange(1, config.most_rows + 1.0) ** -exponent, 0)
    assert at_least.sum() == pytest.approx(5)
    return (at_least[:-1] - at_least[1:])[counts - 1]


def test_the_columns_are_the_published_ones_and_the_probability(written, rows):
    header = written.path.read_text().splitlines()[0].replace('"', "").split(",")
    assert header == [*COLUMNS, "true_probability"]
    assert len(rows) == ROWS == written.rows
    assert written.users == rows["user_id"].nunique()
    assert set(rows["label"]) == {0, 1} and set(rows["scene"]) == set(antm2c.SCENES)
    assert rows["log_time"].min() >= pd.Timestamp("2023-07-09")
    assert rows["log_time"].dt.normalize().nunique() == 9
    assert (rows.groupby("item_id")["scene"].nunique() == 1).all()
    assert written.scene_rows == rows["scene"].value_counts().to_dict()
    assert written.scene_clicks == rows.groupby("scene")["label"].sum().to_dict()
    assert "AUC" in written.to_text() and written.to_dict()["rows"] == ROWS


def test_click_rates_are_the_published_ones(rows):
    found = rows.groupby("scene")["true_probability"].mean()
    for scene, rate in PUBLISHED_RATES.items():
        assert found[scene] == pytest.approx(rate, rel=0.08), scene


def test_exposure_shares(rows):
    found, counts = rows["scene"].value_counts(normalize=True), rows["user_id"].value_counts()
    for scene, share in zip(antm2c.SCENES, AntM2CConfig().exposure_shares, strict=True):
        # Rows of a user go together: of a user's share, share (1 - share) / 2 is the variance.
        deviation = np.sqrt((counts**2).sum() * share * (1 - share) / 2) / ROWS
        assert found[scene] == pytest.approx(share, abs=4 * deviation) and deviation < 0.02


def test_four_in_five_items_have_fewer_than_five_exposures(rows):
    for _, part in [("all", rows), *rows.groupby("scene")]:
        counts = part["item_id"].value_counts()
        assert (counts < 5).mean() == pytest.approx(0.8, abs=0.025)
        # A long tail: exposures fall by steps of ten over the whole range.
        assert counts.iloc[0] > 100 and counts.iloc[0] < 0.06 * len(part)


def test_the_published_size_follows_from_the_exponent():
    config = AntM2CConfig(rows=10**9)
    shown = sum(antm2c_exposures.find_catalog(config, s)[1] for s in config.exposure_shares)
    assert shown == pytest.approx(6e6, rel=0.02)


def test_users_have_a_power_law_of_rows(rows):
    counts = rows["user_id"].value_counts()
    assert counts.mean() == pytest.approx(5, rel=0.1) and counts.max() <= 1000
    for number in (1, 2, 5):
        expected = users_with(np.array([number]))[0]
        assert (counts == number).mean() == pytest.approx(expected, abs=0.01)


def test_shared_users_follow_from_the_spread(rows):
    counts = np.arange(1, 1001)
    shares = dict(zip(antm2c.SCENES, AntM2CConfig().exposure_shares, strict=True))

    def without(share):
        """Share of users without a row in scenarios of so large a share (Dirichlet)."""
        log = special.gammaln(1 - share + counts) - special.gammaln(1 - share)
        return (users_with(counts) * np.exp(log - special.gammaln(1 + counts))).sum()

    users = rows.groupby("scene")["user_id"].agg(set)
    for scene, other in ("AB", "AC", "CB", "DE", "EA"):
        one, both = shares[scene], shares[scene] + shares[other]
        expected = 1 - (without(shares[other]) - without(both)) / (1 - without(one))
        found = len(users[scene] & users[other]) / len(users[scene])
        assert found == pytest.approx(expected, abs=0.02), (scene, other)


def test_coverage_of_each_column(rows):
    config = AntM2CConfig()
    of_user = dict(zip(FEATURES, config.feature_coverage, strict=True))
    of_user["query_entity_seq"] = config.query_coverage
    first = rows.drop_duplicates("user_id")
    for name, share in of_user.items():
        assert first[name].notna().mean() == pytest.approx(share, abs=0.015), name
        assert (rows.groupby("user_id")[name].nunique() <= 1).all()
    assert rows["item_entity_names"].notna().mean() == pytest.approx(0.9, abs=0.01)
    titles = rows.drop_duplicates("item_id")["item_title"]
    assert titles.notna().mean() == pytest.approx(0.95, abs=0.01)
    for name in ("user_id", "item_id", "scene", "label", "log_time", "true_probability"):
        assert rows[name].notna().all()


def test_cold_users_and_items_of_the_last_day(rows):
    # New ones, and those of old ones whose rows all happen to be of that day.
    counts = np.arange(1, 1001)
    expected = 0.05 + 0.95 * (users_with(counts) / 9.0**counts).sum()
    only_last = rows.groupby("user_id")["is_last"].all()
    assert only_last.mean() == pytest.approx(expected, abs=0.01)
    items = rows.groupby("item_id")["is_last"].agg(["all", "size"])
    # A 1/9th of the items with one row would be of the last day without new ones and new users.
    assert 1 / 9 < items["all"][items["size"] == 1].mean() < 0.25
    frequent = items["all"][items["size"] >= 20]
    assert 0 < frequent.mean() < 0.02


def test_labels_are_drawn_with_the_probabilities(written, rows):
    label, probability = rows["label"].to_numpy(), rows["true_probability"].to_numpy()
    deviation = (label - probability).sum() / np.sqrt((probability * (1 - probability)).sum())
    assert abs(deviation) < 4
    for _, part in rows.groupby(pd.qcut(rows["true_probability"], 20)):
        spread = np.sqrt((part["true_probability"] * (1 - part["true_probability"])).sum())
        assert abs((part["label"] - part["true_probability"]).sum()) < 4.5 * spread
    assert written.bayes_auc["all"] == pytest.approx(metrics.auc(label, probability), abs=2e-4)
    for scene, part in rows.groupby("scene"):
        expected = metrics.auc(part["label"].to_numpy(), part["true_probability"].to_numpy())
        assert written.bayes_auc[scene] == pytest.approx(expected, abs=1e-3)
        assert 0.65 < expected < 0.95


def test_words_tell_of_topics_and_topics_of_clicks(rows):
    frame = rows.dropna(subset=["item_title", "item_entity_names", "query_entity_seq"])
    words = frame["item_title"].str.split(" ", expand=True)
    kinds = dict(zip(antm2c.SCENES, KINDS, strict=True))
    assert (words[3] == frame["scene"].map(kinds)).all()
    topic = words[1].map(TOPIC_OF)
    assert topic.notna().all() and (topic == words[2].map(TOPIC_OF)).all()
    for column in range(3):
        names = frame["item_entity_names"].str.split(";", expand=True)[column]
        assert (names.map(TOPIC_OF) == topic).all()
    queries = frame["query_entity_seq"].str.split(";", expand=True)
    wanted = np.array([queries[n].map(TOPIC_OF) == topic for n in range(6)]).any(axis=0)
    inside = frame["scene"] == "B"
    assert frame["label"][wanted & inside].mean() > frame["label"][~wanted & inside].mean() + 0.1
    # Good items are clicked more often than bad ones.
    praised, plain = words[0].isin(["superb", "excellent"]), words[0].isin(["basic", "simple"])
    assert frame["label"][praised & inside].mean() > frame["label"][plain & inside].mean() + 0.05


def test_names_are_a_matter_of_the_row_and_titles_of_the_item(rows):
    found = rows.dropna(subset=["item_entity_names"]).groupby("item_id")
    several = found.size() >= 10
    assert (found["item_entity_names"].nunique()[several] > 1).all()
    assert (rows.groupby("item_id")["item_title"].nunique() <= 1).all()


def test_the_seed_decides_alone_and_files_may_be_packed(tmp_path):
    config = AntM2CConfig(rows=3000, seed=2)
    plain = antm2c.write(tmp_path / "rows.csv", config, report=quiet)
    packed = antm2c.write(tmp_path / "rows.csv.gz", config, report=quiet)
    assert gzip.decompress(packed.path.read_bytes()) == plain.path.read_bytes()
    other = antm2c.write(tmp_path / "b.csv", AntM2CConfig(rows=3000, seed=3), report=quiet)
    assert other.path.read_bytes() != plain.path.read_bytes()


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    monkeypatch.setattr(antm2c.antm2c_exposures, "draw_rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        antm2c.write(path, AntM2CConfig(rows=100), report=quiet)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("rows", 0),
        ("seed", -1),
        ("days", 2),
        ("click_rates", (0.1, 0.2)),
        ("click_rates", (0.1, 0.2, 0.3, 0.4, 1.0)),
        ("exposure_shares", (0.1, 0.2, 0.3, 0.1, 0.1)),
        ("few_share", 0.9),
        ("tail_exponent", 3.0),
        ("rows_per_user", 1.0),
        ("scene_spread", 0.0),
        ("new_users", 1.0),
        ("new_items", -0.1),
        ("feature_coverage", (1.0,)),
        ("query_coverage", 1.1),
    ],
)
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f"`{name}=") as error:
        AntM2CConfig(**{name: value})
    assert str(value) in str(error.value)
