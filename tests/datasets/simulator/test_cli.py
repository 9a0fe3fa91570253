"""`ctr-keras simulate` as a user runs it."""

import json
import sys

import pytest

from ctr_keras import cli

SIZES = ["--users", "200", "--items", "100", "--categories", "5", "--seed", "3"]


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


def test_taobao(run, tmp_path):
    path = tmp_path / "clicks.csv"
    status, out, err = run("simulate", "taobao", "--out", path, *SIZES, "--mean-clicks", 9)
    assert status == 0 and str(path) in out and path.stat().st_size > 1000, err
    status, _, err = run("simulate", "taobao", "--out", path, "--users", 0)
    assert status == 1 and "`users=0`" in err


def test_impressions(run, tmp_path):
    command = ["simulate", "impressions", "--out", tmp_path / "data", *SIZES]
    command += ["--mean-impressions", 30, "--click-rate", 0.2, "--history-length", 7]
    status, out, err = run(*command)
    assert status == 0 and "AUC" in out and "test:" in err
    status, out, err = run(*command, "--json")
    assert status == 0 and "up to date" in err
    assert 0.5 < json.loads(out)["bayes_auc"]["test"] < 1
    status, out, err = run("describe", tmp_path / "data", "--json")
    assert status == 0 and json.loads(out), err


def test_pictures(run, tmp_path):
    command = ["simulate", "pictures", "--out", tmp_path / "data", "--items", 40, "--seed", 3]
    command += ["--categories", 4, "--pairs", 90, "--size", 8]
    status, out, err = run(*command, "--json")
    assert status == 0 and sum(json.loads(out)["pairs"].values()) == 90, err
    assert "drew 40 imitations" in err and (tmp_path / "data/pictures/items/40.png").is_file()
    status, _, err = run(*command, "--categories", 41)
    assert status == 1 and "`categories=41`" in err


def test_antm2c_from_simulation_to_description(run, tmp_path):
    raw, data = tmp_path / "rows.csv.gz", tmp_path / "data"
    status, out, err = run("simulate", "antm2c", "--out", raw, "--rows", 3000, "--json")
    assert status == 0 and json.loads(out)["rows"] == 3000, err
    status, out, err = run("prepare", "antm2c", "--raw", raw, "--out", data)
    assert status == 0 and "unseen items" in out, err
    status, out, err = run("describe", data, "--plot", tmp_path / "plot.png")
    assert status == 0 and (tmp_path / "plot.png").stat().st_size > 1000, err
    for expected in ("features_26", "users also in", "zero-shot", "click rate"):
        assert expected in out
    status, _, err = run("prepare", "antm2c", "--raw", raw, "--out", data, "--scene", "A")
    assert status == 1 and "column 'scene': expected one of A" in err
    status, _, err = run("simulate", "antm2c", "--out", raw, "--rows", 0)
    assert status == 1 and "`rows=0`" in err
