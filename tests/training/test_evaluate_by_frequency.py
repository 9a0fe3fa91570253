import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras import training


@pytest.fixture(scope="module")
def model(small_schema):
    return ck.models.FM(small_schema, embedding_dim=4)


def test_groups_by_hand(model, small_data, small_schema):
    found = training.evaluate_by_frequency(model, small_data, small_data, groups=5)
    group = ck.data.frequency_groups(small_data, small_data, 5)
    x, y = next(iter(ck.data.read(small_data, small_schema, 600)))
    scores, labels = model.predict(x, verbose=0)[:, 0], y.numpy()
    for number in range(5):
        kept = group == number
        assert found.rows[number] == kept.sum() and found.clicks[number] == labels[kept].sum()
        auc = ck.metrics.auc(labels[kept], scores[kept])
        assert found.auc[number] == pytest.approx(auc, abs=1e-6)
        loss = ck.metrics.log_loss(labels[kept], scores[kept])
        assert found.log_loss[number] == pytest.approx(loss, abs=1e-6)
    lines = found.to_text().splitlines()
    assert lines[1].startswith("rarest") and lines[5].startswith("most frequent")
    assert sum(found.to_dict()["rows"]) == 600


def test_a_group_without_rows_has_no_metrics(model, small_data, small_schema, small_rows, tmp_path):
    rare = {name: values[:1] for name, values in small_rows.items()} | {"item_id": ["new"]}
    ck.data.write(tmp_path, small_schema, rare)
    found = training.evaluate_by_frequency(model, small_data, tmp_path, groups=5)
    assert found.rows == [1, 0, 0, 0, 0]
    assert np.isnan(found.auc).all() and np.isnan(found.log_loss[1:]).all()
    assert found.log_loss[0] > 0
