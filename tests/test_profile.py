"""The profile: the paper beside it, the report, and the ways to run a model that it times."""

import json
import runpy
import sys
import time
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trees

from lib.config import load_config
from lib.deploy import energy, profile
from lib.deploy.counting import Counts, count
from lib.deploy.export import export_model
from lib.deploy.fast import HEAD_SWITCHES, FastOptions, can_pack
from lib.deploy.formats import ExportOptions
from lib.deploy.paths import Subject, switch_paths
from lib.deploy.profile import (
    PUBLISHED,
    EndToEnd,
    ProfileOptions,
    _builders,
    _outline,
    _size,
    _sizes,
    compare_with_paper,
    profile_config,
)
from lib.deploy.rates import matrix_rate, memory_rate
from lib.deploy.report import COLUMNS, report_markdown, report_text
from lib.families.build import build_student, build_teacher, build_tracker
from lib.models.checkpoint import save_slim
from lib.test.tracker import Tracker
from lib.utils.errors import UserError

SMALL = ["MODEL.BACKBONE.EMBED_DIM=48", "MODEL.BACKBONE.NUM_HEADS=3", "MODEL.HEAD.NUM_CHANNELS=16"]
SHAPES = (1, 3, 128, 128), (1, 3, 256, 256)
PAPER = json.loads(PUBLISHED.read_text())


@pytest.mark.parametrize("layers", [2, 3, 4, 6, 8, 12])
def test_paper_table(layers):
    cfg = load_config("compresstracker", f"compresstracker_vitb_256_{min(layers, 8)}")
    with torch.device("meta"):
        model = build_teacher(cfg) if layers == 12 else build_student(cfg)
    assert model.depth == layers
    counts = count(model, *SHAPES)
    entry = compare_with_paper(PAPER["architecture"], layers, counts.thop_macs, counts.thop_parameters, PAPER)
    assert entry["macs_match"] and entry["params_match"], (entry, counts)
    tokens = 320
    by_hand = (tokens * 768 * 768  # patches
               + layers * (12 * tokens * 768**2 + 2 * tokens**2 * 768)  # layers, with attention's products
               + 3 * 256 * 9 * (768 * 256 + 256 * 128 + 128 * 64 + 64 * 32) + 256 * 32 * 5)  # head
    assert counts.macs == by_hand


def test_comparison_tells_a_difference():
    same = compare_with_paper(PAPER["architecture"], 4, 10_915_028_992, 35_417_733, PAPER)
    assert same["macs_match"] and same["params_match"] and same["fps"] == 228
    more = compare_with_paper(PAPER["architecture"], 4, 11_050_000_000, 35_617_733, PAPER)
    assert not more["macs_match"] and not more["params_match"]
    assert compare_with_paper(PAPER["architecture"] | {"search_size": 384}, 4, 1, 1, PAPER) is None
    assert compare_with_paper(PAPER["architecture"], 5, 1, 1, PAPER) is None


def test_candidate_elimination_lowers_only_the_exact_count():
    cfg = load_config("ostrack", "vitb_256_mae_ce_32x4_ep300", SMALL)
    with torch.device("meta"):
        without = {"MODEL.BACKBONE.CE_LOC": [], "MODEL.BACKBONE.CE_KEEP_RATIO": []}
        models = [build_tracker(cfg.with_overrides(without)), build_tracker(cfg)]
    plain, with_elimination = (count(model, *SHAPES) for model in models)
    assert with_elimination.thop_macs == plain.thop_macs
    assert with_elimination.macs < 0.9 * plain.macs


@pytest.fixture(scope="module")
def told():
    """The parts of the report, in the order in which they were told."""
    return []


@pytest.fixture(scope="module")
def report(told):
    cfg = load_config("compresstracker", "compresstracker_vitb_256_4", SMALL)
    against = load_config("ostrack", "vitb_256_mae_ce_32x4_ep300", SMALL)
    return profile_config(cfg, against=[against], device="cpu", threads=1, iterations=4, warmup=1,
                          tell=told.append)


