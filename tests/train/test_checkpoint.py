import gc
import json
import re
import resource
import shutil
import signal
import sys

import jax
import jax.numpy as jnp
import networks
import numpy as np
import optax
import pytest

from dlcore import runtime
from dlcore.errors import InputError
from dlcore.train import checkpoint
from dlcore.train.checkpoint import Checkpoints, average_params, load_variables, read_state
from dlcore.train.fingerprint import fingerprint_of_json, fingerprints
from dlcore.train.transplant import transplant

KERNEL = "params/Dense_0/kernel"
CONFIG = {"model": "network", "seed": 0}
MODEL, TX = networks.Network(), optax.adam(1e-2)
JIT = runtime.layout("jit")


def make_state():
    return networks.make_state(MODEL, TX)


def state_at(step):
    state = make_state()
    params = jax.tree.map(lambda leaf: leaf + step, state.params)
    return state.replace(step=jnp.int32(step), params=params)


def saved(directory, steps, *, keep=3, config=CONFIG, best=()):
    checkpoints = Checkpoints(directory, config, keep=keep)
    for step in steps:
        checkpoints.save(step, state_at(step), {"note": step}, best=step in best)
    checkpoints.close()


def restored(directory, config=CONFIG, layout=JIT):
    checkpoints = Checkpoints(directory, config)
    try:
        return checkpoints.restore(layout.abstract(make_state))
    finally:
        checkpoints.close()


def largest_file(directory):
    """Of the array data, past the manifests."""
    return max(directory.rglob("d/*"), key=lambda path: path.stat().st_size)


def flip_a_bit(directory):
    path = largest_file(directory)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_run(step, edit, *, sign=False):
    """Edits the JSON of a checkpoint; signed as if it were written that way."""
    path = next((step / "run").rglob("metadata"))
    run = json.loads(path.read_text(encoding="utf-8"))
    edit(run)
    if sign:
        del run["fingerprint"]
        run["fingerprint"] = fingerprint_of_json(run)
    path.write_text(json.dumps(run), encoding="utf-8")


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    saved(tmp_path, [1, 5])
    found = restored(tmp_path)
    networks.assert_equal(found.state, state_at(5))
    assert found.step == 5 and found.loop == {"note": 5} and found.skipped == []
    assert jax.tree.structure(found.state) == jax.tree.structure(make_state())


def test_an_empty_folder_restores_nothing(tmp_path):
    assert restored(tmp_path) is None


def test_the_latest_and_the_best_are_kept(tmp_path):
    saved(tmp_path, range(1, 7), keep=2, best=(1, 2))
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [2, 5, 6]


def test_the_best_is_kept_by_those_who_open_the_folder_later(tmp_path):
    saved(tmp_path, [1, 2, 3], keep=2, best=(1,))
    flip_a_bit(tmp_path / "3" / "state")
    saved(tmp_path, [4, 5, 6], keep=2)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [1, 5, 6]
    checkpoints = Checkpoints(tmp_path, CONFIG)
    networks.assert_equal(
        checkpoints.restore(JIT.abstract(make_state), best=True).state, state_at(1)
    )
    checkpoints.close()
    flip_a_bit(tmp_path / "1" / "state")
    checkpoints = Checkpoints(tmp_path, CONFIG)
    with pytest.raises(InputError, match="the best checkpoint in .* is not whole: step 1"):
        checkpoints.restore(JIT.abstract(make_state), best=True)
    checkpoints.close()


def test_a_step_is_saved_once(tmp_path):
    checkpoints = Checkpoints(tmp_path, CONFIG)
    checkpoints.save(3, state_at(3), {})
    checkpoints.save(3, state_at(4), {})
    checkpoints.close()
    networks.assert_equal(restored(tmp_path).state, state_at(3))


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    checkpoints = Checkpoints(tmp_path, CONFIG)
    wipe = jax.jit(lambda state: jax.tree.map(jnp.zeros_like, state.params), donate_argnums=0)
    for step in range(1, 4):
        state = state_at(step)
        checkpoints.save(step, state, {})
        jax.block_until_ready(wipe(state))
    checkpoints.close()
    networks.assert_equal(restored(tmp_path).state, state_at(3))


