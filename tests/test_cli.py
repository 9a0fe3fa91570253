"""The command line as a user runs it: every step on small files of MovieLens' format."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

import ctr_keras as ck
from ctr_keras import cli
from ctr_keras.data import layouts
from ctr_keras.datasets import movielens, taobao_raw, taobao_rows
from ctr_keras.experiments import antm2c, taobao_multimodal
from ctr_keras.pretraining import pairs
from tests.datasets.movielens_files import ratings, write_100k


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        """Exit status, stdout and stderr of `ctr-keras <arguments>`."""
        monkeypatch.setattr(sys, "argv", ["ctr-keras", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_100k(tmp_path_factory.mktemp("raw") / "ml-100k", ratings(300))


def test_the_whole_path(run, raw, tmp_path):
    data, model = tmp_path / "data", tmp_path / "model"
    status, out, err = run("prepare", "movielens", "--raw", raw, "--out", data)
    assert status == 0 and "300 rows" in out, err

    status, out, _ = run("describe", data, "--json", "--plot", tmp_path / "plot.png")
    assert status == 0 and json.loads(out)
    assert (tmp_path / "plot.png").stat().st_size > 1000

    train = ["train", "--data", data, "--out", model / "training", "--epochs", 1]
    train += ["--set", "units=[8]", "--set", "embedding_dim=4", "--set", "activation=dice"]
    status, out, err = run(*train, "--json")
    assert status == 0 and len(json.loads(out)["history"]) == 1
    assert "epoch 1/1" in err
    assert run(*train)[0] == 0

    best = model / "training" / "best.keras"
    status, out, _ = run("evaluate", "--model", best, "--data", data / "test", "--json")
    assert status == 0 and json.loads(out)["rows"] > 0

    export = ["export", "--model", best, "--out", model, "--warmup", data / "valid"]
    status, out, _ = run(*export, "--data", data, "--check")
    written, *checks = out.splitlines()
    assert status == 0 and written == str(model / "1")
    assert [line.split()[0] for line in checks[1:]] == ["ok"] * 5
    card = json.loads((model / "1" / "assets.extra" / "model_card.json").read_text())
    assert set(card["data"]) == {"train", "valid", "test"} and "val_auc" in card["metrics"]
    status, _, err = run("export", "--model", best, "--out", model / "1")
    assert status == 2 and f"is a version: give its base path, {model}" in err
    (model / "1" / "assets" / "item_id.txt").rename(tmp_path / "item_id.txt")
    status, out, _ = run("check", model, "--json")
    assert status == 1 and set(json.loads(out)["problems"]) == {"loader", "warm-up"}
    (tmp_path / "item_id.txt").rename(model / "1" / "assets" / "item_id.txt")

    rank = ["rank", "--model", model, "--data", data, "--user", 4, "--top", 3]
    status, out, _ = run(*rank)
    assert status == 0 and len(out.splitlines()) == 4
    status, out, _ = run(*rank, "--json")
    items = json.loads(out)["items"]
    assert [set(item) for item in items] == [{"item", "title", "probability"}] * len(items)
    assert items == sorted(items, key=lambda item: -item["probability"])


def test_down_sampled_negatives(run, raw, tmp_path):
    data = tmp_path / "data"
    prepare = ["prepare", "movielens", "--raw", raw, "--out", data, "--negative-ratio", 0.5]
    status, out, _ = run(*prepare, "--negative-seed", 1, "--json")
    assert status == 0
    prepared = json.loads(out)
    assert prepared["negative_ratio"] == 0.5 and prepared["rows"]["train"] < 240
    train = ["train", "--data", data, "--out", tmp_path / "out", "--model", "FM", "--epochs", 1]
    status, _, err = run(*train, "--negative-ratio", 0.5)
    assert status == 0, err
    best = tmp_path / "out" / "best.keras"
    status, out, _ = run("evaluate", "--model", best, "--data", data / "train")
    assert status == 0 and "negatives kept         0.5" in out
    status, _, err = run(*prepare[:-1], 1.5)
    assert status == 2 and "Invalid value for '--negative-ratio'" in err


def test_csv(run, tmp_path):
    lines = ["user_id,item_id,history_item_id,hour,vip,timestamp,click"]
    lines += [
        f"u{n % 5},i{n % 7},i{n % 3}|i{n % 4},{n % 24},{('yes', 'no')[n % 2]},{1000 + n},{n % 2}"
        for n in range(60)
    ]
    (tmp_path / "clicks.csv").write_text("\n".join(lines) + "\n")
    schema = tmp_path / "schema.json"
    status, out, err = run("prepare", "schema", tmp_path / "clicks.csv", "--out", schema)
    assert status == 0 and out.strip() == str(schema), err
    roles = {f["name"]: f["role"] for f in json.loads(schema.read_text())["features"]}
    assert roles["user_id"] == "user" and roles["click"] == "label"
    prepare = ["prepare", "csv", tmp_path / "clicks.csv", "--out", tmp_path / "data"]
    status, out, err = run(*prepare, "--schema", schema)
    assert status == 0 and "60 rows" in out, err
    data = ["--data", tmp_path / "data", "--out", tmp_path / "out"]
    assert run("train", *data, "--epochs", "1")[0] == 0
    best, model = tmp_path / "out" / "best.keras", tmp_path / "model"
    assert run("export", "--model", best, "--out", model)[0] == 0
    rank = ["rank", "--model", model, "--data", tmp_path / "data", "--user", "u1"]
    status, _, err = run(*rank)
    assert status == 1 and "--set hour=" in err
    for vip in ("true", "7.5", '"no"', "no"):
        status, out, err = run(*rank, "--set", "hour=18", "--set", f"vip={vip}")
        assert status == 0 and "the best for user u1" in out, err
    for wrong in ("hours=18", "item_id=i1", "click=1"):
        status, out, err = run(*rank, "--set", "hour=18", "--set", wrong)
        assert status == 2 and "one of user_id, history_item_id, hour, vip, got" in err and not out
    (tmp_path / "clicks.csv").write_text(lines[0] + "\nu1,i1,i2,3,no,1000,7\n")
    status, _, err = run(*prepare, "--schema", schema)
    assert status == 1 and "clicks.csv" in err


def test_rank_with_vectors_of_items(run, raw, tmp_path):
    data, model = tmp_path / "data", tmp_path / "model"
    assert run("prepare", "movielens", "--raw", raw, "--out", data)[0] == 0
    items = pd.read_parquet(data / "items.parquet")["item_id"].to_numpy()
    vectors = np.random.default_rng(0).normal(size=(len(items), 4))
    table = ck.data.VectorTable.create(data / "item_vectors", {"encoder": "mine"}, width=4)
    table.extended(items, vectors, normalize=True)
    train = ["train", "--data", data, "--out", model / "training", "--model", "VectorFusion"]
    status, _, err = run(*train, "--set", "base=DNN", "--epochs", 1)
    assert status == 0, err
    best = model / "training" / "best.keras"
    assert run("export", "--model", best, "--out", model)[0] == 0
    rank = ["rank", "--model", model, "--data", data, "--user", 4]
    status, out, err = run(*rank)
    assert status == 0 and "the best for user 4" in out, err
    (data / "item_vectors").rename(tmp_path / "item_vectors")
    status, _, err = run(*rank)
    assert status == 1 and "ctr-keras encode --items" in err and "--set" not in err
    table = ck.data.VectorTable.create(data / "item_vectors", {"encoder": "theirs"}, width=4)
    table.extended(items, vectors, normalize=True)
    status, _, err = run(*rank)
    assert status == 1 and "learned from vectors of items made by {'encoder': 'mine'}" in err


def test_reproduce(run, raw, tmp_path):
    data, out = tmp_path / "data", tmp_path / "experiments"
    assert run("prepare", "movielens", "--raw", raw, "--out", data)[0] == 0
    settings = {"seeds": 1, "epochs": 1, "embedding_dim": 4, "units": [4], "bases": ["FM"],
                "batch_size": 50, "rows": 20, "negative_ratio": 0.5}  # fmt: skip
    options = [part for n, v in settings.items() for part in ("--set", f"{n}={json.dumps(v)}")]
    job = ["reproduce", "at4ctr", "--data", data, "--out", out, *options]
    status, text, err = run(*job, "--table", 4)
    assert status == 0 and "2 trainings, 0 of them done before" in err and "2/2" in err
    assert (
        text.splitlines()[0] == f"Table 4: every base with and without, {data} (0.5 of negatives)"
    )
    assert [line.split("  ")[0] for line in text.splitlines()[2:4]] == ["FM", ""]
    status, again, err = run(*job, "--table", 4, "--json")
    assert status == 0 and "2 trainings, 2 of them done before" in err
    assert [line["label"] for line in json.loads(again)["methods"]] == ["FM", "  + AT4CTR (FM)"]


def test_quickstart(run, raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("quickstart", "--raw", raw, "--user", 4, "--top", 2)
    assert status == 0, err
    assert "the best for user 4" in out and "AUC" in out and "click" in out
    steps = [line.split(":")[0] for line in err.splitlines()]
    for step in ("prepare", "describe", "train", "evaluate", "export", "rank"):
        assert step in steps
    assert (tmp_path / "saved_models" / "movielens-din" / "1" / "saved_model.pb").is_file()
    # Again: nothing is prepared or trained twice.
    status, out, _ = run("quickstart", "--raw", raw, "--user", 4, "--top", 2, "--json")
    assert status == 0 and json.loads(out)["ranking"]["user"] == "4"


@pytest.mark.parametrize(
    "command", [[], ["prepare"], ["train"], ["evaluate"], ["export"], ["rank"], ["quickstart"]]
)
def test_help(run, command):
    status, out, _ = run(*command, "--help")
    assert status == 0 and "Usage" in out


TRAIN = ("train", "--data", "x", "--out", "y")
CSV = ("prepare", "csv", "x.csv", "--out", "y")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["train"],
        [*TRAIN, "--epochs", "0"],
        [*TRAIN, "--patience", "0"],
        [*TRAIN, "--negative-ratio", "0"],
        ["pretrain", "--data", "x", "--out", "y", "--patience", "0"],
        ["pretrain", "--data", "x", "--out", "y", "--views", "picture"],
        [*CSV, "--layout", "rows"],
        [*CSV, "--split", "weekly"],
        [*CSV, "--seed", "-1"],
        [*CSV, "--negative-ratio", "2"],
        ["prepare", "movielens", "--variant", "20m"],
        ["prepare", "movielens", "--scenario", "zip"],
        ["prepare", "taobao", "--raw", "x", "--behaviour", "click"],
        ["reproduce", "at4ctr", "--table", "9"],
        ["reproduce", "antm2c", "--table", "6"],
        ["reproduce", "at4ctr", "--figure", "5", "--plot", "nowhere/plot.png"],
        ["gates", "--model", "m.keras", "--data", "x", "--plot", "plot.xyz"],
        ["describe", "x", "--plot", "."],
        ["reproduce", "taobao-multimodal", "--figure", "6"],
    ],
)
def test_wrong_usage_is_status_2(run, arguments):
    status, out, err = run(*arguments)
    assert status == 2 and out == "" and err
    if len(arguments) > 1:
        assert f"Invalid value for '{arguments[-2]}'" in err


EVALUATE = ("evaluate", "--model", "m.keras", "--data", "x")
MULTIMODAL = ("reproduce", "taobao-multimodal")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((*EVALUATE, "--few", "100"), "--few"),
        ((*EVALUATE, "--train", "y", "--item-groups", "3", "--few", "9"), "--few"),
        ((*EVALUATE, "--train", "y", "--item-groups", "3", "--adapt", "user_id"), "--adapt"),
        (("encode", "--data", "x", "--items", "--images", "y", "--max-tokens", "9"), "--max-tok"),
        (("export", "--model", "m.keras", "--out", "y", "--max-tokens", "9"), "--max-tokens"),
        (("pretrain", "--data", "x", "--out", "y", "--skip-corrupt"), "--skip-corrupt"),
        (("pretrain", "--data", "x", "--out", "y", "--images", "z", "--states", "s"), "--states"),
        ((*MULTIMODAL, "--table", "3", "--pairs", "x"), "--pairs"),
        ((*MULTIMODAL, "--figure", "6b", "--images", "x"), "--images"),
        ((*MULTIMODAL, "--table", "2", "--pairs", "x", "--item-images", "y"), "--item-images"),
    ],
)
def test_options_without_effect_are_refused(run, arguments, named):
    status, _, err = run(*arguments)
    assert status == 2 and f"Invalid value for {named}" in err


def test_an_interrupt_is_status_130(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ctr_keras.data.describe", interrupted)
    status, out, err = run("describe", "x")
    assert status == 130 and out == "" and "run the same command again to go on" in err


def test_choices_are_those_of_the_jobs():
    """They stand on the command line again, as the jobs are slow to import."""
    for choices, of_job in (
        (cli._Layout, layouts.LAYOUTS),
        (cli._MovieLensScenario, movielens.SCENARIOS),
        (cli._TaobaoSplit, taobao_rows.SPLIT_RULES),
        (cli._NegativeSampling, taobao_rows.NEGATIVE_SAMPLINGS),
        (cli._Behaviour, taobao_raw.BEHAVIOURS),
        (cli._Views, pairs.VIEWS),
        (cli._AntM2CTable, map(str, antm2c.TABLES)),
        (cli._MultimodalTable, taobao_multimodal.TABLES),
        (cli._MultimodalFigure, taobao_multimodal.FIGURES),
    ):
        assert [choice.value for choice in choices] == list(of_job)


def test_option_without_value(run, tmp_path):
    status, _, err = run("train", "--data", tmp_path, "--out", tmp_path, "--set", "units")
    assert status == 2 and "name=value" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["describe", "nowhere"],
        ["train", "--data", "nowhere", "--out", "out"],
        ["evaluate", "--model", "nowhere.keras", "--data", "nowhere"],
        ["export", "--model", "nowhere.keras", "--out", "out"],
        ["rank", "--model", "nowhere", "--data", "nowhere", "--user", "1"],
        ["prepare", "movielens", "--raw", "nowhere", "--out", "out"],
    ],
)
def test_failures_are_one_line_and_status_1(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert status == 1 and out == ""
    assert err.startswith("error: ") or "\nerror: " in err
    assert "nowhere" in err and "Traceback" not in err