def test_report_compares_student_and_teacher(report):
    student, teacher, other = report["models"]
    assert [m["name"] for m in report["models"]] == ["student", "teacher", "ostrack/vitb_256_mae_ce_32x4_ep300"]
    assert (student["layers"], teacher["layers"], other["layers"]) == (4, 12, 12)
    assert student["speed_up"]["over"] == "teacher" and student["speed_up"]["median"] > 1.2
    assert teacher["speed_up"]["median"] == 1
    assert other["macs"] < teacher["macs"] and other["thop_macs"] == teacher["thop_macs"]
    assert student["published"] is None, "the paper has no model this narrow"
    assert (student["backend"], student["precision"], student["batch"]) == ("torch", "float32", 1)
    assert student["over_plain"] is None and not student["template_cached"]
    assert student["floor"] is student["end_to_end"] is student["energy_j"] is report["rates"] is None
    assert student["memory"] == {"weights_mib": student["thop_parameters"] * 4 / 2**20, "pass_mib": None}
    assert report["environment"]["threads"] == 1 and report["environment"]["device_name"]
    assert report["environment"]["libraries"]["torch"] == torch.__version__.split("+")[0]
    assert json.loads(json.dumps(report)) == report


def test_report_text(report, told):
    text = report_text(report)
    assert text == "\n\n".join(told)
    conditions, sizes, passes, _ = told
    assert "torch" in conditions and "MACs by thop" in sizes and "4 timed passes of each" in passes
    for word in ("student", "teacher", "MACs by thop", "p95", "FPS", "times faster than teacher", "float32",
                 report["environment"]["device_name"], torch.__version__.split("+")[0]):
        assert word in text, word
    published = PAPER["models"][3] | {"macs_match": True, "params_match": False}
    report = json.loads(json.dumps(report))
    report["sizes"][0]["published"] = report["models"][0]["published"] = published
    text = report_text(report)
    assert "(paper 10.9: match)" in text and "(paper 35.4: DIFFERS)" in text and PAPER["source"] in text


@pytest.mark.parametrize(("argument", "message"), [
    ({"options": ProfileOptions(batches=(1, 0))}, "batch is 0"), ({"threads": 0}, "threads is 0"),
    ({"iterations": 0}, "iterations is 0"), ({"warmup": -1}, "warmup is -1"), ({"seconds": -1}, "seconds is -1"),
    ({"options": ProfileOptions(backends=("tpu",))}, "unknown backend or precision 'tpu'"),
    ({"options": ProfileOptions(precisions=("float8",))}, "unknown backend or precision 'float8'"),
    ({"options": ProfileOptions(backends=("fast",), fast=("speed=true",))}, "fast option 'speed=true'"),
    ({"options": ProfileOptions(exports=("nowhere",))}, "no exported tracker in nowhere"),
])
def test_arguments_that_cannot_be(argument, message):
    cfg = load_config("compresstracker", "compresstracker_vitb_256_4", SMALL)
    before = torch.get_num_threads()
    with pytest.raises(UserError, match=message):
        profile_config(cfg, device="cpu", **argument)
    assert torch.get_num_threads() == before


# ---- paths, batches, floors and whole frames


