import ast
import keyword
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dlcore.data.builders import docstrings, installed, python_docs, python_tokens
from dlcore.data.catalogue import open_builder, prepared_builder
from dlcore.data.text import load_corpus, load_labelled_text, load_tagged_text
from dlcore.data.tfds import tfds
from dlcore.errors import InputError


def feature(kind: str) -> Any:
    features = tfds.features
    return {
        "text": features.Text(),
        "class": features.ClassLabel(names=["no", "yes"]),
        "number": features.Scalar(dtype=np.int32),
        "tokens": features.Sequence(features.Text()),
        "tags": features.Sequence(features.ClassLabel(names=["N", "V"])),
    }[kind]


# What each form of the data set below holds: its features, and the examples of its splits.
FORMS: dict[str, tuple[dict[str, str], dict[str, list[tuple[Any, ...]]]]] = {
    "reviews": (
        {"label": "class", "text": "text"},
        {"train": [(0, "bad"), (1, "góod")], "test": [(1, "fine")], "unsupervised": [(-1, "?")]},
    ),
    "hidden_test": (
        {"idx": "number", "label": "class", "sentence": "text"},
        {"train": [(0, 1, "a")], "test": [(0, -1, "b")], "validation": [(0, 0, "c")]},
    ),
    "no_labels": (
        {"label": "class", "text": "text"},
        {"train": [(1, "a")], "test": [(-1, "b")]},
    ),
    "billions": ({"text": "text"}, {"train": [("one",)] * 20, "test": [("a\nb\n",)]}),
    "three_parts": (
        {"text": "text"},
        {"train": [("a",)], "validation": [("b",)], "test": [("c",)]},
    ),
    "pairs": (
        {"label": "class", "premise": "text", "hypothesis": "text"},
        {"train": [(0, "a", "b")], "test": [(0, "a", "b")]},
    ),
    "entities": (
        {"tokens": "tokens", "ner": "tags"},
        {"train": [(["go", "Jo"], [1, 0])], "test": [(["Jo"], [0])]},
    ),
    "untrained": ({"text": "text"}, {"test": [("a",)]}),
    "untested": ({"tokens": "tokens", "ner": "tags"}, {"train": [(["a"], [0])]}),
}


class Texts(tfds.core.GeneratorBasedBuilder):
    """A tiny data set in every form that the readers must tell apart."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in FORMS]

    def _info(self) -> Any:
        features = {
            name: feature(kind) for name, kind in FORMS[self.builder_config.name][0].items()
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        splits = FORMS[self.builder_config.name][1]
        return {split: self._generate_examples(rows) for split, rows in splits.items()}

    def _generate_examples(self, rows: list[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        names = FORMS[self.builder_config.name][0]
        for key, row in enumerate(rows):
            yield key, dict(zip(names, row, strict=True))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with every form of the texts, prepared."""
    path = tmp_path_factory.mktemp("prepared")
    for form in FORMS:
        Texts(config=form, data_dir=path).download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            file_format="array_record",
        )
    return path


def test_prepared_texts_with_a_class(data_dir: pathlib.Path) -> None:
    data = load_labelled_text("texts/reviews", data_dir=data_dir)
    assert data.name == "texts/reviews/1.0.0" and data.class_names == ("no", "yes")
    assert sorted(data.train) == [("bad", 0), ("góod", 1)] and data.test == [("fine", 1)]
    assert load_labelled_text("texts/hidden_test", data_dir=data_dir).test == [("c", 0)]


def test_prepared_running_text(data_dir: pathlib.Path) -> None:
    corpus = load_corpus("texts/billions", data_dir=data_dir)
    assert corpus[1:4] == ("one\n" * 18, "one\n" * 2, "a\nb\n")
    # Reading stops at the limit.
    corpus = load_corpus("texts/billions", data_dir=data_dir, limit=22, valid_share=0)
    assert corpus.train == "one\n" * 5
    parts = load_corpus("texts/three_parts", data_dir=data_dir, limit=1)[1:4]
    assert parts == ("a", "b\n", "c\n")


def test_prepared_sentences_with_tags(data_dir: pathlib.Path) -> None:
    data = load_tagged_text("texts/entities", data_dir=data_dir)
    assert data.train == [(["go", "Jo"], [1, 0])] and data.test == [(["Jo"], [0])]
    assert data.tag_names == ("N", "V")


