"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("BRGSA_SHARED", REPOSITORY.parent / "shared"))


def shared_folder(*parts: str) -> Path:
    folder = SHARED.joinpath(*parts)
    if not folder.exists():
        pytest.skip(f"{folder} is not there (set BRGSA_SHARED to the folder with the real scans and reports)")
    return folder


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of the numeric fixtures made with the released model's code and random weights."""
    return Path(__file__).parent / "fixtures" / "parity"


@pytest.fixture(scope="session")
def real_ct() -> Path:
    """Folder of real CT scans; tests that need it skip where it is missing."""
    return shared_folder("data", "ct")


@pytest.fixture(scope="session")
def real_reports() -> Path:
    """Folder of real CT reports with labels; tests that need it skip where it is missing."""
    return shared_folder("data", "reports")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Keep every test out of the user's own cache and settings."""
    monkeypatch.setenv("BRGSA_CACHE", str(tmp_path_factory.mktemp("cache")))
