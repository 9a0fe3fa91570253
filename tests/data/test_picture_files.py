import shutil

import pytest

from ctr_keras.data import picture_files


def test_digest(tmp_path):
    folder = tmp_path / "a"
    (folder / "within").mkdir(parents=True)
    for name in ("1.png", "within/2.JPG", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    found = picture_files.digest_of(folder)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    packed = picture_files.digest_of(archive)
    folder = folder.rename(tmp_path / "moved")
    (folder / "notes.txt").write_bytes(b"other")
    assert picture_files.digest_of(folder) == found
    assert picture_files.digest_of(shutil.move(archive, tmp_path / "b.zip")) == packed
    (folder / "within/2.JPG").write_bytes(b"other")
    changed = picture_files.digest_of(folder)
    (folder / "within/2.JPG").rename(folder / "2.JPG")
    assert len({found, packed, changed, picture_files.digest_of(folder)}) == 4
    with pytest.raises(ValueError, match="a folder, a tar or a zip"):
        picture_files.digest_of(tmp_path / "nothing")
