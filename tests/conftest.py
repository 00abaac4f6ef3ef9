"""Fixtures that all tests share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with the larger reference data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found: {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def no_environment_overrides(monkeypatch, tmp_path_factory):
    """A test never sees the paths that the user's shell overrides, and leaves no index in the data folder."""
    import os

    for name in list(os.environ):
        if name.startswith("COMPRESSTRACKER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COMPRESSTRACKER_INDEX_DIR", str(tmp_path_factory.getbasetemp() / "index"))
