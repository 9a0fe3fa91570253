import numpy as np
import pandas as pd
import pytest

from ctr_keras.datasets.simulator import WorldConfig, clock, taobao

WORLD = WorldConfig(users=5000, items=3000, categories=40, seed=5)


def quiet(_):
    pass


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("taobao") / "deep" / "clicks.csv"
    return taobao.write(path, WORLD, mean_clicks=20.0, report=quiet)


@pytest.fixture(scope="module")
def lines(written):
    names = ["user", "item", "category", "behaviour", "time"]
    return pd.read_csv(written.path, header=None, names=names)


def test_the_format_is_that_of_user_behavior(written, lines):
    first = written.path.read_text().splitlines()[0].split(",")
    assert len(first) == 5 and first[3] == "pv" and all(first[n].isdigit() for n in (0, 1, 2, 4))
    assert len(lines) == written.rows and (lines["behaviour"] == "pv").sum() == written.clicks
    assert lines["user"].drop_duplicates().tolist() == list(range(1, 5001))
    assert lines["item"].between(1, 3000).all() and lines["category"].between(1, 40).all()
    assert (lines.groupby("item")["category"].nunique() == 1).all()
    assert (lines.groupby("user")["time"].diff().dropna() >= 0).all()
    assert lines["time"].min() >= clock.BEGIN
    assert lines["time"].max() < clock.BEGIN + taobao.DAYS * clock.DAY
    assert written.clicks == pytest.approx(5000 * 20, rel=0.05)
    assert "clicks" in written.to_text() and written.to_dict()["rows"] == written.rows


def test_what_follows_a_click_is_of_an_item_clicked(lines):
    shares = lines["behaviour"].value_counts(normalize=True)
    assert set(shares.index) == set(taobao.BEHAVIOURS) and shares["cart"] > shares["buy"] > 0.01
    clicked = lines[lines["behaviour"] == "pv"].groupby(["user", "item"])["time"].min()
    others = lines[lines["behaviour"] != "pv"]
    at = clicked.loc[list(zip(others["user"], others["item"], strict=True))]
    assert (others["time"].to_numpy() >= at.to_numpy()).all()


def test_items_have_a_long_tail(lines):
    counts = np.sort(lines["item"].value_counts())[::-1]
    assert counts[:30].sum() > 0.1 * counts.sum()
    assert len(counts) > 2000


def test_the_seed_decides_alone(written, tmp_path):
    again = taobao.write(tmp_path / "again.csv", WORLD, mean_clicks=20.0, report=quiet)
    assert again.path.read_bytes() == written.path.read_bytes()
    world = WorldConfig(users=100, items=3000, categories=40, seed=6)
    other = taobao.write(tmp_path / "other.csv", world, mean_clicks=20.0, report=quiet)
    assert other.path.read_bytes()[:1000] != written.path.read_bytes()[:1000]


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "clicks.csv"
    path.write_text("old")
    monkeypatch.setattr(taobao.clock, "times", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        taobao.write(path, WORLD, report=quiet)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["clicks.csv"]


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="`mean_clicks=0.5`"):
        taobao.write(tmp_path / "clicks.csv", WORLD, mean_clicks=0.5)
