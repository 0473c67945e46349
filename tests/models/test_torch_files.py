"""Files of PyTorch: made by hand, opcode by opcode, and by PyTorch where it is installed."""

import argparse
import collections
import decimal
import pathlib
import pickle
import struct
import tracemalloc
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from torch_opcodes import dictionary, number, save, storage, tensor, text, together

from dlcore.errors import InputError
from dlcore.models.torch_files import read_torch_file, write_torch_file

FORMS = ("zip", "pickles")


def check(path, expected):
    arrays = read_torch_file(path)
    assert set(arrays) == set(expected)
    for name, value in expected.items():
        value = np.asarray(value)
        assert arrays[name].shape == value.shape and arrays[name].dtype == value.dtype, name
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].flags.c_contiguous and arrays[name].flags.writeable


@pytest.mark.parametrize("form", FORMS)
def test_views_of_a_storage(form, tmp_path):
    """Every element is storage[offset + sum of index times stride]."""
    elements = np.arange(30, dtype="<f4")
    views = {
        "whole": (0, (5, 6), (6, 1)),
        "transposed": (0, (6, 5), (1, 6)),
        "every other column": (1, (5, 3), (6, 2)),
        "one row for all": (12, (4, 6), (0, 1)),
        "3d": (2, (2, 3, 2), (12, 3, 2)),
        "scalar": (29, (), ()),
        "empty": (30, (0, 3), (3, 1)),
    }
    program = dictionary(
        {
            name: tensor("FloatStorage", "0", 30, offset=offset, shape=shape, strides=strides)
            for name, (offset, shape, strides) in views.items()
        }
    )
    expected = {}
    for name, (offset, shape, strides) in views.items():
        value = np.empty(shape, np.float32)
        for index in np.ndindex(shape):
            value[index] = elements[
                offset + sum(i * s for i, s in zip(index, strides, strict=True))
            ]
        expected[name] = value
    check(save(form, tmp_path / "a.pth", program, {"0": elements}), expected)


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("form", FORMS)
def test_types(form, byteorder, tmp_path):
    """float16 and bfloat16 by their bits: sign, exponent, mantissa."""
    values = {
        "FloatStorage": ("f4", [1.5, -2.0], np.float32([1.5, -2])),
        "DoubleStorage": ("f8", [0.1, 1e300], np.float64([0.1, 1e300])),
        # 1 + 2^-10, -2, the smallest subnormal, infinity.
        "HalfStorage": (
            "u2",
            [0x3C01, 0xC000, 0x0001, 0x7C00],
            np.float32([1 + 2**-10, -2, 2**-24, np.inf]),
        ),
        # 1 + 2^-7, -2, 2^127, infinity.
        "BFloat16Storage": (
            "u2",
            [0x3F81, 0xC000, 0x7F00, 0x7F80],
            np.float32([1 + 2**-7, -2, 2.0**127, np.inf]),
        ),
        "LongStorage": ("i8", [-(2**40), 3], np.int64([-(2**40), 3])),
        "IntStorage": ("i4", [-5, 3], np.int32([-5, 3])),
        "ShortStorage": ("i2", [-5, 3], np.int16([-5, 3])),
        "CharStorage": ("i1", [-5, 3], np.int8([-5, 3])),
        "ByteStorage": ("u1", [250, 3], np.uint8([250, 3])),
        "BoolStorage": ("?", [True, False], np.array([True, False])),
    }
    order = "<" if byteorder == "little" else ">"
    storages = {kind: np.array(raw, order + code) for kind, (code, raw, _) in values.items()}
    program = dictionary(
        {
            kind: tensor(kind, kind, len(raw), shape=(len(raw),), strides=(1,))
            for kind, raw in storages.items()
        }
    )
    path = save(form, tmp_path / "a.pt", program, storages, byteorder)
    check(path, {kind: expected for kind, (_, _, expected) in values.items()})


def one(kind="FloatStorage", length=2, **options):
    return tensor(kind, "0", length, **{"shape": (2,), "strides": (1,), **options})


TWO = {"0": np.array([1.0, 2.0], "<f4")}


def pickled(value):
    """The program that makes a value, without its frame."""
    return pickle.dumps(value, 2)[2:-1]


