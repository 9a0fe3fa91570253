import json
import shutil

import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras.experiments import at4ctr
from ctr_keras.experiments.comparison import Comparison, Method, paired
from ctr_keras.experiments.down_sampled import down_sampled
from ctr_keras.experiments.jobs import run_all
from ctr_keras.experiments.relevance import BINS, relevance
from ctr_keras.experiments.runs import Outcome, Run
from ctr_keras.experiments.settings import settings_of
from ctr_keras.training import build_model
from tests.conftest import make_rows

TINY = at4ctr.Settings(seeds=1, epochs=1, batch_size=200, embedding_dim=4, units=(8,),
                       attention_units=(4,))  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, small_schema):
    folder = tmp_path_factory.mktemp("prepared")
    small_schema.save(folder)
    for seed, (name, rows) in enumerate((("train", 400), ("valid", 100), ("test", 100))):
        ck.data.write(folder / name, small_schema, make_rows(rows, seed))
    return folder


@pytest.mark.parametrize("model", [*at4ctr.BASES, *at4ctr.RIVALS])
def test_settings_build_every_model(model, small_schema):
    built = build_model(model, small_schema, TINY.options(model))
    assert isinstance(built, getattr(ck.models, model))
    if model in at4ctr.BASES:
        wrapped = build_model("AT4CTR", small_schema, TINY.at4ctr(model))
        assert isinstance(wrapped.base, getattr(ck.models, model))
        assert {"uim_loss", "nip_loss"} <= set(wrapped.auxiliary_weights)


def test_figure_trains_once_and_is_drawn(prepared, tmp_path):
    lines = []
    reproduction = at4ctr.Reproduction(
        prepared, tmp_path / "out", TINY, jobs=2, report=lines.append
    )
    figure = reproduction.figure(5)
    assert lines[0] == "2 trainings, 0 of them done before" and len(lines) == 3
    assert set(figure.to_dict()) == {"title", "DIN", "AT4CTR (DIN)"}
    for label in ("DIN", "AT4CTR (DIN)"):
        content = figure.to_dict()[label]
        assert -1 <= content["clicked"] <= 1
        assert sum(content["clicked_shares"]) == pytest.approx(1)
        assert len(content["clicked_shares"]) == BINS
    figure.save(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    lines.clear()
    assert reproduction.figure(5).to_text() == figure.to_text()
    assert lines == ["2 trainings, 2 of them done before"]


def test_outcome_is_that_of_training_and_evaluating(prepared, tmp_path):
    (run,) = TINY.runs(prepared, "FM", embedding_dim=4)
    outcome = run_all([run, run], tmp_path)[run.key]
    config = ck.training.TrainingConfig(
        data=str(prepared), out=str(tmp_path / "again"), model="FM",
        options={"embedding_dim": 4}, epochs=1, batch_size=200, learning_rate=1e-3,
        patience=1, seed=1,
    )  # fmt: skip
    trained = ck.training.train(config, progress=False)
    expected = ck.training.evaluate(trained.model, prepared / "test")
    assert outcome.evaluation["auc"] == pytest.approx(expected.auc, abs=1e-6)
    assert outcome.rows == 400
    assert outcome.train_bytes == sum(p.stat().st_size for p in (prepared / "train").glob("part-*"))
    kept = json.loads((tmp_path / run.key / "result.json").read_text())
    assert kept["outcome"]["evaluation"] == outcome.evaluation
    assert not (tmp_path / run.key / "training").exists()


def test_key_depends_on_what_a_run_depends_on(prepared, tmp_path, small_schema):
    run = Run(str(prepared), "DIN", {"embedding_dim": 4})
    moved = tmp_path / "moved"
    moved.symlink_to(prepared, target_is_directory=True)
    assert Run(str(moved), "DIN", {"embedding_dim": 4}).key == run.key
    assert Run(str(prepared), "DIN", {"embedding_dim": 4}, seed=2).key != run.key
    assert Run(str(prepared), "DIN", {"embedding_dim": 8}).key != run.key
    other = tmp_path / "other"
    small_schema.save(other)
    for name in ("train", "valid", "test"):
        ck.data.write(other / name, small_schema, make_rows(100, 9))
    assert Run(str(other), "DIN", {"embedding_dim": 4}).key != run.key


def outcome(auc, seconds=1.0, epochs=5, best_epoch=2):
    evaluation = {"auc": auc, "gauc": auc, "log_loss": 1 - auc, "calibration_ratio": 1.0}
    return Outcome(evaluation, epochs, best_epoch, seconds, 10, 100, None)


def test_comparison():
    base, better = (0.70, 0.72, 0.71), (0.73, 0.74, 0.75)
    table = Comparison(
        "table",
        [
            Method("A", [outcome(auc) for auc in base]),
            Method("B", [outcome(auc) for auc in better], "A"),
        ],
    )
    first, second = table.to_dict()["methods"]
    assert first["auc"] == pytest.approx(0.71) and first["auc_std"] == pytest.approx(0.01)
    assert second["gain"] == pytest.approx(0.03)
    difference = np.subtract(better, base)
    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(3))
    # Two-sided p of Student's t with 2 degrees of freedom has this closed form.
    assert second["p"] == pytest.approx(1 - t / np.sqrt(t**2 + 2), rel=1e-6)
    assert "B" in table.to_text() and "+0.0300" in table.to_text()
    assert paired(np.array([0.5]), np.array([0.4])) == {"gain": pytest.approx(0.1), "p": None}


