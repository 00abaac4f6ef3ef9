"""ODTrack: the official numbers (folder golden/odtrack of the reference data), and what the family adds to the others:
several templates, the temporal token, the memory of templates and its bound."""

import importlib.util
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import scramble, steady_tracker, tiny_batch

from lib.config import load_config
from lib.deploy.export import ExportOptions, export_model
from lib.families.build import build_tracker
from lib.families.odtrack.clips import OrderedClips
from lib.families.odtrack.model import TOKEN
from lib.families.odtrack.runtime import Memory, MemoryRules
from lib.families.rules import Found
from lib.models.base import Inputs
from lib.models.checkpoint import save_slim
from lib.models.layers.elimination import restore
from lib.test.tracker import Tracker
from lib.train.actors import build_actor
from lib.utils.errors import UserError
from lib.utils.window import hann_window

SMALL = ["MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2", "MODEL.BACKBONE.DEPTH=4", "MODEL.PRETRAIN_FILE=''",
         "MODEL.BACKBONE.CE_LOC=[1]", "MODEL.BACKBONE.CE_KEEP_RATIO=[0.7]", "MODEL.BACKBONE.IMG_SIZE=64",
         "MODEL.HEAD.NUM_CHANNELS=16", "DATA.TEMPLATE.SIZE=32", "DATA.SEARCH.SIZE=64", "TEST.TEMPLATE_SIZE=32",
         "TEST.SEARCH_SIZE=64"]
NO_ELIMINATION = ["MODEL.BACKBONE.CE_LOC=[]", "MODEL.BACKBONE.CE_KEEP_RATIO=[]"]


def small(*more: str):
    return load_config("odtrack", "baseline", [*SMALL, *more])


# ---------------------------------------------------------------- the official numbers

@pytest.fixture(scope="module")
def golden(shared_dir):
    """`formula` and the arrays by name."""
    folder = shared_dir / "golden" / "odtrack"
    if not folder.is_dir():
        pytest.skip(f"reference data not found: {folder}")
    spec = importlib.util.spec_from_file_location("formula", folder.parent / "formula.py")
    formula = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula)
    with np.load(folder / "odtrack_b.npz") as file:
        return SimpleNamespace(formula=formula, arrays={name: file[name] for name in file.files})


def weight(formula, name: str, shape: tuple) -> torch.Tensor:
    """The entry of the reference checkpoint (section 1 of its page)."""
    value = torch.from_numpy(formula.parameter(name, shape))
    if re.fullmatch(r"box_head\.conv1_\w+\.0\.weight", name):
        value = value / 256
    return value - 1.4 if name == "box_head.conv5_size.bias" else value


@pytest.fixture(scope="module")
def official(golden):
    """`official(config, *overrides)`: configuration and model with the reference weights; the last is kept."""
    made: dict = {}

    def make(config: str, *overrides: str):
        key = config, overrides
        if key not in made:
            cfg = load_config("odtrack", config, ["TRAIN.DROP_PATH_RATE=0.0", *overrides])
            model = build_tracker(cfg).eval()
            state = {name: weight(golden.formula, name, tuple(value.shape))
                     for name, value in model.state_dict().items()}
            model.load_state_dict(state)
            made.clear()
            made[key] = cfg, model
        return made[key]
    return make


