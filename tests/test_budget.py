"""Compression to a budget: importance, costs, and the choice from end to end in small."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_budget_search import COSTS, TEACHER
from test_families import small
from tiny_models import require_packages, scramble, tiny

from lib.budget import choose, costs
from lib.budget.choose import Request, choose_student, compression_of, name_of
from lib.budget.costs import Bench, Cost, KindCosts, Measured, Runtime, predict
from lib.budget.importance import measure_importance
from lib.budget.options import RECIPE, VARIED
from lib.budget.search import Budget, Found
from lib.budget.space import Candidate, describe, kind_of, kinds, overrides
from lib.config import load_config
from lib.deploy.crops import unlabelled_pairs
from lib.deploy.timing import Timings
from lib.families import FAMILIES
from lib.families.build import build_for_test, build_tracker
from lib.models.base import Inputs
from lib.models.checkpoint import save_slim
from lib.utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def steady_clock(monkeypatch):
    """A machine that needs 2 ms for a call and 1 ms for each layer of those that are named after their number; the
    calls are made once all the same."""
    def timed(calls, device, *, iterations, blocks, warmup, seconds, settle):
        for call in calls.values():
            call()
        return {name: Timings(np.full((3, 2), 2e-3 + 1e-3 * (int(name) if name.isdigit() else 0))) for name in calls}

    monkeypatch.setattr(costs, "time_alternately", timed)


def request_for(folder, family="ostrack", **changes) -> Request:
    """A request for a student of a tiny teacher with random weights, whose files are in `folder`."""
    cfg = small(family)
    folder.mkdir(exist_ok=True)
    cfg.save(folder / "teacher.yaml")
    torch.manual_seed(0)
    save_slim(folder / "teacher.pth.tar", scramble(build_tracker(cfg)), cfg)
    values = {"teacher": (family, str(folder / "teacher.yaml")), "checkpoint": folder / "teacher.pth.tar",
              "output": folder / "out", "budget": Budget(layers=2), "runtime": Runtime("fast", "float32", CPU),
              "varied": (), "recipe": RECIPE, "pairs": 2, "name": "student"}
    return Request(**values | changes)


# ---- importance

def batches(cfg, number=2):
    generator = torch.Generator().manual_seed(1)
    return [Inputs.of(torch.randn(1, 3, cfg.DATA.TEMPLATE.SIZE, cfg.DATA.TEMPLATE.SIZE, generator=generator),
                      torch.randn(1, 3, cfg.DATA.SEARCH.SIZE, cfg.DATA.SEARCH.SIZE, generator=generator))
            for _ in range(number)]


def test_a_layer_that_does_nothing_has_no_importance():
    cfg = tiny(MODEL__BACKBONE__DEPTH=4)
    torch.manual_seed(0)
    tracker = scramble(build_tracker(cfg))
    with torch.no_grad():
        for part in (tracker.layers[2].attn.proj, tracker.layers[2].mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    found = measure_importance(tracker, batches(cfg))
    assert found.pairs == 2
    assert found.influence[2] == pytest.approx(0, abs=1e-6) and found.skipped[2] == pytest.approx(0, abs=1e-6)
    assert min(value for index, value in enumerate(found.influence) if index != 2) > 1e-3
    similarity = np.array(found.similarity)
    assert similarity.shape == (5, 5) and np.allclose(similarity, similarity.T)
    assert np.allclose(similarity.diagonal(), 1)
    assert similarity[2, 3] == pytest.approx(1) and similarity[0, 4] < 0.999


def test_weights_that_are_not_finite_are_named():
    cfg = tiny(MODEL__BACKBONE__DEPTH=2)
    tracker = build_tracker(cfg)
    with torch.no_grad():
        tracker.layers[1].mlp.fc2.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite.*checkpoint"):
        measure_importance(tracker, batches(cfg))


def test_a_layer_that_changes_the_tokens_is_named(monkeypatch):
    cfg = tiny(MODEL__BACKBONE__DEPTH=3)
    tracker = build_tracker(cfg)
    run = type(tracker).run_layer

    def narrowing(self, index, tokens):
        if index == 2 and tokens.x[0, 0, 0] != 7:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        tokens = run(self, index, tokens)
        tokens.x[:, 0, 0] = 7 if index == 1 else 0
        return tokens

    monkeypatch.setattr(type(tracker), "run_layer", narrowing)
    with pytest.raises(UserError, match="layer 1 of the teacher cannot be left out"):
        measure_importance(tracker, batches(cfg))


def test_pairs_without_labels(square_data):
    cfg = tiny()
    pairs = unlabelled_pairs(square_data / "one" / "img", 5, cfg)
    assert [tuple(pair.search.shape) for pair in pairs] == [(1, 64, 64, 3)] * 5
    again = unlabelled_pairs(square_data / "one" / "img", 5, cfg)
    assert all(torch.equal(a, b) for one, other in zip(pairs, again, strict=True)
               for a, b in zip(one, other, strict=True))
    assert not torch.equal(pairs[0].search, pairs[1].search)


# ---- students and their costs

def test_names_and_words():
    for teacher in ("teacher", "/some/where/teacher.yaml"):
        assert name_of(teacher, Budget(ms=30.0)) == "teacher_30_ms"
    assert name_of("teacher", Budget(macs=10e9, layers=4)) == "teacher_10_G_MACs_4_layers"
    assert describe(TEACHER, TEACHER) == "as the teacher"
    assert describe(TEACHER._replace(kept=0.5, search=48), TEACHER) == "50 % of the tokens, 48 px"


def test_every_kind_is_a_configuration_whose_student_has_it(tmp_path):
    base = compression_of(request_for(tmp_path))
    looked_at = list(kinds(base, VARIED))
    teacher = kind_of(base)
    assert looked_at[0] == teacher and len(set(looked_at)) == len(looked_at) > 30
    for kind in (teacher._replace(width=16, heads=1), teacher._replace(mlp_ratio=2.0), teacher._replace(kept=0.5),
                 teacher._replace(search=48, template=32)):
        assert kind in looked_at
        cfg = base.with_overrides(overrides(base, kind, 3))
        model, data = build_for_test(cfg), cfg.student.DATA
        assert (model.embed_dim, model.depth, data.SEARCH.SIZE) == (kind.width, 3, kind.search)
        assert model.layers[0].mlp.fc1.out_features == kind.width * kind.mlp_ratio
        assert [layer.keep_rate for layer in model.layers] == [1.0, kind.kept, 1.0]


def test_layers_and_the_rest_are_told_apart(tmp_path):
    """MACs and parameters of whole students are predicted exactly, with and without elimination."""
    base = compression_of(request_for(tmp_path))
    teacher = kind_of(base)
    chosen = [teacher, teacher._replace(width=16, heads=1), teacher._replace(kept=0.5)]
    kept = []
    found = Bench(base, Runtime("torch", "float32", CPU)).measure_costs(
        chosen, Measured(), lambda known: kept.append(json.dumps(known.to_dict())))
    assert len(kept) == len(chosen) + 1 and json.loads(kept[-2])["ended_ms"] is None
    assert Measured.of(json.loads(kept[-1])) == found and set(found.kinds) == set(chosen)
    found = found.at_the_end()
    for kind in chosen:
        student, cfg = costs.build_student(base, kind, 4)
        cost = predict(found, kind, 4)
        assert cost[1:] == pytest.approx(costs._counted(student, cfg), rel=1e-9)
    assert found[teacher].layer.ms == pytest.approx(1) and found[teacher].fixed.ms == pytest.approx(2)
    for kind in chosen:
        cost = predict(found, kind, 4)
        assert cost.ms == pytest.approx(6)
    assert found[teacher].embedding_share == 0.5


def test_what_is_known_is_not_measured_again(tmp_path):
    base = compression_of(request_for(tmp_path))
    kind = kind_of(base)
    known = Measured({kind: COSTS[TEACHER]}, 2.0, 3.0)
    assert Bench(base, Runtime("torch", "float32", CPU)).measure_costs([kind], known, pytest.fail) is known
    assert known.kinds == {kind: COSTS[TEACHER]}
    assert known.at_the_end() == {kind: KindCosts(Cost(3.0, 2e9, 2e6), Cost(6.0, 1e9, 1e6))}, "at the speed of the end"


def test_layers_that_cannot_be_measured(tmp_path, monkeypatch):
    base = compression_of(request_for(tmp_path))
    tries = []
    monkeypatch.setattr(Runtime, "time", lambda self, calls, effort=1: tries.append(effort) or {
        name: Timings(np.full((3, 2), 2e-3)) for name in calls})
    with pytest.raises(UserError, match="layers of ostrack cannot be measured: .*busy"):
        Bench(base, Runtime("torch", "float32", CPU)).measure_costs([kind_of(base)], Measured(), pytest.fail)
    assert tries == [4, 1, 2, 4]
    one = compression_of(request_for(tmp_path, settings=("MODEL.BACKBONE.DEPTH=1",)))
    with pytest.raises(UserError, match="has 1 layer"):
        Bench(one, Runtime("torch", "float32", CPU)).measure_costs([kind_of(one)], Measured(), pytest.fail)


@pytest.mark.parametrize("runtime, message", [
    (Runtime("torch", "bfloat16", CPU), "use backend fast"), (Runtime("magic", "float32", CPU), "unknown backend"),
    (Runtime("openvino", "float16", CPU), "openvino has no float16"),
    (Runtime("onnx", "int8", CPU), "--frames"), (Runtime("onnx", "int8", CPU, None, "film.avi"), "film.avi")])
def test_runtimes_that_cannot_be(runtime, message):
    with pytest.raises(UserError, match=message):
        runtime.check()


@pytest.mark.parametrize("backend, precision, package", [
    ("onnx", "float32", "onnxscript"), ("onnx", "float32", "onnxruntime"), ("openvino", "float32", "openvino"),
    ("openvino", "int8", "onnxruntime")])
def test_a_missing_package_is_named_at_once(monkeypatch, square_data, backend, precision, package):
    require_packages(backend)
    runtime = Runtime(backend, precision, CPU, frames=str(square_data))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"needs the package {package}; install it with: pip install {package}$"):
        runtime.check()


def test_an_engine_that_does_not_run_on_the_device_is_named_at_once():
    require_packages("openvino")
    with pytest.raises(UserError, match="openvino runs on the CPU, not on cuda"):
        Runtime("openvino", "float32", torch.device("cuda")).check()


def test_tensorrt_without_its_package(monkeypatch):
    require_packages("onnx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UserError, match="pip install tensorrt$"):
        Runtime("tensorrt", "float32", torch.device("cuda")).check()


# ---- all together

@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_compressed_to_a_budget(tmp_path, family):
    request = request_for(tmp_path, family, budget=Budget(parameters=1e9, layers=2))
    choice = choose_student(request)
    cfg = load_config("compresstracker", str(choice.config))
    assert cfg.family.name == family and cfg.name == "student"
    assert build_for_test(cfg).depth == 2 and choice.timed.ms > 0
    assert sum(cfg.COMPRESS.STAGES) == cfg.shape.depth
    paper, teacher = load_config("compresstracker", "compresstracker_vitb_256_4"), load_config(*request.teacher)
    assert cfg.TRAIN.LR == paper.TRAIN.LR and cfg.COMPRESS.FEAT_WEIGHT == paper.COMPRESS.FEAT_WEIGHT
    assert cfg.DATA.TRAIN.SAMPLE_PER_EPOCH == paper.DATA.TRAIN.SAMPLE_PER_EPOCH
    assert cfg.DATA.TRAIN.DATASETS_NAME == teacher.DATA.TRAIN.DATASETS_NAME
    assert "*" in choice.table and "as the teacher" in choice.table
    assert {path.name for path in choice.files} == {"student.yaml", "students.txt", "costs.txt", "search.json",
                                                    "importance.png", "importance.pdf"}
    assert all(path.is_file() for path in choice.files)


def test_a_student_deeper_than_its_teacher_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "measure_importance", pytest.fail)
    with pytest.raises(UserError, match="5 layers was asked for, but the teacher has 4"):
        choose_student(request_for(tmp_path, budget=Budget(layers=5)))


def test_a_second_call_measures_nothing(tmp_path, monkeypatch):
    request = request_for(tmp_path)
    first = choose_student(request)
    monkeypatch.setattr(choose, "measure_importance", pytest.fail)
    monkeypatch.setattr(Bench, "time", pytest.fail)
    assert choose_student(request).found == first.found
    (tmp_path / "out" / "costs.json").write_text("{")
    with pytest.raises(UserError, match="costs.json is damaged.*delete it"):
        choose_student(request)


def test_the_table_says_which_students_start_from_random_weights():
    found = [Found(Candidate(kind, (6, 6)), Cost(2.0, 1e9, 1e6), 0.9) for kind in COSTS if kind.kept == 1]
    times = dict.fromkeys(found, costs.Timed(2.1, 1.0))
    same, all_, started = (choose.students_table(shown, times, TEACHER, found[0], narrows=narrows)
                           for shown, narrows in ((found[:1], False), (found, False), (found, True)))
    assert "not a measurement." in same and "random weights" not in same and "random weights" not in started
    assert all_.endswith("--vary mlp tokens resolution leaves them out.")


def test_a_slow_phase_drops_out_of_what_students_take(tmp_path, monkeypatch):
    """In three of five blocks all passes take twice as long, but for one that escapes in one of them."""
    bench = Bench(compression_of(request_for(tmp_path)), Runtime("torch", "float32", CPU))
    blocks = {"a": [3, 6, 6, 3, 6], "b": [3, 6, 3, 3, 6], "reference": [2, 4, 4, 2, 4]}
    monkeypatch.setattr(Runtime, "time", lambda self, calls, effort: {
        name: Timings(np.array(blocks[name])[:, None] * 1e-3) for name in calls})
    assert bench.milliseconds({"a": None, "b": None}) == {name: pytest.approx(ms) for name, ms in (
        ("a", 6), ("b", 6), ("reference", 4))}


def test_the_best_are_of_finely_measured_kinds(tmp_path, monkeypatch):
    """One that is best because its rough time came out too low is not among those that fit; the ten best are all
    predicted from fine times, and the others' kinds are not measured finely."""
    request = request_for(tmp_path, varied=("width", "mlp", "resolution"), budget=Budget(ms=8))
    base = compression_of(request)
    lucky, measured = kind_of(base)._replace(mlp_ratio=kind_of(base).mlp_ratio / 2), []

    def measure(self, kind, known, effort):
        measured.append((kind, effort))
        ms = 1.0 if kind == lucky and effort == costs.ROUGH else 5.0 * kind.width / kind_of(base).width
        return KindCosts(Cost(ms, 1e9, 1e6), Cost(2.0, 1e9, 1e6), effort=effort)

    monkeypatch.setattr(Bench, "_measure", measure)
    importance = choose.Importance([0.1] * base.shape.depth, [0.1] * base.shape.depth, [], 2)
    costs_, found = choose._search(request, base, Bench(base, request.runtime), importance)
    best = {one.candidate.kind for one in found[:choose.SHOWN]}
    assert {kind for kind, effort in measured if effort == costs.FINE} >= best | {lucky}
    assert all(costs_.kinds[kind].effort == costs.FINE for kind in best)
    assert [one.candidate.layers for one in found if one.candidate.kind == lucky] == [1]
    assert any(entry.effort == costs.ROUGH for entry in costs_.kinds.values())
    assert len(measured) == len(set(measured)), "nothing twice"


