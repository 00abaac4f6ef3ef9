"""tracking/compress.py from the command line, in small: from a budget to a tested student."""

import json
import sys

import pytest
from square_runs import load_script
from test_budget import request_for, steady_clock  # noqa: F401 - the clock holds here, too
from tiny_models import require_packages

from lib.utils.errors import UserError

TRAINING = ("TRAIN.EPOCH=1", "TRAIN.TOTAL_BATCH=0", "TRAIN.BATCH_SIZE=4", "DATA.TRAIN.SAMPLE_PER_EPOCH=8",
            "DATA.VAL.DATASETS_NAME=[]", "DATA.VAL.DATASETS_RATIO=[]", "DATA.TRAIN.DATASETS_RATIO=[1]",
            "TRAIN.NUM_WORKER=0", "TEST.EPOCH=1")


@pytest.fixture
def command(tmp_path, square_data, root):
    """`command(*more)`: arguments of tracking/compress.py for a tiny teacher on the moving squares."""
    request = request_for(tmp_path)
    settings = [*TRAINING, f"DATA.TRAIN.DATASETS_NAME=['FOLDER:{square_data}']"]

    def line(*more):
        return ["--teacher", "/".join(request.teacher), "--checkpoint", str(request.checkpoint), "--device", "cpu",
                "--train-device", "cpu", "--output", str(tmp_path / "out"), "--frames", str(square_data), "--pairs",
                "2", "--vary",
                *(part for setting in settings for part in ("--set", setting)), *more]
    return line


@pytest.fixture
def compress_script(root, monkeypatch):
    """`compress_script(arguments)`: tracking/compress.py's main in this process."""
    def run(line):
        monkeypatch.setattr("sys.argv", ["compress.py", *line])
        return load_script(root / "tracking" / "compress.py").main()
    return run


@pytest.mark.parametrize("runtime", [("fast", "bfloat16"), ("onnx", "float32")])
def test_from_a_budget_to_a_tested_student(tmp_path, square_data, compress_script, command, runtime, capsys):
    backend, precision = runtime
    require_packages(backend)
    line = command("--budget-params", "1000", "--layers", "2", "--train", "--evaluate", f"folder:{square_data}",
                   "--backend", backend, "--precision", precision, "--max-drop", "100")
    assert compress_script(line) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["auc"]) == {"teacher", "student", "deployed"}
    assert set(report["measured_ms"]) == {"teacher", "student", "reference"}
    assert report["drop"] == report["auc"]["student"] - report["auc"]["deployed"]
    assert (report["export"] is None) == (backend == "fast")
    shown = capsys.readouterr().out
    assert "budget 1000 M parameters, 2 layers" in shown and "AUC on folder:" in shown
    now = report["predicted"]["ms"] * report["measured_ms"]["reference"] / report["random_weights"]["reference_ms"]
    assert f"now, predicted {now:.1f} ms, measured {report['measured_ms']['student']:.1f} ms" in shown
    checkpoint = tmp_path / "out" / "checkpoints" / "train" / "compresstracker"
    assert (tmp_path / "out" / "export").exists() == (backend == "onnx")
    written = {path: path.stat().st_mtime_ns for folder in (checkpoint, tmp_path / "out" / "export")
               for path in folder.rglob("*") if path.suffix in (".tar", ".onnx")}
    assert written and compress_script(line) == 0
    assert written == {path: path.stat().st_mtime_ns for path in written}, "a second call trained or exported again"
    with pytest.raises(UserError, match=r"was made with other settings: COMPRESS.FEAT_WEIGHT 0.2 instead of 3.0"):
        compress_script([*line, "--set", "COMPRESS.FEAT_WEIGHT=3.0"])


def test_a_drop_beyond_the_allowed_is_an_error(tmp_path, square_data, compress_script, command, monkeypatch):
    from lib.pipeline.scoring import TestSet

    auc = iter([50.0, 49.0, 40.0])
    monkeypatch.setattr(TestSet, "score", lambda *_: ({"AUC": next(auc)}, {}))
    with pytest.raises(UserError, match=r"fast bfloat16 costs 9\.00 points of AUC, more than the 2 of --max-drop"):
        compress_script(command("--layers", "2", "--train", "--evaluate", f"folder:{square_data}", "--precision",
                                "bfloat16", "--max-drop", "2"))


def test_a_missing_package_is_heard_of_before_anything_is_measured(tmp_path, compress_script, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match="pip install.* openvino"):
        compress_script(command("--layers", "2", "--backend", "openvino"))
    assert not list((tmp_path / "out").rglob("*.json")), "importance or costs were measured"


def test_without_training_the_command_for_it_is_shown(tmp_path, compress_script, command, capsys, train_script):
    assert compress_script(command("--layers", "3")) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert list((tmp_path / "out").glob("teacher_3_layers.yaml"))
    assert last.startswith("python tracking/train.py --script compresstracker --config ")
    assert train_script(last.split()[2:] + ["--device", "cpu"]) == 0
    assert list((tmp_path / "out").rglob("CompressTracker_ep0001.pth.tar"))


@pytest.mark.parametrize("more, message", [
    ((), "name a budget"), (("--budget-ms", "0"), "--budget-ms must be above 0"),
    (("--layers", "2", "--teacher", "ostrack"), "expected SCRIPT/CONFIG"),
    (("--layers", "2", "--evaluate", "lasot"), "--evaluate needs --train"),
    (("--layers", "2", "--train", "--max-drop", "1"), "need --evaluate"),
    (("--layers", "2", "--name", "a/b"), "--name must not hold"),
    (("--layers", "2", "--recipe", "foo"), "--recipe foo: expected SCRIPT/CONFIG")])
def test_wrong_options(compress_script, command, more, message, capsys):
    with pytest.raises(SystemExit):
        compress_script(command(*more))
    assert message in capsys.readouterr().err
