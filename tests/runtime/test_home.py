"""Containers without a home folder, or with one that cannot be written: what is kept there by other packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.download import hub_or_cache, kept_under
from cnnviz_fast.models.load import load_model
from cnnviz_fast.runtime.home import has_folder

pwd = pytest.importorskip("pwd")

CACHES = ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "TORCH_HOME", "HF_HOME")


@pytest.fixture
def _homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process one of a user whom the system does not know, in a folder of its own."""

    def unknown(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    for name in ("HOME", *CACHES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_homeless")
@pytest.mark.parametrize("variable", ["HOME", *CACHES])
def test_has_folder_where_a_variable_names_one(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_folder(*CACHES)
    monkeypatch.setenv(variable, "/nonexistent")
    assert has_folder(*CACHES)


@pytest.mark.usefixtures("_homeless")
def test_downloads_without_a_home_folder_are_refused_with_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r": there is no home folder to keep them in: set HOME or TORCH_HOME\. Use w"):
        load_model("squeezenet1_1")
    with pytest.raises(OSError, match=r"set HOME or HF_HOME$"), hub_or_cache():
        pass
    assert list(tmp_path.iterdir()) == []  # none of the name ~


@pytest.mark.usefixtures("_homeless")
def test_kernels_without_a_home_folder_are_compiled_and_not_kept(tmp_path: Path) -> None:
    numba = pytest.importorskip("numba")
    from cnnviz_fast.kernels.numba_jit import compiled

    def double(number: int) -> int:
        return 2 * number

    kernel = compiled(numba.int64(numba.int64))(double)
    assert kernel(21) == 42
    assert kernel._cache.cache_path is None
    assert list(tmp_path.iterdir()) == []


def test_download_into_a_folder_that_cannot_be_written_names_it_and_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    said = rf": Not a directory: {tmp_path}/file/hub\S*; set TORCH_HOME to another folder\. Use weights='none'"
    with pytest.raises(ModelError, match=said):
        load_model("squeezenet1_1")


def test_other_errors_of_a_download_stay_what_they_are() -> None:
    with pytest.raises(TimeoutError, match=r"^late$"), kept_under("TORCH_HOME"):
        raise TimeoutError("late")
    with pytest.raises(FileNotFoundError), kept_under("TORCH_HOME"):
        os.stat("/nonexistent/file")