def inputs(formula, templates: int, sizes=("template", 192, "search", 384)) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Templates (2, T, 3, h, w) and the two search frames."""
    z, small_side, x, side = sizes
    crops = [torch.from_numpy(formula.array(f"{z}_{number}", (2, 3, small_side, small_side)))
             for number in range(templates)]
    return torch.stack(crops, dim=1), [torch.from_numpy(formula.array(f"{x}_{number}", (2, 3, side, side)))
                                       for number in range(2)]


def sample(values: torch.Tensor) -> np.ndarray:
    """The strided sample of the reference files."""
    flat = values.detach().flatten()
    return flat[::max(1, len(flat) // 64)][:64].numpy()


def close(found, expected, atol=1e-4) -> None:
    np.testing.assert_allclose(found.detach().numpy() if isinstance(found, torch.Tensor) else found, expected, rtol=0,
                               atol=atol)


def rows(tokens) -> torch.Tensor:
    """All tokens in raster order, zeros for removed ones."""
    place = tokens.place("search")
    return torch.cat([tokens.x[:, :place.start], restore(tokens, 576)], dim=1)


def check_frame(model, templates, search, further, expected, prefix: str) -> torch.Tensor:
    """One forward pass against a case's arrays; gives the outgoing token."""
    tokens = model.embed(Inputs.of(templates, search, further))
    for number, layer in enumerate(model.layers):
        tokens = layer(tokens)
        if prefix + "layer_mean" in expected:
            close(tokens.x.mean(), expected[prefix + "layer_mean"][number])
            close(tokens.x.std(correction=0), expected[prefix + "layer_std"][number])
            close(tokens.part("token").mean(), expected[prefix + "layer_query_mean"][number])
            close(tokens.part("token").std(correction=0), expected[prefix + "layer_query_std"][number])
            assert tokens.x.shape[1] == expected[prefix + "layer_tokens"][number]
            if "g256" not in prefix:
                close(sample(rows(tokens)), expected[prefix + "layer_sample"][number])
    removed = [name for name in expected if name.startswith(prefix + "removed_")]
    assert len(tokens.extra.removed) == len(removed)
    for number, found in enumerate(tokens.extra.removed):
        np.testing.assert_array_equal(found.numpy(), np.sort(expected[f"{prefix}removed_{number}"], axis=1))
    prediction = model.predict(tokens)
    for name in ("score_map", "size_map", "offset_map"):
        close(getattr(prediction, name), expected[prefix + name])
    close(prediction.boxes, expected[prefix + "pred_boxes"])
    token = prediction.further[TOKEN]
    close(sample(token), expected[prefix + "token_out_sample"])
    if prefix + "token_out" in expected:
        close(token, expected[prefix + "token_out"])
    return token


def mask_of(cfg, templates: torch.Tensor) -> dict[str, torch.Tensor]:
    return cfg.family.rules_of(cfg).further(templates, torch.zeros(*templates.shape[:2], 4))


def test_official_keys_and_shapes(golden, official):
    _, model = official("baseline")
    found = {name: str(tuple(value.shape)) for name, value in model.state_dict().items()}
    assert found == dict(zip(golden.arrays["state_dict_keys"], golden.arrays["state_dict_shapes"], strict=True))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["backbone.pos_embed"]


@pytest.mark.slow
@pytest.mark.parametrize("case, number, frames", [("ce", 3, 2), ("tok", 3, 1), ("keep085", 3, 1), ("nt1", 1, 1),
                                                  ("nt4", 4, 1), ("noce", 3, 2)])
@torch.no_grad()
def test_official_forward(golden, official, case, number, frames):
    cfg, model = official("baseline", *(NO_ELIMINATION if case == "noce" else []))
    templates, search = inputs(golden.formula, number)
    further = mask_of(cfg, templates)
    if case != "noce":
        marked = further["template_mask"].flatten(1).nonzero()[:number, 1].tolist()
        assert marked == [65 + 144 * index for index in range(number)]
    if case == "keep085":
        further["keep_rate"] = 0.85
    if case == "tok":
        further[TOKEN] = torch.from_numpy(golden.formula.array("track_query", (2, 1, 768)))
    for frame in range(frames):
        further[TOKEN] = check_frame(model, templates, search[frame], dict(further), golden.arrays, f"{case}_f{frame}_")


@torch.no_grad()
def test_official_forward_at_256_pixels(golden, official):
    cfg, model = official("baseline_256")
    templates, search = inputs(golden.formula, 3, ("template128", 128, "search256", 256))
    further = mask_of(cfg, templates)
    for frame in range(2):
        further[TOKEN] = check_frame(model, templates, search[frame], dict(further), golden.arrays, f"g256_f{frame}_")