@pytest.mark.parametrize(
    "damage",
    [
        "bit",
        pytest.param("truncated", marks=pytest.mark.slow),
        "missing",
        pytest.param("empty", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_checkpoint_is_skipped_named_and_kept_aside(tmp_path, damage):
    directory = tmp_path / "checkpoints"
    saved(directory, [1, 2, 3])
    if damage == "bit":
        flip_a_bit(directory / "3" / "state")
    elif damage == "truncated":
        path = largest_file(directory / "3" / "state")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "missing":
        largest_file(directory / "3" / "state").unlink()
    else:
        for path in [path for path in (directory / "3").rglob("*") if path.is_file()]:
            path.unlink()
    found = restored(directory)
    assert found.step == 2
    assert len(found.skipped) == 1 and found.skipped[0].startswith("step 3 (")
    assert (tmp_path / "checkpoints-damaged" / "3").is_dir()
    networks.assert_equal(found.state, state_at(2))
    saved(directory, [3])
    assert restored(directory).step == 3


def test_damaged_checkpoints_take_the_place_of_nothing(tmp_path):
    directory, aside = tmp_path / "checkpoints", tmp_path / "checkpoints-damaged"
    saved(directory, [1])
    others = {"2/photo.txt": "of others", "README.txt": "of others too"}
    for name, text in others.items():
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_text(text)
    for name in ("2-2", "2-3"):
        saved(directory, [2])
        flip_a_bit(directory / "2" / "state")
        (skipped,) = restored(directory).skipped
        assert skipped.endswith(f"moved to {aside / name})") and (aside / name / "state").is_dir()
    assert {name: (aside / name).read_text() for name in others} == others


def test_remote_folders_are_refused_that_orbax_cannot_write_or_that_want_a_package(monkeypatch):
    with pytest.raises(InputError, match="cannot be in s3://bucket/run: Orbax writes to folders"):
        Checkpoints("s3://bucket/run", {})
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match="cannot be in gs://bucket/run: .*gcsfs"):
        Checkpoints("gs://bucket/run", {})


def test_array_data_that_reads_well_but_is_wrong_is_found(tmp_path):
    saved(tmp_path, [1, 2])
    edit_run(tmp_path / "2", lambda run: run["fingerprints"].update({KERNEL: 1}), sign=True)
    with pytest.raises(InputError, match="step 2 in .* is not whole .damaged array data in par"):
        load_variables(tmp_path)
    found = restored(tmp_path)
    assert found.step == 1
    assert f"damaged array data in {KERNEL}" in found.skipped[0]


@pytest.mark.parametrize(
    "edit",
    [
        lambda run: run["loop"].update(note=3),  # a sum of the metrics, say
        pytest.param(lambda run: run["config"].update(model="netvork"), marks=pytest.mark.slow),
        pytest.param(lambda run: run["config"].update(seed=1), marks=pytest.mark.slow),
        lambda run: run.update(best=1),
        pytest.param(
            lambda run: run["leaves"].update({KERNEL: "float32[16,33]"}), marks=pytest.mark.slow
        ),
        lambda run: run["fingerprints"].update({KERNEL: 1}),
        pytest.param(lambda run: run.update(step=1), marks=pytest.mark.slow),
        lambda run: run.update(fingerprinu=run.pop("fingerprint")),
        lambda run: run.update(stfp=run.pop("step")),
    ],
    ids=["loop", "config", "number", "best", "leaves", "arrays", "step", "own", "name"],
)
def test_damage_of_the_json_is_found_and_an_older_whole_step_is_taken(tmp_path, edit):
    saved(tmp_path / "c", [1, 2])
    edit_run(tmp_path / "c" / "2", edit)
    found = restored(tmp_path / "c")
    assert (found.step, found.loop) == (1, {"note": 1})
    assert "step 2 (damaged data of the run" in found.skipped[0]


def test_a_checkpoint_of_a_version_without_a_fingerprint_of_the_json_is_continued(tmp_path):
    saved(tmp_path, [1, 2])
    edit_run(tmp_path / "2", lambda run: [run.pop(name) for name in ("step", "fingerprint")])
    found = restored(tmp_path)
    assert (found.step, found.loop, found.skipped) == (2, {"note": 2}, [])


@pytest.mark.parametrize("old", [False, True], ids=["new", "without step in the JSON"])
def test_a_copy_of_a_step_under_another_name_is_not_believed(tmp_path, old):
    saved(tmp_path / "c", [1, 2])
    if old:
        edit_run(tmp_path / "c" / "1", lambda run: [run.pop(n) for n in ("step", "fingerprint")])
    shutil.copytree(tmp_path / "c" / "1", tmp_path / "c" / "7")
    step, state = read_state(tmp_path / "c", JIT.abstract(make_state), CONFIG)
    assert step == 2
    found = restored(tmp_path / "c")
    assert found.step == 2 and "step 7 (a copy of the checkpoint of step 1;" in found.skipped[0]


def test_numbered_folders_of_others_are_left_alone_and_named(tmp_path):
    directory = tmp_path / "c"
    saved(directory, [1, 2])
    for name in ("9", "0055", "foo_12", "6"):
        (directory / name).mkdir()
        (directory / name / "notes.txt").write_text("mine")
    (directory / "77").write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*") if "notes" in path.name)
    assert restored(directory).step == 2
    assert load_variables(directory)["params"] and average_params(directory, 5)[1] == [1, 2]
    checkpoints = Checkpoints(directory, CONFIG, keep=1)
    assert checkpoints.strangers == ["6", "9"] and checkpoints.steps() == [1, 2]
    checkpoints.save(3, state_at(3), {})
    checkpoints.wait()
    for step in (6, 77):
        with pytest.raises(InputError, match=f"{step} is not a checkpoint and stands in the way"):
            checkpoints.save(step, state_at(step), {})
    checkpoints.close()
    assert sorted(path for path in tmp_path.rglob("*") if "notes" in path.name) == before
    assert (directory / "77").read_text() == "mine" and restored(directory).step == 3


def test_nothing_whole_left_is_an_error_and_not_a_fresh_start(tmp_path):
    saved(tmp_path / "checkpoints", [1])
    flip_a_bit(tmp_path / "checkpoints" / "1" / "state")
    with pytest.raises(InputError, match="no checkpoint in .* is whole: step 1"):
        restored(tmp_path / "checkpoints")


def test_another_configuration_is_refused_and_the_difference_named(tmp_path):
    saved(tmp_path, [1])
    with pytest.raises(InputError, match="another configuration .*model: network then, lenet now"):
        restored(tmp_path, config={"model": "lenet", "seed": 0})
    assert (tmp_path / "1").is_dir()


def test_an_option_that_no_longer_must_be_equal_is_not_compared(tmp_path):
    saved(tmp_path, [1])
    checkpoints = Checkpoints(tmp_path, {"seed": 0}, defaults={"model": "lenet", "seed": 0})
    assert checkpoints.restore(JIT.abstract(make_state)).step == 1
    checkpoints.close()


def test_another_model_is_refused_and_the_leaf_named(tmp_path):
    saved(tmp_path, [1])
    checkpoints = Checkpoints(tmp_path, CONFIG)
    other = JIT.abstract(lambda: networks.make_state(networks.Network(norm=False), TX))
    with pytest.raises(InputError, match="another model.*BatchNorm_0/bias: float32.32. then, abs"):
        checkpoints.restore(other)
    checkpoints.close()


@pytest.mark.parametrize("axes", ["data=4", "fsdp=4"])
def test_a_checkpoint_of_four_devices_continues_on_one_and_back(tmp_path, axes):
    mesh = runtime.layout("mesh", mesh=axes)
    state = jax.device_put(state_at(7), mesh.shardings(make_state()))
    checkpoints = Checkpoints(tmp_path / "mesh", CONFIG)
    checkpoints.save(7, state, {})
    checkpoints.close()
    found = restored(tmp_path / "mesh", layout=JIT)
    networks.assert_equal(found.state, state_at(7))
    assert found.skipped == []
    saved(tmp_path / "one", [8])
    found = restored(tmp_path / "one", layout=mesh)
    networks.assert_equal(found.state, state_at(8))
    kernel = found.state.params["Dense_0"]["kernel"]
    assert len(kernel.sharding.device_set) == 4


def test_fingerprints_do_not_depend_on_the_sharding_and_see_every_element():
    mesh = runtime.layout("mesh", mesh="fsdp=4")
    state = make_state()
    reference = fingerprints(state)
    assert fingerprints(jax.device_put(state, mesh.shardings(state))) == reference
    values = jnp.arange(12, dtype=jnp.bfloat16).reshape(3, 4)
    seen = {fingerprints(values)[""]}
    for index in np.ndindex(3, 4):
        seen.add(fingerprints(values.at[index].add(1))[""])
    swapped = values.at[0, 0].set(values[2, 3]).at[2, 3].set(values[0, 0])
    seen.add(fingerprints(swapped)[""])
    assert len(seen) == 14


@pytest.mark.parametrize("folder", ["orbax", "others"])
def test_python_prints_no_error_of_what_orbax_gives_up(folder):
    """A coroutine that is dropped half-way and then raises."""
    source = """async def read():
    try:
        await Never()
    finally:
        raise ValueError("of a leaf")
class Never:
    def __await__(self):
        yield
"""
    scope = {}
    exec(compile(source, f"/packages/{folder}/serialization.py", "exec"), scope)
    reading = scope["read"]()
    reading.send(None)
    told = []
    report, checkpoint._report = checkpoint._report, told.append
    hook, sys.unraisablehook = sys.unraisablehook, checkpoint._report_others
    try:
        del reading
        gc.collect()
    finally:
        checkpoint._report, sys.unraisablehook = report, hook
    assert len(told) == (folder == "others")


def test_a_full_disk_is_one_clear_error_and_the_last_good_step_stays(tmp_path, caplog):
    saved(tmp_path, [1])
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path, CONFIG)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(InputError, match="cannot write checkpoints to .*free space or choose"):
            checkpoints.save(2, state_at(2), {})
            checkpoints.wait()
        gc.collect()  # this is when asyncio tells of errors for which nobody asked
        assert "never retrieved" not in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert restored(tmp_path).step == 1


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write checkpoints to"):
        Checkpoints(tmp_path / "file" / "checkpoints", CONFIG)


def test_a_partial_restore_takes_what_its_rules_say_and_reports_the_rest(tmp_path):
    saved(tmp_path, [4])
    source = load_variables(tmp_path)["params"]
    target = {
        "body": {"kernel": jnp.zeros((16, 32)), "bias": jnp.zeros(32)},
        "head": {"kernel": jnp.zeros((32, 7)), "bias": jnp.ones(5)},
    }
    rules = [
        ("^head/bias$", None),
        ("^body/(.*)$", r"Dense_0/\1"),
        ("^head/(.*)$", r"Dense_1/\1"),
    ]
    new, report = transplant(source, target, rules)
    assert report.restored == {"body/kernel": "Dense_0/kernel"}
    assert report.kept == ["head/bias"]
    assert report.missing == {"body/bias": "Dense_0/bias"}
    assert report.mismatched == {"head/kernel": "(32, 5) there, (32, 7) here"}
    assert report.unused == [
        "BatchNorm_0/bias", "BatchNorm_0/scale", "Dense_1/bias", "Dense_1/kernel",
    ]  # fmt: skip
    np.testing.assert_array_equal(new["body"]["kernel"], state_at(4).params["Dense_0"]["kernel"])
    np.testing.assert_array_equal(new["head"]["kernel"], target["head"]["kernel"])
    assert re.search(r"restored 1 leaves, kept 1\nmissing: body/bias", str(report))


def test_a_partial_restore_of_everything_is_the_default(tmp_path):
    saved(tmp_path, [4])
    new, report = transplant(load_variables(tmp_path)["params"], make_state().params)
    networks.assert_equal(new, state_at(4).params)
    assert not (report.kept or report.missing or report.mismatched or report.unused)


def test_a_partial_restore_from_nothing_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_variables(tmp_path / "nowhere")
    with pytest.raises(InputError, match="give the folder WORKDIR/checkpoints"):
        load_variables(tmp_path)


def test_the_mean_of_the_newest_checkpoints(tmp_path):
    saved(tmp_path, [1, 2, 4, 9])  # of which the first is deleted
    first = make_state().params
    for count, steps in ((1, [9]), (2, [4, 9]), (7, [2, 4, 9])):
        mean, found = average_params(tmp_path, count)
        assert found == steps
        jax.tree.map(
            lambda leaf, start, steps=steps: np.testing.assert_allclose(
                leaf, start + np.mean(steps), rtol=1e-6, atol=1e-6
            ),
            mean,
            first,
        )
