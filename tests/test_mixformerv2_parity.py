"""MixFormerV2 gives the official code's numbers (../shared/golden/mixformerv2)."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.families.build import build_compressor, build_tracker
from lib.families.mixformerv2.objective import edge_kl, remove_rate
from lib.models.base import Inputs
from lib.test.tracker import Tracker
from lib.train.actors import build_actor
from lib.utils.boxes import complete_box_iou, cxcywh_to_xyxy, xywh_to_xyxy

SIZES = ("b", "s")
BIG_IS_SLOW = [pytest.param("b", marks=pytest.mark.slow), "s"]
TARGETS = torch.tensor([[.375, .40, .25, .20], [.55, .30, .18, .31]])
PARTS = [("template", 0, 2), ("template", 1, 2), ("search", 0, 1), ("prediction", 0, 1)]


@pytest.fixture(scope="module")
def reference(golden_file):
    """`reference(size)`: golden values of B or S, with the inputs that they belong to."""
    @cache
    def of(size: str) -> SimpleNamespace:
        file = golden_file(f"mixformerv2/mixformerv2_{size}.npz")
        golden, formula = file.arrays, file.formula
        z, x = (128, 288) if size == "b" else (112, 224)
        crops = {name: torch.from_numpy(formula.array(f"mixformer_{name}", (2, 3, side, side)))
                 for name, side in (("template", z), ("online_template", z), ("search", x))}
        templates = torch.stack([crops["template"], crops["online_template"]], dim=1)
        return SimpleNamespace(golden=golden, formula=formula, templates=templates, search=crops["search"])
    return of


def filled(model, formula, prefix: str = ""):
    """The model with the formula's weights; left and right edges keep apart."""
    def value(name, shape):
        if name == "backbone.reg_tokens":
            return formula.array("reg_tokens_0", shape)[:, [1, 0, 2, 3]]
        return formula.parameter(prefix + name, shape) * np.float32(4.6 if name == "box_head.layers.1.1.weight" else 1)
    model.load_state_dict({name: torch.from_numpy(value(name, tuple(own.shape)))
                           for name, own in model.state_dict().items()})
    return model.eval()


def tracker_of(size: str, formula, *overrides: str):
    cfg = load_config("mixformerv2", f"mixformerv2_{size}", list(overrides))
    return cfg, filled(build_tracker(cfg), formula)


def batch_of(case, targets=TARGETS):
    return {"template": case.templates, "search": case.search, "search_box": targets, "template_box": TARGETS}


