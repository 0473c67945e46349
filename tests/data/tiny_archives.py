"""Writers of the published archives in their own formats, with a handful of examples each."""

import gzip
import io
import pathlib
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image

TRAIN, TEST = 7, 3

Example = tuple[bytes, int]
Examples = dict[str, list[Example]]


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_mnist(folder: pathlib.Path, seed: int) -> Examples:
    """The four files of MNIST or Fashion-MNIST; what they hold."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    written = {}
    for split, prefix, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count).astype(np.uint8)
        for name, header, array in (
            ("images-idx3", struct.pack(">4i", 2051, count, 28, 28), images),
            ("labels-idx1", struct.pack(">2i", 2049, count), labels),
        ):
            data = gzip.compress(header + array.tobytes())
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(data)
        written[split] = sorted(zip([i.tobytes() for i in images], labels, strict=True))
    return written


def write_cifar(folder: pathlib.Path, classes: int) -> Examples:
    """The archive of CIFAR-10 or CIFAR-100; what it holds."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(classes)
    fine, coarse = (
        "".join(f"{kind} {number}\n" for number in range(count)).encode()
        for kind, count in (("class", classes), ("group", 20))
    )
    if classes == 10:
        files = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
        names = {"batches.meta.txt": fine}
    else:
        files = {"train": ["train.bin"], "test": ["test.bin"]}
        names = {"fine_label_names.txt": fine, "coarse_label_names.txt": coarse}
    root = "cifar-10-batches-bin" if classes == 10 else "cifar-100-binary"
    written: Examples = {"train": [], "test": []}
    with tarfile.open(folder / f"cifar-{classes}-binary.tar.gz", "w:gz") as tar:
        for name, data in names.items():
            add(tar, f"{root}/{name}", data)
        for split, file_names in files.items():
            for name in file_names:
                data = b""
                for _ in range(2):
                    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
                    label = int(rng.integers(classes))
                    coarse_label = b"" if classes == 10 else bytes([label % 20])
                    data += coarse_label + bytes([label]) + image.transpose(2, 0, 1).tobytes()
                    written[split].append((image.tobytes(), label))
                add(tar, f"{root}/{name}", data)
    return {split: sorted(examples) for split, examples in written.items()}


def picture(colour: object, mode: str = "RGB", kind: str = "jpeg") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (40, 30), colour).save(file, kind)
    return file.getvalue()


# Two of the files that the stock builder mends: one is CMYK, one is a PNG.
IMAGENET = {
    "n01440764": {"n01440764_1.JPEG": picture((200, 0, 0)), "n01440764_2.JPEG": picture(90, "L")},
    "n01739381": {"n01739381_1309.JPEG": picture((0, 255, 255, 0), "CMYK")},
    "n02105855": {"n02105855_2933.JPEG": picture((0, 0, 200), kind="png")},
}


def write_imagenet(folder: pathlib.Path) -> None:
    """ImageNet's three archives: classes inside the training one, no labels in the others."""
    folder.mkdir()
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as train:
        for synset, images in IMAGENET.items():
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for name, data in images.items():
                    add(tar, name, data)
            add(train, f"{synset}.tar", inner.getvalue())
    for split in ("val", "test"):
        with tarfile.open(folder / f"ILSVRC2012_img_{split}.tar", "w") as tar:
            for number in (3, 1, 2):
                name = f"ILSVRC2012_{split}_{number:08}.JPEG"
                add(tar, name, picture((80 * number, 0, 0)))


# Texts by their classes; some have white space around them, as the published ones do.
Texts = dict[str, list[tuple[str, int]]]
IMDB: Texts = {
    "train": [("Très bien.<br /><br />Again!\n", 1), ("I slept.", 0), ("It is long.", 0)],
    "test": [("A film.", 1), ("\tOh no", 0)],
}
SST2: Texts = {
    "train": [('no "wit at all ', 0), ("a naïve charm ", 1), ("that loves its characters ", 1)],
    "dev": [("a charming journey .", 1), ("it 's slow .", 0)],
}
LM1B = {
    "training-monolingual.tokenized.shuffled/news.en-00001-of-00100": "It rains .\nA café \n",
    "training-monolingual.tokenized.shuffled/news.en-00002-of-00100": "It rains .\n",
    "heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050": "It snows .\n",
    "heldout-monolingual.tokenized.shuffled/news.en.heldout-00001-of-00050": "Why ?\n",
}


