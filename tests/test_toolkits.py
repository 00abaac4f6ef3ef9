"""The tracker inside the VOT toolkit's protocol and the GOT-10k toolkit, with the packages of the registry."""

import configparser
import importlib
import importlib.util
import io
import json
import shlex
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import trees
from fake_trackers import Looker, Mover
from PIL import Image

from lib.test.evaluation import get_dataset
from lib.test.evaluation.running import run_dataset
from lib.test.evaluation.single import track_sequence
from lib.test.toolkits.vot import serve, trackers_ini
from lib.test.tracker import Tracker
from lib.test.utils.packing import SERVERS, pack
from lib.utils.errors import UserError
from lib.utils.files import ROOT
from lib.utils.images import decode_rgb

TEACHER = ROOT / "pretrained_models" / "quickstart_teacher.pth.tar"
FRAMES = 6


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Two sequences of pictures (trees.folder also makes a video, which the toolkits cannot read)."""
    folder = trees.folder(tmp_path_factory.mktemp("videos"), frames=FRAMES)
    return get_dataset(f"folder:{folder}", None)[:2]


# ---------------------------------------------------------------- VOT

@pytest.fixture
def connect(tmp_path):
    """Start a command as the VOT toolkit does, in another folder; gives its process and the toolkit's end."""
    pytest.importorskip("trax", reason="the package vot-trax is not installed")
    from trax.client import Client

    started = []

    def connect(command):
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        started.append(process)
        return process, Client(stream=(process.stdin.fileno(), process.stdout.fileno()), log=lambda text: None)

    yield connect
    for process in started:
        process.kill()
        process.communicate()


def answer(reply):
    """Box and properties of the toolkit's reply about one target."""
    (region, properties), = reply[0]
    return region.bounds(), properties


def picture(path):
    from trax import FileImage

    return {"color": FileImage.create(str(path))}


