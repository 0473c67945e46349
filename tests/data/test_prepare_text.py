"""Archives of text as small as the stock builders take them, prepared and loaded."""

import pathlib
import urllib.error
import urllib.request
import zipfile

import pytest
from tiny_archives import IMDB, LM1B, SST2, Texts, write_imdb, write_lm1b, write_sst2

from dlcore.data.prepare import prepare
from dlcore.data.text import load_corpus, load_labelled_text
from dlcore.errors import InputError


def stripped(texts: Texts, split: str) -> list[tuple[str, int]]:
    return sorted((text.strip(), label) for text, label in texts[split])


@pytest.mark.parametrize("name", ["imdb_reviews", "imdb_reviews/plain_text:1.0.0"])
def test_imdb_reviews(tmp_path: pathlib.Path, name: str) -> None:
    write_imdb(tmp_path / "archives")
    builder = prepare(name, data_dir=tmp_path, archives=tmp_path / "archives")
    assert builder.info.splits["unsupervised"].num_examples == 1
    data = load_labelled_text("imdb_reviews", data_dir=tmp_path)
    assert data.name == "imdb_reviews/plain_text/1.0.0" and data.class_names == ("neg", "pos")
    assert sorted(data.train) == stripped(IMDB, "train")
    assert sorted(data.test) == stripped(IMDB, "test")


def test_sst2(tmp_path: pathlib.Path) -> None:
    write_sst2(tmp_path / "archives")
    builder = prepare("glue/sst2", data_dir=tmp_path, archives=tmp_path / "archives")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 3,
        "validation": 2,
        "test": 1,
    }
    data = load_labelled_text("glue/sst2", data_dir=tmp_path)
    assert data.name == "glue/sst2/2.0.0" and data.class_names == ("negative", "positive")
    assert sorted(data.train) == sorted(SST2["train"])
    assert sorted(data.test) == sorted(SST2["dev"])


def test_lm1b(tmp_path: pathlib.Path) -> None:
    write_lm1b(tmp_path / "archives")
    prepare("lm1b", data_dir=tmp_path, archives=tmp_path / "archives")
    corpus = load_corpus("lm1b", data_dir=tmp_path, valid_share=0)
    assert corpus.name == "lm1b/1.1.0" and corpus.valid == ""
    for split, folder in (("train", "training"), ("test", "heldout")):
        texts = "".join(text for name, text in LM1B.items() if name.startswith(folder))
        lines = [line.strip() for line in texts.splitlines()]
        assert sorted(getattr(corpus, split).splitlines()) == sorted(lines)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("imdb_reviews", "aclImdb_v1.tar.gz"),
        ("glue/sst2", "SST-2.zip"),
        ("lm1b", "1-billion-word-language-modeling-benchmark-r13output.tar.gz"),
    ],
)
def test_without_its_archive_and_without_a_network(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    command = f"{name}' is not prepared in .*: dlcore prepare {name} --data_dir="
    with pytest.raises(InputError, match=command):
        load_corpus(name, data_dir=tmp_path)
    with pytest.raises(InputError, match=f"lacks {file}; {name} needs {file} there, from http"):
        prepare(name, data_dir=tmp_path, archives=tmp_path)
    reached = []

    def unreachable(request: urllib.request.Request, **options: object) -> None:
        reached.append(request.full_url)
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(InputError, match=f"cannot download {name}: .*; place {file} in a folder"):
        prepare(name, data_dir=tmp_path)
    assert [url.rpartition("/")[2] for url in reached] == [file]


@pytest.mark.parametrize("name", ["glue", "glue/cola", "docstrings", "tiny_shakespeare"])
def test_texts_that_are_not_prepared_here(tmp_path: pathlib.Path, name: str) -> None:
    possible = "choose one of: cifar10, .*, glue/sst2, .*, imdb_reviews, .*, lm1b, mnist, "
    with pytest.raises(InputError, match=f"unknown data set '{name}'; {possible}"):
        prepare(name, data_dir=tmp_path)


def test_an_archive_without_a_table(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "SST-2.zip", "w") as archive:
        archive.writestr("SST-2/train.tsv", "sentence\tlabel\ngood\t1\n")
    with pytest.raises(InputError, match="cannot prepare glue/sst2 from .*dev.tsv.*; check that"):
        prepare("glue/sst2", data_dir=tmp_path, archives=tmp_path)
