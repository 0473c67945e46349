"""The contenders of the benchmarks of reading data, ours and theirs."""

import functools
import itertools
import math
import multiprocessing
import pathlib
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
import tqdm
from contenders import Step, megabytes
from PIL import Image
from word_vectors_contenders import embedded_corpus

BATCH = 64
CORES = 2
MIN_COUNT = 5
_CLASSES = 10
peak = functools.partial(megabytes, kind="VmHWM")


class Read(NamedTuple):
    """Describes the ids that a text became.

    Attributes:
        seconds: it took.
        distinct: words or tokens of the vocabulary.
        ids: megabytes of the ids, 0 where there are none.
        before: the most megabytes that the process took before it read.
        peak: the most that it ever took.
    """

    seconds: float
    distinct: int
    ids: float
    before: float
    peak: float


def make_jpegs(folder: pathlib.Path, count: int) -> None:
    """Writes JPEGs of about 400 x 300, parts of two photographs, by class."""
    from dlcore.data.pictures import PHOTOGRAPHS, photograph

    rng = np.random.default_rng(0)
    whole = [photograph(name) for name in PHOTOGRAPHS]
    for number in tqdm.tqdm(range(count), desc="making images", delay=2, leave=False):
        width, height = int(rng.integers(360, 441)), int(rng.integers(270, 331))
        zoom = rng.uniform(0.5, 0.9) * min(427 / height, 640 / width)
        wide, tall = round(width * zoom), round(height * zoom)
        top, left = int(rng.integers(0, 428 - tall)), int(rng.integers(0, 641 - wide))
        part = whole[number % 2][top : top + tall, left : left + wide]
        image = Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC)
        held_out = "test" if number % 25 < 1 else "train"
        own = folder / held_out / f"class_{number // 25 % _CLASSES}"
        own.mkdir(parents=True, exist_ok=True)
        image.save(own / f"{number:05}.jpg", quality=90)


def load(path: pathlib.Path, side: int, *, in_memory: bool) -> Any:
    """Our data set of a folder."""
    from dlcore.data import load_images

    most = {} if in_memory else {"in_memory_bytes": 0}
    return load_images(data_path=path, image_size=side, allow_empty=True, **most)


def our_images(*, path: pathlib.Path, side: int, in_memory: bool) -> Step:
    """The next batch of a folder by our loader, augmented as a training step does."""
    import jax

    from dlcore import runtime
    from dlcore.data import Loader
    from dlcore.nn.augment import augmentation

    runtime.configure()
    batches = Loader(load(path, side, in_memory=in_memory).train, BATCH, seed=0).batches()
    augment = jax.jit(augmentation("resized_crop,flip"))
    key = jax.random.key(0)
    numbers = itertools.count()

    def step() -> None:
        own = jax.random.fold_in(key, next(numbers))
        jax.block_until_ready(augment(own, next(batches))["image"])

    return step


class _Jpegs:
    """The images of a folder as a data set of PyTorch: a random part, resized, mirrored or not."""

    def __init__(self, path: pathlib.Path, side: int):
        self._files = sorted((path / "train").rglob("*.jpg"))
        self._side = side

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        import torch

        file = self._files[index]
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        left, top, wide, tall = _part(image.width, image.height)
        image = image.crop((left, top, left + wide, top + tall))
        image = image.resize((self._side, self._side), Image.Resampling.BILINEAR)
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image))
        return pixels, int(file.parent.name.removeprefix("class_"))


def _part(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a part, as torchvision's RandomResizedCrop draws it."""
    import torch

    for _ in range(10):
        size = width * height * torch.empty(1).uniform_(0.08, 1).item()
        aspect = math.exp(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3)).item())
        wide, tall = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            top = int(torch.randint(0, height - tall + 1, (1,)))
            left = int(torch.randint(0, width - wide + 1, (1,)))
            return left, top, wide, tall
    return 0, 0, width, height


def their_images(*, path: pathlib.Path, side: int, workers: int) -> Step:
    """The next batch of PyTorch's DataLoader, as floats."""
    import torch

    # A process that is to end with its parent may not have any of its own.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    loader: Any = torch.utils.data.DataLoader(
        _Jpegs(path, side),  # type: ignore[arg-type]
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
    )
    batches = itertools.chain.from_iterable(loader for _ in itertools.count())

    def step() -> None:
        next(batches)[0].float()

    return step


def make_text(path: pathlib.Path, source: str | None, megabytes: int) -> None:
    """Writes so much text: that of a file, or the embedded one, again and again."""
    if source is None:
        part = "".join(f"{line}\n" for line in embedded_corpus()).encode()
    else:
        part = pathlib.Path(source).read_bytes()
    with open(path, "wb") as file:
        size = megabytes * 1_000_000
        while size > 0:
            size -= file.write(part[:size])


def our_words(*, path: pathlib.Path, splitter: str) -> Read:
    """The token file of the job word_vectors."""
    from dlcore.data.text import build_token_file

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        before, start = peak(), time.perf_counter()
        tokens = build_token_file(path, folder, splitter=splitter, min_count=MIN_COUNT)
        seconds = time.perf_counter() - start
        return Read(seconds, len(tokens.words), tokens.tokens.nbytes / 1e6, before, peak())


def our_tokens(*, path: pathlib.Path, level: str) -> Read:
    """The text and ids of the job language_model."""
    from dlcore.data.text import Vocabulary, load_corpus

    before, start = peak(), time.perf_counter()
    corpus = load_corpus(data_path=path)
    vocabulary = Vocabulary.build(corpus.train, level=level)
    ids = [vocabulary.encode(part) for part in (corpus.train, corpus.valid, corpus.test)]
    seconds = time.perf_counter() - start
    return Read(
        seconds,
        len(vocabulary),
        sum(part.nbytes for part in ids) / 1e6,
        before,
        peak(),
    )


def gensim_words(*, path: pathlib.Path) -> Read:
    """gensim's vocabulary of a file of sentences."""
    from gensim.models import Word2Vec
    from gensim.models.word2vec import LineSentence

    # Its tables come after the counts, and are no part of a vocabulary.
    model = Word2Vec(vector_size=1, min_count=MIN_COUNT)
    before, start = peak(), time.perf_counter()
    model.build_vocab(LineSentence(path))
    return Read(time.perf_counter() - start, len(model.wv), 0, before, peak())


def tokenizers_words(*, path: pathlib.Path) -> Read:
    """Hugging Face's vocabulary of a file, of words between white space."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.WordLevelTrainer(
        vocab_size=1 << 31, min_frequency=MIN_COUNT, show_progress=False
    )
    before, start = peak(), time.perf_counter()
    tokenizer.train([str(path)], trainer)
    seconds = time.perf_counter() - start
    return Read(seconds, tokenizer.get_vocab_size(), 0, before, peak())
