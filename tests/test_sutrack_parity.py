"""SUTrack gives the official code's numbers (../shared/golden/sutrack, made by the official implementation)."""

import re
from ast import literal_eval

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.families.build import build_tracker
from lib.families.sutrack.model import foreground_share
from lib.losses.heatmap import gaussian_heatmap
from lib.models.base import Inputs
from lib.models.checkpoint import load_weights
from lib.test.tracker import Tracker
from lib.train.actors import build_actor

TEMPLATE_BOXES = torch.tensor([[[.25, .27, .45, .40], [.33, .20, .31, .57]],
                               [[.30, .22, .38, .52], [.18, .29, .61, .44]]])                  # (B, T, 4)
SEARCH_BOXES = torch.tensor([[.375, .40, .25, .20], [.55, .30, .18, .31]])
SIZES = ("t224", "b224")


class Case:
    """One size: its numbers, its configuration and its model with the formula's weights."""

    def __init__(self, size, golden):
        self.size, self.formula, self.expected = size, golden.formula, golden.arrays
        self.cfg = load_config("sutrack", f"sutrack_{size}", ["TRAIN.DROP_PATH_RATE=0"])
        self.model = build_tracker(self.cfg)
        self.fill()

    def parameter(self, name, shape):
        value = torch.from_numpy(np.asarray(self.formula.parameter(name, tuple(shape))))
        leaf = name.rpartition(".")[2]
        if leaf in ("gamma_1", "gamma_2"):
            return 0.3 + 5 * value
        if leaf in ("template_background_token", "template_foreground_token", "search_token"):
            return 25 * value
        return value

    def fill(self):
        state = {name: self.parameter(name, value.shape) for name, value in self.model.state_dict().items()}
        state["text_encoder.feature"] = torch.from_numpy(self.expected["clip_feature_zeros"])
        self.model.load_state_dict(state)
        self.model.zero_grad(set_to_none=True)

    def array(self, name, shape):
        return torch.from_numpy(self.formula.array(name, shape))

    def inputs(self, six=False):
        kind, channels, number = "6" * six, 6 if six else 3, self.cfg.DATA.TEMPLATE.NUMBER
        templates = [self.array(f"template{kind}_{index}", (2, channels, 112, 112)) for index in range(number)]
        return (torch.stack(templates, dim=1), self.array(f"search{kind}", (2, channels, 224, 224)),
                {"template_boxes": TEMPLATE_BOXES[:, :number]})

    def text(self):
        return self.array("text_src", (2, 1, self.model.embed_dim))

    def check(self, prediction, case):
        found = {"score_map": prediction.score_map, "size_map": prediction.size_map,
                 "offset_map": prediction.offset_map, "pred_boxes": prediction.boxes}
        if prediction.further:
            found["task_logits"] = prediction.further["task_logits"].unsqueeze(1)
        for name, value in found.items():
            np.testing.assert_allclose(value.detach().numpy(), self.expected[f"{case}_{name}"], rtol=0, atol=1e-4,
                                       err_msg=f"{case} {name}")

    def check_samples(self, tensors, name):
        """Each tensor's samples, statistics and shape."""
        flat = [tensor.detach().contiguous().flatten() for tensor in tensors]
        samples = np.stack([f[torch.arange(64) * f.numel() // 64].numpy() for f in flat])
        stats = np.stack([(f.mean().item(), f.std(correction=0).item(), f.abs().mean().item()) for f in flat])
        np.testing.assert_allclose(samples, self.expected[f"{name}_sample"], rtol=0, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(stats, self.expected[f"{name}_stats"], rtol=0, atol=1e-4, err_msg=name)
        assert [tuple(shape) for shape in self.expected[f"{name}_shape"]] == [tuple(t.shape) for t in tensors]


@pytest.fixture(scope="module", params=[SIZES[0], pytest.param(SIZES[1], marks=pytest.mark.slow)])
def case(request, golden_file):
    return Case(request.param, golden_file(f"sutrack/sutrack_{request.param}.npz"))


def test_names_and_shapes(case):
    expected = case.expected
    needed = {str(name): literal_eval(str(shape)) for name, shape, used in zip(
        expected["state_dict_keys"], expected["state_dict_shapes"], expected["state_dict_needed"], strict=True) if used}
    own = {name: tuple(value.shape) for name, value in case.model.state_dict().items()}
    assert own.pop("text_encoder.feature") == (1, 768)
    assert list(own.items()) == list(needed.items())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["text", "notext", "zeros", "six"])
def test_prediction(case, kind):
    model = case.model.eval()
    templates, search, further = case.inputs(six=kind == "six")
    further["task"] = torch.zeros(2, dtype=torch.long)
    if kind in ("text", "six"):
        further["text_token"] = case.text()
    text = model.text_encoder
    model.text_encoder = None if kind == "notext" else text
    case.check(model(templates, search, further), kind)
    del further["task"]
    assert model(templates, search, further).further is None
    model.text_encoder = text


@torch.no_grad()
def test_one_box_for_both_templates(case):
    if "oneanno_score_map" not in case.expected:
        pytest.skip("of the sizes with two templates")
    templates, search, further = case.inputs()
    further = {"template_boxes": further["template_boxes"][:1, :1], "text_token": case.text()[:1],
               "task": torch.zeros(1, dtype=torch.long)}
    case.check(case.model.eval()(templates[:1], search[:1], further), "oneanno")


@torch.no_grad()
def test_modules(case):
    model, body = case.model.eval(), case.model.body
    templates, search, further = case.inputs()
    for name, crops in (("template", templates.flatten(0, 1)), ("search", search)):
        x = body.patch_embed(crops)
        case.check_samples([x], f"text_patch_{name}")
        outputs = []
        for block in body.blocks[:body.first]:
            x = block(x)
            outputs.append(x)
        case.check_samples(outputs, f"text_conv_{name}")
    share = foreground_share(further["template_boxes"], body.template_grid)
    np.testing.assert_allclose(share.flatten(0, 1).squeeze(2), case.expected["text_soft_mask"], atol=1e-6)
    tokens = model.embed(Inputs.of(templates, search, further | {"text_token": case.text()}))
    case.check_samples([tokens.x], "text_tokens")
    outputs = []
    for layer in model.layers:
        tokens = layer(tokens)
        outputs.append(tokens.x)
    case.check_samples(outputs, "text_main")
    np.testing.assert_allclose(torch.stack([x[:, 0, :8] for x in outputs]), case.expected["text_main_class_token"],
                               rtol=0, atol=1e-4)
    case.check_samples([body.fc_norm(tokens.x)], "text_final")
    assert {segment.name: segment.length for segment in tokens.segments} == {
        "class": 1, "search": 196, "template": 49 * templates.shape[1], "text": 1}


@torch.no_grad()
def test_text_token(case):
    np.testing.assert_allclose(case.model.text_encoder(), case.expected["text_token_zeros"], rtol=0, atol=1e-4)
    projected = case.model.text_encoder.text_proj(case.array("clip_text", (1, 768)))
    np.testing.assert_allclose(projected, case.expected["text_token_proj"], rtol=0, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_an_official_file(case, tmp_path):
    """With CLIP, of which the text feature is made (and a part of its visual tower, which nothing reads)."""
    if case.size != "t224":
        pytest.skip("the tower is the same for all sizes")
    expected = case.expected
    shapes = {str(name): literal_eval(str(shape)) for name, shape in zip(
        expected["state_dict_keys"], expected["state_dict_shapes"], strict=True)}
    state = {name: case.parameter(name, shape) for name, shape in shapes.items()
             if ".clip.visual.transformer." not in name}
    torch.save({"net": state, "epoch": 180}, tmp_path / "SUTRACK_ep0180.pth.tar")
    del state
    model = build_tracker(case.cfg).eval()
    assert load_weights(model, tmp_path / "SUTRACK_ep0180.pth.tar")["epoch"] == 180
    np.testing.assert_allclose(model.text_encoder.feature, expected["clip_feature_zeros"], rtol=0, atol=1e-4)
    templates, search, further = case.inputs()
    case.check(model(templates, search, further), "zeros")


@pytest.mark.parametrize("kind, mode, names", [
    pytest.param("train", True, "train_dataset", marks=pytest.mark.slow),
    pytest.param("evalbn", False, "train_dataset", marks=pytest.mark.slow), ("mixed", True, "mixed_dataset")])
def test_training_step(case, kind, mode, names):
    expected = {name.removeprefix(f"{kind}_"): value for name, value in case.expected.items()
                if name.startswith(f"{kind}_")}
    case.fill()
    actor = build_actor(case.cfg, case.model)
    actor.train(mode)
    templates, search, _ = case.inputs()
    number = templates.shape[1]
    batch = {"template": templates, "template_box": TEMPLATE_BOXES[:, :number], "search": search,
             "search_box": SEARCH_BOXES, "dataset": [str(name) for name in case.expected[names]]}
    if number == 1:
        batch["template"], batch["template_box"] = batch["template"].squeeze(1), batch["template_box"].squeeze(1)
    loss, terms = actor(batch, 1, torch.Generator())
    loss.backward()
    for name in ("Loss/total", "Loss/giou", "Loss/l1", "Loss/location", "Loss/task_class", "IoU"):
        assert terms[name].item() == pytest.approx(float(expected[name.replace("/", "_")]), rel=1e-4, abs=1e-6), name
    found = {name: parameter.grad for name, parameter in case.model.named_parameters()}
    wanted = dict(zip(map(str, case.expected["grad_names"]), expected["grad_norms"], strict=True))
    assert {name for name, value in wanted.items() if not np.isnan(value)} == set(found)
    total = float(expected["grad_total_norm"])
    for name, gradient in found.items():
        if mode and re.fullmatch(r"decoder\.conv[1-4]_\w+\.0\.bias", name):    # before BatchNorm: rounding noise
            assert max(gradient.norm().item(), wanted[name]) < 1e-6 * total, name
        else:
            assert gradient.norm().item() == pytest.approx(wanted[name], rel=1e-3, abs=1e-7 * total), name
    assert torch.stack([gradient.norm() for gradient in found.values()]).norm().item() == pytest.approx(total, rel=1e-3)
    if mode:
        for statistic in ("running_mean", "running_var"):
            values = torch.stack([case.model.get_buffer(f"decoder.{name}.{statistic}")[
                torch.arange(64) * case.model.get_buffer(f"decoder.{name}.{statistic}").numel() // 64]
                for name in ("conv1_ctr.1", "conv4_size.1")])
            np.testing.assert_allclose(values, expected[f"bn_{statistic}_after"], rtol=0, atol=1e-4)


def test_heat_map_and_optimiser(case):
    heat = gaussian_heatmap(SEARCH_BOXES, 14).squeeze(1)
    np.testing.assert_allclose(heat, case.expected["train_heatmap"], atol=1e-6)
    groups = build_actor(case.cfg, case.model).parameter_groups()
    head, rest = case.expected["optimizer_group_sizes"]
    assert [len(group["params"]) for group in groups] == [head, rest - 4]     # two norms that are never called
    np.testing.assert_allclose([group["lr"] for group in groups], case.expected["optimizer_group_lr"])


@pytest.mark.parametrize("run", ["track", "track_gate", *(pytest.param(run, marks=pytest.mark.slow)
                                                          for run in ("track_notext", "track_update"))])
def test_run(case, run):
    expected = {name.removeprefix(f"{run}_"): value for name, value in case.expected.items()
                if name.startswith(f"{run}_")}
    if not expected:
        pytest.skip("of the sizes with two templates")
    case.fill()
    with torch.no_grad():
        case.model.decoder.conv5_size.bias.add_(float(case.expected["track_size_bias"]))
    changes = {"track_update": {"TEST.UPDATE_INTERVALS.DEFAULT": 3, "TEST.UPDATE_THRESHOLD.DEFAULT": 0.0},
               "track_gate": {"TEST.UPDATE_INTERVALS.DEFAULT": 2,
                              "TEST.UPDATE_THRESHOLD.DEFAULT": float(case.expected.get("track_gate_threshold", 0))}}
    cfg = case.cfg.with_overrides(changes.get(run, {}))
    text = case.model.text_encoder
    case.model.text_encoder = None if run == "track_notext" else text
    tracker, rules = Tracker.from_model(case.model, cfg), cfg.family.rules_of(cfg)
    np.testing.assert_allclose(tracker.window, case.expected["hann14"][0, 0], atol=1e-6)
    start, height, width = case.expected["track_start"]

    def frame(number):
        return case.formula.frame(int(start) + number, int(height), int(width))

    target = tracker.start(frame(0), case.formula.ground_truth(int(start)))
    boxes, scores, updated = [target.box_xywh], [], []
    for number in range(1, 13):
        before = target.state
        result, = tracker.step([frame(number)], [target])
        boxes.append(result.box_xywh)
        scores.append(result.score)
        updated.append(target.state is not before)
    np.testing.assert_allclose(boxes, expected["boxes"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=1e-4)
    assert updated == expected["updated"].astype(bool).tolist()
    assert target.state.templates.shape[1] == expected["counts"][-1][0] == rules.number
    held = target.state.further["template_boxes"][0]
    annotations = expected["final_annos"].reshape(-1, 4)
    np.testing.assert_allclose(held, np.broadcast_to(annotations, held.shape), rtol=0, atol=1e-5)
    newest = target.state.templates[0, -1].unsqueeze(0)                       # RGB; the official one has six channels
    doubled = torch.cat([newest, newest], dim=1).flatten()
    np.testing.assert_allclose(doubled[torch.arange(64) * doubled.numel() // 64], expected["last_template_sample"],
                               rtol=0, atol=1e-4)
    case.model.text_encoder = text
