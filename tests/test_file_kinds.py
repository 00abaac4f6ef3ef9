"""Files that are no checkpoint are told by what they are."""

import bz2
import gzip
import lzma
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from lib.models.checkpoint import read_checkpoint
from lib.utils.errors import UserError


def script_module(path):
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(module, str(path))


def tar(path):
    inner = path.with_name("student.pth")
    torch.save({"net": {}}, inner)
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "student.pth")


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("student.pth", b"weights")


KINDS = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "web page": (b"\n<!DOCTYPE html><html>too many downloads", r"is a web page \(HTML\).*download the file itself"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "is a Git LFS pointer.*git lfs"),
    "text": (b"not found\n", "is a text that begins with 'not found'"),
    "json": (b'{"metadata": {"total_size": 1}}', "is a JSON text"),
    "xml": (b'<?xml version="1.0"?><net name="x">', "is an XML file, as OpenVINO writes.*--exported"),
    "bytes": (bytes(range(256)) * 20, "is of an unknown kind, or damaged"),
    "pickle": (pickle.dumps({"net": [1] * 40}), "is a pickle that torch.save did not write"),
    "old pickle": (pickle.dumps({"net": [1] * 40}, protocol=2), "is a pickle that torch.save did not write"),
    "gzip": (gzip.compress(b"weights"), r"is compressed with gzip; unpack it \(gunzip\)"),
    "bzip2": (bz2.compress(b"weights"), "is compressed with bzip2"),
    "xz": (lzma.compress(b"weights"), "is compressed with xz"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "is an HDF5 file"),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x1a\x052.11." + bytes(40), "is an ONNX model; .*--exported"),
    "lite": (b"\x1c\0\0\0TFL3" + bytes(40), "is a TensorFlow Lite model"),
    "array": (lambda path: np.save(path.open("wb"), np.zeros(3)), r"is a NumPy array \(\.npy\)"),
    "arrays": (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), r"is an archive of NumPy arrays \(\.npz\)"),
    "tar": (tar, r"is a tar archive \(with student\.pth\); unpack it \(tar -xf\) and name the checkpoint"),
    "zip": (zipped, r"is a zip archive \(with student\.pth\); unpack it \(unzip\)"),
    "empty zip": (lambda path: zipfile.ZipFile(path, "w").close(), "is a zip archive; unpack it"),
    "torchscript": (script_module, "is a TorchScript module; .*--exported"),
    "damaged zip": (b"PK\x03\x04" + bytes(40), "cannot be read as a PyTorch checkpoint: .*truncated or damaged"),
}


@pytest.mark.filterwarnings("ignore:.*TorchScript", "ignore:.*torch.jit")
@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_no_checkpoint_are_told_by_their_kind(tmp_path, kind):
    content, message = KINDS[kind]
    path = tmp_path / "bad.pth.tar"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    with pytest.raises(UserError, match=r"bad\.pth\.tar " + message):
        read_checkpoint(path)
