"""Polyphonic music: recurrent networks that tell the law of the next chord.

By default a GRU and a NADE on four-voice pieces that rules of counterpoint draw, which needs no
network; how far a model can come there is known. `--data_path` takes a JSON file of pieces as lists
of lists of MIDI pitches, or a folder of MIDI files. `--model` is the law of a chord: `independent`
pitches, a `nade` (RNN-NADE) or an `rnn_rbm` (Boulanger-Lewandowski et al. 2012). The loss is
-log p in nats for each step, all steps of the test counted alike; later_loss leaves the first step
of each piece out. An rnn_rbm is trained by contrastive divergence, and its loss in training is the
error of chords drawn again; its test loss is estimated by annealing, on the average too small, and
loss_above on the average too large.

A finished run composes (`--workdir=DIR --generate=64`, after a chord by `--first=C3+G3+E4+C5`) and
adds the other notes to melodies, one in each line of a file (`--workdir=DIR --predict=FILE`):

    C5 C5 D5 E5 E5 D5 C5 .
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlcore import launch
from dlcore.data.music import (
    LOWEST,
    PITCHES,
    Piece,
    Rolls,
    load_music,
    midi_bytes,
    most_notes,
    parse_chord,
    parse_piece,
    piece_text,
    to_piece,
    to_roll,
    transposed,
    voices_text,
)
from dlcore.errors import InputError
from dlcore.files import write_whole
from dlcore.launch.fields import LARGEST, LARGEST_NUMBER, choice, integer, number, text
from dlcore.launch.loading import read_summary, trained_by
from dlcore.launch.text import StackConfig
from dlcore.metrics import frame_accuracy
from dlcore.models.chords import (
    DRAWN,
    IndependentOutput,
    Law,
    Machines,
    MachinesOutput,
    NADEOutput,
    Output,
)
from dlcore.models.music import MusicModel, compose, given_notes, step_keys
from dlcore.nn.recurrent import CELLS, RecurrentStack, cell
from dlcore.nn.sequences import length_mask
from dlcore.report import Section
from dlcore.report.plots import plot_rolls
from dlcore.train.logs import writing
from dlcore.types import (
    Activations,
    Aux,
    Batch,
    Mean,
    Metrics,
    Params,
    PyTree,
    TrainState,
    Variables,
)

from . import report

MODELS = ("independent", "nade", "rnn_rbm")
_HIDDEN = {"model": ("nade", "rnn_rbm")}
_RBM = {"model": ("rnn_rbm",)}
# The options of composing, which a run may change.
COMPOSING = frozenset({"generate", "pieces", "first", "temperature"})
# Lines to complete have lengths of powers of two from this on, to share compiled programs.
_SHORTEST = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(
    launch.Config,
    StackConfig,
    dataset="counterpoint",
    steps=1000,
    batch_size=16,
    learning_rate=3e-3,
    schedule="cosine",
    clip_norm=1.0,
    eval_every=250,
):
    """The configuration of a model of polyphonic music."""

    model: str = choice("nade", MODELS, "distribution of a chord given the chords before it")
    cell: str = choice("gru", CELLS, "kind of the recurrent layers")
    layers: int = integer(1, 1, 10_000, "recurrent layers")
    hidden: int = integer(128, 1, 1 << 20, "width of a recurrent layer")
    dropout: float = number(0.2, 0, 1, "share of values dropped before, between and after layers")
    chord_hidden: int = integer(
        64, 1, 1 << 16, "hidden units between the notes of a chord", when=_HIDDEN
    )
    k: int = integer(10, 1, LARGEST, "steps of Gibbs sampling before each update", when=_RBM)
    gibbs: int = integer(
        25, 1, LARGEST, "steps of Gibbs sampling to a chord that is drawn", free=True, when=_RBM
    )
    ais_chains: int = integer(
        10, 1, LARGEST, "chains that estimate the likelihood of a chord", free=True, when=_RBM
    )
    ais_steps: int = integer(
        100, 1, LARGEST, "distributions that these chains pass through", free=True, when=_RBM
    )
    steps_per_beat: int = integer(
        1, 1, 96, "steps of a beat (a quarter note) in MIDI files that are read and written"
    )
    limit: int = integer(256, 1, LARGEST, "most steps of a piece; longer ones are cut into several")
    transpose: int = integer(
        0, 0, 60, "most semitones by which training pieces are shifted at random"
    )
    generate: int = integer(64, 0, 10_000, "steps of a composed piece; 0 composes none", free=True)
    pieces: int = integer(2, 1, 1000, "pieces to compose", free=True)
    first: str | None = text(
        None, "first chord of composed pieces, such as C3+G3+E4+C5; default drawn", free=True
    )
    temperature: float = number(
        1.0,
        0,
        LARGEST_NUMBER,
        "divisor of the log-odds of a note; 0 takes the likelier of sound and silence",
        free=True,
    )

    def shrunk(self) -> "Config":
        values: dict[str, Any] = {"generate": min(self.generate, 8), "hidden": 8}
        if not self.unread("chord_hidden"):
            values["chord_hidden"] = 4
        return dataclasses.replace(super().shrunk(), **values)


@dataclasses.dataclass(frozen=True)
class Info:
    """The facts about its data that a model remembers.

    Attributes:
        notes: the most notes of a chord.
        entropy: the least loss that is possible, in nats for each step after the first, or None.
    """

    notes: int
    entropy: float | None = None


class Music(launch.Task[Config, Info]):
    """A recurrent network that tells the law of the next chord."""

    metric = ("loss", "min")
    reads = "lines"
    asks = ("predict", "generate")

    # The data.

    def data(self) -> launch.Data[Info]:
        config = self.config
        self.opening()
        music = load_music(
            config.dataset,
            data_dir=config.data_dir,
            data_path=config.data_path,
            steps_per_beat=config.steps_per_beat,
            limit=config.limit,
        )
        for note in music.notes:
            launch.say(note)
        parts = {"train": music.train, "test": music.test, "valid": music.valid or []}
        steps = {name: sum(map(len, pieces)) for name, pieces in parts.items()}
        self.info = Info(most_notes([*music.train, *music.test, *parts["valid"]]), music.entropy)
        launch.say(
            f"{config.model} on {music.name}: {len(music.train):,} pieces of {steps['train']:,} "
            f"steps to train on, {len(parts['valid']):,} of {steps['valid']:,} to validate and "
            f"{len(music.test):,} of {steps['test']:,} to test with, at most {self.info.notes} "
            "notes together"
        )
        self.tested, self.trained = music.test, music.train
        found = self.split_data(
            Rolls(config.cut(music.train, 64)),
            by_length(Rolls(config.cut(music.test, 16))),
            self.info,
            validation=by_length(Rolls(config.cut(music.valid, 16))) if music.valid else None,
        )
        if not config.transpose:
            return found

        def batches(start: int) -> Iterator[Batch]:
            size, seed = config.batch_size, config.seed
            options: Any = {"seed": seed, "batch_size": size, **self.part()}
            return transposed(found.train(start), start, config.transpose, **options)

        return dataclasses.replace(found, train=batches)

    # The network.

    @functools.cached_property
    def model(self) -> MusicModel:
        """The network."""
        config = self.config
        body = RecurrentStack(
            tuple(cell(config.cell, config.hidden) for _ in range(config.layers)),
            residual=config.residual,
            dropout=config.dropout,
            variational=config.variational,
            state_dropout=config.state_dropout,
            candidate_dropout=config.candidate_dropout,
        )
        return MusicModel(body, self.output(), config.dropout)

    def output(self) -> Output:
        """Returns the layer that makes the law of a chord."""
        config = self.config
        if config.model == "independent":
            return IndependentOutput(PITCHES)
        if config.model == "nade":
            return NADEOutput(PITCHES, config.chord_hidden, self.info.notes)
        return MachinesOutput(
            PITCHES,
            config.chord_hidden,
            config.k,
            config.gibbs,
            config.ais_chains,
            config.ais_steps,
        )

    def init(self, key: jax.Array) -> Variables:
        variables: Variables = self.model.init(key, jnp.zeros((1, 2, PITCHES)))
        return variables

    def law(
        self, variables: Variables, batch: Batch, **options: Any
    ) -> tuple[Law, jax.Array, jax.Array, PyTree]:
        """Returns the law of each chord, the chords, the weights of the steps and the new state."""
        kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
        roll = jnp.asarray(batch["roll"]).astype(kind)
        (law, _), state = self.model.apply(variables, roll, batch["length"], **options)
        real = length_mask(batch["length"], roll.shape[1])
        return law, roll, jnp.where(real, batch["weight"][:, None], 0), dict(state)

    def loss(
        self, params: Params, model_state: PyTree, batch: Batch, rng: jax.Array
    ) -> tuple[Mean, Aux]:
        dropout, chords = jax.random.split(rng)
        law, roll, real, state = self.law(
            {"params": params, **model_state},
            batch,
            train=True,
            rngs={"dropout": dropout},
            mutable=[*model_state],
        )
        return law.loss(roll, real, chords), Aux(state, {})

    # The evaluation.

    def metrics(self, state: TrainState, batch: Batch) -> Metrics:
        variables = {"params": state.params, **state.model_state}
        law, roll, real, _ = self.law(variables, batch, mutable=[])
        keys = [
            step_keys(key, *real.shape)
            for key in jax.random.split(jax.random.key(self.config.seed), 3)
        ]
        nats = -law.log_prob(roll, keys[0])
        first = jnp.arange(real.shape[1])[None] == 0
        later = jnp.where(first, 0, real)
        drawn = law.draw(keys[1], jnp.full(roll.shape, DRAWN, jnp.int8))
        found = {
            "loss": Mean.of(nats, real),
            "later_loss": Mean.of(nats, later),
            "accuracy": frame_accuracy(drawn, roll, real),
        }
        if isinstance(law, Machines):
            found["loss_above"] = Mean.of(-law.log_prob_below(roll, keys[2]), real)
        return found

    def forward(self, variables: Variables, roll: jax.Array) -> tuple[jax.Array, Activations]:
        """Returns log p of each chord and the outputs of the layers."""
        kind = jnp.result_type(*jax.tree.leaves(variables["params"]))
        x = jnp.asarray(roll).astype(kind)
        law, activations = self.model.apply(variables, x)
        key = jax.random.key(0)
        return law.log_prob(x, jnp.broadcast_to(key, x.shape[:-1])), activations

    def checks(self, data: launch.Data[Info]) -> launch.Check:
        return launch.Check(self.forward, "roll", PITCHES * float(np.log(2)))

    # What a trained model is used for.

    def opening(self) -> jax.Array:
        """Returns what is given of the first chord of composed pieces, int8 [V].

        Raises:
            InputError: for a --first that is no chord.
        """
        first = self.config.first
        if first is None:
            return jnp.full(PITCHES, DRAWN, jnp.int8)
        try:
            return jnp.asarray(to_roll((parse_chord(first),))[0].astype(np.int8))
        except InputError as error:
            raise InputError(f"--first={first}: {error}") from None

    @functools.cached_property
    def _composed(self) -> Callable[[Variables, jax.Array, jax.Array], jax.Array]:
        """Maps (variables, a key, what is given [B, T, V]) to pieces [B, T, V]."""
        return jax.jit(functools.partial(compose, self.model, temperature=self.config.temperature))

    def compositions(self, variables: Variables) -> list[Piece]:
        """Returns pieces that follow --first, by the randomness of --seed."""
        config = self.config
        given = jnp.full((config.pieces, config.generate, PITCHES), DRAWN, jnp.int8)
        given = given.at[:, 0].set(self.opening())
        found = self._composed(variables, jax.random.key(config.seed), given)
        return [to_piece(roll) for roll in np.asarray(found)]

    def predict(self, variables: Variables, inputs: Sequence[str]) -> list[Piece]:
        """Returns pieces with the notes of lines and with those that the model adds to them.

        Args:
            variables: the variables.
            inputs: lines of chords such as "C5 C5+E4 .", a step each, with the melody on top.
        """
        pieces = []
        for at, line in enumerate(inputs, 1):
            try:
                pieces.append(parse_piece(line))
            except InputError as error:
                raise InputError(f"line {at}: {error}") from None
        return [self.completed(variables, piece) for piece in pieces]

    def completed(self, variables: Variables, piece: Piece) -> Piece:
        """Returns a piece with the notes that the model adds below its highest ones.

        Where a step has no note, all are the model's.
        """
        count = len(piece)
        size = max(_SHORTEST, 1 << (count - 1).bit_length())
        roll = np.pad(to_roll(piece), ((0, size - count), (0, 0)))
        found = self._composed(
            variables, jax.random.key(self.config.seed), given_notes(jnp.asarray(roll[None]))
        )
        return to_piece(np.asarray(found)[0, :count])

    def answers(self, inputs: Sequence[str], outputs: Sequence[Piece]) -> list[dict[str, Any]]:
        return [{"piece": piece_text(piece)} for piece in outputs]

    def write_answers(self, folder: pathlib.Path, rows: Iterator[dict[str, Any]]) -> None:
        for at, row in enumerate(rows, 1):
            given, piece = (parse_piece(row[name]) for name in ("input", "piece"))
            self.write(folder, f"{at:04}", piece, given)

    def write(
        self, folder: pathlib.Path, name: str, piece: Piece, given: Piece | None = None
    ) -> None:
        """Writes a piece as NAME.mid and NAME.png into a folder.

        Args:
            folder: made where it does not exist.
            name: of the files.
            piece: the piece.
            given: the notes that were told, which the picture marks.
        """
        marked = {} if given is None else {name: to_roll(given)}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"{name}.mid", midi_bytes(piece, self.config.steps_per_beat))
            picture = folder / f"{name}.png"
            plot_rolls({name: to_roll(piece)}, picture, lowest=LOWEST, marked=marked)

    @classmethod
    def use(cls, config: Config, given: Collection[str]) -> bool:
        """Composes by a run that has ended, unless more steps are asked for.

        Flags of composing alone ask for that; beside others they belong to a run.
        """
        alone = COMPOSING & {*given} and {*given} <= COMPOSING | {"workdir"}
        if config.workdir is None or not alone or not config.generate:
            return False
        if not read_summary(pathlib.Path(config.workdir)):
            return False
        trained = trained_by(cls, config, given)
        task: Any = trained.task
        folder = task.workdir / "composed"
        taken = len([*folder.glob("*.mid")]) if folder.is_dir() else 0
        for at, piece in enumerate(task.compositions(task.computing(trained.variables)), 1):
            name = f"piece_{taken + at:03}"
            task.write(folder, name, piece)
            print(f"{folder / name}.mid\n\n{voices_text(piece)}\n")
        return True

    def observe(self, variables: Variables, step: int) -> str | None:
        if not self.config.generate:
            return None
        piece = self.compositions(self.computing(variables))[0]
        self.write(self.workdir / "samples", f"{step:08}", piece)
        return voices_text(piece)

    def finish(self, outcome: launch.Outcome) -> launch.Outcome:
        entropy = self.info.entropy
        if entropy is None:
            return outcome
        launch.say(
            f"the least later_loss that is possible is {entropy:.3f} nats, and the model has "
            f"{outcome.metrics['later_loss']:.3f}"
        )
        return outcome.extended({}, entropy_rate=entropy)

    def report(self, outcome: launch.Outcome) -> Sequence[Section]:
        return report.sections(self, self.computing(outcome.variables))


def by_length(split: Rolls) -> Rolls:
    """Returns a split in the order of the lengths, so that little of a batch is padding."""
    return split.subset(np.argsort(split.lengths, kind="stable"))
