import pandas as pd
import pytest

from ctr_keras.datasets.item_texts import item_texts

ROWS = pd.DataFrame({"Product ID": [7, 8, 9], "what it is": ["a cup", 'a "jug", blue', None]})


@pytest.mark.parametrize("name", ["goods.csv", "goods.csv.gz", "goods.tsv", "goods.parquet"])
def test_texts_in_the_order_of_the_items(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".parquet"):
        ROWS.to_parquet(path)
    else:
        ROWS.to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",")
    for items in (["9", "8", "6", "7"], [9, 8, 6, 7]):
        texts = item_texts(path, "Product ID", "what it is", items)
        assert texts == ["", 'a "jug", blue', "", "a cup"]


def test_a_folder_of_files(tmp_path):
    ROWS[:2].to_csv(tmp_path / "a.csv", index=False)
    ROWS[1:].to_csv(tmp_path / "b.csv", index=False)  # Item 8 stands in both, alike.
    texts = item_texts(tmp_path, "Product ID", "what it is", ["8", "7"])
    assert texts == ['a "jug", blue', "a cup"]


def test_ids_may_start_with_zeros(tmp_path):
    path = tmp_path / "goods.csv"
    path.write_text("sku,text\n007,cup\nNA,jug\n")
    assert item_texts(path, "sku", "text", ["007", "NA", "7"]) == ["cup", "jug", ""]


@pytest.mark.parametrize("dtype", ["Int64", "float64", "UInt64", "string", "category"])
def test_types_of_parquet_with_missing_values(tmp_path, dtype):
    path = tmp_path / "goods.parquet"
    keys = [7, 80_000_000, None, None]
    keys = [key and str(key) for key in keys] if dtype in ("string", "category") else keys
    rows = pd.DataFrame({"sku": pd.Series(keys, dtype=dtype), "text": ["cup", None, "jug", "pot"]})
    rows.astype({"text": "category"}).to_parquet(path)
    # Two rows without an id are not two texts of one item.
    assert item_texts(path, "sku", "text", ["80000000", "7", ""]) == ["", "cup", ""]
    rows[2:].to_parquet(path)
    with pytest.raises(ValueError, match="none of the items"):
        item_texts(path, "sku", "text", [""])


def test_ids_of_sixty_bits_in_parquet(tmp_path):
    path = tmp_path / "goods.parquet"
    ids = [2**63 + 1, 2**63 + 2]
    pd.DataFrame({"sku": ids, "text": ["cup", "jug"]}).to_parquet(path)
    assert item_texts(path, "sku", "text", ids) == ["cup", "jug"]
    pd.DataFrame({"sku": [1], "text": [["cup"]]}).to_parquet(path)
    with pytest.raises(ValueError, match="goods.parquet: column 'text' must hold values"):
        item_texts(path, "sku", "text", [1])


def test_a_quote_in_a_tsv_swallows_no_items(tmp_path):
    path = tmp_path / "goods.tsv"
    path.write_text('sku\ttext\n1\t"cup\n2\tjug\n3\t"pot\n4\t"a ""pan"""\n')
    texts = item_texts(path, "sku", "text", [1, 2, 3, 4])
    assert texts == ['"cup', "jug", '"pot', 'a "pan"']


def test_bad_tables(tmp_path):
    path = tmp_path / "goods.csv"
    ROWS.to_csv(path, index=False)
    with pytest.raises(
        ValueError, match="`catalog_key` must be a column of .*goods.csv.*`catalog_"
    ):
        item_texts(path, "item_id", "what it is", ["7"])
    with pytest.raises(ValueError, match="`text` must be a column of .*goods.csv.*`text='title'`"):
        item_texts(path, "Product ID", "title", ["7"])
    with pytest.raises(ValueError, match="none of the items.*'m_7'.*such as .'7', '8', '9'"):
        item_texts(path, "Product ID", "what it is", ["m_7"])
    path.write_text("sku,text\n1,cup\n1,jug\n")
    with pytest.raises(ValueError, match="more than one 'text' of sku '1'"):
        item_texts(path, "sku", "text", ["1"])
    path.write_bytes(b"sku,text\n1,caf\xe9\n")
    with pytest.raises(ValueError, match="goods.csv is not UTF-8 .byte 0xe9 at line 2"):
        item_texts(path, "sku", "text", ["1"])
    path.write_text("sku,text\n1,cup,3\n")
    with pytest.raises(ValueError, match="goods.csv cannot be read"):
        item_texts(path, "sku", "text", ["1"])
    with pytest.raises(ValueError, match="no such file or folder"):
        item_texts(tmp_path / "none", "sku", "text", ["1"])