@pytest.fixture(scope="module")
def wide_report():
    """Two backends, two precisions and two batch sizes, floors, whole frames."""
    cfg = load_config("compresstracker", "compresstracker_vitb_256_2", SMALL)
    picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    options = ProfileOptions(("plain", "fast"), ("float32", "bfloat16"), (1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "matrix_rate", lambda device, dtype: 1e12 / dtype.itemsize)
        patch.setattr(profile, "memory_rate", lambda device: 1e9)
        return profile_config(cfg, device="cpu", threads=1, iterations=4, warmup=1, options=options, floors=True,
                              end_to_end=EndToEnd(Tracker.from_model, lambda number: picture, "noise"))


def test_every_path_and_batch_has_an_entry(wide_report):
    names = [m["name"] for m in wide_report["models"]]
    paths = [" plain", " plain bfloat16", " fast", " fast bfloat16"]
    assert names == [f"{model}{path}{batch}" for batch in ("", " batch 2") for path in paths
                     for model in ("student", "teacher")]
    for entry in wide_report["models"]:
        suffix = entry["name"].removeprefix(entry["model"])
        assert entry["speed_up"]["over"] == f"teacher{suffix}", "the same path and batch"
        assert entry["over_plain"]["over"] == f"{entry['model']} plain" + " batch 2" * (entry["batch"] == 2)
        assert entry["template_cached"] == (entry["backend"] == "fast")
        assert entry["fps"] == pytest.approx(entry["batch"] * 1e3 / entry["latency_ms"]["median"])
        if entry["backend"] == "fast":
            assert 0.7 * entry["macs"] < entry["path_macs"] < entry["macs"], "template cached, last layer trimmed"
        else:
            assert entry["path_macs"] == entry["macs"]
    assert json.loads(json.dumps(wide_report)) == wide_report


def test_floor_is_the_longer_of_operations_and_bytes(wide_report):
    for entry in wide_report["models"]:
        size = {"float32": 4, "bfloat16": 2}[entry["precision"]]
        floor = entry["floor"]
        assert floor["operations_ms"] == pytest.approx(2e3 * entry["path_macs"] * entry["batch"] * size / 1e12)
        assert floor["bytes_ms"] == pytest.approx(entry["thop_parameters"] * size / 1e6)
        assert floor["ms"] == max(floor["operations_ms"], floor["bytes_ms"])
        assert floor["times"] == pytest.approx(entry["latency_ms"]["median"] / floor["ms"])


def test_whole_frames_are_timed_by_part(wide_report):
    for entry in wide_report["models"]:
        whole = entry["end_to_end"]
        assert list(whole["parts_ms"]) == ["decode", "crop", "network", "box"]
        assert 0 < whole["decoded_median_ms"] and 0 < whole["median_ms"] <= whole["p95_ms"]
        assert whole["fps"] == pytest.approx(entry["batch"] * 1e3 / whole["median_ms"])


def test_wide_report_as_text_and_markdown(wide_report):
    text = report_text(wide_report)
    for word in ("student fast bfloat16 batch 2", "times the floor", "whole frames (noise)", "network ms", "cached",
                 "than the plain path", "float32 250 GFLOP/s", "1.0 GB/s"):
        assert word in text, word
    table = [line for line in report_markdown(wide_report).splitlines() if line.startswith("|")]
    assert len(table) == 2 + 16 and {line.count("|") for line in table} == {len(COLUMNS) + 1}
    assert "compresstracker_vitb_256_2 student (2 layers) | fast bfloat16, template cached" in table[8]
    assert ", 1 threads | 2 |" in table[-1]


def test_an_exported_folder_takes_part(tmp_path):
    cfg = load_config("compresstracker", "compresstracker_vitb_256_2", SMALL)
    model = build_student(cfg).eval()
    save_slim(tmp_path / "weights.pth.tar", model, cfg)
    export_model(model, cfg, tmp_path / "weights.pth.tar", tmp_path / "export", ExportOptions("torchscript"))
    export_model(model, cfg, tmp_path / "weights.pth.tar", tmp_path / "maps", ExportOptions("torchscript", maps=True))
    report = profile_config(cfg, device="cpu", threads=1, iterations=2, warmup=1,
                            options=ProfileOptions(["plain"], exports=(tmp_path / "export", tmp_path / "maps")))
    exported, with_maps = report["models"][-2:]
    assert [m["name"] for m in report["models"]] == ["student plain", "teacher plain", "student torchscript export",
                                                     "student torchscript maps"]
    assert exported["path_macs"] < with_maps["path_macs"] < with_maps["macs"]
    assert exported["speed_up"] is None, "no teacher was exported"
    assert exported["over_plain"]["over"] == "student plain" and exported["template_cached"]
    assert "student torchscript" in report_text(report)
    with pytest.raises(UserError, match="two of the paths to time are called 'student torchscript export'"):
        profile_config(cfg, device="cpu", options=ProfileOptions(exports=2 * (tmp_path / "export",)))
    other = load_config("compresstracker", "compresstracker_vitb_256_3", SMALL)
    with pytest.raises(UserError, match="export holds compresstracker/compresstracker_vitb_256_2, not"):
        profile_config(other, device="cpu", options=ProfileOptions(exports=(tmp_path / "export",)))


def test_rates_are_those_of_a_product_and_a_copy(monkeypatch):
    monkeypatch.setattr("lib.deploy.rates.MATRIX_SIDE", {"cpu": 256})
    monkeypatch.setattr("lib.deploy.rates.COPIED_BYTES", {"cpu": 2**20})
    ticks = iter(range(10_000))
    monkeypatch.setattr("lib.deploy.rates.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert matrix_rate(torch.device("cpu"), torch.float32, 1.0) == 2 * 256**3, "one tick a call"
    assert matrix_rate(torch.device("cpu"), torch.int8, 1.0) == 2 * 256**3
    assert memory_rate(torch.device("cpu"), 1.0) == 2 * 2**20


def test_every_switch_is_a_path_of_its_own():
    cfg = load_config("compresstracker", "compresstracker_vitb_256_2", SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_student(cfg).eval()
    subject, cpu = Subject("student", model, cfg, count(model, *SHAPES)), torch.device("cpu")
    for precision in ("float32", "bfloat16"):
        paths = {path.note: path for path in switch_paths(subject, precision, cpu)}
        switches = [field.name for field in fields(FastOptions) if isinstance(field.default, bool)]
        alone = {note.removeprefix("only ") for note in paths if note.startswith("only ")}
        missing = {"cuda_graph"} if can_pack(precision) else {"cuda_graph", "pack_linear"}
        assert alone == set(switches) - missing
        best = paths["best"].run.options
        assert best == FastOptions.best(cpu, precision)
        for note, path in paths.items():
            options, name = path.run.options, note.split()[-1]
            assert path.precision == precision
            if note.startswith("best with"):
                assert getattr(options, name) != getattr(best, name)
                also = HEAD_SWITCHES if name in ("fold_batchnorm", *HEAD_SWITCHES) else ()
                back = {other: getattr(best, other) for other in also} | {name: getattr(best, name)}
                assert replace(options, **back) == best
        assert paths["no switch"].macs > paths["only trim_last_layer"].macs
        if precision == "float32":
            outputs = [path.call(1, cpu)().boxes for note, path in paths.items()
                       if not path.run.takes_pixels and not path.run.options.compile]
            assert len(outputs) > 6 and all(torch.allclose(boxes, outputs[0], atol=1e-4) for boxes in outputs)


def test_switches_take_part_in_a_report(monkeypatch):
    cfg = load_config("compresstracker", "compresstracker_vitb_256_2", SMALL)
    some = switch_paths
    monkeypatch.setattr(profile, "switch_paths", lambda *key: [path for path in some(*key) if path.note[:2] == "no"])
    report = profile_config(cfg, device="cpu", threads=1, iterations=1, warmup=0, options=ProfileOptions(switches=True))
    assert [m["name"] for m in report["models"]] == ["student", "teacher", "student fast no switch"]
    assert "fast float32, no switch" in report_markdown(report)


def test_energy_where_the_driver_tells(monkeypatch):
    """A counter that rises by 500 millijoules between two looks."""
    class NVMLError(Exception):
        pass

    def count(handle):
        assert handle == "handle of GPU-12-34"
        if not counts:
            raise NVMLError
        return counts.pop(0)

    driver = SimpleNamespace(NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetTotalEnergyConsumption=count,
                             nvmlDeviceGetHandleByUUID="handle of {}".format)
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(energy, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))
    calls, counts, cuda = [], [1000, 1500], torch.device("cuda", 0)
    joules = energy.joules_per_call(lambda: (calls.append(1), time.sleep(0.01)), cuda, seconds=0.05)
    assert joules == pytest.approx(0.5 / len(calls))
    assert energy.joules_per_call(lambda: None, cuda) is None, "a GPU that does not tell"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.joules_per_call(lambda: None, torch.device("cpu")) is None


@pytest.fixture
def script(root, monkeypatch):
    """`tracking/profile_model.py` with its arguments, run from here."""
    main = runpy.run_path(str(root / "tracking/profile_model.py"), run_name="profile_model")["main"]

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["profile_model.py", *arguments])
        main()

    return run


def test_script_prints_and_writes(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script("--script", "ostrack", "--config", "vitb_256_mae_32x4_ep300", "--device", "cpu", "--threads", "1",
           "--iterations", "2", "--warmup", "1", "--json", "report.json", "--full", "--model_only",
           *[part for key in SMALL for part in ("--set", key)])
    assert "MACs by thop" in capsys.readouterr().out
    written = json.loads((tmp_path / "report.json").read_text())
    assert [(m["layers"], m["backend"]) for m in written["models"]] == [(12, "plain"), (12, "torch"), (12, "fast")]
    assert written["models"][0]["speed_up"] is None and written["models"][2]["over_plain"]["over"] == "model plain"
    assert written["frames"] is written["rates"] is None


def test_script_times_the_usual_way_only_unless_asked_for_more(script, monkeypatch):
    asked = {}
    monkeypatch.setattr(profile, "profile_config", lambda cfg, **options: asked.update(options))
    script("--seconds", "2.5")
    assert tuple(asked["options"].backends) == ("torch",) and asked["seconds"] == 2.5 and asked["iterations"] is None
    assert not asked["floors"] and asked["end_to_end"] is None
    script("--full")
    assert asked["options"].backends == ("plain", "torch", "fast")
    assert asked["floors"] and asked["end_to_end"].name == "1280x720 JPEG"
    script("--full", "--backend", "fast", "--model_only")
    assert asked["options"].backends == ["fast"] and not asked["floors"] and asked["end_to_end"] is None


def test_script_times_whole_frames_of_its_own_and_of_a_folder(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lib.deploy.rates.MATRIX_SIDE", {"cpu": 256})
    monkeypatch.setattr("lib.deploy.rates.COPIED_BYTES", {"cpu": 2**20})
    trees.write_video(tmp_path / "clip.avi", 5)
    for extra, name in ((["--frames", "--floors"], "1280x720 JPEG"), (["--frames", str(tmp_path / "clip.avi")],
                                                                      "clip.avi")):
        script("--script", "ostrack", "--config", "vitb_256_mae_32x4_ep300", "--device", "cpu", "--threads", "1",
               "--iterations", "2", "--warmup", "0", "--markdown", str(tmp_path / "table.md"), *extra,
               *[part for key in SMALL for part in ("--set", key)])
        assert f"whole frames ({name})" in capsys.readouterr().out
        assert "vitb_256_mae_32x4_ep300 model (12 layers)" in (tmp_path / "table.md").read_text()
    with pytest.raises(UserError, match="missing"):
        script("--frames", str(tmp_path / "missing.avi"))


def test_script_refuses_a_half_name(script):
    with pytest.raises(UserError, match="SCRIPT/CONFIG"):
        script("--against", "nothing")


def test_the_paper_stands_beside_students_of_its_own_teacher():
    for name, own in (("compresstracker_vitb_256_4", True), ("compresstracker_vitb_384to256_4", False)):
        builders, _ = _builders(load_config("compresstracker", name), [])
        student, _ = _sizes([_outline(name, build, cfg) for name, (build, cfg) in builders.items()], PAPER)
        assert bool(student["published"]) == own and student["search_size"] == 256


@pytest.mark.parametrize(("config", "overrides"), [
    ("compresstracker_smat_256_4", []), ("compresstracker_vits_256_4", []),
    ("compresstracker_vitb_256_4", ["STUDENT.MODEL.BACKBONE.MLP_RATIO=2"])])
def test_a_student_of_another_kind_is_not_the_papers(config, overrides):
    """The paper's table has students of the teacher's own layers."""
    cfg = load_config("compresstracker", config, overrides)
    with torch.device("meta"):
        student, teacher = build_student(cfg), build_teacher(cfg)
    sizes = {name: _size(Subject(name, model, own, Counts(1, 1, 1, 1)), PAPER)
             for name, model, own in (("student", student, cfg.student), ("teacher", teacher, cfg))}
    assert sizes["student"]["published"] is None and sizes["teacher"]["published"]["name"] == "OSTrack-256"
