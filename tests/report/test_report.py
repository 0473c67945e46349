"""The report: what it counts, what it writes, and what it says when it cannot."""

import html
import json
import re

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from dlcore.errors import InputError
from dlcore.report import (
    confusion_matrix,
    heat_section,
    markup,
    picture_section,
    tagging_sections,
    text_sections,
    worst_mistakes,
    write_report,
)
from dlcore.report.classes import class_section
from dlcore.report.filters import first_filters
from experiments.image_classification.labelling import OneClass, SeveralLabels
from experiments.image_classification.report import image_sections
from experiments.language_model.report import language_sections, worst_passages

RANDOM = np.random.default_rng(0)


@pytest.fixture
def workdir(tmp_path):
    rows = [
        {"step": 1, "split": "train", "loss": 2.3, "accuracy": 0.1},
        {"step": 1, "split": "test", "loss": 2.2, "accuracy": 0.2},
        {"step": 2, "split": "train", "loss": None, "accuracy": 0.9, "grad_norm": 2.0},
        {"step": 3, "split": "train", "loss": 0.5, "accuracy": 0.95},
        {"step": 3, "split": "test", "loss": 0.6, "accuracy": 0.91, "perplexity_per_token": 9.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "experiment": "digits <small>",
        "parameters": 61706,
        "final": {"accuracy": 0.91},
        "devices": ["cpu:0", "cpu:1"],
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def images(**options):
    return image_sections(
        RANDOM.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8),
        RANDOM.integers(0, 4, 30),
        RANDOM.dirichlet(np.ones(4), 30),
        labelling=OneClass(["a", "b", "<c>", "d"]),
        **options,
    )


def test_several_labels_have_their_scores_and_mistakes(workdir):
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0]], np.float32)
    probabilities = np.array([[0.9, 0.2, 0.8], [0.6, 0.1, 0.4], [0.7, 0.1, 0.1]])
    labelling = SeveralLabels(["a", "<b>", "c"])
    # Of the three images the second alone is mistaken: it has c, and is taken for a.
    assert labelling.mistakes(labels, probabilities) == [(1, "has c\ntaken for a")]
    sections = image_sections(
        np.zeros((3, 4, 4, 1), np.uint8), labels, probabilities, labelling=labelling
    )
    assert [section.title for section in sections] == ["Classes", "Calibration", "Worst mistakes"]
    page = write_report(workdir, sections).read_text()
    rows = next(table for table in tables(page) if table[0][0] == "class")
    assert rows[0] == ["class", "examples", "precision", "recall", "F1", "average precision"]
    assert ["c", "2", "100.0%", "50.0%", "66.7%", "100.0%"] in rows
    assert ["a", "2", "66.7%", "100.0%", "80.0%", "100.0%"] in rows
    assert ["<b>", "0", "-", "-", "-", "-"] in rows


