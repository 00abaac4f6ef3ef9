"""Folders of outputs: one owner at a time, and tried before the work."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from fake_trackers import Frames, Mover
from tiny_models import tiny

from lib.test.evaluation import manifest
from lib.test.evaluation.datasets import Sequence
from lib.test.evaluation.running import run_dataset
from lib.train.run import run_training
from lib.train.run_paths import RunPaths
from lib.utils import files, ownership
from lib.utils.errors import UserError
from lib.utils.files import cannot_write, check_output, check_output_file
from lib.utils.ownership import own

HOLDER = """
import sys, time
from lib.utils.ownership import own
with own(sys.argv[1], share=len(sys.argv) > 2) as hold:
    if len(sys.argv) > 2:
        hold.admit()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(root):
    """Start processes that hold a folder."""
    started = []

    def start(folder, *more):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), *more], cwd=root, text=True,
                                   stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_second_is_told_who_owns_the_folder(holder, tmp_path):
    first = holder(tmp_path / "out")
    with pytest.raises(UserError, match=rf"out is being written by process {first.pid} on \S+ since .*; wait for its "
                                        "end, stop it, or choose another folder"), own(tmp_path / "out"):
        pass
    first.kill()
    first.wait()
    with own(tmp_path / "out") as hold:     # what the killed one left is harmless
        assert hold.alone
    assert not any((tmp_path / "out").iterdir())


def test_this_process_is_kept_out_too(tmp_path):
    with own(tmp_path), pytest.raises(UserError, match="is being written by this process already"), own(tmp_path):
        pass
    with own(tmp_path):
        pass


def test_a_folder_is_shared_by_those_who_are_let_in(holder, tmp_path, monkeypatch):
    first = holder(tmp_path, "share")
    with own(tmp_path, share=True) as hold:
        assert not hold.alone and f"process {first.pid} " in hold.others
    with pytest.raises(UserError, match=f"process {first.pid} "), own(tmp_path):
        pass
    first.kill()
    first.wait()
    holder(tmp_path)
    monkeypatch.setattr(ownership, "_WAIT", 0.1)
    with pytest.raises(UserError, match="is being written by"), own(tmp_path, share=True):
        pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, caplog):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(ownership.fcntl, "lockf", lockf)
    with own(tmp_path) as hold:
        assert hold.alone
    assert "this file system has no locks (No locks available)" in caplog.text


# ---- tried before the work


def test_an_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/out: Not a directory; a file is where a folder is "
                                        "needed; choose another --save_dir"):
        check_output(tmp_path / "file" / "out", "--save_dir")
    with pytest.raises(UserError, match="cannot write .*: Is a directory; .*choose another --json"):
        check_output_file(tmp_path, "--json")
    with pytest.raises(UserError, match="cannot write .*file: File exists"):
        check_output(tmp_path / "file", "--output")


def test_trying_leaves_nothing(tmp_path):
    check_output(tmp_path / "a" / "b", "--output")
    check_output_file(tmp_path / "a" / "b.json", "--json")
    assert not any(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    check_output(tmp_path / "kept", "--output")
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize(("code", "remedy"), [
    (errno.ENOSPC, "free disk space or choose another --output"),
    (errno.EACCES, "change its permissions or choose another --output"),
    (errno.EROFS, "; choose another --output"), (errno.EIO, "; choose another --output")])
def test_the_remedy_fits_the_cause(tmp_path, monkeypatch, code, remedy):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", fail)
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: {os.strerror(code)}; {remedy.lstrip('; ')}$"):
        check_output(tmp_path, "--output")
    assert ("disk space" in cannot_write("x", OSError(code, ""))) == (code == errno.ENOSPC)


# ---- results


def made_with(weights: str) -> dict:
    return {"format": manifest.FORMAT, "rules": manifest.RULES, "checkpoint": {"file": weights, "sha256": weights},
            "settings": {"MODEL.FAMILY": "ostrack"}}


def track(folder, weights, name, **options):
    chosen = Sequence(name, "lasot", Frames(3), np.full((3, 4), 7.0))
    return run_dataset([chosen], Mover, folder, device="cpu", made_with=made_with(weights), **options)


@pytest.mark.parametrize("force", [False, True])
def test_two_tests_with_different_weights_do_not_mix(holder, tmp_path, force):
    manifest.claim(tmp_path, made_with("a"))        # as a run does first, before it has results
    first = holder(tmp_path, "share")
    with pytest.raises(UserError, match=rf"is being written by process {first.pid} .*, with something else: checkpoint "
                                        "a .* instead of b .*wait for its end, or keep both with --runid N"):
        track(tmp_path, "b", "one", force=force)
    assert track(tmp_path, "a", "one", force=force).finished == ["one"]     # the same weights may work side by side
    first.kill()
    first.wait()
    (tmp_path / "one.txt").unlink()
    (tmp_path / "one_time.txt").unlink()
    assert track(tmp_path, "b", "one").finished == ["one"]      # nothing of a run that is gone is in the way
    assert manifest.read_manifest(tmp_path)["checkpoint"]["file"] == "b"


def test_a_second_training_is_refused(holder, tmp_path):
    cfg = tiny()
    paths = RunPaths.of(tmp_path, cfg)
    first = holder(paths.checkpoints)
    with pytest.raises(UserError, match=f"is being written by process {first.pid} "):
        run_training(cfg, tmp_path)
    assert [path.name for path in paths.checkpoints.iterdir()] == [".owner"]
