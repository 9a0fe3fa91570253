import keras
import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras import training


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    scenes = ck.Vocabulary.write(folder / "scenes.txt", ["cards", "loans", "never"])
    return ck.Schema(
        [
            ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(9)),
            ck.Feature("scene", "scenario", vocabulary=scenes, dtype="string"),
            ck.Feature("label", "label", kind="number"),
        ]
    )


@pytest.fixture(scope="module")
def rows(schema, tmp_path_factory):
    rng = np.random.default_rng(0)
    scenes = rng.choice(["cards", "loans", "unknown"], 100)
    columns = {"item_id": rng.integers(2, 9, 100), "scene": scenes, "label": np.arange(100) % 2}
    folder = tmp_path_factory.mktemp("rows")
    ck.data.write(folder, schema, columns)
    return folder


@pytest.mark.parametrize("name", ["MMoE", "PLE"])
def test_shares_by_hand(name, schema, rows, tmp_path):
    model = getattr(ck.models, name)(schema, embedding_dim=4, num_experts=2, units=(3,))
    usage = training.gate_usage(model, rows)
    x, _ = next(iter(ck.data.read(rows, schema, 100)))
    gates = keras.Model(model.input, model.tensors["gates"]).predict(x, verbose=0)
    scene = x["scene"].numpy()
    for number, name_of in enumerate(("cards", "loans")):
        kept = scene == number + 2
        assert usage.scenarios[number] == name_of and usage.rows[number] == kept.sum()
        np.testing.assert_allclose(usage.shares[number], gates[kept, number].mean(0), atol=1e-6)
    assert len(usage.scenarios) == 2
    expected = ["1", "2"] if name == "MMoE" else ["own 1", "own 2", "shared 1"]
    assert list(usage.experts) == expected
    np.testing.assert_allclose(usage.shares.sum(axis=1), 1, atol=1e-6)
    assert "cards" in usage.to_text() and len(usage.to_dict()["shares"]) == 2
    usage.save(tmp_path / "gates.png")
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")


def test_bad_arguments(schema, rows, tmp_path):
    with pytest.raises(ValueError, match="must have gates.*shared_bottom"):
        training.gate_usage(ck.models.SharedBottom(schema, units=(3,)), rows)
    columns = {"item_id": [3], "scene": ["unknown"], "label": [0]}
    ck.data.write(tmp_path, schema, columns)
    with pytest.raises(ValueError, match="No row is of a scenario"):
        training.gate_usage(ck.models.MMoE(schema, embedding_dim=2, units=(2,)), tmp_path)
