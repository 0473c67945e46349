"""Configurations as values: defaults, bounds, conditions, JSON, and the flags made of them."""

import dataclasses

import pytest

from dlcore import launch
from dlcore.errors import InputError
from dlcore.launch import flags
from dlcore.launch.config import specs
from dlcore.launch.fields import choice, integer, names, number, path, switch, text, texts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wings(launch.Group):
    title = "Wings"

    span: int = integer(2, 1, 9, "feet between the tips")
    flap: bool = switch(True, "move them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(launch.Config, Wings, dataset="birds", steps=30, span=4):
    group_conditions = {Wings: {"animal": ("bird", "bat")}}

    animal: str = choice("bird", ("bird", "bat", "cat"), "kind of animal")
    share: float = number(0.5, 0, 1, "share of something", below=True)
    tail: float | None = number(None, 0, 3, "length of the tail", when={"animal": ("cat",)})
    shown: str = text("yes", "whatever", free=True)
    words: tuple[str, ...] = texts("some words")
    listed: tuple[str, ...] = names("some names")
    file: str | None = path(None, "some file")


def test_class_arguments_set_the_defaults_of_inherited_fields():
    config = Config()
    assert (config.dataset, config.steps, config.span) == ("birds", 30, 4)
    assert launch.Config().dataset != "birds" and Wings().span == 2
    with pytest.raises(TypeError, match="inherits no field 'colour'"):

        class _Wrong(launch.Config, colour=3):
            pass


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("share", float("nan"), "--share=nan is not a number from 0 to below 1"),
        ("share", 1.0, "from 0 to below 1"),
        ("share", -1e-9, "from 0 to below 1"),
        ("learning_rate", float("inf"), "--learning_rate=inf is not a number"),
        ("learning_rate", 1e308, "--learning_rate=1e\\+308"),
        ("span", 10, "--span=10 is not an integer from 1 to 9"),
        ("span", True, "not an integer"),
        ("span", 2.0, "not an integer"),
        ("seed", 99999999999999999999, "not an integer from 0 to 4294967295"),
        ("stall_seconds", 2**63, "--stall_seconds=9223372036854775808"),
        ("validation", float("nan"), "--validation=nan"),
        ("animal", "dog", "unknown animal 'dog'; choose one of: bat, bird, cat"),
        ("flap", 1, "true or false"),
        ("file", "x" * 5000, r"--file=xxx.*5000 characters\) is not a path of at most 4095 bytes"),
        ("file", "a/" + "é" * 200, "names of at most 255"),
        ("workdir", "a\0b", "NUL"),
        ("words", ("a\0",), "NUL"),
        ("words", "ab", "--words=ab"),
    ],
)
def test_values_that_are_not_possible_are_one_line(name, value, words):
    with pytest.raises(InputError, match=words):
        Config(**{name: value})


def test_a_field_that_is_not_read_is_refused():
    assert Config(animal="cat").unread("span") == "--animal=cat does not read --span"
    with pytest.raises(InputError, match="--animal=cat does not read --span; leave it out"):
        Config(animal="cat", span=5)
    with pytest.raises(InputError, match="--animal=bird does not read --tail"):
        Config(tail=1.0)
    with pytest.raises(InputError, match="--schedule=constant does not read --boundary"):
        Config(boundary=(3,))
    assert Config(animal="cat", tail=1.0).tail == 1.0
    # Given by a flag, it is refused with its default too.
    with pytest.raises(InputError, match="--animal=cat does not read --span"):
        flags.parse(Config, ["--animal=cat", "--span=4"])


def test_json_and_back_and_what_identifies_a_run():
    config = Config(words=("a", "b"), shown="no", animal="cat", tail=2.5, steps=7)
    assert Config.from_json(config.json()) == config
    identity = config.identity()
    assert identity["words"] == ["a", "b"] and identity["tail"] == 2.5
    assert not {"shown", "steps", "workdir", "layout"} & identity.keys()
    # What came later, and what has gone, does not hinder.
    older = {name: value for name, value in config.json().items() if name != "share"}
    assert Config.from_json({**older, "gone": 3}) == config
    # Nor does another default, then or now, of what is not read: a cat has no wings.
    assert "span" not in identity and Config().identity()["span"] == 4
    assert Config.from_json({**config.json(), "span": 3}) == config