@pytest.mark.parametrize(
    ("load", "form", "message"),
    [
        (
            load_labelled_text,
            "pairs",
            r"not exactly one feature of each kind that is needed \(text, class\); its features "
            r"are hypothesis \(Text\), label \(ClassLabel\), premise \(Text\); choose another",
        ),
        (load_corpus, "pairs", r"kind that is needed \(text\); its features are hypothesis"),
        (load_labelled_text, "billions", r"\(text, class\); its features are text \(Text\)"),
        (load_tagged_text, "reviews", r"needed \(tokens, tags\); its features are label"),
        (load_labelled_text, "no_labels", "splits test, train; it needs test or validation with l"),
        (load_corpus, "untrained", "has the splits test; it needs train"),
        (load_tagged_text, "untested", "has the splits train; it needs train, and test or valid"),
    ],
)
def test_data_sets_of_another_kind(
    data_dir: pathlib.Path, load: Any, form: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        load(f"texts/{form}", data_dir=data_dir)
    assert "\n" not in str(error.value)


def test_glue_is_found(tmp_path: pathlib.Path) -> None:
    assert open_builder("glue/sst2", tmp_path).info.full_name.startswith("glue/sst2")
    with pytest.raises(InputError, match="'glue/sst2' is not prepared in .*: dlcore prepare glue"):
        load_labelled_text("glue/sst2", data_dir=tmp_path)


def source(text: str, name: str = "package/module.py") -> installed.Source:
    return installed.Source(name, text)


def test_docstrings_are_found_by_definition_and_kept_once() -> None:
    text = '''"""Module.\n\nShared."""
class A:
    """Class.

      shared.
    """
    def f(self):
        r"""Method \\d.

        Shared."""
async def g():
    """Other   class."""
    def inner():
        """Inner."""
def h():
    """Class."""
x = """No docstring."""
'''
    seen: set[str] = set()
    assert installed.documented(source(text), seen) == [
        ("", "Module.\n\nShared."),
        ("A", "Class.\n\nshared.\n\nMethod \\d."),
        ("g", "Other   class.\n\nInner."),
    ]
    assert installed.documented(source(text), seen) == []
    assert installed.documented(source("def (:"), seen) == []


def test_sources_leave_tests_and_copies_out() -> None:
    names = [found.name for found in installed.sources("numpy")]
    assert names == sorted(names, key=lambda name: name.split("/")) and len(names) > 50
    assert "numpy/linalg/__init__.py" in names
    assert not [name for name in names if {"tests", "testing"} & {*name.split("/")}]
    standard = [found.name for found in installed.sources(installed.PYTHON)]
    assert "python/json/decoder.py" in standard
    assert not [name for name in standard if "/test/" in name or "site-packages" in name]


def test_positions_are_fixed_and_even() -> None:
    assert installed.position("a") == int("ca978112", 16) / 2**32
    places = [installed.position(str(number)) for number in range(2000)]
    assert abs(sum(place < 0.2 for place in places) / 2000 - 0.2) < 0.03


@pytest.fixture(scope="module")
def small_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """The embedded data sets of a few small packages."""
    read = installed.sources

    def some(package: str) -> list[installed.Source]:
        folders = ("python/json/", "python/email/", "python/asyncio/")
        return [
            found
            for found in read(package)
            if package != installed.PYTHON or found.name.startswith(folders)
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "sources", some)
        patch.setattr(python_docs, "PACKAGES", (installed.PYTHON, "optax"))
        patch.setattr(docstrings, "CLASSES", ("flax", "optax", installed.PYTHON))
        yield tmp_path_factory.mktemp("small")


def test_python_docs_occur_once(small_dir: pathlib.Path) -> None:
    corpus = load_corpus("python_docs", data_dir=small_dir)
    parts = corpus[1:4]
    found = [
        " ".join(text.split()) for part in parts for text in part.split("\n\n") if text.strip()
    ]
    assert len(found) == len(set(found)) > 1000 and all(parts)
    assert len(corpus.train) > 5 * max(len(corpus.valid), len(corpus.test))
    assert any("expression" in part for part in parts) and any("gradient" in part for part in parts)
    builder = prepared_builder("python_docs", small_dir)
    assert builder.info.metadata["versions"].keys() == {"python", "optax"}


def test_docstrings_do_not_name_their_package(small_dir: pathlib.Path) -> None:
    data = load_labelled_text("docstrings", data_dir=small_dir)
    assert data.class_names == ("flax", "optax", "python") and len(data.train) > 2 * len(data.test)
    texts = [text for text, _ in data.train + data.test]
    assert {label for _, label in data.test} == {0, 1, 2} and len(texts) == len(set(texts))
    assert all(len(text.split()) >= 80 for text in texts)
    joined = "\n".join(texts)
    assert "PACKAGE" in joined and not any(name in joined.lower() for name in ("jax", "python"))


def test_passages_end_with_paragraphs() -> None:
    words = " ".join(["word"] * 60)
    paragraphs = [f"{number} {words}" for number in range(5)]
    text = "\n\n".join(paragraphs)
    found = [*docstrings._passages(text)]
    assert found == ["\n\n".join(paragraphs[:2]), "\n\n".join(paragraphs[2:4])]
    assert [*docstrings._passages("short")] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = f\"b{c!r:{d}}\" + rb'e' # é", "nsos" + "q" * 13 + "sosqqqqqsccc"),
        ('not x.y(1.5e3, [ # 3\n"2"]) or\\\n match', "kkksnonodddddosoScccSqqqooskkssSnnnnn"),
        ("async def f(*, α=0x_F) -> None: ...", "kkkkkskkksnooosnoddddosooskkkkosooo"),
    ],
)
def test_characters_have_the_class_of_their_token(text: str, expected: str) -> None:
    filler = "#" * 120 + "\n"
    (window, tags), *_ = python_tokens.windows(text + "\n" + filler + "pass\n" * 50)
    letters = dict(zip(python_tokens.CLASSES, "snkdoqc", strict=True))
    found = "".join(letters[python_tokens.CLASSES[tag]] for tag in tags[: len(text)])
    assert window.startswith(text) and found == expected.lower()


