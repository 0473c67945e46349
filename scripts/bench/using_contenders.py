"""Uses of a trained model, ours and the peers', as steps for `contenders`.

All weights are random. They change no speed but that of a search which ends early: none may.
"""

import os

import numpy as np
from contenders import Step

CORES = 2
# The smallest GPT-2 (Radford et al. 2019).
GPT2 = {"features": 768, "layers": 12, "heads": 12, "vocabulary": 50_257, "context": 1024}
PROMPT = 32


def _prompts(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, GPT2["vocabulary"], (batch, PROMPT))


def our_language(*, batch: int, tokens: int) -> Step:
    """Greedy tokens after a prompt, as the job language_model samples them."""
    import jax
    import jax.numpy as jnp

    from dlcore import runtime
    from dlcore.decode import generate
    from dlcore.losses.output import Full
    from dlcore.models.text import LanguageModel
    from dlcore.nn.transformer import Transformer, TransformerConfig

    runtime.configure()
    blocks = TransformerConfig(
        GPT2["features"],
        GPT2["layers"],
        GPT2["heads"],
        norm="layer",
        bias=True,
        position="learned",
        context=GPT2["context"],
    )
    output = Full(np.ones(GPT2["vocabulary"]))
    model = LanguageModel(output, Transformer(blocks), GPT2["features"], tie=True)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))

    @jax.jit
    def continued(variables, prompt):
        carry = model.initial_carry(batch, PROMPT + tokens)
        carry, _, _ = model.apply(variables, prompt[:, :-1], carry=carry)
        next_token = model.reader(variables, batch)
        key = jax.random.key(0)
        return generate(next_token, carry, prompt[:, -1], key, steps=tokens, temperature=0)

    prompt = jnp.asarray(_prompts(batch))
    return lambda: jax.block_until_ready(continued(variables, prompt))


def their_language(*, batch: int, tokens: int) -> Step:
    """The same by transformers' `generate`."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(CORES)
    config = GPT2Config(
        vocab_size=GPT2["vocabulary"],
        n_positions=GPT2["context"],
        n_embd=GPT2["features"],
        n_layer=GPT2["layers"],
        n_head=GPT2["heads"],
    )
    model = GPT2LMHeadModel(config).eval()
    prompt = torch.tensor(_prompts(batch))
    options = {"attention_mask": torch.ones_like(prompt), "pad_token_id": 0, "eos_token_id": None}

    def once() -> None:
        with torch.inference_mode():
            found = model.generate(prompt, max_new_tokens=tokens, do_sample=False, **options)
        assert found.shape == (batch, PROMPT + tokens)

    return once


# The transformer of experiments/recipes/translation/multi30k.flags, its usual lengths and batch.
MULTI30K = {"features": 256, "layers": 3, "heads": 4, "vocabulary": 6000}
SENTENCES, SOURCE, TARGET, BEAM = 32, 16, 20, 5


def _sources() -> np.ndarray:
    return np.random.default_rng(0).integers(2, MULTI30K["vocabulary"], (SENTENCES, SOURCE))


def our_beam() -> Step:
    """Beam search as the job translation does it; no hypothesis may end early."""
    import functools

    import jax
    import jax.numpy as jnp
    from dlcore.experiments.translation.search import _begin

    from dlcore import runtime
    from dlcore.decode import Objective, beam_search
    from dlcore.models.text import TransformerTranslator
    from dlcore.nn.transformer import TransformerConfig

    runtime.configure()
    config = TransformerConfig(
        MULTI30K["features"], MULTI30K["layers"], MULTI30K["heads"], activation="relu", qk_norm=True
    )
    size = MULTI30K["vocabulary"]
    model = TransformerTranslator(config, size, size, shared=True)
    source = jnp.asarray(_sources())
    batch = {"source": source, "source_length": jnp.full(SENTENCES, SOURCE)}
    variables = jax.jit(model.init)(jax.random.key(0), *batch.values(), source)

    @jax.jit
    def search(variables, batch):
        next_token, carry, _ = _begin([model], [variables], batch, TARGET)
        find = functools.partial(beam_search, next_token, carry, jnp.ones(SENTENCES, jnp.int32))
        objective = Objective("average")
        return find(end=1, width=BEAM, steps=TARGET, min_length=TARGET, objective=objective)

    return lambda: jax.block_until_ready(search(variables, batch))


def their_beam() -> Step:
    """The same by transformers' `generate` with a Marian of the same shape."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.set_num_threads(CORES)
    config = MarianConfig(
        vocab_size=MULTI30K["vocabulary"],
        d_model=MULTI30K["features"],
        encoder_layers=MULTI30K["layers"],
        decoder_layers=MULTI30K["layers"],
        encoder_attention_heads=MULTI30K["heads"],
        decoder_attention_heads=MULTI30K["heads"],
        encoder_ffn_dim=4 * MULTI30K["features"],
        decoder_ffn_dim=4 * MULTI30K["features"],
        activation_function="relu",
        max_position_embeddings=64,
        scale_embedding=True,
        pad_token_id=0,
        eos_token_id=1,
        forced_eos_token_id=None,
        decoder_start_token_id=1,
    )
    model = MarianMTModel(config).eval()
    source = torch.tensor(_sources())
    lengths = {"min_new_tokens": TARGET, "max_new_tokens": TARGET}

    def once() -> None:
        with torch.inference_mode():
            found = model.generate(
                source, attention_mask=torch.ones_like(source), num_beams=BEAM, **lengths
            )
        assert found.shape == (SENTENCES, TARGET + 1)

    return once


