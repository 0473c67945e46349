"""What the tests of text share."""

import pathlib

import pytest


@pytest.fixture
def text_file(tmp_path):
    def write(content: str | bytes, name: str = "text") -> pathlib.Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
