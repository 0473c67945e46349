"""Who may write into the folders of a run."""

import pathlib

import pytest

from dlcore.errors import InputError
from dlcore.launch import workdir as folders


def test_a_folder_is_kept_while_it_is_used_whatever_it_is_called(tmp_path):
    own = tmp_path / "a" / "checkpoints"
    (tmp_path / "link").symlink_to(own)
    with folders.locked(own):
        for name in (str(own), own, own / ".." / "checkpoints", tmp_path / "link"):
            with pytest.raises(InputError, match="another process is running in .*another folder"):
                folders.locked(name).__enter__()
        with folders.locked(tmp_path / "a"):  # the run's own folder
            pass
    with pytest.raises(KeyError), folders.locked(own):
        raise KeyError
    with folders.locked(own):
        pass


def test_a_folder_that_cannot_be_made_is_one_line_and_an_object_store_is_not_made(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        folders.locked(tmp_path / "file" / "c").__enter__()
    with folders.locked("gs://bucket/c"):
        assert not pathlib.Path("gs:").exists()
