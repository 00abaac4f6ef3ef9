"""What other programs import (`lib`, installed as `compresstracker`): weights from a checkpoint alone, from a
configuration, from an export."""

import os
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
import trees
from tiny_models import scramble, tiny

import lib
from lib import LostRule, Redetection, Result, Tracker, UserError
from lib.config import config_from_dict, load_config
from lib.deploy.export import export_model
from lib.deploy.formats import ExportOptions
from lib.families.build import build_for_test
from lib.models.checkpoint import save_slim
from lib.test.tracker import Tracker as RunTimeTracker
from lib.test.tracker.pretrained import find_config

TEACHER = "pretrained_models/quickstart_teacher.pth.tar"
WEIGHTS = "pretrained_models/compresstracker_real.pth.tar"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny model, its configuration, and its checkpoint in the place where training leaves it."""
    torch.manual_seed(0)
    cfg = tiny("compresstracker", MODEL__BACKBONE__DEPTH=12)
    model = scramble(build_for_test(cfg)).eval()
    save_dir = tmp_path_factory.mktemp("save")
    path = save_dir / "checkpoints/train/compresstracker" / cfg.name / "CompressTracker_ep0500.pth.tar"
    save_slim(path, model, cfg)
    return model, cfg, path, save_dir


def follow(tracker, frames=6):
    tracker.init(trees.picture(0), trees.box(0))
    return [tracker.update(trees.picture(i)) for i in range(1, frames)]


def test_a_checkpoint_needs_no_configuration(trained):
    model, cfg, path, _ = trained
    expected = RunTimeTracker.from_model(model, cfg)
    expected.initialize(trees.picture(0), trees.box(0))
    for i, result in enumerate(follow(Tracker.from_pretrained(path, device="cpu")), 1):
        plain = expected.track(trees.picture(i))
        assert isinstance(result, Result) and result.box == plain.box_xywh and result.score == plain.score
        assert result.lost is False or result.lost is True
    box, score, lost = result
    assert (box, score, lost) == (result.box, result.score, result.lost)


def test_options_reach_the_tracker(trained):
    tracker = Tracker.from_pretrained(trained[2], device="cpu", lost=LostRule(1.0, 1.0, 1), redetect=Redetection(2))
    assert follow(tracker)[0].lost and tracker.redetect == Redetection(2)


def test_the_shipped_teacher_by_file_and_by_name(root):
    by_file = Tracker.from_pretrained(root / TEACHER, device="cpu")
    by_name = Tracker.from_pretrained(root / TEACHER, device="cpu", config="ostrack/quickstart_teacher")
    assert follow(by_file) == follow(by_name)
    fast = Tracker.from_pretrained(root / TEACHER, device="cpu", backend="fast")
    np.testing.assert_allclose([r.box for r in follow(fast)], [r.box for r in follow(by_file)], rtol=0, atol=0.05)


def test_a_configuration_with_weights_in_their_place(root, tmp_path):
    place = tmp_path / "checkpoints/train/ostrack/quickstart_teacher/OSTrack_ep0022.pth.tar"
    place.parent.mkdir(parents=True)
    place.write_bytes((root / TEACHER).read_bytes())
    tracker = Tracker.from_pretrained("quickstart_teacher", save_dir=tmp_path, device="cpu")
    assert follow(tracker) == follow(Tracker.from_pretrained(place, device="cpu"))
    by_yaml = Tracker.from_pretrained(root / "experiments/ostrack/quickstart_teacher.yaml", save_dir=tmp_path,
                                      device="cpu")
    assert follow(by_yaml) == follow(tracker)
    with pytest.raises(UserError, match="no checkpoint at .*CompressTracker_ep"):
        Tracker.from_pretrained("compresstracker/quickstart_4", save_dir=tmp_path, device="cpu")


def test_an_exported_folder(trained, tmp_path):
    model, cfg, path, _ = trained
    export_model(model, cfg, path, tmp_path / "export", ExportOptions("torchscript"))
    trackers = [Tracker.from_pretrained(what, device="cpu") for what in (tmp_path / "export", path)]
    found, expected = (follow(tracker) for tracker in trackers)
    np.testing.assert_allclose([r.box for r in found], [r.box for r in expected], rtol=0, atol=1e-2)
    for tracker in trackers:
        tracker.init_all(trees.picture(0), [trees.box(0), [10, 20, 30, 40], trees.box(0)])
    found, expected = (tracker.update_all(trees.picture(1)) for tracker in trackers)
    np.testing.assert_allclose([r.box for r in found], [r.box for r in expected], rtol=0, atol=1e-2)
    assert found[0] == found[2] != found[1], "graphs for one image follow several targets, one by one"


def test_configurations_are_found_by_name_script_and_file(root):
    for name in ("vitb_256_mae_ce_32x4_ep300", "ostrack/vitb_256_mae_ce_32x4_ep300",
                 str(root / "experiments/ostrack/vitb_256_mae_ce_32x4_ep300.yaml")):
        cfg = find_config(name)
        assert (cfg.script, cfg.name) == ("ostrack", "vitb_256_mae_ce_32x4_ep300")


def test_what_cannot_be_used_is_named(trained, tmp_path, root):
    official = tmp_path / "OSTrack_ep0300.pth.tar"
    torch.save({"net": torch.load(trained[2], weights_only=True)["net"]}, official)
    for what, options, message in (
        (official, {}, "holds no configuration.*config="),
        (official, {"config": "ostrack/quickstart_teacher"}, "holds a tracker of 4 layers|12"),
        (tmp_path / "missing.pth.tar", {}, "does not exist"),
        ("no_such_name", {}, "neither a file nor a folder nor a configuration.*quickstart_teacher"),
        ("exports/mine", {}, "exports/mine is neither a file nor a folder nor a configuration"),
        ("ostrack/no_such_name", {}, "no configuration 'no_such_name'"),
        (tmp_path, {}, "manifest.json not found"),
        (tmp_path, {"config": "quickstart_teacher"}, "an exported tracker has its own configuration"),
        (trained[2], {"backend": "onnxruntime"}, "runs exported folders"),
        (trained[2], {"config": str(tmp_path / "mine.yaml")}, "folder of a configuration's file tells its script"),
        (trained[2], {"device": "tpu"}, "unknown device"),
    ):
        with pytest.raises(UserError, match=message):
            Tracker.from_pretrained(what, **{"device": "cpu"} | options)


def test_a_configuration_survives_the_way_through_a_checkpoint():
    cfg = load_config("ostrack", "vitb_256_mae_ce_32x4_ep300", ["MODEL.BACKBONE.CE_LOC=[3,6]",
                                                                "MODEL.BACKBONE.CE_KEEP_RATIO=[0.7,0.7]"])
    assert config_from_dict(cfg.script, cfg.name, cfg.to_dict(), "x").to_dict() == cfg.to_dict()
    older = cfg.to_dict()
    del older["TEST"]["WINDOW"]
    assert config_from_dict("ostrack", "x", older, "x").TEST.WINDOW is True
    with pytest.raises(UserError, match="weights.tar.*TEST.SIZE"):
        config_from_dict("ostrack", "x", {"TEST": {"SIZE": 3}}, "weights.tar")
    with pytest.raises(UserError, match="weights.tar holds a configuration of the unknown script 'siamese'"):
        config_from_dict("siamese", "x", {}, "weights.tar")


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory) -> Path:
    """A folder into which the package's wheel is installed."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    shutil.copytree(root / "lib", source / "lib", ignore=shutil.ignore_patterns("__pycache__", "local.py*"))
    (source / WEIGHTS).parent.mkdir()
    shutil.copy(root / WEIGHTS, source / WEIGHTS)
    (source / WEIGHTS).with_name("OSTrack_ep0300.pth.tar").touch()    # what a user has there is not installed
    target = tmp_path_factory.mktemp("site-packages")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--root-user-action", "ignore"]
    subprocess.run([*pip, "install", *options, "--target", str(target), str(source)], check=True, cwd=source)
    return target


