"""Pickles written by hand to run code or to change the process: the reader of weights does neither."""

import io
import pickle
import zipfile

import pytest
import torch

from lib.models.checkpoint import read_checkpoint
from lib.models.safe_load import Placeholder
from lib.utils.errors import UserError


def name(module, attribute):
    """Pickle code that looks a name up."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def dotted(module, attribute):
    """The same for protocol 4, where dots reach into objects."""
    return b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute)) + b"\x93"


def text(value):
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def write_legacy(path, code):
    with open(path, "wb") as file:
        for header in (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {}):
            pickle.dump(header, file, protocol=2)
        file.write(code)
        pickle.dump([], file, protocol=2)


def write_zip(path, code):
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.namelist():
            new.writestr(item, code if item.endswith("data.pkl") else old.read(item))


UNKNOWN = name("nowhere", "Unknown") + b"0"      # makes the strict reader give up
MODULE = b"(" + text("module") + b"h\x00" + text("source.py") + text("other source\n") + b"tQ"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [write_legacy, write_zip])
@pytest.mark.parametrize("target", ["torch._utils _rebuild_tensor_v2", "torch FloatStorage", "torch Tensor",
                                    "collections OrderedDict", "nowhere Unknown"])
def test_a_file_cannot_change_the_process_or_write_a_patch_file(tmp_path, target, write):
    before = vars(torch._utils._rebuild_tensor_v2).copy(), dict(vars(torch.FloatStorage)), dict(vars(torch.Tensor))
    attributes = (b"}" + text("dump_patches") + b"\x88s" + text("__wrapped__") + name("nowhere", "Unknown") + b"s"
                  + b"}" + text("__name__") + text(str(tmp_path / "planted")) + b"s\x86b")
    change = name(*target.split()) + b"q\x00" + attributes + b"0"
    write(tmp_path / "attack.pth", b"\x80\x02" + UNKNOWN + change + MODULE + b".")
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "attack.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["attack.pth"]
    assert torch._utils._rebuild_tensor_v2.__name__ == "_rebuild_tensor_v2"
    after = vars(torch._utils._rebuild_tensor_v2), dict(vars(torch.FloatStorage)), dict(vars(torch.Tensor))
    assert after == before


@pytest.mark.parametrize("write", [write_legacy, write_zip])
def test_a_file_can_refer_to_storages_only(tmp_path, write):
    module = b"(" + text("module") + name("nowhere", "Unknown") + text("") + text("") + b"tQ"
    write(tmp_path / "attack.pth", b"\x80\x02" + b"}" + text("a") + module + b"s.")
    with pytest.raises(UserError, match="truncated or damaged"):
        read_checkpoint(tmp_path / "attack.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [write_legacy, write_zip])
@pytest.mark.parametrize("path_to", [("torch", "serialization.os.system"), ("torch._utils", "torch.os.system"),
                                     ("torch", "storage.os.system"), ("collections", "_sys.modules"),
                                     ("torch", "UntypedStorage.from_file"), ("torch.storage", "_load_from_bytes")])
def test_dots_in_a_name_reach_nothing(tmp_path, write, path_to):
    mark = tmp_path / "was_here"
    call = dotted(*path_to) + b"(" + text(f"touch {mark}") + b"tR0"
    write(tmp_path / "attack.pth", b"\x80\x04" + UNKNOWN + call + b"}" + text("a") + dotted(*path_to) + b"s.")
    assert read_checkpoint(tmp_path / "attack.pth")["a"] is Placeholder
    assert not mark.exists()
