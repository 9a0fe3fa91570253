import pathlib
import shutil

import numpy as np
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


@pytest.mark.parametrize("kind", ["tar", "gztar", "zip"])
def test_a_damaged_archive(kind, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for n in range(3):
        (folder / f"{n}.png").write_bytes(random.bytes(20_000))
    archive = pathlib.Path(shutil.make_archive(str(tmp_path / "packed"), kind, folder))
    content = bytearray(archive.read_bytes())
    if kind == "zip":
        content[5_000] ^= 255
    else:
        content = content[:45_000]
    archive.write_bytes(content)
    with (
        pytest.raises(ValueError, match=r"damaged .*fetch it again. Received: `images='.*packed"),
        picture_files.open_pictures(archive) as pictures,
    ):
        for name in pictures.order:
            pictures.read(name)