def _run(code: str, *path: Path, cwd: Path) -> str:
    """What `code` prints in a process that finds packages in `path` first, and nothing of the checkout."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd,
                          env=environment).stdout


def test_the_readme_example_runs_installed_beside_another_lib(installed, root, tmp_path):
    code = re.search(r"^```python\n(.*?from compresstracker import Tracker.*?)^```", (root / "README.md").read_text(),
                     flags=re.MULTILINE | re.DOTALL)[1]
    trees.write_video(tmp_path / "film.mp4", 4, (480, 320))
    other = tmp_path / "other_project"
    (other / "lib").mkdir(parents=True)
    (other / "lib" / "__init__.py").write_text("NAME = 'another lib'\n")
    ask = "\nimport lib, sys; print(lib.NAME); print(sys.modules['compresstracker'].__file__)"
    *tracked, name, place = _run(code + ask, other, installed, cwd=tmp_path).splitlines()
    assert len(tracked) == 3
    assert all(line.startswith("[") and line.endswith(("True", "False")) for line in tracked)
    assert name == "another lib" and Path(place) == installed / "compresstracker" / "__init__.py"


def test_only_the_bare_name_means_the_installed_weights(installed, tmp_path):
    code = ("from compresstracker import Tracker, UserError\n"
            "for name in ('exports/compresstracker_real', 'compresstracker_rael'):\n"
            "    try: Tracker.from_pretrained(name, device='cpu')\n"
            "    except UserError as error: print(error)")
    missing, misspelt = _run(code, installed, cwd=tmp_path).splitlines()
    assert missing.startswith("exports/compresstracker_real is neither a file nor a folder nor a configuration")
    assert misspelt.endswith("the configurations are compresstracker_real")


def test_the_wheel_holds_one_package_and_all_of_it(installed, root):
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"compresstracker"}
    there = {path.relative_to(root / "lib") for path in (root / "lib").rglob("*")
             if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("local.py")}
    have = {path.relative_to(installed / "compresstracker") for path in (installed / "compresstracker").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}
    assert have == there | {Path(WEIGHTS)}


def test_imports_inside_are_relative(root):
    scripts = {"transform_got10k.py", "transform_trackingnet.py"}  # the official commands run these two as files
    for path in (root / "lib").rglob("*.py"):
        if path.name not in scripts:
            assert not re.search(r"^\s*(from|import) lib\b", path.read_text(), flags=re.MULTILINE), path


def test_the_package_is_typed(root):
    assert {name: getattr(lib, name) for name in lib.__all__}
    assert (root / "lib" / "py.typed").is_file()
    for name in ("from_pretrained", "init", "init_all", "update", "update_all", "restart"):
        method = getattr(Tracker, name)
        assert "return" in typing.get_type_hints(method) and method.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Trakcer'"):
        lib.Trakcer  # noqa: B018
