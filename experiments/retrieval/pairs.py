"""Pairs of a picture and a caption, and what is looked for among them.

Shapes: M pairs, n gathered ones, T tokens of a caption, P pictures, C different captions, D numbers
of an embedding, V words.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from dlcore.data import Split
from dlcore.data.captions import Captioned
from dlcore.data.sources import Batch
from dlcore.data.text import Vocabulary
from dlcore.errors import InputError
from dlcore.launch.text import encode
from dlcore.metrics import best_ranks, inner_products, rank_scores
from dlcore.metrics.ranks import blocks_of_rows

# Directions of retrieval, by what a query is and what it looks for.
TO_TEXT, TO_IMAGE = "image_to_text", "text_to_image"


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A split of pairs.

    Attributes:
        images: the P pictures.
        tokens: int32 [M, T], the captions, padded with id 0.
        sizes: int32 [M], the lengths of the captions. (A split of `lengths` would be sorted by
            them, and the negatives of a batch would all be as long as the caption.)
        pictures: int32 [M], the number of the picture.
        captions: int32 [M], equal where the tokens are.
    """

    images: Split
    tokens: np.ndarray
    sizes: np.ndarray
    pictures: np.ndarray
    captions: np.ndarray

    @classmethod
    def of(cls, data: Captioned, vocabulary: Vocabulary, limit: int) -> "Pairs":
        """Returns the pairs of captioned pictures, of which at most `limit` tokens are read."""
        numbers, texts = data.pairs
        tokens, lengths = padded(texts, vocabulary, limit)
        _, captions = np.unique(tokens, axis=0, return_inverse=True)
        return cls(
            data.images, tokens, lengths, numbers.astype(np.int32), captions.astype(np.int32)
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def gather(self, indices: np.ndarray) -> Batch:
        """Gathers the pairs at `indices` [n]."""
        return {
            "image": self.images.gather(self.pictures[indices])["image"],
            "tokens": self.tokens[indices],
            "length": self.sizes[indices],
            "picture": self.pictures[indices],
            "caption": self.captions[indices],
        }

    def subset(self, indices: np.ndarray) -> "Pairs":
        """Returns the pairs at `indices` [n] alone, of the same pictures."""
        return dataclasses.replace(
            self,
            tokens=self.tokens[indices],
            sizes=self.sizes[indices],
            pictures=self.pictures[indices],
            captions=self.captions[indices],
        )


def padded(
    texts: Sequence[str], vocabulary: Vocabulary, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids of one or more texts, int32 [M, T] padded with 0, and their lengths.

    T is the length of the longest, or `limit`, at which texts are cut off.
    """
    ids = [encode(vocabulary, text)[:limit] for text in texts]
    lengths = np.array([*map(len, ids)], np.int32)
    tokens = np.zeros((len(texts), lengths.max()), np.int32)
    for row, own in zip(tokens, ids, strict=True):
        row[: len(own)] = own
    return tokens, lengths


@dataclasses.dataclass(frozen=True)
class Setting:
    """The pictures and captions of a split that are looked for, each of them once.

    Attributes:
        pictures: (P,), a pair of each picture.
        captions: (C,), a pair of each different text.
        texts: the C texts.
        relevant: (M', 2), the numbers of a picture and of a text of it.
    """

    pictures: np.ndarray
    captions: np.ndarray
    texts: tuple[str, ...]
    relevant: np.ndarray

    @classmethod
    def of(cls, data: Captioned, name: str) -> "Setting":
        """Returns the setting of a split.

        Raises:
            InputError: where there are not two pictures and two texts to choose among.
        """
        numbers, texts = data.pairs
        _, pictures = np.unique(numbers, return_index=True)
        different, captions, which = np.unique(
            np.array(texts, object), return_index=True, return_inverse=True
        )
        if len(pictures) < 2 or len(different) < 2:
            raise InputError(
                f"the {name} part has {len(pictures)} pictures with {len(different)} different "
                "captions; to look for one among others it needs two of each or more"
            )
        relevant = np.unique(np.stack([numbers, which], 1), axis=0)
        return cls(pictures, captions, tuple(different.tolist()), relevant)

    def ranks(self, pictures: np.ndarray, captions: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the ranks, from 1 on, in each direction, (P,) and (C,).

        Args:
            pictures: (P, D), whose inner products with the captions are the scores.
            captions: (C, D).
        """
        return {
            TO_TEXT: best_ranks(
                inner_products(pictures, captions), self.relevant, len(self.pictures)
            ),
            TO_IMAGE: best_ranks(
                inner_products(captions, pictures), self.relevant[:, ::-1], len(self.captions)
            ),
        }

    def ranks_by_words(self, words: Sequence[Sequence[str]], seed: int) -> dict[str, np.ndarray]:
        """Returns the ranks where a picture and a text are as close as their words.

        The score is the share of words that two texts have in common (Dice 1945: twice their
        number by the sum of both). Many texts have the same score; chance decides among them.

        Args:
            words: of the caption that each of the P pictures is taken to have.
            seed: of the chance.
        """
        texts = [text.lower().split() for text in self.texts]
        ids = {
            word: place
            for place, word in enumerate(sorted({w for part in (*words, *texts) for w in part}))
        }

        def bags(parts: Sequence[Sequence[str]]) -> np.ndarray:
            bags = np.zeros((len(parts), len(ids)), np.float32)
            for row, part in enumerate(parts):
                bags[row, [ids[word] for word in part]] = 1
            return bags

        pictures, captions = bags(words), bags(texts)

        def scores(queries: np.ndarray, gallery: np.ndarray) -> Iterator[np.ndarray]:
            rng = np.random.default_rng(seed)
            sizes = gallery.sum(1)
            for rows in blocks_of_rows(len(queries), len(gallery)):
                common = queries[rows] @ gallery.T
                dice = 2 * common / (queries[rows].sum(1, keepdims=True) + sizes[None])
                # Two shares of texts of fewer than 1000 words differ by more than this.
                yield dice + 1e-7 * rng.random(dice.shape)

        return {
            TO_TEXT: best_ranks(scores(pictures, captions), self.relevant, len(pictures)),
            TO_IMAGE: best_ranks(scores(captions, pictures), self.relevant[:, ::-1], len(captions)),
        }


def scores_of(ranks: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns recalls and median ranks of each direction, and the sum of the six recalls.

    The sum is what Faghri et al. (2018) choose their models by.
    """
    found = {
        f"{direction}_{name}": value
        for direction, own in ranks.items()
        for name, value in rank_scores(own).items()
    }
    total = sum(value for name, value in found.items() if "_recall_at_" in name)
    return {**found, "recall_sum": total}
