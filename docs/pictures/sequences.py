"""Pictures of recurrent networks, memory, language models, decoding and attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dlcore import decode, losses
from dlcore.check import gradient_by_distance
from dlcore.check.recurrent import GATES
from dlcore.data.text import keep_probabilities
from dlcore.evaluation import persistence, seasonal_naive
from dlcore.metrics import translation_scores
from dlcore.models.embedding import sif_weights
from dlcore.models.text import NGram
from dlcore.nn import attention, recurrent
from dlcore.nn.recurrent import turing
from dlcore.nn.recurrent.cell import Hooks
from pictures.drawing import COLOURS, add, axes, curves, numbers, picture


def _gates(name: str) -> Figure:
    """The gates of one unit of a cell whose weights were set by hand, over a pulse and a reset."""
    cell = recurrent.cell(name, 1)
    params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0), 2))
    # Inputs: a value to keep, and an order to take it in. Gates by their places in the kernels.
    x = np.zeros((1, 30, 2), np.float32)
    x[0, 5:7] = (1.0, 1.0)
    x[0, 10:14, 0] = -1.0  # a value without the order, which should be overlooked
    x[0, 20:22] = (-1.0, 1.0)
    value, order = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    kernel, bias = params["input_kernel"], params["bias"]
    if name == "lstm":  # input, forget, candidate, output
        columns = [12 * order, -12 * order, 3 * value, 0 * order]
        bias = bias + jnp.array([-6.0, 6.0, 0.0, 4.0])
    else:  # reset, update, candidate
        columns = [0 * order, 12 * order, 3 * value]
        bias = bias + jnp.array([0.0, -6.0, 0.0])
    assert kernel.shape[1] == len(columns), "the order of a cell's gates has changed"
    params = params | {"input_kernel": jnp.stack(columns, 1), "bias": bias}
    hooks, rule = Hooks(lambda name, h: h @ params[name]), GATES[type(cell)]
    prepared = cell.prepare(params, cell.init_state(), jnp.asarray(x).swapaxes(0, 1), None, False)
    carry, shown, outputs = cell.initial_carry(1), [], []
    for projected in prepared:
        gates = rule(cell, params, carry, projected)
        shown.append({gate: float(value[0, 0]) for gate, value in gates.items()})
        carry, y = cell.step(params, carry, projected, hooks)
        outputs.append(float(y[0, 0]))
    figure, found = axes(1, 3, height=3.6)
    found[0].step(range(30), x[0], where="mid", label=["value", "take it"])
    for gate in shown[0]:
        values = [one[gate] for one in shown]
        found[1].step(range(30), values, where="mid", label=f"{gate} gate")
    found[2].step(range(30), outputs, where="mid", color="black", label="output")
    for ax in found:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        ax.set_ylim(-1.15, 1.15)
    for ax in found[:2]:
        ax.set_xticks([])
    found[2].set_xlabel("step")
    return figure


for _name, _terms in {"lstm": ("LSTM", "Gate"), "gru": ("GRU",)}.items():
    add(
        f"gates_{_name}",
        _terms,
        f"Thirty steps of one unit of {'an LSTM' if _name == 'lstm' else 'a GRU'} with weights set "
        "by hand: inputs, gates and output. Where the input orders it, the gates let the value in; "
        "between the orders the output stays as it is, whatever the value.",
        functools.partial(_gates, _name),
    )


@picture(
    "Vanishing gradient",
    alt="The norm of the gradient over 60 steps back, logarithmic: with recurrent matrices of "
    "norm 0.7 it vanishes, with 1.0 it shrinks, with a ReLU and 1.1 it explodes, and an "
    "LSTM keeps more.",
)
def vanishing() -> Figure:
    figure, (ax,) = axes(height=2.6)
    x = 0.3 * jax.random.normal(jax.random.key(0), (8, 60, 8))
    for label, name, options, scale in (
        ("tanh, 0.7", "rnn", {}, 0.7),
        ("tanh, 1.0", "rnn", {}, 1.0),
        ("ReLU, 1.1", "irnn", {}, 1.1),
        ("LSTM", "lstm", {}, None),
    ):
        cell = recurrent.cell(name, 32, **options)
        params = cell.init(jax.random.key(1), 8)
        if scale is not None:
            q, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(2), (32, 32)))
            params = params | {"recurrent_kernel": scale * (jnp.eye(32) if name == "irnn" else q)}
        norms = gradient_by_distance(cell, params, x, key=jax.random.key(3))
        ax.semilogy(norms, label=label)
    ax.set(xlabel="steps back", ylabel="norm of the gradient")
    ax.legend()
    return figure


@picture(
    "Sequence loss",
    alt="Two sequences of losses in a table, of five and of three real steps; padding is "
    "hatched grey and takes no part: the mean is the sum of eight losses divided by 8.",
)
def sequence_loss() -> Figure:
    figure, (ax,) = axes(height=1.4)
    table = np.array([[2, 1, 3, 2, 2], [1, 2, 3, 0, 0]], float)
    fills = [["#dcefe6"] * 5, ["#dcefe6"] * 3 + ["#cccccc"] * 2]
    numbers(ax, table, "(2 + 1 + 3 + 2 + 2 + 1 + 2 + 3) / 8 = 2", colours=fills)
    return figure


@picture(
    "Neural Turing machine",
    alt="Four rows of bars over twelve places of a memory: what content finds, mixed with the "
    "address before, moved one place on, and sharpened.",
)
def addressing() -> Figure:
    rng = np.random.default_rng(0)
    memory = jnp.asarray(rng.normal(size=(1, 6, 12)), jnp.float32)
    key = memory[:, None, :, 4] + 0.5 * jnp.asarray(rng.normal(size=(1, 1, 6)), jnp.float32)
    cosines = turing.cosine_similarity(key, memory)
    before = jax.nn.one_hot(jnp.array([[9]]), 12)
    one = jnp.ones((1, 1))
    stay, on = jnp.array([[[0.0, 1.0, 0.0]]]), jnp.array([[[0.0, 0.2, 0.8]]])
    shown = {
        "by content": turing.address(cosines, before, 6 * one, one, stay, one),
        "half as before": turing.address(cosines, before, 6 * one, 0.5 * one, stay, one),
        "one place on": turing.address(cosines, before, 6 * one, 0.5 * one, on, one),
        "sharpened": turing.address(cosines, before, 6 * one, 0.5 * one, on, 3 * one),
    }
    figure, found = axes(1, 4, height=3.4)
    for ax, (title, weights) in zip(found, shown.items(), strict=True):
        ax.bar(range(12), np.asarray(weights)[0, 0])
        ax.set(ylim=(0, 1), xticks=[], yticks=[])
        ax.set_ylabel(title, rotation=0, ha="right", va="center")
    found[-1].set(xlabel="row of the memory", xticks=range(12))
    return figure


@picture(
    "Time series forecasting",
    alt="A wave with noise, and what follows it after a line; two simple forecasts: the last "
    "value, and the value one period ago, which is close.",
)
def forecasting() -> Figure:
    rng = np.random.default_rng(3)
    time = np.arange(72)
    series = np.sin(2 * np.pi * time / 16) + 0.15 * rng.normal(size=72)
    context = series[None, :48, None]
    figure, (ax,) = axes(height=2.3)
    ax.plot(time, series, color="black", label="series")
    for name, forecast in (
        ("last value", persistence(24)),
        ("a period ago", seasonal_naive(24, 16)),
    ):
        ax.plot(time[48:], np.asarray(forecast(context)).reshape(24, -1)[:, 0], "--", label=name)
    ax.axvline(47.5, color="#888888", linestyle=":")
    ax.set_xlabel("step")
    ax.legend(loc="lower left")
    return figure


@functools.cache
def _text() -> tuple[str, list[str], np.ndarray]:
    text = (__doc__ + "\n" + functools.__doc__ + jax.numpy.einsum.__doc__).lower()
    letters = sorted({*text})
    return text, letters, np.array([letters.index(letter) for letter in text])


@picture(
    "Language model",
    "n-gram model",
    "Perplexity",
    alt="The sentence 'this is the function' with a bar for each letter: how surprised a 4-gram "
    "model of letters is by it, in bits; letters within words are expected, first letters "
    "surprise.",
)
def surprise() -> Figure:
    _, letters, tokens = _text()
    model = NGram.count(tokens, order=4, vocab_size=len(letters))
    sentence = " this is the function"
    ids = np.array([letters.index(letter) for letter in sentence])
    bits = [
        -np.log2(model.distribution(ids[max(0, i - 3) : i])[ids[i]]) for i in range(1, len(ids))
    ]
    figure, (ax,) = axes(height=2.1)
    ax.bar(range(len(bits)), bits)
    ax.hlines(np.mean(bits), -0.5, len(bits) - 0.6, color=COLOURS[1], linestyle="--")
    mean = float(np.mean(bits))
    told = f"mean {mean:.1f} bits:\nperplexity\n{2**mean:.1f}"
    ax.text(len(bits) - 0.4, mean, told, va="center", fontsize=9)
    ax.set(xticks=range(len(bits)), ylabel="bits", xlim=(-0.7, len(bits) + 3))
    ax.set_xticklabels([letter.replace(" ", "_") for letter in sentence[1:]])
    return figure


@picture(
    "Beam search",
    "Greedy decoding",
    "Error analysis of beam search",
    alt="A tree of two steps: from the start a has probability 0.5 and b 0.4; after a the best "
    "is 0.4, after b it is 0.9. Greedy search takes a and ends at 0.20; a beam of 2 keeps "
    "both and finds b, 0.36.",
)
def beam() -> Figure:
    first, second = (
        np.array([0.5, 0.4, 0.1]),
        np.array([[0.4, 0.35, 0.25], [0.05, 0.05, 0.9], [0.4, 0.3, 0.3]]),
    )
    table = jnp.log(jnp.asarray(np.concatenate([[first], second])))

    def next_token(carry: jax.Array, token: jax.Array) -> tuple:
        row = jnp.where(carry == 0, 0, token + 1)
        going_on = jnp.pad(table[row], ((0, 0), (0, 1)), constant_values=-jnp.inf)
        ending = jnp.array([-jnp.inf, -jnp.inf, -jnp.inf, 0.0])
        return carry + 1, jnp.where((carry == 2)[:, None], ending, going_on)

    start = jnp.zeros(1, jnp.int32)
    ways = {
        width: decode.beam_search(next_token, start, start, end=3, width=width, steps=3)
        for width in (1, 2)
    }
    figure, (ax,) = axes(height=2.9, bare=True)
    places = {}
    for i, p in enumerate(first):
        places[i] = (1.5, 7.5 - 3 * i)
        for j, q in enumerate(second[i]):
            places[i, j] = (3, 8.5 - 3 * i - j)
            ax.plot(*zip(places[i], places[i, j], strict=True), color="#bbbbbb", linewidth=0.8)
            ax.text(
                3.1, places[i, j][1], f"{'abc'[i]}{'abc'[j]}  {p * q:.3f}", va="center", fontsize=9
            )
        ax.plot(*zip((0, 4.5), places[i], strict=True), color="#bbbbbb", linewidth=0.8)
        ax.text(1.45, places[i][1] + 0.35, f"{'abc'[i]}  {p}", fontsize=9, ha="right")
    for (width, found), colour in zip(ways.items(), COLOURS, strict=False):
        i, j = (int(token) for token in np.asarray(found.tokens)[0, 0, :2])
        way = np.array([(0, 4.5), places[i], places[i, j]])
        ax.plot(*way.T, color=colour, linewidth=2.2, label=f"found with a beam of {width}")
    ax.set_xlim(-0.1, 4.2)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, -0.08))
    return figure


@picture(
    "Length normalisation",
    alt="Scores of outputs that lose 0.5 nats with each token, by length: the sum falls in a "
    "straight line, divided by the length to the power 0.6 it falls slowly, divided by the "
    "length it is level.",
)
def lengths() -> Figure:
    figure, (ax,) = axes(height=2.3)
    length = jnp.arange(1, 41)
    shown = {}
    for name, options in (
        ("sum", {"normalise": "none"}),
        ("power 0.6", {"normalise": "power", "alpha": 0.6}),
        ("GNMT, 0.6", {"normalise": "gnmt", "alpha": 0.6}),
        ("average", {"normalise": "average"}),
    ):
        shown[name] = decode.Objective(**options).score(-0.5 * length, length)
    curves(ax, length, shown, xlabel="length", ylabel="score")
    return figure


@picture(
    "BLEU",
    alt="Bars of the precisions of 1- to 4-grams of an output against its reference, and of "
    "BLEU, their geometric mean with the penalty for length.",
)
def bleu() -> Figure:
    output, reference = "the cat is sitting on the mat", "the cat is sitting on a mat today"
    words, right = output.split(), reference.split()
    precisions = []
    for n in range(1, 5):
        have = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        want = [tuple(right[i : i + n]) for i in range(len(right) - n + 1)]
        precisions.append(sum(min(have.count(g), want.count(g)) for g in {*have}) / len(have))
    score = translation_scores([output], [reference]).bleu / 100
    figure, (ax,) = axes(height=2.4)
    ax.bar(range(5), [*precisions, score], color=[COLOURS[0]] * 4 + [COLOURS[1]])
    ax.set(xticks=range(5), ylim=(0, 1), title=f"output: {output}\nreference: {reference}")
    ax.set_xticklabels(["1-grams", "2-grams", "3-grams", "4-grams", "BLEU"])
    return figure


@picture(
    "Attention",
    "Visualised attention",
    alt="Weights of attention of four output words over five input words as a table of greys: "
    "each row sums to 1, and the dark places lie where words belong together.",
)
def attending() -> Figure:
    words, written = ["im", "Jahr", "1998", "am", "Meer"], ["in", "1998", "by", "sea"]
    meaning = {"im": 0, "in": 0, "Jahr": 1, "1998": 2, "am": 3, "by": 3, "Meer": 4, "sea": 4}
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 16))
    query, key = (
        jnp.asarray([vectors[meaning[w]] + 0.4 * rng.normal(size=16) for w in side])[None, :, None]
        for side in (written, words)
    )
    weights = np.asarray(attention.attention_weights(query, key))[0, 0]
    figure, (ax,) = axes(height=2.7)
    ax.imshow(weights, vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(weights):
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                color="white" if value > 0.5 else "black")  # fmt: skip
    ax.set(xticks=range(5), yticks=range(4))
    ax.set_xticklabels(words)
    ax.set_yticklabels(written)
    return figure


@picture(
    "Transformer",
    alt="On the left the weights of causal attention: no place looks ahead. In the middle the "
    "waves of sinusoidal positions, on the right ALiBi's weights, which fade with distance.",
)
def positions() -> Figure:
    figure, found = axes(3, height=2.2)
    x = jax.random.normal(jax.random.key(0), (1, 16, 1, 8))
    flat = jnp.zeros_like(x)
    found[0].imshow(np.asarray(attention.attention_weights(x, x, causal=True))[0, 0])
    found[1].imshow(
        np.asarray(attention.sinusoidal(jnp.arange(48), 32)), aspect="auto", cmap="RdBu"
    )
    slopes, places = attention.alibi_slopes(4)[1:2], jnp.arange(16)
    weights = attention.attention_weights(flat, flat, causal=True, slopes=slopes, positions=places)
    found[2].imshow(np.asarray(weights)[0, 0])
    for ax, title in zip(found, ("causal attention", "sinusoidal", "ALiBi"), strict=True):
        ax.set(title=title, xticks=[], yticks=[])
    found[0].set(xlabel="looked at", ylabel="place")
    found[1].set(xlabel="feature", ylabel="place")
    return figure


_COUNTS = (1e6 / np.arange(1, 2001)).astype(int)


@picture(
    "Negative sampling",
    "Noise-contrastive estimation",
    alt="How often words are drawn as noise by their rank, both axes logarithmic: by their "
    "frequency, by its power 3/4, which draws rare words more often, and all alike.",
)
def noise_of_words() -> Figure:
    figure, (ax,) = axes(height=2.3)
    for power in (1.0, 0.75, 0.0):
        sampler = losses.unigram_sampler(_COUNTS, power=power)
        ax.loglog(range(1, 2001), np.exp(np.asarray(sampler.log_probs)), label=f"power {power:g}")
    ax.set(xlabel="rank of the word", ylabel="probability")
    ax.legend()
    return figure


@picture(
    "Subsampling of frequent words",
    "Sentence embedding",
    alt="Two curves by the share that a word has of a text: the probability that an occurrence "
    "is kept, and the weight of SIF; both fall for frequent words.",
)
def weights_of_words() -> Figure:
    figure, (ax,) = axes(height=2.3)
    share = _COUNTS / _COUNTS.sum()
    ax.semilogx(share, keep_probabilities(_COUNTS, threshold=1e-3, rule="program"), label="kept")
    ax.semilogx(share, sif_weights(_COUNTS), label="weight of SIF")
    ax.set(xlabel="share of the text", ylim=(0, 1.05))
    ax.legend()
    return figure


@picture(
    "Hierarchical softmax",
    alt="A binary tree of seven words: frequent words such as 'the' lie near the root, rare "
    "ones deep.",
)
def word_tree() -> Figure:
    words = ["the", "of", "and", "net", "layer", "tensor", "huffman"]
    tree = losses.huffman(np.array([60, 30, 24, 10, 8, 3, 1]))
    figure, (ax,) = axes(height=2.7, bare=True)
    paths = {w: tuple(tree.codes[i, : tree.lengths[i]]) for i, w in enumerate(words)}
    order = sorted(words, key=lambda word: paths[word])
    places = {paths[word]: float(number) for number, word in enumerate(order)}
    for depth in range(max(map(len, paths.values())), -1, -1):
        for path in {p[:depth] for p in paths.values() if len(p) > depth}:
            places[path] = (places[*path, 0] + places[*path, 1]) / 2
    for path, x in places.items():
        for code in (0, 1) if path not in paths.values() else ():
            child = places[*path, code]
            ax.plot([x, child], [-len(path), -len(path) - 1], color="#555555", linewidth=1)
            ax.text(
                (x + child) / 2,
                -len(path) - 0.5,
                code,
                fontsize=8,
                backgroundcolor="white",
                ha="center",
                va="center",
            )
    for word, path in paths.items():
        ax.text(places[path], -len(path) - 0.15, word, ha="center", va="top")
    ax.set_ylim(-max(map(len, paths.values())) - 0.6, 0.2)
    return figure


@picture(
    "GloVe",
    alt="The weight of a pair of words by how often they stand near each other: it rises with "
    "the power 3/4 up to a count of 100, and is 1 from there on.",
)
def glove_weight() -> Figure:
    figure, (ax,) = axes(height=2.1)
    counts = np.linspace(0, 200, 201)
    curves(ax, counts, {"": np.minimum(1, (counts / 100) ** 0.75)}, xlabel="count", ylabel="weight")
    return figure


@picture(
    "Cosine similarity",
    alt="Three vectors from one point: two of a small angle and different lengths, whose cosine "
    "is 0.98, and one at a right angle, whose cosine is 0.",
)
def cosine() -> Figure:
    figure, (ax,) = axes(height=2.3)
    vectors = np.array([[3.0, 1.0], [1.6, 0.9], [-0.6, 1.8]])
    similarity = turing.cosine_similarity(
        jnp.asarray(vectors[:1])[None], jnp.asarray(vectors.T)[None]
    )
    for vector, value, colour in zip(vectors, np.asarray(similarity)[0, 0], COLOURS, strict=False):
        ax.annotate("", vector, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
        ax.text(*(vector * 1.05 + 0.05), f"cosine {abs(value):.2f}", color=colour)
    ax.set(xlim=(-1.2, 4.2), ylim=(-0.2, 2.2), aspect="equal", xticks=[], yticks=[])
    return figure