SIDE, CLASSES = 224, 1000


def our_pictures(*, files: list[str]) -> Step:
    """Classes of JPEG files, as --predict of the job image_classification answers them."""
    import jax
    from dlcore.experiments.image_classification import Config, ImageClassification, Info

    from dlcore import runtime

    runtime.configure()
    task = ImageClassification(Config(model="resnet18"))
    names = tuple(f"class {number}" for number in range(CLASSES))
    task.info = Info(names, (SIDE, SIDE, 3), np.full(3, 118.0), np.full(3, 58.0))
    variables = jax.jit(task.init)(jax.random.key(0))
    return lambda: task.answers(files, task.predict(variables, files))


def their_pictures(*, files: list[str]) -> Step:
    """The same by PyTorch: a ResNet-18, batches of 32, and PIL."""
    import torch
    from PIL import Image
    from torch import nn

    torch.set_num_threads(CORES)

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int):
            super().__init__()
            self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
            self.short = nn.Sequential()
            if stride > 1:
                short = nn.Conv2d(before, after, 1, stride, bias=False)
                self.short = nn.Sequential(short, nn.BatchNorm2d(after))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norms[0](self.first(x)).relu_()
            return (self.norms[1](self.second(y)) + self.short(x)).relu_()

    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
    widths += [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    model = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        *[Block(*width) for width in widths],
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, CLASSES),
    ).eval()

    def read(file: str) -> torch.Tensor:
        image = Image.open(file).convert("RGB")
        scale = SIDE / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
        pixels = np.array(image.crop((left, top, left + SIDE, top + SIDE)))
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() - 118) / 58

    def once() -> None:
        with torch.inference_mode():
            for start in range(0, len(files), 32):
                batch = torch.stack([read(file) for file in files[start : start + 32]])
                model(batch).softmax(-1).numpy()

    return once


WORDS, DIMENSIONS, QUESTIONS = 30_000, 300, 2000


def _space() -> tuple[list[str], np.ndarray, list[tuple[str, str, str, str]]]:
    """Words, their vectors, and questions."""
    draw = np.random.default_rng(0)
    words = [f"word{number}" for number in range(WORDS)]
    vectors = draw.standard_normal((WORDS, DIMENSIONS), np.float32)
    asked = draw.integers(0, WORDS, (QUESTIONS, 4))
    return words, vectors, [tuple(words[row] for row in four) for four in asked]


def our_analogies() -> Step:
    """Answers to analogies, as the job word_vectors evaluates them."""
    from dlcore.evaluation import evaluate_analogies
    from dlcore.models.embedding import WordSpace

    words, vectors, questions = _space()
    space = WordSpace(words, vectors, case="ignored")
    return lambda: evaluate_analogies(space, {"all": questions})


def their_analogies(*, folder: str) -> Step:
    """The same by gensim's `evaluate_word_analogies`."""
    import pathlib

    from gensim.models import KeyedVectors

    words, vectors, questions = _space()
    keyed = KeyedVectors(DIMENSIONS)
    keyed.add_vectors(words, vectors)
    file = pathlib.Path(folder, "questions")
    file.write_text(
        ": all\n" + "".join(" ".join(four) + "\n" for four in questions), encoding="utf-8"
    )
    return lambda: keyed.evaluate_word_analogies(str(file), restrict_vocab=WORDS)


def our_neighbours() -> Step:
    """The ten nearest words of each word, as --predict answers."""
    from dlcore.models.embedding import WordSpace

    words, vectors, questions = _space()
    space, asked = WordSpace(words, vectors), [four[0] for four in questions]
    return lambda: space.neighbours(asked, count=10)


def their_neighbours() -> Step:
    """The same by gensim's `most_similar`."""
    from gensim.models import KeyedVectors

    words, vectors, questions = _space()
    keyed = KeyedVectors(DIMENSIONS)
    keyed.add_vectors(words, vectors)
    keyed.fill_norms()
    return lambda: [keyed.most_similar(four[0], topn=10) for four in questions]
