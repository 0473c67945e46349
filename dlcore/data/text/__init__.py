"""Text: vocabularies, corpora, and the readers that turn token ids into batches."""

from dlcore.data.text.corpora import Corpus as Corpus
from dlcore.data.text.corpora import LabelledText as LabelledText
from dlcore.data.text.corpora import TaggedText as TaggedText
from dlcore.data.text.corpora import load_corpus as load_corpus
from dlcore.data.text.corpora import load_labelled_text as load_labelled_text
from dlcore.data.text.corpora import load_tagged_text as load_tagged_text
from dlcore.data.text.pairs import Pairs as Pairs
from dlcore.data.text.parallel import ParallelText as ParallelText
from dlcore.data.text.parallel import load_parallel_text as load_parallel_text
from dlcore.data.text.sequences import Sequences as Sequences
from dlcore.data.text.stream import Stream as Stream
from dlcore.data.text.stream import Windows as Windows
from dlcore.data.text.token_loader import TokenLoader as TokenLoader
from dlcore.data.text.vectors import Vectors as Vectors
from dlcore.data.text.vectors import embedding_matrix as embedding_matrix
from dlcore.data.text.vectors import read_vectors as read_vectors
from dlcore.data.text.vocabulary import Vocabulary as Vocabulary
