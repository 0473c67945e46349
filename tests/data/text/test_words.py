"""Words in the scripts of many languages."""

import random
import re
import unicodedata

import pytest

from dlcore.data.text import Vocabulary
from dlcore.data.text.splitting import find_splitter
from dlcore.data.text.words import find_letters, find_tokens, find_words
from dlcore.errors import InputError

# The rules for text whose characters all have a width of their own.
PLAIN = {
    find_words: re.compile(r"\w+(?:['’]\w+)*"),
    find_letters: re.compile(r"[^\W\d_]+"),
    find_tokens: re.compile(
        r"<(?:unk|eos)>|\w+(?:'\w+)*|'(?:s|re|ve|ll|d|m)\b|(?P<other>[^\w\s])(?P=other)*"
    ),
}
WHOLE = {
    "Hindi": "हिन्दी में लिखा हुआ",
    "Tamil": "தமிழ் மொழி",
    "Thai": "ภาษาไทยได้ คำที่",
    "decomposed Vietnamese": unicodedata.normalize("NFD", "Tiếng Việt có dấu"),
    "Hebrew with points": "שָׁלוֹם עוֹלָם",
    "Arabic with vowels": "كِتَابٌ جَدِيدٌ",
    "Persian with ZWNJ": "می‌خواهم کتاب‌ها",
    "Sinhala with ZWJ": "ශ්‍රී ලංකා",
    "lower-cased Turkish": "İstanbul İzmir".lower(),
    "soft hyphens": "in\u00adfor\u00adma\u00adtion the\u00adory",
    "a mark of direction": "abc\u200fdef ghi",
    "composed": "Été naïve Straße 東京 слово",
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("find", PLAIN)
def test_words_of_a_language_stay_whole(text: str, find) -> None:
    assert find(text) == text.split()


@pytest.mark.parametrize("name", ["words", "letters"])
def test_splitters_and_vocabularies_keep_words_whole(name: str) -> None:
    text = "\n".join(WHOLE.values())
    assert [word for line in text.split("\n") for word in find_splitter(name)(line)] == text.split()
    assert set(text.lower().split()) < {*Vocabulary.build(text, lower=True).tokens}


@pytest.mark.parametrize("find", PLAIN)
def test_text_without_marks_is_split_as_by_python(find) -> None:
    rng = random.Random(0)
    strange = [
        chr(code)
        for code in range(0x30000)
        if unicodedata.category(chr(code)) not in ("Mn", "Mc", "Me", "Cf", "Cn", "Cs")
        and code != 10
    ]
    usual = [
        *"abc019_''’..--,  <>é²½\u00a0\x1c\x85\u2028\t",
        "<unk>",
        "<eos>",
        "'s",
        "'re",
        "don't",
    ]
    for _ in range(3000):
        drawn = (rng.choice(rng.choice((strange, usual))) for _ in range(rng.randint(1, 12)))
        line = "".join(drawn)
        assert find(line) == [match[0] for match in PLAIN[find].finditer(line)], ascii(line)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I ❤️❤️ it... ok", ["I", "❤️❤️", "it", "...", "ok"]),
        ("don't 'tis dogs' they 're", ["don't", "'", "tis", "dogs", "'", "they", "'re"]),
        ("\u0301a <unk>b", ["\u0301", "a", "<unk>", "b"]),
    ],
)
def test_tokens_beside_words(text: str, tokens: list[str]) -> None:
    assert find_tokens(text) == tokens


@pytest.mark.parametrize(
    "text",
    [
        " = Robert <unk> = \n \n He won the 2 @-@ year , 10 @,@ 000 @.@ 5 prize . \n",
        "N years ' <unk> do n't U.S. $ N-a-share\nmr. <unk> --\n",
        "हिन्दी ,\n",
    ],
)
def test_tokens_that_are_split_already_stay_as_they_are(text: str) -> None:
    vocabulary = Vocabulary.build(text, level="space")
    lines = [line.split() for line in text.split("\n")[:-1]]
    assert vocabulary.split(text) == [token for line in lines for token in (*line, "\n")]
    # As the field counts: the tokens of each line, and its end.
    assert len(vocabulary.encode(text)) == sum(len(line) + 1 for line in lines)
    spaced = "".join(" ".join(line) + "\n" for line in lines)
    assert vocabulary.decode(vocabulary.encode(text)) == spaced


@pytest.mark.parametrize(
    ("level", "text"), [("word", "a b a, b a\n"), ("space", "a b a b a\n"), ("char", "ababa")]
)
def test_a_count_that_no_token_reaches_is_refused(level: str, text: str) -> None:
    with pytest.raises(InputError, match="no token occurs 4 times, the most frequent 3 times"):
        Vocabulary.build(text, level=level, min_count=4, size=99)
    with pytest.raises(InputError, match="no token occurs 3 times"):
        Vocabulary.of_tokens(["x", "y", "x"], min_count=3)
    assert Vocabulary.build(text, level=level, min_count=3).tokens[2:] == ("a",)
