"""The models and losses give the official code's numbers (tests/golden, made by the official implementations)."""

import importlib.util
import re
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.families.build import build_compressor, build_student, build_tracker
from lib.losses.heatmap import gaussian_heatmap
from lib.losses.tracking import focal_loss
from lib.models.base import Inputs
from lib.models.checkpoint import slim_state_dict
from lib.models.layers.elimination import keep_rate_at, template_mask
from lib.train.actors import build_actor
from lib.utils.boxes import generalized_box_iou

GOLDEN = Path(__file__).parent / "golden"
spec = importlib.util.spec_from_file_location("formula", GOLDEN / "formula.py")
formula = importlib.util.module_from_spec(spec)
spec.loader.exec_module(formula)


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    """All arrays of one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@cache
def parameter(name: str, shape: tuple) -> torch.Tensor:
    return torch.from_numpy(formula.parameter(name, shape))


def fill(module, official_name=lambda name: name) -> None:
    """Give every entry of the module's state dict the formula's value."""
    state = module.state_dict()
    module.load_state_dict({name: parameter(official_name(name), tuple(value.shape)) for name, value in state.items()})


def student_name(name: str) -> str:
    return name.replace("backbone.blocks.", "backbone.distill_blocks.")


@pytest.fixture(scope="module")
def images():
    return (torch.from_numpy(formula.array("template", (2, 3, 128, 128))),
            torch.from_numpy(formula.array("search", (2, 3, 256, 256))))


def assert_prediction(prediction, expected, prefix="") -> None:
    for name in ("score_map", "size_map", "offset_map"):
        np.testing.assert_allclose(getattr(prediction, name).detach().numpy(), expected[prefix + name], atol=1e-4)
    np.testing.assert_allclose(prediction.boxes.detach().numpy(), expected[prefix + "pred_boxes"], atol=1e-4)


@pytest.fixture(scope="module")
def teacher():
    model = build_tracker(load_config("ostrack", "vitb_256_mae_32x4_ep300"))
    fill(model)
    return model.eval()


def test_teacher(teacher, images):
    expected = golden("ostrack_256")
    state = teacher.state_dict()
    assert sorted(state) == sorted(expected["state_dict_keys"])
    shapes = dict(zip(expected["state_dict_keys"], expected["state_dict_shapes"], strict=True))
    assert {name: str(tuple(value.shape)) for name, value in state.items()} == shapes
    with torch.no_grad():
        assert_prediction(teacher(*images), expected)


def test_teacher_with_candidate_elimination(images):
    expected = golden("ostrack_256_ce")
    model = build_tracker(load_config("ostrack", "vitb_256_mae_ce_32x4_ep300")).eval()
    fill(model)
    mask = template_mask("CTR_POINT", model.template_feat_size, torch.zeros(2, 4))
    np.testing.assert_array_equal(mask.numpy(), expected["ce_template_mask"])
    with torch.no_grad():
        tokens = model.embed(Inputs.of(*images, {"template_mask": mask}))
        for layer in model.layers:
            tokens = layer(tokens)
        assert len(tokens.extra.removed) == 3
        for number, removed in enumerate(tokens.extra.removed):
            np.testing.assert_array_equal(removed.numpy(), np.sort(expected[f"removed_{number}"], axis=1))
        assert_prediction(model.predict(tokens), expected)
        part = model(*images, {"template_mask": mask, "keep_rate": 0.85})
    np.testing.assert_allclose(part.boxes.numpy(), expected["pred_boxes_keep_085"], atol=1e-4)


def test_keep_rate_schedule():
    expected = golden("ostrack_256_ce")
    rates = [keep_rate_at(int(epoch), 20, 80, 0.7) for epoch in expected["keep_rate_epochs"]]
    np.testing.assert_allclose(rates, expected["keep_rate"], atol=1e-9)


def test_heatmap_and_losses():
    expected = golden("ostrack_256_ce")
    heatmap = gaussian_heatmap(torch.from_numpy(expected["heatmap_boxes"][0]).float(), 16)
    np.testing.assert_allclose(heatmap[:, 0].numpy(), expected["heatmap"], atol=1e-4)
    score = torch.from_numpy(formula.array("focal", (12, 16, 16))).sigmoid().unsqueeze(1)
    assert focal_loss(score, heatmap).item() == pytest.approx(float(expected["focal"]), rel=1e-4)
    corners = []
    for name in ("giou_a", "giou_b"):
        box = torch.from_numpy(formula.array(name, (40, 4))).abs()
        corners.append(torch.cat([box[:, :2], box[:, :2] + box[:, 2:] + 0.05], dim=1))
    giou, iou = generalized_box_iou(*corners)
    assert (1 - giou).mean().item() == pytest.approx(float(expected["giou_loss"]), rel=1e-4)
    np.testing.assert_allclose(iou.numpy(), expected["giou_iou"], atol=1e-4)


@pytest.mark.parametrize("layers", [2, 4])
def test_student(layers, images):
    model = build_student(load_config("compresstracker", f"compresstracker_vitb_256_{layers}")).eval()
    fill(model, student_name)
    with torch.no_grad():
        assert_prediction(model(*images), golden(f"compresstracker_256_{layers}"), "student_")
    assert any(name.startswith("backbone.distill_blocks.0.") for name in slim_state_dict(model, student=True))


@pytest.fixture(scope="module")
def compressor():
    """`compressor(layers, mode)`: a configuration and its teacher and student, built once for the cases in a row."""
    @lru_cache(maxsize=1)
    def build(layers, mode):
        cfg = load_config("compresstracker", f"compresstracker_vitb_256_{layers}_released",
                          ["TRAIN.DROP_PATH_RATE=0.0", f"COMPRESS.TEACHER_MODE={mode}"])
        return cfg, build_compressor(cfg, load=False)
    return build


@pytest.mark.parametrize("layers, mode, draws", [
    (4, "eval", "1011"), (4, "eval", "0100"), (4, "eval", "1111"), (4, "train", "1011"), (4, "train", "0100"),
    (4, "train", "1111"), (2, "eval", "01"), (2, "eval", "11"), (2, "train", "01"), (2, "train", "11")])
def test_training_step(layers, mode, draws, images, compressor):
    expected = golden(f"compresstracker_256_{layers}")
    prefix = f"train_{mode}_{draws}_"
    cfg, net = compressor(layers, mode)
    net.zero_grad(set_to_none=True)
    fill(net.teacher)
    fill(net.student, student_name)
    actor = build_actor(cfg, net)
    actor.train()
    batch = {"template": images[0], "search": images[1],
             "search_box": torch.tensor([[.375, .40, .25, .20], [.55, .30, .18, .31]])}
    pattern = [draw == "1" for draw in draws]
    loss, stats = actor.loss_of(batch, pattern, 0.5)
    loss.backward()
    for name in ("Loss/total", "Loss/giou", "Loss/l1", "Loss/location", "Loss/dst_logit", "Loss/dst_feat_all", "IoU"):
        wanted = float(expected[prefix + name.replace("/", "_")])
        assert stats[name].item() == pytest.approx(wanted, rel=1e-4, abs=1e-6), name

    gradients = {name: p.grad.norm().item() for name, p in net.student.named_parameters() if p.grad is not None}
    wanted = dict(zip(expected[prefix + "grad_names"], expected[prefix + "grad_norms"], strict=True))
    wanted = {name: value for name, value in wanted.items() if value > 0}
    ours = {student_name(name): value for name, value in gradients.items()}
    assert sorted(ours) == sorted(wanted)
    for name, value in wanted.items():
        if re.fullmatch(r"box_head\.conv[1-4]_\w+\.0\.bias", name):
            # A bias just before BatchNorm has no effect: what is left of its gradient is rounding.
            assert max(ours[name], value) < 1e-5 * wanted[name.replace("bias", "weight")] + 1e-4, name
        else:
            assert ours[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