def test_frames_may_be_a_film_pictures_or_sequences(tmp_path, square_data, film):
    def with_frames(path):
        return request_for(tmp_path, runtime=Runtime("fast", "float32", CPU, frames=str(path)))

    for frames in (square_data, square_data / "one" / "img", film):
        pairs = choose._pairs(with_frames(frames), tiny())
        assert len(pairs) == 2
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(UserError, match=f"--frames .*{name} holds neither frames"):
            choose._pairs(with_frames(tmp_path / name), tiny())


def test_what_was_measured_is_taken_for_the_same_only(tmp_path):
    """Other heads, crops or threads are measured again."""
    request = request_for(tmp_path)
    choose_student(request)

    def known(**changes):
        other = replace(request, **changes)
        return choose._read(tmp_path / "out" / "costs.json", choose._measured_with(other, compression_of(other)), dict)

    assert known() and known(budget=Budget(layers=3))
    assert known(settings=("MODEL.HEAD.NUM_CHANNELS=8",)) is None
    assert known(settings=("TEST.SEARCH_FACTOR=3.0",)) is None
    assert known(runtime=replace(request.runtime, threads=7)) is None
    assert known(runtime=replace(request.runtime, precision="bfloat16")) is None


@pytest.mark.parametrize("key", ["STUDENT.MODEL.BACKBONE.MLP_RATIO", "MODEL.BACKBONE.DISTILL_LAYER", "COMPRESS.STAGES",
                                 "MODEL.PRETRAIN_FILE"])
