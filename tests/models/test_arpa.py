"""Files in the ARPA format against a plain reader of their definition, and damaged ones."""

import gzip
import math

import numpy as np
import pytest
from test_ngram import TEXT, VOCAB, histories

from dlcore.errors import InputError
from dlcore.models.text import NGram, read_arpa, write_arpa

WORDS = ["<unk>", "a", "b", "c", "é", "\u00a0", "g", "\\end\\", "-99", "#", "k", "never"]
# p(. |): a 0.5, b 0.25, c 0.25; after a (back-off 0.5): b 0.625, so a 0.25 and c 0.125.
HAND = """what stands before the data does not count

\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99\t<s>\t-0.1
-0.30103\ta -0.30103
-0.60206 b
-0.60206 c

\\2-grams:
-0.20412 a b
-0.30103 <s> a

\\end\\
"""


class Plain:
    """p(w | h), as the format defines it, looked up in dictionaries."""

    def __init__(self, text):
        self.log, self.back_off = {}, {}
        order = 0
        for line in text.split("\n"):
            if line.endswith("-grams:"):
                order = int(line[1:-7])
            elif order and "\t" in line:
                log, gram, *rest = line.split("\t")
                gram = tuple(gram.split(" "))
                assert len(gram) == order
                self.log[gram] = float(log)
                self.back_off[gram] = float(rest[0]) if rest else 0.0

    def probability(self, history, word):
        gram = (*history, word)
        if gram in self.log:
            return 0.0 if self.log[gram] <= -99 else 10 ** self.log[gram]
        back_off = self.back_off.get(tuple(history), 0.0)
        return (0.0 if back_off <= -99 else 10**back_off) * self.probability(history[1:], word)


@pytest.mark.parametrize("smoothing", ["mle", "kneser_ney", "modified_kneser_ney", "katz"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_file_has_the_models_distribution_and_is_read_back(smoothing, order, tmp_path):
    model = NGram.count(TEXT, order=order, vocab_size=VOCAB, smoothing=smoothing)
    path = tmp_path / "model.arpa"
    write_arpa(model, WORDS, path)
    plain = Plain(path.read_text(encoding="utf-8"))
    again, words = read_arpa(path)
    assert words == tuple(WORDS)
    for history in histories(order):
        expected = model.distribution(history)
        spelt = [WORDS[token] for token in history]
        found = [plain.probability(spelt, word) for word in WORDS]
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(again.distribution(history), expected, rtol=1e-7, atol=1e-9)


def test_a_file_by_hand(tmp_path):
    path = tmp_path / "hand.arpa.gz"
    path.write_bytes(gzip.compress(HAND.encode()))
    model, words = read_arpa(path)
    assert words == ("<s>", "a", "b", "c")
    np.testing.assert_allclose(model.distribution([]), [0, 0.5, 0.25, 0.25], atol=1e-6)
    np.testing.assert_allclose(model.distribution([1]), [0, 0.25, 0.625, 0.125], atol=1e-5)
    np.testing.assert_allclose(model.distribution([2]), [0, 0.5, 0.25, 0.25], atol=1e-6)
    expected = [math.log(0.5), math.log(0.625), math.log(0.25)]
    np.testing.assert_allclose(model.log_probs([1, 2, 3], context=[0]), expected, atol=1e-5)


@pytest.mark.parametrize(
    "old, new, message",
    [
        (HAND, "", "line 1 it does not say how many m-grams"),
        ("ngram 1=4", "ngram 1=400000000000000", "line 13 only 4 of its 400000000000000 1-grams"),
        ("ngram 1=4\n", "", "line 4 it does not say"),
        ("-0.20412 a b", "-0.20412 a z", "line 14 '-0.20412 a z' is not one of its 2 2-grams"),
        ("-0.20412 a b", "nan a b", "line 14 'nan a b' is not"),
        ("-0.20412 a b", "-0.2 a b 0 0", "line 14 '-0.2 a b 0 0' is not"),
        ("-0.20412 a b", "-0.30103 <s> a", "a 2-gram before is there twice"),
        ("-0.60206 c", "-0.60206 b", "a 1-gram before is there twice"),
        ("-0.30103 <s> a\n\n\\end\\\n", "", "line 15 only 1 of its 2 2-grams are there"),
    ],
)
def test_damage_is_named_with_its_line(old, new, message, tmp_path):
    path = tmp_path / "damaged.arpa"
    path.write_text(HAND.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=rf"not a whole ARPA file.*{message}"):
        read_arpa(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"\x1f\x8b\x08 damaged"])
def test_a_file_that_cannot_be_read_is_one_line(content, tmp_path):
    path = tmp_path / "model.arpa"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.arpa"):
        read_arpa(path)


@pytest.mark.parametrize(
    "smoothing, word, message",
    [("add_k", "d", "which add_k does not"), ("katz", " ", "' ' cannot be a word"),
     ("katz", "", "'' cannot be"), ("katz", "a\nb", "cannot be a word of an ARPA file")],
)  # fmt: skip
def test_what_the_format_cannot_hold_is_refused(smoothing, word, message, tmp_path):
    model = NGram.count([0, 1, 0], order=2, vocab_size=2, smoothing=smoothing)
    with pytest.raises(InputError, match=message):
        write_arpa(model, ["a", word], tmp_path / "model.arpa")
    assert not list(tmp_path.iterdir())