def tables(text):
    """The cells of all tables of a page, by table and row."""
    return [
        [
            [html.unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table>(.*?)</table>", text, re.DOTALL)
    ]


def test_confusion_matrix_equals_scikit_learns():
    labels, guesses = RANDOM.integers(0, 5, (2, 200))
    expected = sklearn_confusion_matrix(labels, guesses, labels=range(7))
    np.testing.assert_array_equal(confusion_matrix(labels, guesses, num_classes=7), expected)


@pytest.mark.parametrize("labels, guesses", [([0, 3], [0, 0]), ([0, 1], [-1, 0]), ([0], [0, 1])])
def test_confusion_matrix_refuses_what_does_not_fit(labels, guesses):
    with pytest.raises(ValueError):
        confusion_matrix(np.array(labels), np.array(guesses), num_classes=3)


def test_worst_mistakes_are_the_surest():
    labels = np.array([0, 1, 0, 1])
    first = np.array([0.9, 0.7, 0.4, 0.95])  # the probability of class 0: three are wrong
    order = worst_mistakes(labels, np.stack([first, 1 - first], axis=1))
    assert order.tolist() == [3, 1, 2]


def test_first_filters():
    kernel = RANDOM.normal(size=(5, 5, 1, 6))
    deeper = RANDOM.normal(size=(5, 5, 6, 16))
    params = {"conv_1": {"kernel": deeper}, "conv_9": {"kernel": kernel}}
    np.testing.assert_array_equal(first_filters(params, (32, 32, 1)), kernel)
    dense = {"a": {"kernel": np.ones((10, 3))}, "b": {"kernel": RANDOM.normal(size=(64, 7))}}
    picture = first_filters(dense, (8, 8, 1))
    assert picture is not None and picture.shape == (8, 8, 1, 7)
    assert picture[2, 3, 0, 4] == dense["b"]["kernel"][2 * 8 + 3, 4]
    assert first_filters({"w": np.ones((3, 3))}, (8, 8, 1)) is None


def test_the_report_of_images_is_whole(workdir):
    page = write_report(workdir, images(filters=RANDOM.normal(size=(3, 3, 1, 6))))
    assert page == workdir / "report" / "index.html"
    text = page.read_text(encoding="utf-8")
    drawn = ("confusion", "calibration", "mistakes", "filters")
    curves = ("loss", "accuracy", "perplexity_per_token", "grad_norm")
    pictures = [f"{name}.png" for name in drawn] + [f"curve_{name}.svg" for name in curves]
    for name in pictures:
        assert f'src="{name}"' in text and (page.parent / name).stat().st_size > 1000
    assert "digits &lt;small&gt;" in text and "<small>" not in text
    assert "61,706" in text and "final accuracy" in text and "cpu:0, cpu:1" in text
    assert tables(text)[2] == [
        ["", "train", "test", "gap"],
        ["Loss", "0.5 nats", "0.6 nats", "+0.1 nats"],
        ["Accuracy", "95.00 %", "91.00 %", "-4.00 points"],
    ]


def test_the_worst_class_comes_first(tmp_path):
    """One of three a is taken for b; c is never predicted and d never seen."""
    labels, guesses = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1])
    section = class_section(labels, guesses, ["a", "b", "<c>", "d"])
    assert tables(section.content(tmp_path)) == [
        [
            ["class", "examples", "precision", "recall", "F1"],
            ["<c>", "1", "-", "0.0%", "0.0%"],
            ["b", "1", "33.3%", "100.0%", "50.0%"],
            ["a", "3", "100.0%", "66.7%", "80.0%"],
            ["d", "0", "-", "-", "-"],
        ]
    ]


@pytest.mark.slow
def test_a_second_report_replaces_the_first_and_filters_may_be_absent(workdir):
    write_report(workdir, images())
    page = write_report(workdir, images())
    assert "filters" not in page.read_text()


def test_sections_come_in_their_order_after_the_common_ones(workdir):
    sections = [
        picture_section("Gates & more", "gates", lambda path: path.write_bytes(b"x"), text="1 < 2"),
        heat_section("Attention", []),
    ]
    page = write_report(workdir, sections)
    text = page.read_text()
    titles = ["Result", "Learning curves", "Generalisation", "Gates &amp; more", "Attention"]
    assert re.findall("<h2[^>]*>(.*?)</h2>", text) == titles
    anchors = re.findall('<h2 id="(.*?)">', text)
    assert re.findall('<a href="#(.*?)">', text) == anchors and len({*anchors}) == len(titles)
    assert '<img src="gates.png" alt="gates"></a><p>1 &lt; 2</p>' in text
    assert (page.parent / "gates.png").read_bytes() == b"x"


