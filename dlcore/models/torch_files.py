"""Weights in PyTorch's files, read without PyTorch and without running any code in them.

There are three formats: safetensors; the ZIP archive of `torch.save` since PyTorch 1.6; and its
older form, five pickles one after another, followed by the raw storages. A pickle is a program that
may call any function; the unpickler here knows the few that a state dict needs and builds only
descriptions of tensors with them. Any other name that a program calls is never looked up: an inert
placeholder replaces it.
"""

import math
import os
import pathlib
import pickle
import reprlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import tqdm

from dlcore.errors import InputError
from dlcore.files import open_file

# The first pickle of the older form.
_MAGIC = 0x1950A86A20F9469CFC6C
# The type of an element in the file. bfloat16 is the upper half of a float32.
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
}
_SAFETENSORS = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "bf16",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
    "U16": "u2",
    "U32": "u4",
    "U64": "u8",
}
# Tensors may share their numbers, or repeat them by strides of 0: tied weights count three or four
# times. So the tensors of a file may take this many times its size, or this many bytes.
_REPEATS, _SMALL = 16, 1 << 24
_DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()


def read_torch_file(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the arrays of a file by their names, in the order of the file.

    float16 and bfloat16 become float32, which holds all of their values. The name of a dict within
    a dict becomes a prefix: the array in {"state_dict": {"fc.bias": ...}} is named
    state_dict.fc.bias. `cnn.torch_weights.find_weights` finds a model's own arrays among them.
    Numbers, texts, objects and an optimizer's values for each parameter are left out.

    Args:
        path: a .safetensors, .pth or .pt file; the format is recognised by its content.

    Raises:
        InputError: when the file cannot be read, is damaged, or holds no arrays by name.
    """
    path = pathlib.Path(path)
    try:
        with open_file(path) as file:
            start = file.read(9)
            file.seek(0)
            if start[8:] == b"{":
                return _read_safetensors(file, path)
            if start[:2] == b"PK":
                return _read_zip(file, path)
            return _read_pickles(file, path)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes the readers raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(
            f"cannot read {path}: {reason}; give a whole "
            ".safetensors file or one that torch.save wrote"
        ) from error


def write_torch_file(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Writes arrays by their names as a .safetensors file that is either complete or absent.

    Args:
        path: the path of the file, which must end with .safetensors.
        arrays: NumPy or JAX arrays; bfloat16 is written as float32.

    Raises:
        InputError: for any other ending, or when the file cannot be written.
    """
    import safetensors.numpy

    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"weights are written as .safetensors, not {path.name!r}; change the name")
    # The arrays are put into C order, for the library ignores strides.
    ready = {
        name: np.array(a, np.float32 if a.dtype.name == "bfloat16" else a.dtype, order="C")
        for name, a in arrays.items()
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        safetensors.numpy.save_file(ready, partial)
        os.replace(partial, path)
    except (OSError, safetensors.SafetensorError) as reason:
        raise InputError(f"cannot write {path}: {reason}; choose another place") from None
    finally:
        partial.unlink(missing_ok=True)


class _Storage(NamedTuple):
    """A run of `length` elements that tensors share; `kind` is the name of PyTorch's class."""

    kind: str
    key: str
    length: int


class _Tensor(NamedTuple):
    """A view into a storage, in elements, as `torch.as_strided` takes it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_Named = tuple[str, _Tensor]


class _Placeholder:
    """A placeholder for an object that weights do not need, which accepts and discards everything.

    The methods are those by which a pickle fills objects, lists, dicts and sets.
    """

    def __new__(cls, *_: Any, **__: Any) -> "_Placeholder":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        pass

    def _take(self, *_: Any) -> None:
        pass

    __setstate__ = append = extend = __setitem__ = add = _take


class _Unpickler(pickle._Unpickler):
    """An unpickler that builds descriptions of tensors, not tensors; see the module's docstring.

    It extends Python's unpickler written in Python, because the one in C allocates memory for any
    number that a pickle assigns to an object, up to 32 GB.

    Attributes:
        storages: the storages that tensors share, by their keys.
        foreign: the names of the objects that placeholders replace.
    """

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self.foreign: list[str] = []
        self.storages: dict[str, _Storage] = {}
        # Bound methods and strings: on them a pickle can set no attribute that anything reads.
        functions: dict[str, Callable[..., Any] | str] = {
            "collections.OrderedDict": self._ordered_dict,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch._utils._rebuild_parameter_with_state": self._parameter,
        }
        names = {f"torch.{name}": name for name in (*_STORAGES, *_DTYPES)}
        self._known = {**functions, **names}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self._known:
            return self._known[full]
        self.foreign.append(full)
        # A class of its own, on which a pickle may set attributes.
        return type("Placeholder", (_Placeholder,), {})

    def persistent_load(self, pid: Any) -> Any:
        tag, kind, key, _, length, *view = pid
        if tag != "storage" or any(view) or length < 0 or not isinstance(key, str | int):
            raise ValueError(f"no storage is {reprlib.repr(pid)}")
        if not isinstance(kind, str) or kind not in _STORAGES:
            return _Placeholder()  # of numbers that are no weights here, such as complex ones
        return self.storages.setdefault(str(key), _Storage(kind, str(key), length))

    def _ordered_dict(self, items: Any = ()) -> Any:
        class Dict(dict):
            """State dicts carry an attribute that says the versions of their modules."""

            def __setstate__(self, state: Any) -> None:
                pass

        return Dict(items)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
        if isinstance(storage, _Placeholder):
            return storage
        numbers = (offset, *shape, *strides)
        whole = all(type(n) is int and n >= 0 for n in numbers)
        if type(storage) is not _Storage or not whole or len(shape) != len(strides):
            given = reprlib.repr((storage, offset, shape, strides))
            raise ValueError(f"no tensor is {given}")
        end = offset + 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if math.prod(shape) > 0 and end > storage.length:
            raise ValueError(f"a tensor of shape {shape} reaches beyond its storage")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))

    def _parameter(self, data: Any, *_: Any) -> Any:
        return data


def _read_safetensors(file: IO[bytes], path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors

    arrays = {}
    for name, tensor in tqdm.tqdm(
        safetensors.deserialize(file.read()), f"reading {path.name}", delay=2, leave=False
    ):
        if tensor["dtype"] not in _SAFETENSORS:
            raise InputError(
                f"{name} of {path} is of type {tensor['dtype']}; convert it to one of "
                f"{', '.join(_SAFETENSORS)}"
            )
        flat = _decoded(tensor["data"], _SAFETENSORS[tensor["dtype"]], "<")
        arrays[name] = flat.reshape(tensor["shape"])
    # The library returns them in any order.
    return {name: arrays[name] for name in sorted(arrays)}


def _read_zip(file: IO[bytes], path: pathlib.Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("another program wrote this ZIP archive")
        if any(info.compress_type for info in archive.infolist()):
            raise ValueError("its members are compressed, and could be of any size")
        folder = pickles[0].split("/")[0]
        order = "<"
        if f"{folder}/byteorder" in names:
            order = {b"little": "<", b"big": ">"}[archive.read(f"{folder}/byteorder")]
        with archive.open(pickles[0]) as program:
            unpickler = _Unpickler(program)
            tree = unpickler.load()

        def read(storage: _Storage) -> bytes:
            return archive.read(f"{folder}/data/{storage.key}")

        return _arrays(tree, read, order, path, unpickler.foreign)


def _read_pickles(file: IO[bytes], path: pathlib.Path) -> dict[str, np.ndarray]:
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("another program wrote it")
    _, system = (_Unpickler(file).load() for _ in range(2))
    unpickler = _Unpickler(file)
    tree = unpickler.load()
    keys = _Unpickler(file).load()
    # The storages follow in the order of the keys, each after its length.
    places, end = {}, file.tell()
    for key in keys:
        if key not in unpickler.storages:
            break  # of a type whose size is not known, and so are the places behind it
        storage = unpickler.storages[key]
        places[key] = end
        end += 8 + storage.length * _dtype(_STORAGES[storage.kind], "<").itemsize

    def read(storage: _Storage) -> bytes:
        if storage.key not in places:
            raise ValueError(f"storage {storage.key} lies behind one of a type that is not known")
        file.seek(places[storage.key])
        length = int.from_bytes(file.read(8), "little")
        if length != storage.length:
            raise ValueError(f"storage {storage.key} has {length} elements, not {storage.length}")
        return file.read(length * _dtype(_STORAGES[storage.kind], "<").itemsize)

    order = "<" if system["little_endian"] else ">"
    return _arrays(tree, read, order, path, unpickler.foreign)


def _tensors(tree: Any, prefix: str = "", seen: set[int] | None = None) -> Iterator[_Named]:
    """Yields the tensors in dicts, each with its name prefixed by the names of the dicts.

    A dict that occurs in several places is read only in the first, so that no file takes long.
    """
    seen = set() if seen is None else seen
    if not isinstance(tree, dict) or id(tree) in seen:
        return
    seen.add(id(tree))
    for name, value in tree.items():
        if isinstance(name, str) and isinstance(value, _Tensor):
            yield prefix + name, value
        elif isinstance(name, str):
            yield from _tensors(value, f"{prefix}{name}.", seen)


def _arrays(
    tree: Any,
    read: Callable[[_Storage], bytes],
    order: str,
    path: pathlib.Path,
    foreign: Sequence[str],
) -> dict[str, np.ndarray]:
    """Returns the arrays of the tensors in `tree`; `foreign` are the names of other objects."""
    tensors: dict[str, _Tensor] = {}
    for name, tensor in _tensors(tree):
        if name in tensors:
            raise ValueError(f"it has two tensors of the name {name}")
        tensors[name] = tensor
    if not tensors:
        objects = ", ".join([*dict.fromkeys(foreign)][:3])
        raise InputError(
            f"{path} holds no state dict, a dict of tensors by name"
            f"{f', but objects that are not made here ({objects})' if objects else ''}; save "
            "the state dict, torch.save(model.state_dict(), ...)"
        )
    size = path.stat().st_size
    held = sum(
        math.prod(tensor.shape) * _dtype(_STORAGES[tensor.storage.kind], order).itemsize
        for tensor in tensors.values()
    )
    if held > max(_SMALL, _REPEATS * size):
        raise ValueError(f"its {size:,} bytes would become {held:,} bytes of tensors")
    by_storage: dict[_Storage, list[str]] = {}
    for name, tensor in tensors.items():
        by_storage.setdefault(tensor.storage, []).append(name)
    arrays: dict[str, np.ndarray] = {}
    # One storage after another, so that the whole file is in memory only once.
    progress = tqdm.tqdm(by_storage.items(), f"reading {path.name}", delay=2, leave=False)
    for storage, names in progress:
        if storage.length * _dtype(_STORAGES[storage.kind], order).itemsize > size:
            raise ValueError(
                f"storage {storage.key} has {storage.length:,} elements, more than the file"
            )
        flat = _decoded(read(storage), _STORAGES[storage.kind], order)
        if flat.size < storage.length:
            raise ValueError(f"storage {storage.key} ends after {flat.size} of {storage.length}")
        arrays |= {name: _view(flat, tensors[name]) for name in names}
    return {name: arrays[name] for name in tensors}


def _view(flat: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """Copies a tensor out of its storage, in C order."""
    strides = [stride * flat.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)
    return np.array(view, order="C")


def _dtype(code: str, order: str) -> np.dtype:
    return np.dtype(order + ("u2" if code == "bf16" else code))


def _decoded(data: bytes | bytearray, code: str, order: str) -> np.ndarray:
    """Decodes the elements into one flat array in the machine's own byte order."""
    flat = np.frombuffer(data, _dtype(code, order))
    if code == "bf16":
        return (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.astype(np.float32 if code == "f2" else np.dtype(code), copy=False)