def test_comparison_marks_what_the_cap_of_epochs_cut_off():
    stopped, cut = outcome(0.7), outcome(0.7, best_epoch=5)
    plain = Comparison("table", [Method("A", [stopped] * 2)])
    assert "*" not in plain.to_text() and plain.to_dict()["methods"][0]["seeds_at_cap"] == 0
    marked = Comparison("table", [*plain.methods, Method("B", [stopped, cut], "A")])
    _, _, first, second, _, footer = marked.to_text().splitlines()
    assert "*" not in first and "3.5*" in second and len(first) == len(second)
    assert footer == "*: best at the cap of epochs, so still climbing: B for 1 of 2 seeds"
    assert marked.to_dict()["methods"][1]["seeds_at_cap"] == 1
    all_cut = Comparison("table", [Method("A", [cut] * 2), Method("B", [cut] * 2, "A")])
    assert all_cut.to_text().endswith("so still climbing: all, for all seeds")


def test_relevance_by_hand(small_schema, small_data):
    model = ck.models.DIN(small_schema, embedding_dim=4, units=(8,), attention_units=(4,))
    found = relevance(model, small_data)
    x, y = next(iter(ck.data.read(small_data, small_schema, 600)))
    table = model.get_layer("embedding").rows("item_id")
    values = {0: [], 1: []}
    for row in range(600):
        past = [i for i in x["history_item_id"].numpy()[row] if i]
        if past:
            mean, target = table[past].mean(axis=0), table[x["item_id"].numpy()[row]]
            cosine = mean @ target / np.linalg.norm(mean) / np.linalg.norm(target)
            values[int(y[row])].append(cosine)
    assert found["clicked"] == pytest.approx(np.mean(values[1]), abs=1e-5)
    assert found["other"] == pytest.approx(np.mean(values[0]), abs=1e-5)
    assert sum(found["clicked_counts"]) == len(values[1])


def test_relevance_needs_a_history(small_schema, small_data):
    schema = ck.Schema([f for f in small_schema if f.role != "history"])
    assert relevance(ck.models.FM(schema, embedding_dim=4), small_data) is None


def test_down_sampled_copy(prepared, tmp_path):
    assert down_sampled(prepared, tmp_path, 1) == prepared
    folder = down_sampled(prepared, tmp_path, 0.25)
    manifest = ck.data.Manifest.load(folder / "train")
    whole = ck.data.Manifest.load(prepared / "train")
    assert manifest.negative_ratio == 0.25
    labels = [y for f in (prepared, folder) for _, y in ck.data.read(f / "train", None, 400)]
    clicks = [float(y.numpy().sum()) for y in labels]
    assert clicks[0] == clicks[1]
    negatives = [len(y) - c for y, c in zip(labels, clicks, strict=True)]
    assert 0.1 < negatives[1] / negatives[0] < 0.4 and manifest.rows < whole.rows
    assert (
        ck.data.Manifest.load(folder / "test").digest
        == ck.data.Manifest.load(prepared / "test").digest
    )
    assert down_sampled(prepared, tmp_path, 0.25) == folder


def test_down_sampling_twice_multiplies(prepared, tmp_path, small_schema):
    small_schema.save(tmp_path / "half")
    for name, rows in (("train", 4000), ("valid", 50), ("test", 50)):
        ratio = 0.5 if name == "train" else 1.0
        kept = ck.data.down_sample_negatives(small_schema, make_rows(rows), ratio)
        ck.data.write(tmp_path / "half" / name, small_schema, kept, negative_ratio=ratio)
    folder = down_sampled(tmp_path / "half", tmp_path, 0.2)
    assert ck.data.Manifest.load(folder / "train").negative_ratio == pytest.approx(0.1)
    negatives = sum(float((1 - y).numpy().sum()) for _, y in ck.data.read(folder / "train"))
    every = float((1 - make_rows(4000)["label"]).sum())
    assert negatives / every == pytest.approx(0.1, abs=0.025)


def test_down_sampled_copy_follows_its_source(prepared, tmp_path, small_schema):
    first = down_sampled(prepared, tmp_path, 0.25)
    other = tmp_path / "other"
    small_schema.save(other)
    shutil.copytree(prepared / "train", other / "train")
    for name in ("valid", "test"):
        ck.data.write(other / name, small_schema, make_rows(77, 5))
    second = down_sampled(other, tmp_path, 0.25)
    assert second != first and ck.data.Manifest.load(second / "test").rows == 77
    moved = other.rename(tmp_path / "moved")
    assert down_sampled(moved, tmp_path, 0.25) == second
    assert ck.data.Manifest.load(second / "test").rows == 77


def test_bad_arguments(prepared, tmp_path):
    reproduction = at4ctr.Reproduction(prepared, tmp_path, TINY)
    with pytest.raises(ValueError, match="`table=7`"):
        reproduction.table(7)
    with pytest.raises(ValueError, match="`figure=1`"):
        reproduction.figure(1)
    with pytest.raises(ValueError, match="`seed`"):
        settings_of(at4ctr.Settings, {"seed": 3})
    for bases in ("DIN", [], ["AT4CTR"]):
        with pytest.raises(ValueError, match="`bases` must be a list of FM"):
            settings_of(at4ctr.Settings, {"bases": bases})
    with pytest.raises(ValueError, match="`seeds=0`"):
        settings_of(at4ctr.Settings, {"seeds": 0})
    for model, options, match in (
        ("AT4CTR", {"base": "Nothing"}, "base='Nothing'"),
        ("AT4CTR", {"base_options": 3}, "base_options=3"),
        ("DIN", {"base": "FM"}, "DIN does not take the option 'base'"),
        ("AT4CTR", {"weight": 1}, "AT4CTR does not take the option 'weight'"),
    ):
        with pytest.raises(ValueError, match=match):
            build_model(model, ck.Schema.load(prepared), options)