def test_the_page_begins_with_what_was_trained_and_how(workdir):
    (workdir / "config.json").write_text(
        '{"model": "lenet<5>", "data_path": "", "dataset": "mnist"}'
    )
    (workdir / "flags.txt").write_text("# dlcore job --flagfile=f\n--steps=3\n--note=<b>\n")
    summary = {"metrics": {"accuracy": 0.91, "loss": None}, "step": 3, "versions": {"jax": "1"}}
    summary["experiment"] = "language_model"
    (workdir / "summary.json").write_text(json.dumps(summary))
    text = write_report(workdir).read_text()
    assert tables(text)[0] == [
        ["Model", "lenet<5>"], ["Data", "mnist"], ["Accuracy", "91.00 %"], ["Steps", "3"],
    ]  # fmt: skip
    assert "<h1>language model</h1>" in text  # where a narrow screen may break it
    assert "<pre>dlcore job --flagfile=f</pre>" in text
    assert "<pre>--steps=3\n--note=&lt;b&gt;</pre>" in text
    folded = text[text.index("<details>") : text.index("</details>")]
    assert "versions jax" in folded and text.count("versions jax") == 1


def test_a_run_without_flags_and_metrics_begins_with_what_there_is(workdir):
    text = write_report(workdir).read_text()
    assert tables(text)[0] == [["Parameters", "61,706"]] and "Command" not in text


@pytest.mark.parametrize("first", ["train", "test"])
def test_the_gap_is_that_of_one_step(workdir, first):
    """The last step of either side alone would compare two models."""
    rows = [
        {"step": step, "split": split, "loss": loss}
        for step, split, loss in (
            (10, "train", 3.0), (10, "test", 3.5), (20, "train", 2.0), (30, "test", 1.0),
        )
    ]  # fmt: skip
    rows.sort(key=lambda row: row["split"] != first)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = tables(write_report(workdir).read_text())
    assert ["Loss", "3 nats", "3.5 nats", "+0.5 nats"] in found[-1]


def test_parts_that_never_meet_have_no_gap(workdir):
    rows = [{"step": 1, "split": "train", "loss": 1.0}, {"step": 2, "split": "test", "loss": 1.0}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "Generalisation" not in write_report(workdir).read_text()


def test_a_run_without_evaluation_has_no_gap(workdir):
    (workdir / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 2.0}\n')
    assert "Generalisation" not in write_report(workdir).read_text()


def test_worst_mistakes_of_texts(tmp_path):
    texts = ["right", "a <b>bad</b> one", "long " * 200, "also right"]
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.99, 0.01], [0.2, 0.8]])
    sections = text_sections(
        texts, np.array([0, 1, 1, 1]), probabilities, class_names=["no", "<yes>"]
    )
    assert [section.title for section in sections] == ["Confusion matrix", "Worst mistakes"]
    assert sections[0].content(tmp_path) == markup.picture("confusion.png")
    text = sections[1].content(tmp_path)
    assert tables(text) == [
        [
            ["is", "taken for", "sure", "text"],
            ["<yes>", "no", "99.0%", "long " * 80 + " …"],
            ["<yes>", "no", "60.0%", "a <b>bad</b> one"],
        ]
    ]
    assert "&lt;b&gt;bad" in text and "<b>" not in text


def test_no_mistakes(tmp_path):
    one = np.eye(2)
    assert "No mistakes." in text_sections(["a", "b"], np.arange(2), one, class_names=["x", "y"])[
        1
    ].content(tmp_path)
    sections = tagging_sections([["a"]], [np.zeros(1, int)], [np.zeros(1, int)], tag_names=["x"])
    assert "No errors." in sections[1].content(tmp_path)


def test_the_most_frequent_errors_of_tags(tmp_path):
    tokens = [["the", "<run>", "of"], ["a", "<run>"], ["to"]]
    tags = [np.array([0, 1, 0]), np.array([0, 1]), np.array([0])]
    predictions = [np.array([0, 2, 0]), np.array([0, 2]), np.array([1])]
    sections = tagging_sections(tokens, tags, predictions, tag_names=["x", "noun", "verb"])
    text = sections[1].content(tmp_path)
    assert tables(text) == [
        [
            ["times", "token", "is", "taken for", "for example"],
            ["2", "<run>", "noun", "verb", "the <mark><run></mark> of"],
            ["1", "to", "x", "noun", "<mark>to</mark>"],
        ]
    ]
    assert "the <mark>&lt;run&gt;</mark> of" in text


