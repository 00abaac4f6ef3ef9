"""Archives for the evaluation servers."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest

from lib.test.utils.packing import SERVERS, pack
from lib.utils.errors import UserError
from lib.vis.draw import save_image


def write_results(folder, names, frames=3):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.txt").write_text("".join(f"{i}\t2\t3\t4\n" for i in range(frames)))
        (folder / f"{name}_time.txt").write_text("".join(f"0.0{i}\n" for i in range(frames)))


def contents(archive):
    with zipfile.ZipFile(archive) as zipped:
        return {name: zipped.read(name).decode() for name in zipped.namelist()}


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_got10k_layout(tmp_path):
    names = ["GOT-10k_Test_000001", "GOT-10k_Test_000002"]
    write_results(tmp_path / "got10k", [*names, "GOT-10k_Val_000001"])
    before = snapshot(tmp_path / "got10k")
    archive = tmp_path / "out.zip"
    assert pack(SERVERS["got10k"], tmp_path, None, archive, partial=True) == 2
    expected = {}
    for name in names:
        expected[f"{name}/{name}_001.txt"] = "0,2,3,4\n1,2,3,4\n2,2,3,4\n"
        expected[f"{name}/{name}_time.txt"] = "0.00\n0.01\n0.02\n"
    assert contents(archive) == expected
    assert snapshot(tmp_path / "got10k") == before, "the raw results were touched"
    first = archive.read_bytes()
    pack(SERVERS["got10k"], tmp_path, None, archive, partial=True)
    assert archive.read_bytes() == first


def test_trackingnet_layout(tmp_path):
    write_results(tmp_path / "trackingnet", ["abc_0"])
    (tmp_path / "trackingnet" / "b-1.txt").write_text("0.5000\t2.25\t3.0\t4.0\n")
    archive = tmp_path / "out.zip"
    pack(SERVERS["trackingnet"], tmp_path, {"abc_0": 3, "b-1": 1}, archive, partial=True)
    assert contents(archive) == {"abc_0.txt": "0,2,3,4\n1,2,3,4\n2,2,3,4\n", "b-1.txt": "0.5000,2.25,3.0,4.0\n"}


def test_damaged_results_are_refused(tmp_path):
    server = SERVERS["got10k"]._replace(sequences=5)
    write_results(tmp_path / "got10k", ["whole", "short", "untimed", "broken"])
    (tmp_path / "got10k" / "untimed_time.txt").unlink()
    (tmp_path / "got10k" / "broken.txt").write_text("0\t1\t2\t3\n1\t2\tnan\t3\n1\t2\t3\t4\n")
    lengths = {"whole": 3, "short": 4, "untimed": 3, "broken": 3, "missing": 3}
    with pytest.raises(UserError) as caught:
        pack(server, tmp_path, lengths, tmp_path / "out.zip")
    message = str(caught.value)
    assert "4 of 5 sequences" in message and "whole" not in message
    assert "short.txt has 3 lines, the sequence has 4 frames" in message
    assert "untimed_time.txt is missing" in message and "missing.txt is missing" in message
    assert "broken.txt, line 2" in message and "--dataset got10k_test" in message
    assert not list(tmp_path.glob("*.zip"))


def test_no_results(tmp_path):
    for lengths in (None, {"abc_0": 3}):
        with pytest.raises(UserError, match="no results of the TrackingNet test set"):
            pack(SERVERS["trackingnet"], tmp_path, lengths, tmp_path / "out.zip", partial=True)


@pytest.mark.parametrize("known", [False, True])
def test_a_part_of_the_test_set_is_refused(tmp_path, known):
    write_results(tmp_path / "trackingnet", ["a_0", "b_0"])
    lengths = {"a_0": 3, "b_0": 3} if known else None
    with pytest.raises(UserError, match="has 511 sequences, but there are .* of 2; .*--partial"):
        pack(SERVERS["trackingnet"], tmp_path, lengths, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()
    whole = SERVERS["trackingnet"]._replace(sequences=2)
    assert pack(whole, tmp_path, lengths, tmp_path / "out.zip") == 2


def test_partial_leaves_out_what_has_no_results(tmp_path):
    write_results(tmp_path / "trackingnet", ["a_0"])
    lengths = {"a_0": 3, "b_0": 3}
    assert pack(SERVERS["trackingnet"], tmp_path, lengths, tmp_path / "out.zip", partial=True) == 1
    assert list(contents(tmp_path / "out.zip")) == ["a_0.txt"]


@pytest.fixture
def datasets(tmp_path):
    """Two-frame test sets of one sequence each; returns the environment that points to them."""
    image = np.zeros((8, 8, 3), np.uint8)
    for folder in ("got10k/test/GOT-10k_Test_000001", "trackingnet/TEST/frames/abc_0"):
        for i in range(2):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            save_image(tmp_path / folder / f"{i}.jpg", image)
    (tmp_path / "got10k/test/list.txt").write_text("GOT-10k_Test_000001\n")
    (tmp_path / "got10k/test/GOT-10k_Test_000001/groundtruth.txt").write_text("1,2,3,4\n")
    (tmp_path / "trackingnet/TEST/anno").mkdir()
    (tmp_path / "trackingnet/TEST/anno/abc_0.txt").write_text("1,2,3,4\n")
    return {"COMPRESSTRACKER_GOT10K_PATH": str(tmp_path / "got10k"),
            "COMPRESSTRACKER_TRACKINGNET_PATH": str(tmp_path / "trackingnet")}


@pytest.mark.parametrize(("name", "sequence"), [("got10k", "GOT-10k_Test_000001"), ("trackingnet", "abc_0")])
def test_scripts(root, tmp_path, datasets, name, sequence):
    folder = tmp_path / "out/test/tracking_results/compresstracker/x_002"
    write_results(folder / name, [sequence], frames=2)
    command = [sys.executable, str(root / f"lib/test/utils/transform_{name}.py"), "--tracker_name", "compresstracker",
               "--cfg_name", "x", "--runid", "2", "--save_dir", "out"]
    whole = subprocess.run(command, cwd=tmp_path, env=datasets, capture_output=True, text=True)
    assert whole.returncode == 2 and "--partial" in whole.stderr and "Traceback" not in whole.stderr
    command.append("--partial")
    run = subprocess.run(command, cwd=tmp_path, env=datasets, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "1 of " in run.stderr and "not checked" not in run.stderr
    assert len(contents(folder / f"{name}_submit.zip")) == (2 if name == "got10k" else 1)

    write_results(folder / name, [sequence], frames=3)
    run = subprocess.run(command, cwd=tmp_path, env=datasets, capture_output=True, text=True)
    assert run.returncode == 2 and "has 3 lines, the sequence has 2 frames" in run.stderr
    assert "Traceback" not in run.stderr
