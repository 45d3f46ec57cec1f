"""Embeddings on disk: a cache may cost time, never a result, whoever else uses it."""

import logging
import os

import numpy as np
import pytest

from brgsa.cache import EmbeddingCache, cache_folder

VECTOR = np.arange(100, dtype=np.float32)


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path)


def files(cache):
    return sorted(cache.folder.glob("*/*.npy"))


def test_what_was_put_comes_back_and_nothing_else(cache):
    cache.put("a", VECTOR)
    np.testing.assert_array_equal(cache.get("a"), VECTOR)
    assert cache.get("b") is None


def test_a_damaged_file_is_removed(cache):
    cache.put("a", VECTOR)
    files(cache)[0].write_bytes(files(cache)[0].read_bytes()[:200])
    assert cache.get("a") is None and not files(cache)


def test_a_file_of_another_user_is_used_and_left(cache, monkeypatch):
    """Only its owner may set the time of a file that others can read."""
    cache.put("a", VECTOR)

    def refuse(path, *times):
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "utime", refuse)
    np.testing.assert_array_equal(cache.get("a"), VECTOR)
    assert files(cache)


def test_the_oldest_files_go_first_when_the_limit_is_passed(cache):
    cache.size_limit = 5 * (128 + VECTOR.nbytes)
    for n in range(5):
        cache.put(str(n), VECTOR + n)
        os.utime(cache._path(str(n)), (n, n))
    assert cache.get("0") is not None  # used, so no longer the oldest
    cache.put("5", VECTOR)
    assert [cache.get(str(n)) is not None for n in range(6)] == [True, False, False, True, True, True]


def test_a_file_that_another_process_removed_meanwhile_is_no_failure(cache, caplog):
    cache.size_limit = 0
    (cache.folder / "00").mkdir(parents=True)
    (cache.folder / "00" / "gone.npy").symlink_to(cache.folder / "nowhere")  # listed, but its size cannot be asked for
    with caplog.at_level(logging.WARNING):
        cache.put("a", VECTOR)
    assert not caplog.records


def test_any_text_is_a_key(cache):
    cache.put("text \udcff", VECTOR)
    assert cache.get("text \udcff") is not None


def test_an_empty_variable_names_no_folder(monkeypatch):
    monkeypatch.delenv("BRGSA_CACHE", raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, "")
    assert cache_folder().is_absolute()
