"""One process works in a folder at a time."""

import errno
import sys

import pytest

from brgsa.errors import UsageError
from brgsa_training.lock import locked


def test_a_folder_that_is_held_is_refused_and_free_afterwards(tmp_path):
    with (
        locked(tmp_path / "run", "training"),
        pytest.raises(UsageError, match="another process is training there"),
        locked(tmp_path / "run", "training"),
    ):
        pass
    with locked(tmp_path / "run", "training"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="flock is of Unix")
def test_a_file_system_without_locks_is_used_with_a_word_of_warning(tmp_path, monkeypatch, caplog):
    """As Lustre without its option flock answers; it cannot be had here."""
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path, "training"):
        pass
    assert "cannot be locked (Function not implemented)" in caplog.text