@pytest.mark.slow
def test_official_training(golden, official):
    expected, formula = golden.arrays, golden.formula
    cfg, model = official("baseline", "TRAIN.CARRY_TOKEN=true")
    templates, search = inputs(formula, 3)
    batch = {"template": templates, "search": torch.stack(search, dim=1),
             "template_box": torch.from_numpy(expected["train_template_anno"]).float().transpose(0, 1),
             "search_box": torch.from_numpy(expected["train_search_anno"]).float().transpose(0, 1)}
    for case, epoch in (("epoch5", 5), ("epoch60", 60), ("leftover", 60)):
        actor = build_actor(cfg, model)
        actor.train()
        if case == "leftover":      # it starts from the token that epoch5 left behind
            with torch.no_grad():
                list(actor.run(batch, 5))
        model.zero_grad(set_to_none=True)
        loss, terms = actor(batch, epoch, torch.Generator())
        prefix = f"train_{case}_"
        assert loss.item() == pytest.approx(float(expected[prefix + "loss"]), rel=1e-4)
        for name in ("total", "giou", "l1", "location"):
            wanted = np.mean([float(expected[f"{prefix}{frame}frame_Loss_{name}"]) for frame in (0, 1)])
            assert terms[f"Loss/{name}"].item() == pytest.approx(wanted, rel=1e-4)
        assert terms["IoU"].item() == pytest.approx(
            np.mean([float(expected[f"{prefix}{frame}frame_IoU"]) for frame in (0, 1)]), abs=1e-4)
        close(sample(actor.objective.further(batch, epoch)[TOKEN]), expected[prefix + "query_out_sample"])
        if prefix + "grad_names" in expected:
            loss.backward()
            check_gradients(model, dict(zip(expected[prefix + "grad_names"], expected[prefix + "grad_norms"],
                                            strict=True)), float(expected[prefix + "total_grad_norm"]))


def check_gradients(model, wanted: dict[str, float], total: float) -> None:
    found = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert sorted(found) == sorted(wanted)
    assert np.linalg.norm(list(found.values())) == pytest.approx(total, rel=3e-3)
    for name, value in wanted.items():
        if re.fullmatch(r"box_head\.conv[1-4]_\w+\.0\.bias", name):     # it feeds a BatchNorm: only rounding is left
            assert found[name] < 1e-3, name
        else:
            assert found[name] == pytest.approx(value, rel=3e-3), name


@pytest.mark.slow
def test_official_tracker(golden, official):
    expected, formula = golden.arrays, golden.formula
    cfg, model = official("baseline")
    tracker = Tracker.from_model(model, cfg)
    target = tracker.start(formula.frame(0), formula.ground_truth(0))
    assert target.state.templates.mean().item() == pytest.approx(float(expected["track_template0_mean"]), abs=1e-4)
    for frame in range(1, 13):
        used = expected["track_templates_used"][frame - 1]
        assert tracker.rules.frames_of(frame, target.state.kept) == [number for number in used if number >= 0]
        assert target.state.templates.shape[1] == (used >= 0).sum()
        result, = tracker.step([formula.frame(frame)], [target])
        close(result.box_xywh, expected["track_boxes"][frame], atol=2e-3)
        close(result.score, expected["track_scores"][frame - 1])
        token = target.state.further[TOKEN]
        close(token.mean(), expected["track_token_mean"][frame - 1])
        close(token.std(correction=0), expected["track_token_std"][frame - 1])
        close(token.flatten()[:8], expected["track_token_first8"][frame - 1])
    close(hann_window(24, "cpu"), expected["hann24"][0, 0], atol=1e-6)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_official_memory_rule(golden, number):
    rules = MemoryRules(number=number)
    for frame, wanted in enumerate(golden.arrays[f"memory_rule_{number}"], 1):
        assert rules.frames_of(frame, Memory({})) == [index for index in wanted if index >= 0]
