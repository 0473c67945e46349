"""Files as torch.save writes them, made by hand: pickles opcode by opcode."""

import pickle
import struct
import zipfile

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def number(n):
    return b"I%d\n" % n


def text(string):
    return b"V" + string.encode() + b"\n"


def together(*parts):
    return b"(" + b"".join(parts) + b"t"


def storage(kind, key, length):
    what = text("storage"), b"ctorch\n%s\n" % kind.encode(), text(key), text("cpu"), number(length)
    return together(*what)


def tensor(kind, key, length, *, offset=0, shape, strides, view=b""):
    pid = storage(kind, key, length)[:-1] + view + b"tQ"
    shape, strides = (together(*map(number, sizes)) for sizes in (shape, strides))
    arguments = together(pid, number(offset), shape, strides, b"I00\n", ORDERED_DICT)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def dictionary(items, empty=ORDERED_DICT):
    return empty + b"".join(text(name) + value + b"s" for name, value in items.items())


def save(form, path, program, storages, byteorder="little"):
    """A file of that form: the program, which leaves the state dict, and {key: elements}."""
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", program + b".")
            archive.writestr("weights/byteorder", byteorder)
            for key, elements in storages.items():
                archive.writestr(f"weights/data/{key}", elements.tobytes())
        return path
    system = {"protocol_version": 1001, "little_endian": byteorder == "little"}
    parts = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [program + b".", pickle.dumps(list(storages), 2)]
    for elements in storages.values():
        parts += [struct.pack("<q", len(elements)), elements.tobytes()]
    path.write_bytes(b"".join(parts))
    return path
