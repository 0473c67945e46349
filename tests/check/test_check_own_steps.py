"""The checks of jobs with a step of their own, such as those that learn tables of word vectors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlcore.check.model import Finding, check_model
from dlcore.check.overfit import overfit_one_batch
from dlcore.models.embedding.glove import glove_step, glove_tables, initial_squares
from dlcore.models.embedding.glove_tiles import GloveTiles
from dlcore.models.embedding.objectives import objective
from dlcore.models.embedding.updates import initial_sums, word2vec_step
from dlcore.models.embedding.word2vec import Word2Vec
from dlcore.types import Aux, LossFn, Mean, Metrics, Step, TrainState

WORDS, FEATURES, NEGATIVES = 20, 8, 5
OWN_STEP = ["parameters", "compiled step", "initial loss", "overfit one batch"]


def fresh_state(params, opt_state) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), params, {}, opt_state, jax.random.key(1))


def check(
    step: Step, state: TrainState, batch: dict, **options
) -> tuple[dict[str, Finding], list[str]]:
    printed: list[str] = []
    findings = check_model(
        options.pop("forward", None),
        options.pop("loss_fn", None),
        state,
        batch,
        step=step,
        emit=printed.append,
        **options,
    )
    return {finding.name: finding for finding in findings}, printed


def glove() -> tuple[Step, TrainState, dict]:
    """The step, state and first batch of GloVe, whose parameters are a NamedTuple of tables."""
    random = np.random.default_rng(0)
    rows, columns = (index.astype(np.int32) for index in np.nonzero(np.ones((WORDS, WORDS))))
    counts = random.lognormal(2, 1, len(rows)).astype(np.float32)
    tiles = GloveTiles(
        rows, columns, counts, vocabulary_size=WORDS, seed=0, tile=WORDS, density=0.1
    )
    tables = glove_tables(jax.random.key(0), vocabulary_size=WORDS, dimension=FEATURES)
    return glove_step(), fresh_state(tables, initial_squares(tables)), next(iter(tiles.batches(0)))


def word2vec(rate: float = 0.4) -> tuple[Step, TrainState, dict]:
    """The step, state and a batch of skip-gram with negative sampling."""
    counts = np.arange(WORDS, 0, -1)
    model = Word2Vec(
        objective("negative_sampling", counts, negatives=NEGATIVES), FEATURES, window=2
    )
    length = model.sharing + 2 * model.window
    # Each word of a cycle has always the same neighbours.
    batch = {
        "words": np.arange(length, dtype=np.int32) % WORDS,
        "sentences": np.zeros(length, np.int32),
        "reach": np.full(length, 2, np.int32),
    }
    step = word2vec_step(
        model, learning_rate=lambda step: jnp.asarray(rate), micro_batch=model.sharing
    )
    tables = model.init(jax.random.key(0))
    return step, fresh_state(tables, initial_sums(tables)), batch


def test_glove_passes_without_a_known_loss():
    step, state, batch = glove()
    findings, printed = check(step, state, batch)
    assert list(findings) == OWN_STEP
    assert all(finding.passed for finding in findings.values()), "\n".join(printed)
    assert findings["parameters"].value == f"{2 * WORDS * (FEATURES + 1):,}, all finite"
    assert [line.split()[0] for line in printed[0].splitlines()[2:-2]] == [
        "word",
        "context",
        "word_bias",
        "context_bias",
    ]
    assert f"{WORDS}x{FEATURES}" in printed[0] and printed[0].endswith(" 360")
    assert findings["initial loss"].expected == "a finite number"
    first = float(step(state, batch)[1]["loss"].compute())
    assert f"< {first / 2:.3f} within 300 steps" in findings["overfit one batch"].expected


def test_word2vec_starts_at_chance():
    """The scores are 0 at first: a pair and each of its words of noise cost log 2."""
    step, state, batch = word2vec()
    findings, printed = check(
        step, state, batch, chance=(1 + NEGATIVES) * math.log(2), overfit_share=0.6
    )
    assert list(findings) == OWN_STEP
    assert all(finding.passed for finding in findings.values()), "\n".join(printed)
    assert findings["initial loss"].value == "4.159 nats"
    assert findings["initial loss"].expected == "log 64 = 4.159 within a factor of 2"
    assert "< 2.495 within 300 steps" in findings["overfit one batch"].expected


def test_a_loss_that_does_not_start_at_chance_fails():
    step, state, batch = word2vec()
    findings, _ = check(step, state, batch, chance=0.5, overfit_steps=1)
    assert findings["initial loss"].render().startswith("FAIL  initial loss: 4.159 nats")


def test_tables_that_stand_still_fail():
    findings, _ = check(*word2vec(rate=0.0), overfit_steps=3)
    finding = findings["overfit one batch"]
    assert not finding.passed and "within 3 steps" in finding.expected
    assert "input, output" in finding.cause and "hardly moves" in finding.cause
    assert "likely cause" in finding.render()


def test_parameters_that_are_not_finite_are_named():
    step, state, batch = glove()
    spoilt = state.replace(params=state.params._replace(word_bias=jnp.full(WORDS, jnp.inf)))
    findings, _ = check(step, spoilt, batch, overfit_steps=2)
    assert findings["parameters"].value.endswith("not finite: word_bias")
    assert not findings["parameters"].passed


def regression(power: int = 2) -> tuple[LossFn, Step, TrainState, dict]:
    """A step on |w - 3|^power, whose loss of guessing has no name."""
    tx = optax.adam(0.1)

    def loss_fn(params, model_state, batch, rng):
        return Mean.of(jnp.abs(params["w"] - batch["target"]) ** power), Aux(model_state, {})

    def step(state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
        def total(params):
            mean, _ = loss_fn(params, {}, batch, state.rng)
            return mean.compute(), mean

        grads, mean = jax.grad(total, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), {
            "loss": mean
        }

    params = {"w": jnp.zeros(4)}
    return loss_fn, step, fresh_state(params, tx.init(params)), {"target": np.full(4, 3.0, "f4")}


def test_a_loss_without_chance_still_has_its_gradients_checked():
    loss_fn, step, state, batch = regression()
    findings, _ = check(step, state, batch, loss_fn=loss_fn)
    assert list(findings) == [*OWN_STEP[:3], "gradients", OWN_STEP[3]]
    assert all(finding.passed for finding in findings.values())


def test_a_loss_that_is_not_finite_fails():
    loss_fn, step, state, batch = regression(power=200)
    findings, _ = check(step, state, batch, loss_fn=loss_fn, overfit_steps=1)
    finding = findings["initial loss"]
    assert not finding.passed and finding.value == "inf" and "scale" in finding.cause


def test_a_model_without_weights_in_its_batch():
    """All rows of the batch count, and a forward pass brings the table of layers back."""
    _, step, state, batch = regression()

    def forward(variables, target):
        return variables["params"]["w"] - target, {"target": target}

    findings, printed = check(step, state, batch, forward=forward, inputs="target")
    assert list(findings) == [*OWN_STEP, "dead units"]
    assert "multiply-adds" in printed[0] and findings["dead units"].passed


def test_a_forward_pass_needs_its_inputs():
    _, step, state, batch = regression()
    with pytest.raises(ValueError, match="forward is None, but inputs is 'target'"):
        check(step, state, batch, inputs="target")


def test_a_step_must_report_its_loss():
    _, step, state, batch = regression()

    def renamed(state, batch):
        new, metrics = step(state, batch)
        return new, {"energy": metrics["loss"]}

    with pytest.raises(ValueError, match='reports energy, .* metric "loss"'):
        check(renamed, state, batch)


@pytest.mark.parametrize("start, passed", [(4.0, True), (-4.0, False)])
def test_half_of_a_negative_loss_lies_below_it(start, passed):
    """A loss that falls by 1 a step: from 4 below 2 in 4 steps, from -4 not below -6 in 3."""

    def step(state, batch):
        new = state.replace(params=state.params - 1.0)
        return new, {"loss": Mean.of(state.params)}

    state = fresh_state(jnp.array(start), ())
    verdict = overfit_one_batch(step, state, {}, steps=4 if passed else 3)
    assert verdict.passed is passed
    assert verdict.target == start - 2.0


def test_a_trouble_in_the_metrics_of_the_overfitted_batch_is_a_failure() -> None:
    def step(state, batch):
        new = state.replace(params=state.params / 2)
        return new, {"loss": Mean(state.params, jnp.ones(())), "spread": Mean.of(batch["x"])}

    state, batch = fresh_state(jnp.ones(()), ()), {"x": jnp.zeros(4)}

    def watch(metrics: dict[str, float]) -> str | None:
        return "all are equal; lower the rate" if metrics["spread"] == 0 else None

    found, printed = check(step, state, batch, watch=watch)
    assert not found["training metrics"].passed
    assert any("likely cause: all are equal; lower the rate" in line for line in printed)
    assert "training metrics" not in check(step, state, {"x": jnp.ones(4)}, watch=watch)[0]