class Bag(list):
    """An object that a pickle fills in every way that there is."""

    def __init__(self):
        super().__init__([1, 2])
        self.tag = {"a": 1}

    def __reduce__(self):
        return Bag, (), {"tag": 1}, iter([1, 2]), iter([("key", 1)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "program, name",
    [
        (
            dictionary({"state_dict": dictionary({"w": one()}), "epoch": number(3)}, b"}"),
            "state_dict.w",
        ),
        (dictionary({"net": dictionary({"model": dictionary({"w": one()})})}), "net.model.w"),
        (dictionary({"w": one(), "extra": text("no tensor")}), "w"),
        (dictionary({"module.w": one()}), "module.w"),
        (dictionary({"w": b"ctorch._utils\n_rebuild_parameter\n(" + one() + b"I01\n}tR"}), "w"),
        # What load_state_dict reads of the versions: an attribute of the dict.
        (dictionary({"w": one()}) + dictionary({"_metadata": b"}"}, b"}") + b"b", "w"),
        # What an optimizer keeps has numbers instead of names.
        (dictionary({"w": one(), "optimizer": b"}I0\n" + dictionary({"m": one()}) + b"s"}), "w"),
        (dictionary({"w": one(), "args": pickled(argparse.Namespace(rate=0.1))}), "w"),
        (dictionary({"w": one(), "best": pickled(np.float64(71.3))}), "w"),
        (dictionary({"w": one(), "seen": pickled({np.int64(1), pathlib.PurePosixPath("a")})}), "w"),
        (dictionary({"w": one(), "bag": pickled([Bag(), decimal.Decimal(1)])}), "w"),
        (dictionary({"w": one(), "rates": pickled(collections.defaultdict(list, a=[1]))}), "w"),
        # Complex numbers are read, others are left out.
        (dictionary({"w": one(), "q": one("QInt8Storage")}), "w"),
    ],
)
def test_checkpoints(form, program, name, tmp_path):
    check(save(form, tmp_path / "a.pth", program, TWO), {name: np.float32([1, 2])})


@pytest.mark.parametrize("form", FORMS)
def test_a_dict_in_several_places_is_read_once(form, tmp_path):
    """Each of 60 dicts holds the one before it twice: 2^60 names, were they followed."""
    program = b"}" + text("w") + one() + b"s"
    for level in range(60):
        put, get = b"p%d\n" % level, b"g%d\n" % level
        program += put + b"0}" + text("a") + get + b"s" + text("b") + get + b"s"
    path = save(form, tmp_path / "a.pth", program, TWO)
    check(path, {"a." * 60 + "w": np.float32([1, 2])})
    # A dict that holds itself.
    own = b"}p0\n" + text("w") + one() + b"s" + text("self") + b"g0\ns"
    check(save(form, tmp_path / "b.pth", own, TWO), {"w": np.float32([1, 2])})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "module, name", [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("posix", "system")]
)
def test_foreign_code_does_not_run(form, module, name, tmp_path):
    proof = tmp_path / "ran"
    command = f"open({str(proof)!r}, 'w')" if name == "eval" else f"touch {proof}"
    call = f"c{module}\n{name}\n".encode() + together(text(command)) + b"R"
    path = save(form, tmp_path / "a.pth", dictionary({"w": one(), "x": call}), TWO)
    check(path, {"w": np.float32([1, 2])})
    assert not proof.exists()
    # As the whole of the file, as the state dict, as a tensor's storage, and as its elements.
    function = f"c{module}\n{name}\n".encode()
    tensors = (
        b"ctorch._utils\n_rebuild_tensor_v2\n" + together(call, number(0), b"(t", b"(t") + b"R"
    )
    for program in (call, dictionary({"state_dict": call}), dictionary({"w": tensors}), function):
        path = save(form, tmp_path / "a.pth", program, TWO)
        with pytest.raises(InputError, match=rf"not made here \({module}\.{name}\); save the"):
            read_torch_file(path)
        assert not proof.exists()
    # The same program does run where nobody looks.
    if module == "os":
        pickle.loads(call + b".")
        assert proof.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "program",
    [
        dictionary({"w": one(shape=(3,))}),
        dictionary({"w": one(offset=1)}),
        dictionary({"w": one(offset=-1)}),
        dictionary({"w": one(strides=(-1,))}),
        dictionary({"w": one(strides=(1, 1))}),
        dictionary({"w": one("UntypedStorage")}),
        dictionary({"w": one(length=3)}),
        dictionary({"w": one(length=3, shape=(3,))}),
        dictionary({"w": one(view=b"(I1\nt")}),
        dictionary({"w": text("no tensor")}),
        dictionary({}),
        number(5),
        b"(lp0\n",
        b"",
        b"}}",
    ],
)
def test_programs_of_no_state_dict(form, program, tmp_path):
    with pytest.raises(InputError, match=r"a\.pth"):
        read_torch_file(save(form, tmp_path / "a.pth", program, TWO))