def test_flags_make_the_value_and_the_value_makes_the_flags():
    arguments = [
        "--animal=cat",
        "--tail=1.5",
        "--share=0.25",
        "--words=a b",
        "--words=c",
        "--listed=x,y",
        "--noreport",
        "--mesh=data=2",
        "--file=",
        "--steps=9",
    ]
    config, given = flags.parse(Config, arguments)
    assert config == Config(
        animal="cat",
        tail=1.5,
        share=0.25,
        words=("a b", "c"),
        listed=("x", "y"),
        mesh="data=2",
        file="",
        steps=9,
    )
    assert "report" in given and "seed" not in given
    again, _ = flags.parse(Config, config.lines())
    assert again == config
    assert "--words=a b" in config.lines() and "--listed=x,y" in config.lines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps=many"], "--steps=many is not an integer from 1"),
        (["--share=half"], "--share=half is not a number"),
        (["--flap=perhaps"], "flap"),
        (["--colour=red"], "Unknown command line flag 'colour'"),
        (["steps=3"], r"\['steps=3'\] are not flags"),
        (["--flagfile=/nowhere"], "/nowhere"),
        (["--flagfile=/dev/zero"], "cannot read the flag file /dev/zero: it is a device"),
        (["--flagfile", "/dev/urandom"], "cannot read the flag file /dev/urandom: it is a device"),
        (["--recipe=x"], "unknown recipe 'x'"),
        (["--share"], "share"),
    ],
)
def test_arguments_that_cannot_be_read(arguments, words):
    with pytest.raises(InputError, match=words):
        flags.parse(Config, arguments)


def test_flag_files_and_recipes(tmp_path):
    (tmp_path / "slow.flags").write_text("# a comment\n--steps=77\n--animal=bat\n")
    config, given = flags.parse(Config, [f"--flagfile={tmp_path / 'slow.flags'}", "--steps=5"])
    assert (config.steps, config.animal) == (5, "bat") and given == {"steps", "animal"}
    config, _ = flags.parse(Config, ["--recipe=slow"], recipes=tmp_path)
    assert config.steps == 77
    with pytest.raises(InputError, match="unknown recipe 'fast'; choose one of: slow"):
        flags.parse(Config, ["--recipe=fast"], recipes=tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe--steps=3")
    with pytest.raises(InputError, match="flag file"):
        flags.parse(Config, [f"--flagfile={tmp_path / 'bytes'}"])


@pytest.mark.parametrize("flag", ["--flagfile", "-flagfile"])
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "a link"])
def test_flag_files_that_never_end_are_refused(tmp_path, flag, device):
    (tmp_path / "link").symlink_to("/dev/zero")
    path = str(tmp_path / "link") if device == "a link" else device
    (tmp_path / "outer").write_text(f"--steps=3\n{flag}={path}\n")
    for arguments in ([f"{flag}={path}"], [flag, path], [f"--flagfile={tmp_path / 'outer'}"]):
        with pytest.raises(InputError, match=f"flag file {path}: it is a device"):
            flags.parse(Config, arguments)


def test_flag_files_within_flag_files_and_recipes(tmp_path):
    outer, inner, slow = (tmp_path / name for name in ("outer", "inner", "slow.flags"))
    outer.write_text(f"// flags\n--animal=bat\n\n  --steps=5  \n--flagfile={inner}\n--span=3\n")
    inner.write_bytes("\ufeff--steps=7\r\n--span=8\r\n--shown=é # as it is\r\n".encode())
    slow.write_text("--steps=77\n")
    config, _ = flags.parse(Config, ["--span=1", "--flagfile", str(outer)])
    assert (config.steps, config.span, config.animal) == (7, 3, "bat")
    assert config.shown == "é # as it is"
    assert flags.parse(Config, ["--recipe", "slow"], recipes=tmp_path)[0].steps == 77
    inner.write_text(f"--flagfile={outer}")
    with pytest.raises(InputError, match="outer takes its flags from itself"):
        flags.parse(Config, [f"--flagfile={outer}"])


def test_nothing_touches_the_global_flags():
    from absl.flags import FLAGS

    before = set(FLAGS)
    flags.parse(Config, ["--steps=3"])
    assert set(FLAGS) == before and "learning_rate" not in before


def test_the_help_names_every_field_by_group():
    shown = flags.help_text(Config)
    for field in dataclasses.fields(Config):
        assert f"{field.name}\n" in shown
    lines = shown.splitlines()
    titles = [above for above, line in zip(lines, lines[1:], strict=False) if {*line} == {"-"}]
    listed, _, _ = shown.partition("\n\n")
    assert listed.split() == f"Groups: {', '.join(titles)}".split() and titles[0] == "This job"
    under, title = {}, ""
    for line in lines:
        title = line if line in titles else title
        if line.startswith("  --"):
            under[line.strip().removeprefix("--").removeprefix("[no]")] = title
    groups = {name: group for name, _, _, group in specs(Config)}
    assert under == groups | {"flagfile": "Flag files", "recipe": "Flag files"}
    assert under["span"] == "Wings" and under["tail"] == "This job"
    assert max(map(len, lines)) <= 80


def test_smoke_and_check_configurations():
    tiny = Config(batch_size=512, warmup_steps=9, schedule="step", boundary=(20,)).shrunk()
    assert (tiny.steps, tiny.batch_size, tiny.warmup_steps, tiny.boundary) == (2, 8, 1, ())
    assert tiny.schedule == "constant" and tiny.report
    checked = Config(batch_size=512, precision="bfloat16").for_check()
    assert (checked.batch_size, checked.precision) == (64, "float32")


def test_no_arguments_are_the_defaults():
    assert flags.parse(Config, []) == (Config(), set())
    assert flags.value_of([], "workdir") is None