def test_windows_are_whole_statements() -> None:
    text = pathlib.Path(ast.__file__).read_text()
    found = python_tokens.windows(text)
    assert len(found) > 100
    for window, tags in found:
        assert window in text and 100 <= len(window) == len(tags) <= 200 and window[-1] == "\n"
        runs: list[tuple[str, str]] = []
        for character, tag in zip(window, tags, strict=True):
            kind = python_tokens.CLASSES[tag]
            if runs and runs[-1][0] == kind:
                runs[-1] = kind, runs[-1][1] + character
            else:
                runs.append((kind, character))
        operators = "".join(run for kind, run in runs if kind == "operator")
        for opening, closing in ("()", "[]", "{}"):
            assert operators.count(opening) == operators.count(closing)
        for kind, run in runs:
            match kind:
                case "space":
                    assert not run.replace("\\", "").strip()
                case "keyword":
                    assert keyword.iskeyword(run)
                case "name":
                    assert run.isidentifier() and not keyword.iskeyword(run)
                case "number":
                    assert ast.literal_eval(run) is not None
                case "string":
                    assert ast.unparse(ast.parse(run)).strip("rbf")[0] in "'\"("
                case "comment":
                    assert run[0] == "#"
                case "operator":
                    assert not any(c.isalnum() or c.isspace() for c in run)


@pytest.mark.parametrize("text", ["", "x = (\n", '"""open\n', "\x00", "if x:\n  y\n z\n"])
def test_source_that_cannot_be_read_has_no_windows(text: str) -> None:
    assert python_tokens.windows(text) == []


def test_python_tokens_occur_once(small_dir: pathlib.Path) -> None:
    data = load_tagged_text("python_tokens", data_dir=small_dir)
    texts = [text for text, _ in data.train + data.test]
    assert len(texts) == len(set(texts)) > 300 and len(data.train) > 3 * len(data.test) > 0
    assert all(len(text) == len(tags) for text, tags in data.train + data.test)
    assert {tag for _, tags in data.train for tag in tags} == set(range(len(data.tag_names)))


def test_reading_embedded_text_needs_no_jax(small_dir: pathlib.Path) -> None:
    code = (
        "import sys\nfrom dlcore.data.text import load_tagged_text\n"
        f"load_tagged_text(data_dir={str(small_dir)!r})\n"
        "assert not {'jax', 'tensorflow', 'flax', 'optax', 'tokenizers'} & set(sys.modules)\n"
    )
    load_tagged_text("python_tokens", data_dir=small_dir)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_bag_of_words_knows_the_package_of_a_docstring(tmp_path: pathlib.Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    data = load_labelled_text("docstrings", data_dir=tmp_path)
    words = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]+", sublinear_tf=True, min_df=2)
    rows = words.fit_transform([text for text, _ in data.train])
    model = LogisticRegression(C=30, max_iter=300).fit(rows, [label for _, label in data.train])
    accuracy = model.score(
        words.transform([text for text, _ in data.test]), [label for _, label in data.test]
    )
    assert accuracy > 0.95
