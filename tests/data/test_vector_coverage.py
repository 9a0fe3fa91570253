import numpy as np
import pytest

import ctr_keras as ck


def test_items_and_rows_are_counted(small_data, small_rows, tmp_path):
    table = ck.data.VectorTable.create(tmp_path, {"encoder": "by hand"}, 2)
    known = [f"i{n}" for n in range(0, 44, 2)]
    table = table.extended(known, np.eye(2, dtype=np.float32)[np.zeros(len(known), int)])
    found = ck.data.vector_coverage(small_data, table)
    missing = [i for i in small_rows["item_id"] if i not in known]
    assert found == ck.data.VectorCoverage(44, 22, 600, len(missing))
    assert found.to_text().startswith("22 of 44 items have no vector")
    assert ck.data.vector_coverage(small_data, table, item="user_id").missing_rows == 600


def test_no_item(small_schema, tmp_path):
    table = ck.data.VectorTable.create(tmp_path / "table", {"encoder": "by hand"}, 2)
    schema = ck.Schema([ck.Feature("a", "user", kind="number")])
    ck.data.write(tmp_path / "rows", schema, {"a": [1.0]})
    with pytest.raises(ValueError, match=r"pass `item`. Received: `features=\['a'\]`"):
        ck.data.vector_coverage(tmp_path / "rows", table)
