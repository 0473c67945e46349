"""The report of a translator: its tables, its pictures and what they are cut to."""

import html
import json
import re

import numpy as np
import pytest
from PIL import Image

from dlcore.evaluation import search_errors
from dlcore.metrics import sentence_scores, translation_scores
from dlcore.report import AttentionExample, attention_section, markup, write_report
from dlcore.report.plots import attention, bars, plot_attention, plot_bars
from experiments.translation.report import Samples, translation_sections

RANDOM = np.random.default_rng(0)
SOURCES = ["Ein <b>Hund</b>", "Eine Katze sitzt dort", "Zwei Männer", "Drei $Frauen$ lesen"]
REFERENCES = ["A dog", "A cat is sitting there", "Two men", "Three women are reading"]
OUTPUTS = ["A dog", "A cat is sat there", "Two <unk>", "Three women reading"]
LENGTHS = [2, 4, 2, 3]


def attend(heads, output, source):
    return RANDOM.dirichlet(np.ones(source), (heads, output))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws, and returns the figure that was written."""
    figures = []

    def keep(figure, path):
        figures.append(figure)
        figure.savefig(path)

    monkeypatch.setattr(attention, "save", keep)
    monkeypatch.setattr(bars, "save", keep)

    def draw(plot, *args, **kwargs):
        plot(*args, tmp_path / "picture.png", **kwargs)
        with Image.open(tmp_path / "picture.png") as picture:
            assert picture.format == "PNG"
        return figures[-1]

    return draw


def maps(figure):
    """The axes that show weights."""
    return [axis for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]


def labels(axis):
    return [
        [label.get_text() for label in getattr(axis, f"get_{side}ticklabels")()] for side in "xy"
    ]


def test_a_map_has_the_source_across_and_the_output_down(drawn):
    weights = attend(1, 2, 3)
    figure = drawn(plot_attention, weights, ["a", "b c", "<eos>"], ["x", "\n"], title="One")
    [axis] = maps(figure)
    np.testing.assert_array_equal(axis.images[0].get_array(), weights[0])
    assert labels(axis) == [["a", "b␣c", "<eos>"], ["x", "⏎"]]
    assert figure.get_suptitle() == "One"


def test_heads_stand_in_a_grid_on_one_scale(drawn):
    weights = attend(6, 3, 4)
    axes = maps(drawn(plot_attention, weights, list("abcd"), list("xyz")))
    assert [axis.get_xlabel() for axis in axes] == [f"head {i}" for i in range(1, 7)]
    for axis, head in zip(axes, weights, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), head)
        assert axis.images[0].get_clim() == (0, weights.max())
    assert len({round(axis.get_position().y0, 6) for axis in axes}) == 2


@pytest.mark.parametrize(
    "heads, shape, most",
    [pytest.param(1, (40, 40), 40, marks=pytest.mark.slow), (20, (24, 24), 24)],
)
def test_long_sentences_are_cut_and_say_so(drawn, heads, shape, most):
    tokens = [f"a rather long token {i}" for i in range(90)]
    figure = drawn(plot_attention, attend(heads, 90, 70), tokens[:70], tokens, title="x")
    axes = maps(figure)
    assert {axis.images[0].get_array().shape for axis in axes} == {shape}
    assert len(axes) == min(heads, 16)
    title = figure.get_suptitle().replace("\n", " ")
    assert f"the first {most} of 90 output tokens, the first {most} of 70 source tokens" in title
    assert ("the first 16 of 20 heads" in title) == (heads == 20)
    assert max(figure.get_size_inches()) < 20


def test_what_is_not_long_is_not_cut(drawn):
    tokens = list("a" * 40)
    figure = drawn(plot_attention, attend(1, 40, 40), tokens, tokens)
    assert figure.get_suptitle() == "" and len(labels(maps(figure)[0])[0]) == 40


@pytest.mark.parametrize("most", [1, 24])
@pytest.mark.parametrize("heads", [1, 5])
def test_no_word_falls_off_the_picture(drawn, heads, most):
    """Every label, number and title lies inside the figure, and cells are squares of one size."""
    tokens = ["Donaudampfschifffahrt"] * most
    title = "A sentence that is rather long and so on. " * 3
    figure = drawn(plot_attention, attend(heads, most, most), tokens, tokens, title=title)
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0
    assert box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight()
    cells = {tuple(axis.get_window_extent().size.round(3)) for axis in maps(figure)}
    [(width, height)] = cells
    assert width == pytest.approx(height) and width / figure.dpi > 0.1 * most


def test_attention_that_does_not_fit_its_tokens(tmp_path):
    for weights in (attend(2, 3, 4), attend(1, 4, 3)[0], np.zeros((0, 4, 3))):
        with pytest.raises(ValueError, match="4 output and 3 source tokens"):
            plot_attention(weights, list("abc"), list("wxyz"), tmp_path / "x.png")


def test_bars_have_their_numbers(drawn):
    figure = drawn(plot_bars, {"1\n2 sentences": 30.04, "2": 0.0}, title="t", x="x", y="BLEU")
    [axis] = figure.axes
    assert [bar.get_height() for bar in axis.patches] == [30.04, 0]
    assert [text.get_text() for text in axis.texts] == ["30.0", "0.0"]
    assert labels(axis)[0] == ["1\n2 sentences", "2"]


def tables(text):
    """The cells of all tables of a page, by table and row."""
    return [
        [
            [html.unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row, re.DOTALL)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table>(.*?)</table>", text, re.DOTALL)
    ]


def sections(**options):
    scores = {"greedy": translation_scores(["A"] * 4, REFERENCES)}
    scores["beam 5"] = translation_scores(OUTPUTS, REFERENCES)
    return translation_sections(
        SOURCES, REFERENCES, OUTPUTS, scores=scores, source_lengths=LENGTHS, **options
    )


def errors():
    """Right, the search's fault, the model's, and one on which log P alone disagrees."""
    return search_errors(
        np.array([-1.0, -1.25, -2.0, -0.5]),
        np.array([-1.0, -1.5, -1.0, -2.5]),
        reference_log_probs=np.array([-1.0, -1.25, -2.0, -5.0]),
        output_log_probs=np.array([-1.0, -1.5, -1.0, -4.0]),
        same=np.array([True, False, False, False]),
    )


def test_scores_of_each_decoder_with_their_signatures(tmp_path):
    text = sections()[0].content(tmp_path)
    [(header, greedy, beam)] = tables(text)
    assert header[1:4] == ["BLEU", "chrF", "exact match"]
    found = translation_scores(OUTPUTS, REFERENCES)
    assert greedy[0] == "greedy" and greedy[3] == "0.00%" and greedy[1] == "0.00"
    assert beam[:4] == ["beam 5", f"{found.bleu:.2f}", f"{found.chrf:.2f}", "25.00%"]
    assert beam[5:] == [f"{found.brevity_penalty:.3f}", f"{found.length_ratio:.3f}"]
    assert text.count("BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:") == 1
    assert text.count("chrF|nrefs:1|") == 1


def test_bleu_by_length_names_lengths_and_counts(drawn, tmp_path):
    seen = {}
    section = sections()[1]
    assert section.content(tmp_path) == markup.picture("bleu_by_length.png")

    def keep(values, path, **_):
        seen.update(values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.translation.report.plot_bars", keep)
        section.content(tmp_path)
    assert list(seen) == ["2\n2 sentences", "3\n1 sentence", "4\n1 sentence"]
    assert seen["4\n1 sentence"] == translation_scores(OUTPUTS[1:2], REFERENCES[1:2]).bleu


def test_the_error_analysis_lists_shares_and_the_worst(tmp_path):
    text = sections(errors=errors())[2].content(tmp_path)
    shares, search, model = tables(text)
    assert [row[:3] for row in shares[1:]] == [
        ["right", "1", "25.0%"],
        ["search", "2", "50.0%"],
        ["model", "1", "25.0%"],
    ]
    assert search[1:] == [
        ["4", SOURCES[3], REFERENCES[3], OUTPUTS[3], "-2.500", "-0.500"],
        ["2", SOURCES[1], REFERENCES[1], OUTPUTS[1], "-1.500", "-1.250"],
    ]
    assert model[1:] == [["3", SOURCES[2], REFERENCES[2], OUTPUTS[2], "-1.000", "-2.000"]]
    assert "warning: log P alone would give another verdict on 1 of 4 sentences" in text
    assert "Two &lt;unk&gt;" in text and "<unk>" not in text


def test_samples_over_the_steps(tmp_path):
    samples = Samples(SOURCES[:2], REFERENCES[:2], [(5, ["A", "B"]), (1_000, ["A dog", "<c>"])])
    text = sections(samples=samples)[2].content(tmp_path)
    assert tables(text) == [
        [["source", SOURCES[0]], ["reference", "A dog"], ["step 5", "A"], ["step 1,000", "A dog"]],
        [
            ["source", SOURCES[1]],
            ["reference", REFERENCES[1]],
            ["step 5", "B"],
            ["step 1,000", "<c>"],
        ],
    ]


@pytest.mark.parametrize("lower", [False, True])
def test_the_best_and_the_worst_sentences(tmp_path, lower):
    outputs = [text.swapcase() if lower else text for text in OUTPUTS]
    scores = {"beam": translation_scores(outputs, REFERENCES, lower=lower)}
    options = {"scores": scores, "source_lengths": LENGTHS, "lower": lower}
    section = translation_sections(SOURCES, REFERENCES, outputs, **options)[-1]
    each = sentence_scores(OUTPUTS, REFERENCES)
    worst, best = tables(section.content(tmp_path))
    order = np.argsort(each.chrf)
    assert section.title == "Best and worst sentences" and best[1][0] == "1"
    for table, rows in ((worst, order[:2]), (best, order[:1:-1])):
        assert table[1:] == [
            [
                str(row + 1),
                *(SOURCES[row], REFERENCES[row], outputs[row]),
                *(f"{each.chrf[row]:.1f}", f"{each.bleu[row]:.1f}"),
            ]
            for row in rows
        ]
    one = translation_sections(["a"], ["b"], ["c"], scores=scores, source_lengths=[1])
    assert len(one) == 2


def test_attention_shows_the_mean_and_the_heads(monkeypatch, tmp_path):
    shown = {}

    def keep(weights, source, output, path, *, title):
        shown[path.name] = (weights, source, output)

    monkeypatch.setattr("dlcore.report.attention.plot_attention", keep)
    several = AttentionExample("A & B", attend(3, 2, 2), ["a", "b"], ["c", "d"])
    one = AttentionExample("C", attend(1, 2, 2), ["a", "b"], ["a", "b"])
    text = attention_section("Self-attention", [several, one], text="x < y").content(tmp_path)
    assert (
        re.findall('src="(.*?)"', text)
        == list(shown)
        == [
            "self_attention_1.png",
            "self_attention_1_heads.png",
            "self_attention_2.png",
        ]
    )
    assert re.findall("<h3>(.*?)</h3>", text) == ["A &amp; B", "C"] and "x &lt; y" in text
    mean, source, output = shown["self_attention_1.png"]
    np.testing.assert_allclose(mean, several.weights.mean(axis=0)[None])
    assert (source, output) == (["a", "b"], ["c", "d"])
    assert shown["self_attention_1_heads.png"][0] is several.weights


def test_the_whole_report(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 2.0}\n')
    (tmp_path / "summary.json").write_text(json.dumps({"experiment": "translation"}))
    tokens = ["Ein", "Hund", "<eos>"]
    page = write_report(
        tmp_path,
        sections(
            errors=errors(),
            samples=Samples(SOURCES[:1], REFERENCES[:1], [(5, ["A"])]),
            attention=[AttentionExample(SOURCES[0], attend(2, 3, 3), tokens, tokens)],
        ),
    )
    text = page.read_text(encoding="utf-8")
    assert re.findall("<h2[^>]*>(.*?)</h2>", text) == [
        "Result",
        "Learning curves",
        "Translation scores",
        "BLEU by length",
        "Error analysis of the search",
        "Samples",
        "Best and worst sentences",
        "Attention",
    ]
    pictures = re.findall('src="(.*?)"', text)
    assert len(pictures) == 4
    for name in pictures:
        assert (page.parent / name).stat().st_size > 1000


def test_what_is_not_there_has_no_section():
    titles = [section.title for section in sections(samples=Samples(SOURCES, REFERENCES, []))]
    assert titles == ["Translation scores", "BLEU by length", "Best and worst sentences"]