def test_errors_of_characters_have_their_context(tmp_path):
    line = "x" * 60 + "=" + "y" * 60
    tags = np.zeros(121, int)
    wrong = np.where(np.arange(121) == 60, 1, 0)
    sections = tagging_sections([line], [tags], [wrong], tag_names=["a", "b"], separator="")
    example = tables(sections[1].content(tmp_path))[0][1][-1]
    assert example == "… " + "x" * 40 + "<mark>=</mark>" + "y" * 40 + " …"


def test_tags_that_do_not_fit_their_tokens():
    with pytest.raises(ValueError, match="2 tokens have 2 tags and 1 predictions"):
        tagging_sections([["a", "b"]], [np.zeros(2)], [np.zeros(1)], tag_names=["x"])


def test_the_sections_of_a_language_model(tmp_path):
    tokens = ["word", "<eos>"] * 40
    nats = np.ones(80)
    nats[40:] = 2.5
    comparison, samples, passages = language_sections(
        {"lstm": {"perplexity_per_token": 98.25}, "5-gram": {"perplexity_per_token": 1415.0}},
        samples=[(500, "a <unk>\n  b"), (12_000, "c")],
        tokens=tokens,
        nats=nats,
    )
    assert tables(comparison.content(tmp_path)) == [
        [["", "Perplexity per token"], ["lstm", "98.25"], ["5-gram", "1415"]]
    ]
    assert samples.content(tmp_path) == (
        "<h3>Step 500</h3><pre>a &lt;unk&gt;\n  b</pre><h3>Step 12,000</h3><pre>c</pre>"
    )
    text = passages.content(tmp_path)
    assert re.findall("<h3>(.*?)</h3>", text) == ["2.50 nats per token", "1.00 nats per token"]
    assert 'title="2.5">&lt;eos&gt;</span>' in text and "<eos>" not in text


def test_without_samples_there_is_no_section_of_them():
    sections = language_sections({}, samples=[], tokens=["a"], nats=np.ones(1))
    assert [section.title for section in sections] == ["Comparison", "Worst predicted passages"]


@pytest.mark.parametrize("count", [0, 5, 30, 95])
def test_worst_passages_against_a_loop(count):
    nats = RANDOM.exponential(size=count)
    parts = [(i, i + 10) for i in range(0, count - 9, 10)] or [(0, count)] * (count > 0)
    expected = sorted(parts, key=lambda part: -nats[slice(*part)].mean())[:3]
    assert worst_passages(nats, length=10, most=3) == expected


def test_heat_is_a_bar_under_each_token(tmp_path):
    section = heat_section("", [("x", ["a", "\n", "<c>"], np.array([0.1, 0.0, 0.4]))], separator="")
    spans = re.findall(r"/ (.*?)\)\" title=\"(.*?)\">(.*?)</span>", section.content(tmp_path), re.S)
    assert spans == [("0.25", "0.1", "a"), ("0.00", "0", "⏎\n"), ("1.00", "0.4", "&lt;c&gt;")]


def test_text_that_utf8_cannot_write(workdir):
    section = heat_section("Half a pair", [("\ud800", ["\ud800"], np.zeros(1))])
    assert "&#55296;" in write_report(workdir, [section]).read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", ["metrics.jsonl", "summary.json"])
def test_a_missing_file_is_one_clear_line(workdir, missing):
    (workdir / missing).unlink()
    with pytest.raises(InputError, match="the folder of a run that has ended") as error:
        write_report(workdir)
    assert missing in str(error.value) and "\n" not in str(error.value)


def test_a_report_that_cannot_be_written_is_one_clear_line(workdir):
    (workdir / "report").write_text("a file is in the way")
    with pytest.raises(InputError, match="choose another --workdir"):
        write_report(workdir)