def script(tmp_path, monkeypatch, capsys, *arguments):
    """What `tracking/vot_tracker.py` prints when it is called in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("vot_tracker", ROOT / "tracking" / "vot_tracker.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    assert module.main(["ostrack", "quickstart_teacher", *arguments]) == 0
    return capsys.readouterr().out


def test_vot_tracks_what_the_entry_of_trackers_ini_starts(connect, sequences, tmp_path, monkeypatch, capsys):
    from trax import Polygon, Rectangle

    (tmp_path / "weights.pth.tar").symlink_to(TEACHER)
    text = script(tmp_path, monkeypatch, capsys, "--checkpoint", "weights.pth.tar", "--device", "cpu", "--label",
                  "Mine-1", "--set", "TEST.WINDOW=true", "--ini")
    entry = configparser.ConfigParser()
    entry.read_string(text)
    assert entry.sections() == ["Mine-1"] and entry["Mine-1"]["protocol"] == "trax"
    process, client = connect(shlex.split(entry["Mine-1"]["command"]))
    assert client.tracker_name == "Mine-1" and client.region_formats == ["rectangle"]
    assert client.image_formats == ["path"] and client.channels == ["color"] and client.get("multiobject") is False

    tracker = Tracker.from_config("ostrack", "quickstart_teacher", checkpoint=TEACHER, device="cpu")
    for sequence in sequences:
        expected = track_sequence(tracker, sequence).boxes_xywh
        x, y, w, h = sequence.first_box()
        given = Rectangle.create(x, y, w, h) if sequence is sequences[0] else \
            Polygon.create([(x, y + h / 2), (x + w / 2, y), (x + w, y + h / 2), (x + w / 2, y + h)])
        box, _ = answer(client.initialize(picture(sequence.frames.path(0)), [(given, {})], {}))
        assert box == pytest.approx([x, y, w, h])
        for number in range(1, FRAMES):
            box, properties = answer(client.frame(picture(sequence.frames.path(number)), {}, []))
            assert box == pytest.approx(expected[number], abs=1e-3)
            assert 0 < float(properties["confidence"]) <= 1
    client.quit()
    assert process.wait(20) == 0


def test_vot_is_told_what_went_wrong(connect, sequences, tmp_path):
    from trax import Rectangle, TraxException

    program = tmp_path / "program.py"
    program.write_text(f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
                       "from fake_trackers import Looker\nfrom lib.test.toolkits.vot import serve\n"
                       "from lib.utils.log import run_script\nrun_script(lambda: serve(Looker('cpu'), 'looker') * 0)\n")
    process, client = connect([sys.executable, str(program)])
    target = Rectangle.create(*sequences[0].first_box())
    with pytest.raises(TraxException):
        client.initialize(picture(sequences[0].frames.path(0)), [(target, {}), (target, {})], {})
    client.initialize(picture(sequences[0].frames.path(0)), [(target, {})], {})
    with pytest.raises(TraxException, match="cannot read the image .*nowhere.jpg"):
        client.frame(picture(tmp_path / "nowhere.jpg"), {}, [])
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2 and b"nowhere.jpg" in errors and b"Traceback" not in errors


def test_vot_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "trax", None)
    with pytest.raises(UserError, match="pip install vot-trax"):
        serve(Looker("cpu"), "looker")


def test_vot_script_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with pytest.raises(UserError, match="started by the VOT toolkit"):
        script(tmp_path, monkeypatch, capsys)


def test_vot_starts_an_export_from_anywhere(tmp_path, monkeypatch, capsys):
    text = script(tmp_path, monkeypatch, capsys, "--exported", "mine", "--backend", "onnxruntime", "--ini")
    assert f"--backend onnxruntime --exported {tmp_path / 'mine'}" in text and "--checkpoint" not in text


def test_vot_labels():
    with pytest.raises(UserError, match="letters, numbers"):
        trackers_ini("two words", "ostrack", "x", {})
    text = trackers_ini("x", "ostrack", "x", {"set": ["A=1", "B=[2, 3]"], "epoch": None})
    assert "--set A=1 --set 'B=[2, 3]'" in text and "epoch" not in text


# ---------------------------------------------------------------- GOT-10k

@pytest.fixture
def got10k_toolkit():
    pytest.importorskip("got10k.experiments", reason="the package got10k is not installed")
    return importlib.import_module("lib.test.toolkits.got10k")


@pytest.fixture
def got10k_root(tmp_path):
    """GOT-10k with two validation sequences and two test sequences."""
    root = tmp_path / "got10k"
    for split in ("val", "test"):
        trees.got10k(root / split, sequences=2, frames=FRAMES)
        for folder in sorted((root / split).glob("GOT*")):
            (folder / "cut_by_image.label").write_text("0\n" * FRAMES)
            (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (96, 64)\n")
            if split == "test":
                (folder / "groundtruth.txt").write_text("20.00,15.00,24.00,18.00\n")
    return root


def test_got10k_experiment(got10k_toolkit, got10k_root, tmp_path):
    from got10k.experiments import ExperimentGOT10k

    experiment = ExperimentGOT10k(str(got10k_root), subset="val", result_dir=str(tmp_path / "results"),
                                  report_dir=str(tmp_path / "reports"))
    experiment.run(got10k_toolkit.GOT10kTracker(Looker("cpu"), "looker"))
    env = type("Env", (), {"got10k_path": str(got10k_root)})
    for sequence in get_dataset("got10k_val", env):
        files = sorted(path.name for path in (tmp_path / "results/GOT-10k/looker" / sequence.name).iterdir())
        assert files == [f"{sequence.name}_001.txt", f"{sequence.name}_time.txt"], "a deterministic tracker runs once"
        boxes = np.loadtxt(tmp_path / "results/GOT-10k/looker" / sequence.name / files[0], delimiter=",")
        ours = track_sequence(Looker("cpu"), sequence).boxes_xywh
        assert np.abs(boxes - ours).max() < 0.5, "decoders differ by a grey level at most"
        assert np.ptp(boxes[:, 0]) > 5
    experiment.report(["looker"])
    report = json.loads((tmp_path / "reports/GOT-10k/looker/performance.json").read_text())
    assert 0 <= report["looker"]["overall"]["ao"] <= 1


def test_otb_experiment(got10k_toolkit, tmp_path, monkeypatch):
    from got10k.datasets import OTB
    from got10k.experiments import ExperimentOTB

    monkeypatch.setattr(OTB, "_OTB__version_dict", {"tb50": ["Car1"]})
    monkeypatch.setattr(OTB, "_download", lambda *arguments: None)
    for number in range(FRAMES):
        trees.write_picture(tmp_path / "otb" / "Car1" / "img" / f"{number + 1:04d}.jpg", number)
    trees.write_boxes(tmp_path / "otb" / "Car1" / "groundtruth_rect.txt", FRAMES)
    experiment = ExperimentOTB(str(tmp_path / "otb"), version="tb50", result_dir=str(tmp_path / "results"))
    experiment.run(got10k_toolkit.GOT10kTracker(Mover("cpu"), "mover"))
    boxes = np.loadtxt(tmp_path / "results/OTBtb50/mover/Car1.txt", delimiter=",")
    assert np.allclose(boxes[:, 0], 20 + 1.3 * np.arange(FRAMES)) and np.allclose(boxes[:, 2:], [24, 18])


def test_got10k_archive_is_that_of_the_toolkit(got10k_toolkit, got10k_root, tmp_path, monkeypatch):
    """The archive of transform_got10k.py has the files and columns of the one that the toolkit itself packs."""
    from got10k.experiments import ExperimentGOT10k

    monkeypatch.setattr("got10k.experiments.got10k.time.sleep", lambda seconds: None)  # it gives one time to read
    experiment = ExperimentGOT10k(str(got10k_root), subset="test", result_dir=str(tmp_path / "results"))
    experiment.run(got10k_toolkit.GOT10kTracker(Mover("cpu"), "mover"))
    experiment.report(["mover"])
    env = type("Env", (), {"got10k_path": str(got10k_root)})
    run_dataset(get_dataset("got10k_test", env), Mover, tmp_path / "ours", device="cpu", sub_pixel=True)
    pack(SERVERS["got10k"], tmp_path / "ours", {f"GOT-10k_Train_{i:06d}": FRAMES for i in (1, 2)},
         tmp_path / "ours.zip", partial=True)
    archives = [zipfile.ZipFile(path) for path in (tmp_path / "results/GOT-10k/mover.zip", tmp_path / "ours.zip")]
    names = [sorted(name for name in archive.namelist() if not name.endswith("/")) for archive in archives]
    assert names[0] == names[1] and len(names[0]) == 4
    for name in names[0]:
        theirs, ours = (np.loadtxt(archive.open(name), delimiter=",") for archive in archives)
        assert theirs.shape == ours.shape
        assert name.endswith("_time.txt") or np.allclose(theirs, ours, atol=1e-3)


def test_got10k_tracker_from_a_configuration(got10k_toolkit):
    tracker = got10k_toolkit.GOT10kTracker.from_config("ostrack", "quickstart_teacher", checkpoint=TEACHER,
                                                       device="cpu")
    assert tracker.name == "quickstart_teacher" and tracker.is_deterministic
    image = trees.picture(0)
    tracker.init(image, [20, 15, 24, 18])
    assert tracker.update(image).shape == (4,)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be shown turned, as lib.utils.images does
    Image.fromarray(image).save(buffer, "PNG", exif=exif)
    seen = []
    tracker.tracker = SimpleNamespace(initialize=lambda image, box: seen.append(image))
    tracker.init(Image.open(buffer), [20, 15, 24, 18])
    assert np.array_equal(seen[0], decode_rgb(buffer.getvalue(), "turned"))


def test_got10k_without_its_package(monkeypatch):
    monkeypatch.delitem(sys.modules, "lib.test.toolkits.got10k", raising=False)
    monkeypatch.setitem(sys.modules, "got10k", None)
    monkeypatch.setitem(sys.modules, "got10k.trackers", None)
    with pytest.raises(UserError, match="pip install got10k"):
        importlib.import_module("lib.test.toolkits.got10k")
