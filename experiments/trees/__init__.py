"""Trees: recursive networks that classify the nodes of trees.

By default a Tree-LSTM tells the kind of each expression in the syntax trees of the standard
library, given the words below it, which needs no network. `--data_path` takes trees in brackets,
such as the Stanford Sentiment Treebank `(3 (2 It) (4 works))`, or dependency trees in CoNLL-U: a
file, or a folder with files named train and test (or dev). `--model=rntn` is the recursive neural
tensor network (Socher et al. 2013), `nary` and `child_sum` are Tree-LSTMs (Tai et al. 2015), and
`greedy_autoencoder` finds the trees of sentences by itself (Socher et al. 2011).

    --predict=FILE --workdir=DIR
    --dataset=list_operations

`--predict` classifies the trees of a file, one a line, of dependencies with blank lines between.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlcore import launch
from dlcore.data import evaluation_batches
from dlcore.data.text import Vocabulary
from dlcore.data.text.vocabulary import UNKNOWN
from dlcore.data.trees import (
    Tree,
    Trees,
    at_most,
    joined,
    load_trees,
    parse_brackets,
    parse_dependencies,
    powers,
)
from dlcore.errors import InputError, choose
from dlcore.evaluation import BagOfWords
from dlcore.launch.answers import class_answers
from dlcore.launch.fields import LARGEST, choice, integer, names, number, switch
from dlcore.launch.text import VocabularyConfig
from dlcore.models.trees import Found, GreedyAutoencoder, TreeClassifier
from dlcore.nn.tree import TREE_CELLS
from dlcore.report import Section
from dlcore.types import (
    Aux,
    Batch,
    Mean,
    Metrics,
    Params,
    PyTree,
    TrainState,
    Variables,
    at_least_float32,
)

from .report import Classified, sections

GREEDY = "greedy_autoencoder"
_LSTM = {"model": ("child_sum", "nary")}
_GIVEN = {"model": tuple(TREE_CELLS)}  # models of trees that are given
_PRINTED = 3  # found trees
_ANSWERED = 64  # trees in a batch that is answered


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    VocabularyConfig,
    dataset="syntax_trees",
    steps=700,
    batch_size=64,
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=50,
    weight_decay=0.01,
    eval_every=350,
    min_count=2,
):
    """The configuration of a recursive network."""

    model: str = choice(
        "nary",
        (*TREE_CELLS, GREEDY),
        "how a node is computed from its children; greedy_autoencoder finds the trees by itself",
    )
    supervise: str = choice(
        "nodes",
        ("nodes", "root"),
        "labels that are learnt, of all nodes or of roots",
        when=_GIVEN,
    )
    children: int | None = integer(
        None,
        2,
        4096,
        "most children of a node; wider ones get nodes without a label between; default 2, of "
        "--model=child_sum as many as there are",
        when=_GIVEN,
    )
    hidden: int = integer(64, 1, 1 << 16, "width of the vector of a node")
    embedding_size: int = integer(64, 1, 1 << 16, "width of the vector of a word", when=_LSTM)
    dropout: float = number(0.2, 0, 1, "share of values dropped of the vectors of nodes")
    embedding_dropout: float = number(0.0, 0, 1, "share of words dropped as a whole")
    reconstruction: float = number(
        0.2,
        0,
        1,
        "weight of the error of reconstruction, beside that of the classes",
        when={"model": (GREEDY,)},
    )
    groups: tuple[str, ...] = names(
        "labels that count as one in group_accuracy, such as 0+1,3+4; other roots are left out"
    )
    nodes: bool = switch(
        False, "answer --predict with the tree and the label of each node too", free=True
    )
    top: int = integer(5, 1, LARGEST, "classes that --predict lists", free=True)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a classifier of nodes remembers.

    Attributes:
        class_names: the name of each label.
        vocabulary: of the words.
        children: the most children of a node.
        words_inside: whether inner nodes have words, as in dependency trees.
    """

    class_names: tuple[str, ...]
    vocabulary: Vocabulary
    children: int = 2
    words_inside: bool = False


