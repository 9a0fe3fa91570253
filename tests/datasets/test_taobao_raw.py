import gzip
import zipfile

import pyarrow.parquet
import pytest

from ctr_keras.datasets import taobao_raw

LINES = "1,2,3,pv,10\n4,5,6,buy,0\n7,8,9,cart,12\n1,8,9,fav,12"


def quiet(_):
    pass


def copy(tmp_path, text, **options):
    path = tmp_path / "UserBehavior.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    rows = taobao_raw.copy_checked(path, tmp_path / "rows.parquet", quiet, **options)
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert table.num_rows == rows
    return table.to_pydict()


@pytest.mark.parametrize("text", [LINES, LINES + "\n", LINES.replace("\n", "\r\n")])
def test_lines_become_typed_rows(tmp_path, text):
    assert copy(tmp_path, text) == {
        "user": [1, 4, 7, 1],
        "item": [2, 5, 8, 8],
        "category": [3, 6, 9, 9],
        "behaviour": [0, 1, 2, 3],
        "timestamp": [10, 0, 12, 12],
        "line": [1, 2, 3, 4],
    }


def test_packed_files_and_folders(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "UserBehavior.csv.gz").write_bytes(gzip.compress(LINES.encode()))
    packed = taobao_raw.find(folder)
    assert packed.name == "UserBehavior.csv.gz"
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("UserBehavior.csv", LINES)
        archive.writestr("__MACOSX/._UserBehavior.csv", "junk")
    for path in (packed, tmp_path / "x.zip"):
        assert taobao_raw.copy_checked(path, tmp_path / "rows.parquet", quiet) == 4
    (folder / "UserBehavior.csv").write_text(LINES)
    assert taobao_raw.find(folder).name == "UserBehavior.csv"
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", LINES)
        archive.writestr("b.csv", LINES)
    with pytest.raises(ValueError, match="one .csv file.*a.csv"):
        taobao_raw.copy_checked(tmp_path / "two.zip", tmp_path / "rows.parquet", quiet)
    (folder / "cut.csv.gz").write_bytes(gzip.compress(LINES.encode() * 100)[:-20])
    with pytest.raises(ValueError, match="cut.csv.gz cannot be read"):
        taobao_raw.copy_checked(folder / "cut.csv.gz", tmp_path / "rows.parquet", quiet)


@pytest.mark.parametrize(
    "line, message",
    [
        ("1,2,3,pv", r"line 3: expected the 5 columns user, .*`columns=\['1', '2', '3', 'pv'\]`"),
        ("1,2,3,pv,4,5", r"line 3: expected the 5 columns"),
        ("", r"line 3: expected the 5 columns"),
        ("1,2.5,3,pv,4", r"line 3, column 'item': expected an integer.*`value='2.5'`"),
        ("1,2,,pv,4", r"line 3, column 'category': expected an integer.*`value=''`"),
        ('"1",2,3,pv,4', r"line 3, column 'user': expected an integer"),
        ("1,2,3,pv,9999999999999999999", r"line 3, column 'timestamp': expected an integer"),
        ("1,2,3,click,4", r"line 3, column 'behaviour': expected one of pv, buy.*`value='click'`"),
        ("1,2,3,,4", r"line 3, column 'behaviour': expected one of pv"),
        ("1,2,3,p\xe9,4".encode("latin-1"), r"line 3, column 'behaviour': expected one of pv"),
        ("-1,2,3,pv,4", r"line 3, column 'user': expected an integer of 0 or more.*`value=-1`"),
        ("1,2,3,pv,-4", r"line 3, column 'timestamp': expected seconds.*--since.*`value=-4`"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    line = line if isinstance(line, bytes) else line.encode()
    text = b"1,2,3,pv,10\n4,5,6,buy,0\n" + line + b"\n7,8,9,cart,12\n"
    with pytest.raises(ValueError, match=rf"UserBehavior\.csv, {message}"):
        copy(tmp_path, text)
    assert not (tmp_path / "rows.parquet").exists()


def test_a_bad_line_is_named_far_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(taobao_raw, "_BLOCK_BYTES", 1 << 12)
    text = "1,2,3,pv,10\n" * 5000
    for line, column in (("1,x,3,pv,4", "item"), ("1,2,3,no,4", "behaviour")):
        with pytest.raises(ValueError, match=f"line 5001, column '{column}'"):
            copy(tmp_path, f"{text}{line}\n{text}")


def test_negative_times_are_read_where_a_period_leaves_them_out(tmp_path):
    assert copy(tmp_path, "1,2,3,pv,-7\n", allow_negative_times=True)["timestamp"] == [-7]


def test_empty_and_absent_files(tmp_path):
    with pytest.raises(ValueError, match="no lines.*`raw="):
        copy(tmp_path, "")
    with pytest.raises(ValueError, match="no such file.*`raw="):
        taobao_raw.find(tmp_path / "absent.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="UserBehavior.csv"):
        taobao_raw.find(tmp_path / "folder")