def write_imdb(folder: pathlib.Path) -> None:
    """The archive of the film reviews: a file for each, in a folder for each class."""
    folder.mkdir()
    with tarfile.open(folder / "aclImdb_v1.tar.gz", "w:gz") as tar:
        add(tar, "aclImdb/imdb.vocab", b"the\nand\n")
        for split, examples in IMDB.items():
            add(tar, f"aclImdb/{split}/labeledBow.feat", b"9 0:9 1:1\n")
            for number, (text, label) in enumerate(examples):
                name = f"aclImdb/{split}/{('neg', 'pos')[label]}/{number}_{1 + 8 * label}.txt"
                add(tar, name, text.encode())
        add(tar, "aclImdb/train/unsup/0_0.txt", b"Who knows?")


def write_sst2(folder: pathlib.Path) -> None:
    """The archive of the sentiment treebank: tables, of which the test's has no labels."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "SST-2.zip", "w") as archive:
        archive.mkdir("SST-2")
        for split, examples in SST2.items():
            rows = "".join(f"{text}\t{label}\n" for text, label in examples)
            archive.writestr(f"SST-2/{split}.tsv", "sentence\tlabel\n" + rows)
        archive.writestr("SST-2/test.tsv", "index\tsentence\n0\tuneasy mishmash .\n")
        archive.writestr("SST-2/original/README.txt", "Stanford Sentiment Treebank\n")


def write_lm1b(folder: pathlib.Path) -> None:
    """The archive of the news in one billion words: files with a sentence in each line."""
    folder.mkdir()
    root = "1-billion-word-language-modeling-benchmark-r13output"
    with tarfile.open(folder / f"{root}.tar.gz", "w:gz") as tar:
        add(tar, f"{root}/README", b"Sentences of news\n")
        for name, text in LM1B.items():
            add(tar, f"{root}/{name}", text.encode())


# Sentences and their translations by the published splits; one side of some is empty.
Parallel = dict[str, list[tuple[str, str]]]
TED: Parallel = {
    "train": [("привет", "hello"), ("", "nobody said it"), ("мир", "the world")],
    "dev": [("да", "yes")],
    "test": [("нет", "no"), ("а", "and")],
}
WMT14: Parallel = {
    "training/europarl-v7.de-en": [("Eins", "One"), ("Zwei", ""), ("Drei", "Three")],
    "commoncrawl.de-en": [("Straße\rzwei", "Street two")],
    "training/news-commentary-v9.de-en": [("Neu", "New")],
    "dev/newstest2013": [("Gut", "Good")],
    "dev/newstest2014-deen": [("Ja", "Yes"), ("Nein", "No")],
}
_WMT14_ARCHIVES = {
    "training-parallel-europarl-v7.tgz": ("training/europarl-v7.de-en",),
    "training-parallel-commoncrawl.tgz": ("commoncrawl.de-en",),
    "training-parallel-nc-v9.tgz": ("training/news-commentary-v9.de-en",),
    "dev.tgz": ("dev/newstest2013", "dev/newstest2014-deen"),
}


def write_ted(folder: pathlib.Path) -> None:
    """The archive of the talks, with a folder for each pair of languages."""
    folder.mkdir()
    with tarfile.open(folder / "qi18naacl-dataset.tar.gz", "w:gz") as tar:
        for split, pairs in TED.items():
            for language, texts in zip(("ru", "en"), zip(*pairs, strict=True), strict=True):
                name = f"datasets/ru_to_en/{language}.{split}"
                add(tar, name, "".join(f"{text}\n" for text in texts).encode())


def write_wmt14(folder: pathlib.Path) -> None:
    """The four archives of German and English: aligned lines, and one test set as SGML."""
    folder.mkdir()
    for archive, corpora in _WMT14_ARCHIVES.items():
        with tarfile.open(folder / archive, "w:gz") as tar:
            for corpus in corpora:
                for language, texts in zip(
                    ("de", "en"), zip(*WMT14[corpus], strict=True), strict=True
                ):
                    if corpus.endswith("-deen"):
                        side = "src" if language == "de" else "ref"
                        name = f"{corpus}-{side}.{language}.sgm"
                        lines = [f'<seg id="{n}">{text}</seg>' for n, text in enumerate(texts, 1)]
                        lines = ['<doc docid="1">', *lines, "</doc>"]
                    else:
                        name, lines = f"{corpus}.{language}", [*texts]
                    add(tar, name, "".join(f"{line}\n" for line in lines).encode())
