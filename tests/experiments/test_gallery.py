"""The gallery beside a run, and the sections of its report."""

import dataclasses
import json

import numpy as np
import pytest
from in_process import run_here
from PIL import Image

from dlcore import launch
from dlcore.data import OneShotRun, pictures
from dlcore.errors import InputError
from dlcore.launch import jobs
from dlcore.metrics import roc
from experiments.metric_learning.evaluation import one_shot_errors

JOB = jobs.task_class("metric_learning")
CONFIG, _ = JOB.parts()
gallery = pytest.importorskip("experiments.metric_learning.gallery")
report = pytest.importorskip("experiments.metric_learning.report")
SIDE, PEOPLE, EACH = 4, 20, 4


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder for each of some persons."""
    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for person in range(PEOPLE):
        (root / f"person{person}").mkdir()
        face = rng.integers(40, 210, (SIDE, SIDE))
        for number in range(EACH):
            pixels = face + rng.normal(0, 5, (SIDE, SIDE))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / f"person{person}" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def workdir(people, tmp_path_factory):
    """The folder of a run with a report."""
    folder = tmp_path_factory.mktemp("run")
    config = CONFIG(
        steps=40,
        eval_every=40,
        data_path=str(people),
        workdir=str(folder),
        validation=0.3,
        report=True,
        model="mlp",
        option=("features=[16]",),
        embedding=4,
        batch_size=8,
        pictures=2,
        ways=3,
        augment="none",
        warmup_steps=0,
        false_accept_rate="0.1",
    )
    launch.run(JOB(config))
    return folder


def test_persons_come_and_go_and_are_recognised(people, workdir, tmp_path, capfd):
    before = {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
    enrolled = tmp_path / "enrolled"
    for person in ("person0", "person1", "person2"):
        (enrolled / person).mkdir(parents=True)
        picture = (people / person / "0.png").read_bytes()
        (enrolled / person / "0.png").write_bytes(picture)

    def ask(*flags):
        done = run_here(capfd, "metric_learning", [f"--workdir={workdir}", *flags])
        return done, [json.loads(line) for line in done.stdout.splitlines()]

    done, _ = ask(f"--identify={people}")
    assert done.returncode == 2 and "nobody is enrolled" in done.stderr
    done, answers = ask(f"--enrol={enrolled}", f"--identify={people / 'person1' / '0.png'}")
    assert done.returncode == 0 and "3 persons with 3 pictures" in done.stderr
    (answer,) = answers
    assert answer["verdict"] == answer["person"] == "person1"
    assert answer["distance"] == pytest.approx(0, abs=1e-6) and answer["threshold"] > 0
    assert [one["person"] for one in answer["nearest"]][0] == "person1"
    assert len(answer["nearest"]) == 3

    files = [str(people / "person0" / "0.png"), str(people / "person0" / "1.png")]
    _, (same,) = ask(f"--verify={','.join(files)}", "--false_accept_rate=0.01")
    _, (as_person,) = ask(f"--verify={files[1]},person0")
    assert same["first"] == files[0] and same["verdict"] in ("same", "different")
    assert as_person["distance"] == pytest.approx(same["distance"], abs=1e-6)
    thresholds = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))["thresholds"]
    assert (same["threshold"], as_person["threshold"]) == (thresholds["0.01"], thresholds["0.1"])

    done, (answer,) = ask("--remove=person1", f"--identify={people / 'person1' / '0.png'}")
    assert "2 persons with 2 pictures" in done.stderr and answer["person"] != "person1"
    done, _ = ask("--remove=person1")
    assert done.returncode == 2 and "person1" in done.stderr and "person2" in done.stderr
    done, _ = ask("--verify=one")
    assert done.returncode == 2 and "--verify=one names 1; give two pictures" in done.stderr
    done, _ = ask(f"--enrol={people / 'person0'}")
    assert done.returncode == 2 and "has no folders with pictures" in done.stderr
    # Using a run leaves its files as they were.
    assert all(file.read_bytes() == content for file, content in before.items())
    assert {*workdir.rglob("*")} - {*before} >= {workdir / "gallery.json"}

    changed = json.loads((workdir / "gallery.json").read_text(encoding="utf-8")) | {
        "encoder": "another"
    }
    (workdir / "gallery.json").write_text(json.dumps(changed), encoding="utf-8")
    done, _ = ask("--remove=person0")
    assert done.returncode == 2 and "was made by another encoder" in done.stderr
    (workdir / "gallery.json").write_text("{", encoding="utf-8")
    done, _ = ask("--remove=person0")
    assert done.returncode == 2 and "is not a gallery that can be read" in done.stderr


def test_omniglots_official_tests_of_a_trained_run(people, workdir, tmp_path, capfd):
    """The second picture of each person is recognised by the first; one label is wrong."""
    before = {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
    persons, wrong = [f"person{number}" for number in range(4)], {"run02": {0: 1}}
    for run in ("run01", "run02"):
        lines = []
        for part, picture in (("training", "0.png"), ("test", "1.png")):
            (tmp_path / run / part).mkdir(parents=True)
            for person in persons:
                content = (people / person / picture).read_bytes()
                (tmp_path / run / part / f"{person}.png").write_bytes(content)
        for number, person in enumerate(persons):
            answer = persons[wrong.get(run, {}).get(number, number)]
            lines.append(f"{run}/test/{person}.png {run}/training/{answer}.png\n")
        (tmp_path / run / "class_labels.txt").write_text("".join(lines), encoding="utf-8")
    flags = [f"--workdir={workdir}", f"--omniglot_runs={tmp_path}"]
    done = run_here(capfd, "metric_learning", flags)
    assert done.returncode == 0 and "has 2 of the 20 runs" in done.stderr
    found = json.loads(done.stdout)
    # The pixels are recognised without a fault.
    assert found["runs"] == 2 and found["pixels_error"] == 0.125
    errors = found["errors"]
    assert {*errors} == {"run01", "run02"} and errors["run01"] <= 0.25 <= errors["run02"]
    assert found["error"] == np.mean([*errors.values()])
    assert before == {file: file.read_bytes() for file in before}
    done = run_here(capfd, "metric_learning", [flags[0], f"--omniglot_runs={workdir}"])
    assert done.returncode == 2 and "has no folders run01, run02, ...; give" in done.stderr


def test_errors_of_one_shot_runs_count_ties_as_errors():
    stored = [pictures.StoredImage(bytes([value]), 0, "") for value in (0, 9, 1, 8, 0, 0, 0)]
    runs = [
        OneShotRun("run01", stored[:2], stored[2:4], np.array([0, 0])),
        OneShotRun("run02", stored[4:6], stored[6:], np.array([0])),
    ]

    def embed(images):
        return np.array([[float(image.file[0])] for image in images])

    assert one_shot_errors(runs, embed, "l2").tolist() == [0.5, 1.0]


def test_the_report(workdir):
    page = (workdir / "report" / "index.html").read_text(encoding="utf-8")
    for title in ("Distances", "Verification", "Pairs around", "Most confused", "Map of embedd"):
        assert title in page
    for name in ("distances", "roc", "pairs", "map"):
        assert (workdir / "report" / f"{name}.png").stat().st_size > 1000
    summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    assert summary["thresholds_found_on"] == "validation"


def test_a_gallery_is_written_and_read_again(tmp_path):
    first = gallery.Gallery("e").extended(["a", "b"], ["1", "2"], np.eye(2, dtype=np.float32))
    second = first.extended(["a", "a"], ["1", "3"], np.float32([[5, 5], [3, 4]]))
    assert second.persons == ("b", "a", "a") and second.files == ("2", "1", "3")
    second.write(tmp_path)
    found = gallery.Gallery.read(tmp_path, "e")
    assert dataclasses.replace(found, embeddings=None) == dataclasses.replace(
        second, embeddings=None
    )
    assert np.array_equal(found.embeddings, second.embeddings)
    # The distance to a person is that to the nearest picture of that person.
    assert found.nearest(np.float32([3, 3]), "l2") == [
        ("a", pytest.approx(1.0)),
        ("b", pytest.approx(np.sqrt(13))),
    ]
    gone = found.without(["a", "b"])
    gone.write(tmp_path)
    assert gallery.Gallery.read(tmp_path, "e").persons == ()
    assert gone.extended(["c"], ["4"], np.eye(1, 2, dtype=np.float32)).of("c").shape == (1, 2)
    with pytest.raises(InputError, match="person in the gallery"):
        found.without(["c"])


def test_encoders_have_different_fingerprints():
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    every = {
        gallery.fingerprint({"params": {name: array}})
        for name, array in (
            ("a", kernel),
            ("b", kernel),
            ("a", kernel.reshape(3, 2)),
            ("a", kernel + np.float32(1e-6)),
        )
    }
    assert len(every) == 4
    assert gallery.fingerprint({"params": {"a": kernel.copy()}}) in every


def test_thresholds_accept_no_more_than_their_share():
    rng = np.random.default_rng(0)
    same = np.arange(1200) < 200
    distances = np.where(same, rng.uniform(0, 0.5, 1200), rng.uniform(0.2, 1, 1200))
    found = gallery.thresholds(distances, same)
    assert [*found] == ["0.1", "0.01", "0.001"]  # 1,000 pairs do not tell of a ten-thousandth
    for rate, threshold in found.items():
        accepted = np.count_nonzero(distances[~same] <= threshold)
        assert accepted == round(1000 * float(rate))
    with pytest.raises(InputError, match="no threshold at --false_accept_rate=0.01; it has none"):
        gallery.threshold_of({}, "0.01")


def test_pairs_around_the_threshold():
    distances = np.array([0.1, 0.4, 0.6, 0.9, 0.45, 0.55])
    same = np.array([True, True, True, True, False, False])
    found = {kind: rows.tolist() for kind, rows in report.around(distances, same, 0.5, 1).items()}
    assert found == {
        "one, accepted": [1],
        "one, refused": [2],
        "two, accepted": [4],
        "two, refused": [5],
    }
    assert 0 < roc(distances, same).auc < 1
    shares = report.densities(distances, same)
    assert all(share.sum() == pytest.approx(1) for _, share in shares.values())


def test_the_most_confused_identities():
    embeddings = np.array([[0.0], [0.3], [10.0], [10.1], [0.1], [50.0]])
    labels = np.array([7, 7, 9, 9, 8, 8])
    # The picture at 0 is nearest to 0.1 of 8, so is that at 0.3; that of 8 to one of 7.
    found = report.confusions(embeddings, labels, "l2")
    assert found == [(7, 8, 2), (8, 7, 1), (8, 9, 1)]
    rows = report.sample(np.repeat(np.arange(100), 12))
    assert len(rows) == 300 and len({*(rows // 12).tolist()}) == 30