class TreeNetworks(launch.Task[Config, Info]):
    """A classifier of the nodes of trees, trained by cross-entropy."""

    metric = ("accuracy", "max")
    bag_of_words: float | None = None  # accuracy at the test's roots of what knows no order

    @property
    def reads(self) -> str:  # type: ignore[override]
        """Dependency trees have several lines."""
        return "blocks" if self.info.words_inside else "lines"

    def data(self) -> launch.Data[Info]:
        config = self.config
        data = load_trees(config.dataset, data_dir=config.data_dir, data_path=config.data_path)
        for note in data.notes:
            launch.say(note)
        train = config.cut(data.train, 100)
        if data.words_inside and config.model not in _LSTM["model"]:
            raise InputError(
                f"--model={config.model} reads words at leaves only, and {data.name} has "
                "dependency trees; choose --model=child_sum or --model=nary"
            )
        vocabulary = config.vocabulary_of_tokens(
            word for tree in train for word in tree.words if word is not None
        )
        widest = max(max(map(len, tree.children())) for tree in train)
        usual = widest if config.model == "child_sum" else 2
        self.info = Info(
            data.class_names, vocabulary, max(2, config.children or usual), data.words_inside
        )
        self.groups = parse_groups(config.groups, data.class_names)
        self.tested = config.cut(data.test, 40)
        parts = {"to train on": train, "to test": self.tested}
        if data.valid is not None:
            parts["to validate with"] = config.cut(data.valid, 40)
        parts |= {name: config.cut(trees, 40) for name, trees in data.further.items()}
        wide = 0
        splits: dict[str, Trees] = {}
        for name, trees in parts.items():
            splits[name], count = self.split(trees)
            wide += count
        counts = ", ".join(f"{len(trees):,} {name}" for name, trees in parts.items())
        launch.say(
            f"{data.name}: trees {counts}; {len(data.class_names)} labels, {len(vocabulary):,} "
            f"words"
            + (f"; {wide:,} nodes have more than {self.info.children} children" if wide else "")
        )
        self.bag_of_words = self.without_order(train, self.tested)
        if self.bag_of_words is not None:
            launch.say(f"a bag of words has {self.bag_of_words:.2%} accuracy at the test's roots")
        found = self.split_data(
            splits["to train on"],
            by_steps(splits["to test"]),
            self.info,
            validation=by_steps(splits["to validate with"]) if data.valid is not None else None,
        )
        further = {name: self.passes(by_steps(splits[name])) for name in data.further}
        return dataclasses.replace(found, further=further)

    def split(self, trees: Sequence[Tree]) -> tuple[Trees, int]:
        """Returns trees as a split of arrays, and how many of their nodes were too wide."""
        info = self.info
        narrow = [at_most(tree, info.children) for tree in trees]
        classes = {name: number for number, name in enumerate(info.class_names)}
        split = Trees(
            [one.tree for one in narrow],
            info.vocabulary.encode_tokens,
            classes,
            children=info.children,
            inner_words=info.words_inside,
        )
        return split, sum(one.wide for one in narrow)

    def without_order(self, train: Sequence[Tree], test: Sequence[Tree]) -> float | None:
        """Returns the accuracy of a bag of words at the roots of the test; None without labels."""
        vocabulary, class_names = self.info.vocabulary, self.info.class_names
        numbers = {name: number for number, name in enumerate(class_names)}
        bags: list[tuple[list[np.ndarray], np.ndarray]] = []
        for trees in (train, test):
            known = [tree for tree in trees if tree.labels[tree.root] is not None]
            texts = [
                vocabulary.encode_tokens([w for w in tree.words if w is not None]) for tree in known
            ]
            wanted = [numbers.get(str(tree.labels[tree.root]), -1) for tree in known]
            bags.append((texts, np.array(wanted, np.int32)))
        (texts, labels), (tested, truth) = bags
        if not texts or not tested:
            return None
        bag = BagOfWords(texts, labels, words=len(vocabulary), classes=len(class_names))
        return float((bag(tested) == truth).mean())

    # The network.

    @property
    def greedy(self) -> bool:
        """True where the model finds the structure of trees by itself."""
        return self.config.model == GREEDY

    @functools.cached_property
    def model(self) -> TreeClassifier | GreedyAutoencoder:
        """The network."""
        config, info = self.config, self.info
        words, classes = len(info.vocabulary), len(info.class_names)
        rates = config.dropout, config.embedding_dropout
        if self.greedy:
            return GreedyAutoencoder(words, config.hidden, classes, *rates)
        lstm = config.unread("embedding_size") is None
        embedding = config.embedding_size if lstm else config.hidden
        cell = TREE_CELLS[config.model](config.hidden, info.children)
        return TreeClassifier(words, embedding, cell, classes, *rates)

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Returns the inputs of the network in a batch."""
        if self.greedy:
            return batch["words"], batch["leaves"]
        return batch["words"], batch["children"], batch.get("inner_words")

    def init(self, key: jax.Array) -> Variables:
        batch: dict[str, Any] = {
            "words": jnp.zeros((1, 2), jnp.int32),
            "leaves": jnp.full(1, 2),
            "children": jnp.zeros((1, 1, 1, self.info.children), jnp.int32),
        }
        if self.info.words_inside:
            batch["inner_words"] = jnp.zeros((1, 1, 1), jnp.int32)
        variables: Variables = self.model.init(key, *self.inputs(batch))
        return variables

    def measure(
        self, variables: Variables, batch: Batch, train: bool = False, rng: Any = None
    ) -> Metrics:
        """Returns the loss of a batch, and the accuracies.

        "accuracy" is at roots, "node_accuracy" at all nodes with a label, "group_accuracy" at the
        roots whose label is in a group of --groups, "reconstruction" the mean error of joined
        nodes.
        """
        rngs = None if rng is None else {"dropout": rng}
        found = self.model.apply(variables, *self.inputs(batch), train=train, rngs=rngs)
        weight, rows = batch["weight"], jnp.arange(len(batch["root"]))
        truth = jnp.asarray(batch["label"])[rows, batch["root"]]
        measured: Metrics = {}
        if self.greedy:
            logits = _widened(found.logits)
            at_root = logits[rows, root_places(batch["leaves"], batch["words"].shape[1])]
            measured = self.joined_loss(found, logits, truth, batch)
        else:
            logits = _widened(found[0])
            at_root = logits[rows, batch["root"]]
            measured = self.node_loss(logits, batch)
        root_weight = jnp.where(truth >= 0, weight, 0)
        right = (at_root.argmax(-1) == truth).astype(jnp.float32)
        measured["accuracy"] = Mean.of(right, root_weight)
        if self.groups:
            member = np.full(len(self.info.class_names) + 1, -1)
            for group, members in enumerate(self.groups):
                member[[*members]] = group
            scores = jax.nn.log_softmax(at_root)
            sums = [jax.nn.logsumexp(scores[:, np.array(one)], axis=-1) for one in self.groups]
            wanted = jnp.asarray(member)[truth]
            hit = (jnp.stack(sums, axis=-1).argmax(-1) == wanted).astype(jnp.float32)
            measured["group_accuracy"] = Mean.of(hit, jnp.where(wanted >= 0, root_weight, 0))
        return measured

    def node_loss(self, logits: jax.Array, batch: Batch) -> Metrics:
        """Returns the cross-entropy of the labels that are learnt, and the accuracy of all nodes.

        Args:
            logits: of all nodes, (B, N, K).
            batch: of trees.
        """
        label, rows = batch["label"], jnp.arange(len(logits))
        weight = jnp.where(label >= 0, batch["weight"][:, None], 0)
        right = (logits.argmax(-1) == label).astype(jnp.float32)
        known = label < logits.shape[-1]  # a label that training lacks has no logit
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(known, jnp.maximum(label, 0), 0)
        )
        learnt = jnp.where(known, weight, 0)
        if self.config.supervise == "root":
            losses, learnt = (part[rows, batch["root"]] for part in (losses, learnt))
        return {"loss": Mean.of(losses, learnt), "node_accuracy": Mean.of(right, weight)}

    def joined_loss(
        self, found: Found, logits: jax.Array, truth: jax.Array, batch: Batch
    ) -> Metrics:
        """Returns the loss of found trees: a mean of reconstruction and classification.

        Each joined node learns the label of its sentence (Socher et al. 2011, eq. 11-15), and of a
        sentence of one word the word.

        Args:
            found: of the autoencoder.
            logits: at least float32, (B, 2 L - 1, K).
            truth: the label of each sentence, (B,).
            batch: of trees.
        """
        length, share = batch["leaves"], self.config.reconstruction
        errors, count = _widened(found.errors), found.errors.shape[1]
        joined_real = jnp.arange(count)[None] < length[:, None] - 1
        joins = jnp.maximum(length - 1, 1).astype(errors.dtype)
        error = jnp.where(joined_real, errors, 0).sum(axis=1) / joins
        known = (truth >= 0) & (truth < logits.shape[-1])
        targets = jnp.where(known, truth, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.repeat(targets[:, None], logits.shape[1], axis=1)
        )
        of_joins = jnp.where(joined_real, losses[:, count + 1 :], 0).sum(axis=1) / joins
        entropy = jnp.where(length > 1, of_joins, losses[:, 0])
        loss = share * error + (1 - share) * jnp.where(known, entropy, 0)
        return {
            "loss": Mean.of(loss, batch["weight"]),
            "reconstruction": Mean.of(error, jnp.where(length > 1, batch["weight"], 0)),
        }

    @functools.cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The classes of each group of --groups."""
        return parse_groups(self.config.groups, self.info.class_names)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        metrics = self.measure({"params": params}, batch, train=True, rng=rng)
        return metrics.pop("loss"), Aux(model_state, metrics)

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        return self.measure({"params": state.params}, batch)

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        chance = float(np.log(len(self.info.class_names)))
        return launch.Check(chance=None if self.greedy else chance)

    def assess(self, outcome: launch.Outcome) -> launch.Outcome:
        if self.greedy:
            for tree, _ in self.classify(self.computing(outcome.variables), self.tested[:_PRINTED]):
                launch.say(f"found: {tree.brackets()}")
        if self.bag_of_words is None:
            return outcome
        return outcome.extended({}, bag_of_words_accuracy=self.bag_of_words)

    # Use.

    @functools.cached_property
    def outputs(self) -> Callable[[Variables, Batch], tuple[jax.Array, jax.Array | None]]:
        """Maps (variables, batch) to probabilities at nodes [B, N, K], and to joins if found."""

        def outputs(variables: Variables, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
            found = self.model.apply(variables, *self.inputs(batch))
            logits = found.logits if self.greedy else found[0]
            joins = found.joins if self.greedy else None
            return jax.nn.softmax(_widened(logits)), joins

        return jax.jit(outputs)

    def predict(self, variables: Variables, inputs: Sequence[str]) -> list[Classified]:
        """Returns each tree with the probabilities of the classes at its nodes.

        The inputs are texts, each of one tree, whose labels may be missing.
        """
        return self.classify(variables, [self.parse(given) for given in inputs])

    def classify(self, variables: Variables, trees: Sequence[Tree]) -> list[Classified]:
        """Returns trees, or what is found of their words, as `predict` does."""
        if not trees:
            return []
        narrow = [at_most(tree, self.info.children) for tree in trees]
        split, _ = self.split([one.tree for one in narrow])
        split.buckets = powers(split.buckets[-1])
        answers: list[Classified] = []
        for batch in evaluation_batches(split, _ANSWERED):
            found, joins = self.outputs(variables, batch)
            probabilities, leaves = np.asarray(found, np.float32), batch["words"].shape[1]
            for row, one in enumerate(probabilities[: len(trees) - len(answers)]):
                number = len(answers)
                if joins is not None:
                    answers.append(found_tree(trees[number], one, np.asarray(joins[row])))
                    continue
                nodes = np.zeros((len(trees[number]), one.shape[1]), np.float32)
                for node, place in split.places(number, leaves).items():
                    if (origin := narrow[number].origin[node]) >= 0:
                        nodes[origin] = one[place]
                answers.append(Classified(trees[number], nodes))
        return answers

    def parse(self, given: str) -> Tree:
        """Returns the tree of an input of --predict.

        Raises:
            InputError: when it is not one tree.
        """
        if self.info.words_inside:
            trees = [tree for tree, _ in parse_dependencies(given.split("\n"))]
        else:
            trees = [*parse_brackets(given)]
        if len(trees) != 1:
            what = "CoNLL-U" if self.info.words_inside else "brackets, such as (_ (_ It) (_ works))"
            raise InputError(f"{given[:60]!r} has {len(trees)} trees; give one in {what}")
        return trees[0]

    def remark(self, inputs: Sequence[str]) -> str | None:
        words = [word for given in inputs for word in self.parse(given).words if word is not None]
        unknown = int((self.info.vocabulary.encode_tokens(words) == UNKNOWN).sum())
        return f"{unknown:,} of {len(words):,} words unknown" if unknown else None

    def answers(self, inputs: Sequence[str], outputs: list[Classified]) -> list[dict[str, Any]]:
        names = self.info.class_names
        roots = np.array([found[tree.root] for tree, found in outputs])
        rows = class_answers(roots, names, self.config.top)
        if not self.config.nodes:
            return rows
        return [
            {**row, "tree": self.written(tree, [names[one] for one in found.argmax(axis=1)])}
            for row, (tree, found) in zip(rows, outputs, strict=True)
        ]

    def written(self, tree: Tree, labels: Sequence[str]) -> str:
        """Returns a tree with other labels in brackets, one of dependencies as WORD/LABEL ..."""
        if self.info.words_inside:
            pairs = zip(tree.words, labels, strict=True)
            return " ".join(f"{word}/{label}" for word, label in pairs)
        return dataclasses.replace(tree, labels=labels).brackets()

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        found = self.classify(self.computing(outcome.variables), self.tested)
        return sections(found, self.info.class_names)


def found_tree(tree: Tree, probabilities: np.ndarray, joins: np.ndarray) -> Classified:
    """Returns what an autoencoder found of the words of a tree.

    Args:
        tree: of which the leaves and the label of the root are taken.
        probabilities: of the classes at words and joined nodes, [2 L - 1, K].
        joins: places of the children of each joined node, [L - 1, 2], see `Found`.
    """
    words = tree.leaf_words()
    count, padded = len(words), len(joins) + 1
    # Padding stands between words and joined nodes.
    pairs = [
        tuple(int(place) - 1 - (padded - count) * (place > padded) for place in pair)
        for pair in joins[: count - 1]
    ]
    found, order = joined(words, pairs, tree.labels[tree.root])
    rows = [node if node < count else node + padded - count for node in order]
    return Classified(found, probabilities[rows])


def root_places(length: jax.Array, count: int) -> jax.Array:
    """Returns where the root of found trees stands among L words and the joined nodes, (B,)."""
    return jnp.where(length > 1, count + length - 2, 0)


def _widened(values: jax.Array) -> jax.Array:
    return values.astype(at_least_float32(values.dtype))


def by_steps(split: Trees) -> Trees:
    """Returns a split in the order of its trees' steps, so that batches are padded less."""
    return split.subset(np.argsort(split.lengths, kind="stable"))


def parse_groups(groups: Sequence[str], class_names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Returns the classes of each group of --groups=0+1,3+4.

    Raises:
        InputError: for an unknown label, one that is given twice, and a single group.

    >>> parse_groups(["0+1", "3+4"], "01234")
    ((0, 1), (3, 4))
    """
    if not groups:
        return ()
    listed = [name for group in groups for name in group.split("+")]
    for name in listed:
        if name not in class_names:
            raise choose("label in --groups", name, class_names)
    if len(groups) < 2 or len({*listed}) < len(listed):
        raise InputError(
            f"--groups={','.join(groups)} are not two groups or more of different labels; write "
            "something like --groups=0+1,3+4"
        )
    return tuple(tuple(class_names.index(name) for name in group.split("+")) for group in groups)
