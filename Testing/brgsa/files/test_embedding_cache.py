"""Embeddings on disk: a cache may cost time, never a result, whoever else uses it."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from brgsa import AbnormalityList, Scorer
from brgsa.files import embedding_cache as cache_module
from brgsa.files.embedding_cache import EmbeddingCache, cache_folder

VECTOR = np.arange(100, dtype=np.float32)


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path)


def files(cache):
    return sorted(path for path in cache.folder.glob("*/*") if path.is_file())


def test_what_was_put_comes_back_and_nothing_else(cache):
    cache.put("a", VECTOR)
    np.testing.assert_array_equal(cache.get("a"), VECTOR)
    assert cache.get("b") is None


def npy(path):
    np.save(path.with_suffix(".npy"), VECTOR)
    path.with_suffix(".npy").replace(path)


def npz(path):
    with path.open("wb") as file:
        np.savez(file, VECTOR)


def another_entry(path):
    other = EmbeddingCache(path.parents[1])
    other.put("b", VECTOR + 1)
    path.write_bytes(other._path("b").read_bytes())


def not_finite(path):
    numbers = np.full(100, np.nan, "<f4").tobytes()
    path.write_bytes(cache_module._digest("a", numbers) + numbers)


def changed(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def folder(path):
    path.unlink()
    path.mkdir()
    (path / "mine").touch()


def link(path):
    path.replace(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def dead_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


SURPRISES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0\0\0\0"),
    "of another program": lambda path: path.write_bytes(os.urandom(432)),
    "huge": lambda path: os.truncate(path, 1 << 40),
    "npy": npy,
    "npz": npz,
    "of another key": another_entry,
    "not finite": not_finite,
    "changed": changed,
    "a folder": folder,
    "a link": link,
    "a link to nowhere": dead_link,
    "a pipe": pipe,
    "unreadable": lambda path: path.chmod(0),
}


@pytest.mark.parametrize("surprise", SURPRISES.values(), ids=SURPRISES)
def test_whatever_lies_in_the_place_of_an_entry_is_a_miss_and_costs_no_run(cache, torso_path, surprise, monkeypatch):
    if surprise in (link, dead_link, pipe) and os.name == "nt":
        pytest.skip("Windows has none")
    scorer = Scorer.from_pretrained("phantom", device="cpu")
    scorer._cache, one = cache, AbnormalityList.from_names(["Emphysema"])
    expected = scorer.score(torso_path, one)["Emphysema"].score
    for path in files(cache):
        surprise(path)
    fresh = scorer.like(scorer.precision, scorer.fidelity)
    fresh._texts = {}
    assert fresh.score(torso_path, one)["Emphysema"].score == expected
    cache.put("a", VECTOR)
    path = cache._path("a")
    surprise(path)
    if surprise is not SURPRISES["unreadable"] or os.geteuid():
        assert cache.get("a") is None
    cache.put("a", VECTOR)
    if surprise is folder:
        assert (path / "mine").exists() and cache.get("a") is None
    else:
        np.testing.assert_array_equal(cache.get("a"), VECTOR)


def test_no_other_file_is_ever_removed(cache):
    cache.put("a", VECTOR)
    foreign = [cache.folder / "00" / name for name in ("mine.vector", "mine.npy", f"{'0' * 64}.npy", ".vector")]
    (cache.folder / "00").mkdir(exist_ok=True)
    for path in foreign:
        path.write_bytes(b"mine")
    (cache.folder / "00" / f"{'1' * 64}.vector").mkdir()
    cache.size_limit = 0
    cache.put("b", VECTOR)
    assert cache.clear() == 0 and all(path.read_bytes() == b"mine" for path in foreign)
    assert (cache.folder / "00" / f"{'1' * 64}.vector").is_dir()


def test_a_file_of_another_user_is_used_and_left(cache, monkeypatch):
    """Only its owner may set the time of a file that others can read."""
    cache.put("a", VECTOR)

    def refuse(path, *times):
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "utime", refuse)
    np.testing.assert_array_equal(cache.get("a"), VECTOR)
    assert files(cache)


def test_the_oldest_files_go_first_when_the_limit_is_passed(cache):
    cache.size_limit = 5 * (32 + VECTOR.nbytes)
    for n in range(5):
        cache.put(str(n), VECTOR + n)
        os.utime(cache._path(str(n)), (n, n))
    assert cache.get("0") is not None  # used, so no longer the oldest
    cache.put("5", VECTOR)
    assert [cache.get(str(n)) is not None for n in range(6)] == [True, False, False, True, True, True]


def test_a_file_that_another_process_removed_meanwhile_is_no_failure(cache, caplog, monkeypatch):
    cache.size_limit = 0
    (cache.folder / "00").mkdir(parents=True)
    name = f"00/{'0' * 64}.vector"
    (cache.folder / name).symlink_to(cache.folder / "nowhere")
    lstat = Path.lstat

    def gone(path):
        if path.name in name:
            raise FileNotFoundError
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", gone)
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