def sample(tensor: torch.Tensor, golden: np.ndarray) -> np.ndarray:
    flat = tensor.detach().numpy().ravel()
    return flat[np.arange(len(golden)) * (len(flat) - 1) // (len(golden) - 1)]


def check_tensor(tensor: torch.Tensor, golden, name: str) -> None:
    np.testing.assert_allclose(sample(tensor, golden[f"{name}_sample"]), golden[f"{name}_sample"], atol=1e-4)
    np.testing.assert_allclose(stats(tensor), golden[f"{name}_stats"], atol=1e-4)


def stats(tensor: torch.Tensor) -> np.ndarray:
    values = tensor.detach().double()
    return np.array([values.mean(), values.std(correction=0), values.abs().max()])


def check_gradients(model, golden, prefix: str) -> None:
    found = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()
             if parameter.grad is not None}
    wanted = dict(zip(golden[f"{prefix}_grad_names"], golden[f"{prefix}_grad_norms"], strict=True))
    assert found.keys() == wanted.keys()
    for name, norm in wanted.items():
        assert found[name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("size", SIZES)
def test_the_state_dict_is_the_official_one(reference, size):
    case = reference(size)
    state = build_tracker(load_config("mixformerv2", f"mixformerv2_{size}", ["TRAIN.TRAIN_SCORE=false"])).state_dict()
    assert list(state) == list(case.golden["state_dict_keys"])
    assert [",".join(map(str, value.shape)) for value in state.values()] == list(case.golden["state_dict_shapes"])
    for part in "ts":
        check_tensor(state[f"backbone.pos_embed_{part}"], case.golden, f"sincos_{part}")


@pytest.mark.parametrize("size", SIZES)
def test_layers_and_prediction(reference, size):
    case = reference(size)
    golden = case.golden
    _, model = tracker_of(size, case.formula)
    with torch.no_grad():
        tokens = model.embed(Inputs.of(case.templates, case.search))
        for index in range(model.depth):
            tokens = model.run_layer(index, tokens)
            check_tensor(tokens.x, golden, f"layer_{index}")
            for (name, part, parts), wanted in zip(PARTS, golden[f"layer_{index}_part_stats"], strict=True):
                np.testing.assert_allclose(stats(tokens.part(name).chunk(parts, dim=1)[part]), wanted, atol=1e-4)
        check_tensor(tokens.part("prediction"), golden, "reg_tokens")
        prediction = model.predict(tokens)
    np.testing.assert_allclose(prediction.boxes.numpy(), golden["pred_boxes"], atol=1e-4)
    np.testing.assert_allclose(prediction.further["score_logit"], golden["pred_scores_logit"], atol=1e-4)
    for edge, logits in zip("lrtb", prediction.further["edges"].unbind(1), strict=True):
        np.testing.assert_allclose(logits, golden[f"logit_{edge}"], atol=1e-4)
        np.testing.assert_allclose(logits.softmax(dim=-1), golden[f"prob_{edge}"], atol=1e-4)


@pytest.mark.parametrize("size", BIG_IS_SLOW)
def test_the_loss_of_the_boxes(reference, size):
    case = reference(size)
    cfg, model = tracker_of(size, case.formula, "TRAIN.TRAIN_SCORE=false")
    loss, terms = build_actor(cfg, model)(batch_of(case), 1, torch.Generator())
    loss.backward()
    for name in ("Loss/total", "Loss/ciou", "Loss/l1", "IoU"):
        assert terms[name].item() == pytest.approx(float(case.golden["plain_" + name.replace("/", "_")]), rel=1e-4)
    check_gradients(model, case.golden, "plain")


@pytest.mark.parametrize("size", SIZES)
def test_the_score_head_alone(reference, size):
    case = reference(size)
    cfg, model = tracker_of(size, case.formula, "TRAIN.TRAIN_SCORE=true")
    nothing = TARGETS * torch.tensor([[1.0], [0.0]])
    loss, terms = build_actor(cfg, model)(batch_of(case, nothing), 1, torch.Generator())
    loss.backward()
    for name in ("Loss/total", "Loss/score"):
        assert terms[name].item() == pytest.approx(float(case.golden["score_Loss_total"]), rel=1e-4)
    assert terms["accuracy"] == 0.5             # both scores are above 0.5
    check_gradients(model, case.golden, "score")


@pytest.mark.slow
def test_edges_against_a_dense_teacher(reference):
    case = reference("b")
    golden, formula = case.golden, case.formula
    cfg, model = tracker_of("b", formula, "TRAIN.TRAIN_SCORE=false")
    maps = (torch.from_numpy(3 * formula.array(f"mixformer_teacher_{corner}", (2, 9216))) for corner in ("tl", "br"))
    corners = [logits.softmax(dim=1).view(2, 96, 96) for logits in maps]
    teacher = torch.stack([corner.sum(dim=over) for over in (1, 2) for corner in corners], dim=1)   # l, r, t, b
    prediction = model(case.templates, case.search)
    kl = edge_kl(prediction.further["edges"], teacher)
    loss = build_actor(cfg, model).objective.loss(prediction, TARGETS)[0] + 5 * kl
    loss.backward()
    assert kl.item() == pytest.approx(float(golden["stage1_Loss_distill_logits"]), rel=1e-4)
    assert loss.item() == pytest.approx(float(golden["stage1_Loss_total"]), rel=1e-4)
    check_gradients(model, golden, "stage1")
    boxes = torch.tensor([[.5, .5, .3, .2], [.6, .45, .2, .3]])
    overlap = complete_box_iou(cxcywh_to_xyxy(boxes), xywh_to_xyxy(TARGETS))[1].mean()
    assert overlap.item() == pytest.approx(float(golden["stage1_IoU_teacher"]), rel=1e-4)


def compression(case, config: str, *overrides: str):
    """Teacher and student of a compression with the formula's weights, and its actor."""
    cfg = load_config("compresstracker", config, ["COMPRESS.PRED_FORM=edges", "TRAIN.CORNER_WEIGHT=5", *overrides])
    net = build_compressor(cfg, load=False).eval()
    filled(net.teacher, case.formula, "teacher.")
    filled(net.student, case.formula)
    return net, build_actor(cfg, net)


def check_distillation(terms, golden, prefix: str) -> None:
    weights = {"Loss/total": 1, "Loss/ciou": 1, "Loss/l1": 1, "Loss/dst_logit": 5, "Loss/dst_feat_all": 0.2, "IoU": 1}
    official = {"Loss/dst_logit": "Loss_distill_corner_kl", "Loss/dst_feat_all": "Loss_distill_feat"}
    for name, weight in weights.items():
        wanted = weight * float(golden[f"{prefix}_{official.get(name, name.replace('/', '_'))}"])
        assert terms[name].item() == pytest.approx(wanted, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(("size", "config"), [pytest.param("b", "mixformerv2_b_8", marks=pytest.mark.slow),
                                              ("s", "compresstracker_mixformerv2_s_4")])
def test_its_own_distillation(reference, size, config):
    case = reference(size)
    golden = case.golden
    net, actor = compression(case, config)
    targets = net.targets(case.templates, case.search)
    np.testing.assert_allclose(targets.prediction.boxes, golden["teacher_pred_boxes"], atol=1e-4)
    for edge, logits in zip("lrtb", targets.prediction.further["edges"].unbind(1), strict=True):
        np.testing.assert_allclose(logits.softmax(dim=-1), golden[f"teacher_prob_{edge}"], atol=1e-4)
    check_tensor(targets.features[-1], golden, "teacher_last_layer")
    loss, terms = actor.loss_of(batch_of(case), [True] * net.student.depth, 1.0)
    loss.backward()
    check_distillation(terms, golden, "stage2")
    check_gradients(net.student, golden, "stage2")


@pytest.mark.slow
def test_layers_fade_out(reference):
    case = reference("b")
    golden = case.golden
    for epoch, rate in zip(golden["remove_rate_epoch"], golden["remove_rate"], strict=True):
        assert remove_rate(int(epoch)) == pytest.approx(rate, abs=1e-9)
    net, actor = compression(case, "mixformerv2_b_fade")
    with torch.no_grad():
        prepared = actor.prepare(batch_of(case), 1)
        for rate, epoch in ((0.5, 19), (0.0, 39)):
            _, terms = actor.loss_of(batch_of(case), [True] * 12, 1.0, prepared, epoch)
            check_distillation(terms, golden, f"remove_{rate}")
            prediction = net.student(case.templates, case.search, {"remove_rate": rate})
            np.testing.assert_allclose(prediction.boxes, golden[f"remove_{rate}_pred_boxes"], atol=1e-4)


@pytest.mark.parametrize(("size", "factor"), [pytest.param("b", 5.0, marks=pytest.mark.slow), ("s", 4.5)])
def test_a_track(reference, size, factor):
    case = reference(size)
    golden, formula = case.golden, case.formula
    cfg, model = tracker_of(size, formula, f"TEST.SEARCH_FACTOR={factor}", "TEST.UPDATE_INTERVALS.DEFAULT=4")
    tracker = Tracker.from_model(model, cfg)
    target = tracker.start(formula.frame(0), formula.ground_truth(0))
    for number, box in enumerate(golden["track_boxes"], 1):
        result, = tracker.step([formula.frame(number)], [target])
        np.testing.assert_allclose(result.box_xywh, box, atol=1e-3)
        assert result.score == pytest.approx(golden["track_scores"][number - 1], abs=1e-4)
        assert target.state.kept.score == pytest.approx(golden["track_best"][number - 1], abs=1e-4)
        online = target.state.templates[:, 1].double().mean().item()
        assert online == pytest.approx(golden["track_online"][number - 1], abs=1e-4)


def test_complete_iou(reference):
    case = reference("b")
    first, second = (xywh_to_xyxy(torch.from_numpy(case.formula.array(name, (40, 4))).abs()
                                  + torch.tensor([0, 0, 0.05, 0.05])) for name in ("giou_a", "giou_b"))
    first.requires_grad_()
    ciou, iou = complete_box_iou(first, second)
    loss = (1 - ciou).mean()
    loss.backward()
    assert loss.item() == pytest.approx(float(case.golden["ciou_loss"]), rel=1e-4)
    np.testing.assert_allclose(iou.detach(), case.golden["ciou_iou"], atol=1e-4)
    np.testing.assert_allclose(first.grad, case.golden["ciou_grad"], atol=1e-4)
