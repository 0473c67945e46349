"""Text: corpora, vocabularies, and the splits and loaders that turn token ids into batches."""

from dlcore.data.text.byte_pairs import BytePairs
from dlcore.data.text.cooccurrence import count_cooccurrences, open_cooccurrences
from dlcore.data.text.corpora import (
    Corpus,
    LabelledText,
    TaggedText,
    load_corpus,
    load_labelled_text,
    load_tagged_text,
)
from dlcore.data.text.pairs import Pairs
from dlcore.data.text.parallel import ParallelText, load_copied_text, load_parallel_text
from dlcore.data.text.phrases import Phrases, find_phrases
from dlcore.data.text.scored_pairs import (
    PairSplit,
    ScoredPair,
    ScoredText,
    load_scored_pairs,
    word_overlap,
)
from dlcore.data.text.sequences import Sequences
from dlcore.data.text.splitting import Lines, sentences
from dlcore.data.text.stream import Stream, Windows
from dlcore.data.text.subwords import subword_ids
from dlcore.data.text.token_file import TokenFile, build_token_file, open_token_file
from dlcore.data.text.token_loader import TokenLoader
from dlcore.data.text.vectors import Vectors, embedding_matrix, read_vectors, write_vectors
from dlcore.data.text.vocabulary import Vocabulary
from dlcore.data.text.word_stream import WordStream, held_out_pairs, keep_probabilities

__all__ = [
    "BytePairs",
    "Corpus",
    "LabelledText",
    "Lines",
    "PairSplit",
    "Pairs",
    "ParallelText",
    "Phrases",
    "ScoredPair",
    "ScoredText",
    "Sequences",
    "Stream",
    "TaggedText",
    "TokenFile",
    "TokenLoader",
    "Vectors",
    "Vocabulary",
    "Windows",
    "WordStream",
    "build_token_file",
    "count_cooccurrences",
    "embedding_matrix",
    "find_phrases",
    "held_out_pairs",
    "keep_probabilities",
    "load_copied_text",
    "load_corpus",
    "load_labelled_text",
    "load_parallel_text",
    "load_scored_pairs",
    "load_tagged_text",
    "open_cooccurrences",
    "open_token_file",
    "read_vectors",
    "sentences",
    "subword_ids",
    "word_overlap",
    "write_vectors",
]
