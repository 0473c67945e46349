"""Archives of parallel text as small as the stock builders take them, prepared and loaded."""

import pathlib
import urllib.error
import urllib.request

import pytest
from tiny_archives import TED, WMT14, write_ted, write_wmt14

from dlcore.data.prepare import prepare
from dlcore.data.text import load_parallel_text
from dlcore.errors import InputError

Pairs = list[tuple[str, str]]
WMT14_FILES = [
    *("dev.tgz", "training-parallel-commoncrawl.tgz", "training-parallel-europarl-v7.tgz"),
    "training-parallel-nc-v9.tgz",
]


def filled(pairs: Pairs) -> Pairs:
    return sorted(pair for pair in pairs if all(pair))


def test_ted_talks(tmp_path: pathlib.Path) -> None:
    write_ted(tmp_path / "archives")
    prepare("ted_hrlr_translate/ru_to_en", data_dir=tmp_path, archives=tmp_path / "archives")
    data = load_parallel_text("ted_hrlr_translate/ru_to_en", data_dir=tmp_path)
    assert data.name == "ted_hrlr_translate/ru_to_en/1.0.0" and data.languages == ("ru", "en")
    assert sorted(data.train) == filled(TED["train"])
    assert (data.valid, sorted(data.test)) == (TED["dev"], filled(TED["test"]))
    back = load_parallel_text(
        "ted_hrlr_translate/ru_to_en", data_dir=tmp_path, languages=("en", "ru")
    )
    assert back.train == [(target, source) for source, target in data.train]
    assert back.languages == ("en", "ru")


def test_wmt14(tmp_path: pathlib.Path) -> None:
    write_wmt14(tmp_path / "archives")
    prepare("wmt14_translate/de-en", data_dir=tmp_path, archives=tmp_path / "archives")
    data = load_parallel_text("wmt14_translate/de-en", data_dir=tmp_path)
    assert data.name == "wmt14_translate/de-en/1.0.0" and data.languages == ("de", "en")
    corpora = [pair for name, pairs in WMT14.items() if "newstest" not in name for pair in pairs]
    assert sorted(data.train) == filled(corpora)
    assert data.valid == WMT14["dev/newstest2013"]
    assert sorted(data.test) == filled(WMT14["dev/newstest2014-deen"])


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("ted_hrlr_translate/ru_to_en", ["qi18naacl-dataset.tar.gz"]),
        ("wmt14_translate/de-en", WMT14_FILES),
    ],
)
def test_without_archives_and_without_a_network(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, files: list[str]
) -> None:
    command = f"{name}' is not prepared in .*: dlcore prepare {name} --data_dir="
    with pytest.raises(InputError, match=command):
        load_parallel_text(name, data_dir=tmp_path)
    listed = ", ".join(files)
    with pytest.raises(InputError, match=f"lacks {listed}; {name} needs {listed} there, from http"):
        prepare(name, data_dir=tmp_path, archives=tmp_path)

    def unreachable(*args: object, **options: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(InputError, match=f"cannot download {name}: .*; place {listed} in a folder"):
        prepare(name, data_dir=tmp_path)


def test_sides_of_different_lengths_cannot_be_prepared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TED, "dev", [("да", "yes\nno")])
    write_ted(tmp_path / "archives")
    message = "cannot prepare ted_hrlr_translate/ru_to_en from .*: .*Sizes do not match: 2 vs 3"
    with pytest.raises(InputError, match=message) as error:
        prepare("ted_hrlr_translate/ru_to_en", data_dir=tmp_path, archives=tmp_path / "archives")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("ted_hrlr_translate/en_to_ru", "az_to_en, .*, ru_to_en, ru_to_pt, tr_to_en; versions: 1"),
        ("wmt14_translate/en-de", "cs-en, de-en, fr-en, hi-en, ru-en; versions: 1.0.0"),
    ],
)
def test_the_pairs_of_a_data_set_are_named(
    tmp_path: pathlib.Path, name: str, possible: str
) -> None:
    with pytest.raises(InputError, match=f"'{name}' does not exist .*: {possible}") as error:
        load_parallel_text(name, data_dir=tmp_path)
    assert "\n" not in str(error.value)