# Programs of a few bytes that ask for far more: by shapes, by strides, by many names for the same
# numbers, by the length of a storage, by the number of an object, and by tuples of tuples.
NESTED = text("a") + b"2\x86" * 60
GREEDY = {
    "stride 0": dictionary(
        {"w": tensor("FloatStorage", "0", 2, shape=(1 << 14, 1 << 14), strides=(0, 0))}
    ),
    "one stride 0": dictionary(
        {"w": tensor("FloatStorage", "0", 2, shape=(1 << 28, 2), strides=(0, 1))}
    ),
    "overlapping rows": dictionary(
        {"w": tensor("FloatStorage", "0", 5000, shape=(2500, 2500), strides=(1, 1))}
    ),
    "many names": dictionary(
        {
            f"w{number}": tensor("FloatStorage", "0", 5000, shape=(1000, 1000), strides=(1, 1))
            for number in range(5)
        }
    ),
    "beyond 64 bits": dictionary(
        {"w": tensor("FloatStorage", "0", 2, shape=(1 << 62, 4), strides=(0, 0))}
    ),
    "long storage": dictionary(
        {"w": tensor("FloatStorage", "0", 1 << 40, shape=(2,), strides=(1,))}
    ),
    "number of an object": b"Nr\x00\x00\x00\x030" + dictionary({"w": one(length=5000)}),
    "key of a storage": together(text("storage"), b"ctorch\nFloatStorage\n", NESTED, b"Vcpu\nI2\n")
    + b"Q",
    "shape": b"ctorch._utils\n_rebuild_tensor_v2\n"
    + together(storage("FloatStorage", "0", 2) + b"Q", number(0), NESTED, NESTED)
    + b"R",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("program", GREEDY.values(), ids=GREEDY)
def test_small_files_do_not_become_large(form, program, tmp_path):
    path = save(form, tmp_path / "a.pth", program, {"0": np.zeros(5000, "<f4")})
    tracemalloc.start()
    try:
        if program is GREEDY["number of an object"]:
            assert [*read_torch_file(path)] == ["w"]
        else:
            with pytest.raises(InputError, match=r"^cannot read .*a\.pth: .{,800}$"):
                read_torch_file(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


@pytest.mark.parametrize("form", FORMS)
def test_tied_and_repeated_numbers_are_read(form, tmp_path):
    """As one table that three layers share, and a mask that is one number."""
    elements = np.arange(6, dtype="<f4")
    tied = {
        name: tensor("FloatStorage", "0", 6, shape=(2, 3), strides=(3, 1)) for name in ("a", "b")
    }
    mask = tensor("FloatStorage", "0", 6, offset=5, shape=(512, 512), strides=(0, 0))
    program = dictionary({**tied, "mask": mask})
    whole = elements.reshape(2, 3)
    check(
        save(form, tmp_path / "a.pth", program, {"0": elements}),
        {"a": whole, "b": whole, "mask": np.full((512, 512), 5, np.float32)},
    )


@pytest.mark.parametrize("form", [*FORMS, "safetensors"])
def test_truncated_and_changed_files(form, tmp_path):
    path = tmp_path / "a.pth"
    if form == "safetensors":
        path.write_bytes(safetensors.numpy.save({"w": np.float32([1, 2])}))
    else:
        save(form, path, dictionary({"w": one()}), TWO)
    check(path, {"w": np.float32([1, 2])})
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"cannot read .*a\.pth"):
            read_torch_file(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError):
        read_torch_file(path)
    if form == "zip":  # which carries check sums
        path.write_bytes(whole.replace(TWO["0"].tobytes(), b"wronglen"))
        with pytest.raises(InputError, match="Bad CRC-32"):
            read_torch_file(path)
    if form == "pickles":
        path.write_bytes(whole.replace(struct.pack("<q", 2), struct.pack("<q", 1)))
        with pytest.raises(InputError, match="storage 0 has 1 elements, not 2"):
            read_torch_file(path)
        path.write_bytes(whole.replace(b"\x6c\xfc\x9c", b"\x6c\xfc\x9d"))
        with pytest.raises(InputError, match="another program wrote it"):
            read_torch_file(path)


def test_foreign_files(tmp_path):
    files = {
        "text": b"weights? here are none",
        "empty": b"",
        "json": b'{"a": 1, "b": {}}',
        "pickle": pickle.dumps({"w": 1}),
        "brace": b"12345678{",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "arrays", w=np.ones(3))
    with zipfile.ZipFile(tmp_path / "deflated", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", dictionary({"w": one()}) + b".")
        archive.writestr("a/data/0", TWO["0"].tobytes())
    for path in [*tmp_path.iterdir(), tmp_path / "missing", tmp_path]:
        with pytest.raises(InputError, match=f"cannot read {path}: .*; give a whole"):
            read_torch_file(path)


def test_written_files_are_read_again(tmp_path):
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    arrays = {
        "plain": grid,
        "transposed": grid.T,
        "strided": grid[::2, 1::2],
        "scalar": np.array(3),
        "jax": jnp.asarray(grid) / 3,
        "half": grid.astype(np.float16),
        "bfloat16": jnp.asarray([1 + 2**-7, -2.0], jnp.bfloat16),
    }
    path = tmp_path / "a.safetensors"
    write_torch_file(path, arrays)
    half = {name: np.asarray(arrays[name], np.float32) for name in ("half", "bfloat16")}
    check(path, arrays | half)
    again = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(again["transposed"], grid.T)
    assert again["bfloat16"].dtype == np.float32
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_torch_file(path, {"w": np.ones(2)})

    def save_file(arrays, target):
        pathlib.Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", save_file)
    with pytest.raises(InputError, match="cannot write .*: No space left on device"):
        write_torch_file(path, {"w": np.zeros(2)})
    assert list(tmp_path.iterdir()) == [path]
    check(path, {"w": np.ones(2)})
    monkeypatch.undo()
    write_torch_file(path, {"w": np.zeros(2)})
    check(path, {"w": np.zeros(2)})


def test_only_safetensors_are_written(tmp_path):
    with pytest.raises(InputError, match=r"as \.safetensors, not 'a\.pth'; change the name"):
        write_torch_file(tmp_path / "a.pth", {"w": np.ones(2)})
    with pytest.raises(InputError, match="cannot write .*missing"):
        write_torch_file(tmp_path / "missing" / "a.safetensors", {"w": np.ones(2)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", FORMS)
def test_what_pytorch_writes(form, tmp_path):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    base = torch.randn((4, 3, 5), generator=generator)
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    channels_last = torch.randn((2, 3, 4, 5)).to(memory_format=torch.channels_last)
    tensors = collections.OrderedDict(
        module.state_dict(),
        base=base,
        shared=base[1:, ::2].transpose(0, 2),
        expanded=base[:1].expand(3, 3, 5),
        channels_last=channels_last,
        parameter=torch.nn.Parameter(base[0]),
        half=base.half(),
        bfloat16=base.bfloat16()[..., 1:],
        double=base.double(),
        truth=base > 0,
        scalar=torch.tensor(7),
        empty=torch.zeros(0, 3),
    )
    expected = {
        name: (each.float() if each.dtype in (torch.half, torch.bfloat16) else each).detach()
        for name, each in tensors.items()
    }
    path = tmp_path / "a.pth"
    contents = {
        "": tensors,
        "state_dict.": {"epoch": 3, "args": argparse.Namespace(lr=0.1), "state_dict": tensors},
    }
    for prefix, content in contents.items():
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
        check(path, {prefix + name: each.numpy() for name, each in expected.items()})
    # A whole module is code as well as weights.
    torch.save(module, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.container\.Sequential"):
        read_torch_file(path)