def test_keys_that_the_search_decides_cannot_be_set(tmp_path, key):
    with pytest.raises(UserError, match=f"--set {key}: this key is decided by the search"):
        compression_of(request_for(tmp_path, settings=(f"{key}=2",)))


def test_epochs_that_are_set_are_those_that_are_tested(tmp_path):
    assert compression_of(request_for(tmp_path, settings=("TRAIN.EPOCH=7",))).TEST.EPOCH == 7
    assert compression_of(request_for(tmp_path, settings=("TRAIN.EPOCH=7", "TEST.EPOCH=5"))).TEST.EPOCH == 5


@pytest.mark.parametrize("changes, message", [
    ({"teacher": ("compresstracker", "quickstart_4")}, "is a compression, not a teacher"),
    ({"recipe": "ostrack/quickstart_teacher"}, "is no compression"),
    ({"recipe": "compresstracker/mixformerv2_b_8"}, "mixformerv2_b_8 does not go with the teacher"),
    ({"checkpoint": None}, "does not exist")])
def test_requests_that_do_not_fit(tmp_path, changes, message):
    changes = {name: tmp_path / "none.pth" if value is None else value for name, value in changes.items()}
    with pytest.raises(UserError, match=message):
        compression_of(request_for(tmp_path, **changes))


def test_a_slow_machine_is_no_reason_to_take_what_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(Bench, "time_students", lambda self, students: dict.fromkeys(
        students, costs.Timed(1e6, 4.0)))
    with pytest.raises(UserError, match="none is within 100000 ms when it is timed"):
        choose_student(request_for(tmp_path, budget=Budget(ms=1e5)))


def test_predictions_are_shown_for_the_speed_at_which_the_students_are_timed(tmp_path, monkeypatch):
    request = request_for(tmp_path, budget=Budget(ms=100))
    _, before = choose_student(request), json.loads((tmp_path / "out" / "search.json").read_text())["students"]
    (tmp_path / "out" / "times.json").unlink()
    usual = json.loads((tmp_path / "out" / "costs.json").read_text())["value"]["ended_ms"]
    monkeypatch.setattr(Bench, "time_students", lambda self, students: dict.fromkeys(
        students, costs.Timed(20.0, 2 * usual)))
    choose_student(request)
    after = json.loads((tmp_path / "out" / "search.json").read_text())["students"]
    assert [one["predicted"]["ms"] for one in after] == pytest.approx([2 * one["predicted"]["ms"] for one in before])
    assert [one["predicted"]["macs"] for one in after] == [one["predicted"]["macs"] for one in before]
