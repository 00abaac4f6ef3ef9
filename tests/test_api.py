"""The package `compresstracker`: weights from a checkpoint alone, from a configuration, from an export."""

import re
import subprocess
import sys
import typing

import numpy as np
import pytest
import torch
import trees
from setuptools import find_packages
from tiny_models import scramble, tiny

import compresstracker
from compresstracker import LostRule, Redetection, Result, Tracker, UserError
from lib.config import config_from_dict, load_config
from lib.deploy.export import ExportOptions, export_model
from lib.models.build import build_for_test
from lib.models.checkpoint import save_slim
from lib.test.tracker import Tracker as RunTimeTracker
from lib.test.tracker.pretrained import find_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

TEACHER = "pretrained_models/quickstart_teacher.pth.tar"


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


def test_the_readme_example_runs(trained, root, tmp_path, monkeypatch, capsys):
    code = re.search(r"^```python\n(.*?from compresstracker import Tracker.*?)^```", (root / "README.md").read_text(),
                     flags=re.MULTILINE | re.DOTALL)[1]
    trees.write_video(tmp_path / "film.mp4", 4, (480, 320))
    (tmp_path / "CompressTracker_ep0500.pth.tar").write_bytes(trained[2].read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3 and all(line.startswith("[") and line.endswith(("True", "False")) for line in shown)


def test_every_package_is_installed(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set(find_packages(str(root), include=settings["packages"]["find"]["include"]))
    there = {".".join(path.parent.relative_to(root).parts) for top in ("lib", "compresstracker")
             for path in (root / top).rglob("__init__.py")}
    assert found == there
    kinds = {path.suffix for path in (root / "lib").rglob("*") if path.is_file()} - {".py", ".pyc", ".typed", ".bak"}
    assert {f"*{kind}" for kind in kinds} | {"py.typed"} <= set(settings["package-data"]["*"])


def test_the_package_is_typed(root):
    assert {name: getattr(compresstracker, name) for name in compresstracker.__all__}
    for package in ("compresstracker", "lib"):
        assert (root / package / "py.typed").is_file()
    for name in ("from_pretrained", "init", "init_all", "update", "update_all", "restart"):
        method = getattr(Tracker, name)
        assert "return" in typing.get_type_hints(method) and method.__doc__, name


def test_another_lib_on_the_path_is_told(tmp_path, root):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(root)!r}]; import compresstracker"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and str(tmp_path / "lib") in done.stderr
    assert "ImportError: compresstracker needs the package `lib` beside it" in done.stderr
