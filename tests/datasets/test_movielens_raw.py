import gzip
import zipfile

import pandas as pd
import pytest

from ctr_keras.datasets.movielens_raw import parse
from ctr_keras.sources import RawFiles
from tests.datasets import movielens_files as raw_files

ROWS = raw_files.ratings()


def tables(path):
    return parse(RawFiles(path, "", str(path)))


def assert_same(found, expected):
    for name in ("ratings", "users", "items"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))


def test_every_format_gives_the_same_tables(tmp_path):
    expected = tables(raw_files.write_100k(tmp_path / "100k", ROWS))
    assert expected.items.iloc[1].to_dict() == {
        "item_id": 2,
        "title": "Été, L'",
        "year": 1992,
        "genres": ["Adventure", "Comedy"],
    }
    assert expected.users["age"].tolist() == ["18-24", "50-55", "under 18", "35-44"]
    assert expected.ratings.iloc[0].tolist() == list(ROWS[0])
    assert_same(tables(raw_files.write_1m(tmp_path / "1m", ROWS)), expected)
    assert_same(tables(raw_files.write_atomic_format(tmp_path / "a", ROWS)), expected)
    titled = raw_files.write_atomic_format(tmp_path / "t", ROWS, titles_as_ids=True, end="\r\n")
    assert_same(tables(titled), expected)


def test_a_zip_a_gzip_and_a_single_file_are_read_as_the_folder_is(tmp_path):
    folder = raw_files.write_atomic_format(tmp_path / "folder", ROWS)
    expected = tables(folder)
    assert_same(tables(folder / "ml-x.inter"), expected)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"deep/{path.name}")
    assert_same(tables(tmp_path / "all.zip"), expected)
    inter = folder / "ml-x.inter"
    (folder / "ml-x.inter.gz").write_bytes(gzip.compress(inter.read_bytes()))
    inter.unlink()
    assert_same(tables(folder), expected)
    assert_same(tables(folder / "ml-x.inter.gz"), expected)


def test_users_and_movies_that_only_ratings_name_are_kept(tmp_path):
    rows = [*ROWS, (9, 99, 5, 3000)]
    found = tables(raw_files.write_atomic_format(tmp_path, rows))
    assert found.users.iloc[-1].tolist() == [9, "", "", ""]
    assert found.items.iloc[-1].tolist() == [99, "", -1, []]
    assert found.items["year"].dtype == "int64"


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("ml-x.inter", "rating:float", "stars:float", "missing column 'rating'"),
        ("ml-x.inter", None, "", "ml-x.inter is empty"),
        ("ml-x.inter", None, "user_id\titem_id\trating\ttimestamp\n", "has no rows"),
        ("ml-x.inter", f"\t{ROWS[0][3]}\n", "\tsoon\n", "'timestamp', line 2.*'soon'"),
        ("ml-x.inter", f"{ROWS[0][2]}\t{ROWS[0][3]}\n", "nan\t7\n", "'rating', line 2.*'nan'"),
        ("ml-x.inter", f"{ROWS[0][2]}\t{ROWS[0][3]}\n", "inf\t7\n", "'rating', line 2.*'inf'"),
        ("ml-x.inter", f"\t{ROWS[0][3]}\n", "\n", "line 2: expected 4 columns"),
        ("ml-x.inter", f"\t{ROWS[0][3]}\n", f"\t{ROWS[0][3]}\t0\n", "line 2: expected 4 columns"),
        ("ml-x.user", "\t24\t", "\told\t", "'age', line 2.*'old'"),
        ("ml-x.user", "2\t53", "1\t53", "'user_id', line 3: expected each user once"),
        ("ml-x.item", "class:token_seq", "kind:token_seq", "missing column 'class' or 'genre'"),
        ("ml-x.item", "2\tÉté", "1\tÉté", "'item_id', line 3: expected each item once"),
    ],
)
def test_errors_name_file_column_and_line(tmp_path, file, old, new, message):
    path = raw_files.write_atomic_format(tmp_path, ROWS) / file
    path.write_text(new if old is None else path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as error:
        tables(tmp_path)
    assert file in str(error.value)


def test_an_unknown_title_as_id_is_named(tmp_path):
    folder = raw_files.write_atomic_format(tmp_path, ROWS, titles_as_ids=True)
    path = folder / "ml-x.inter"
    path.write_text(path.read_text() + "1m_1\tNo such film (1900)\t5\t99\n")
    with pytest.raises(ValueError, match=f"line {len(ROWS) + 2}: expected a known item"):
        tables(folder)


def test_folders_without_or_with_several_data_sets(tmp_path):
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(ValueError, match="Expected MovieLens' raw files"):
        tables(tmp_path)
    raw_files.write_atomic_format(tmp_path / "a", ROWS)
    raw_files.write_atomic_format(tmp_path / "b", ROWS)
    with pytest.raises(ValueError, match="Several files"):
        tables(tmp_path)
    (tmp_path / "a" / "ml-x.item").unlink()
    with pytest.raises(ValueError, match="holds no .item file"):
        tables(tmp_path / "a")
