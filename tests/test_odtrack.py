"""ODTrack: the official numbers (folder golden/odtrack of the reference data), and what the family adds to the others:
several templates, the temporal token, the memory of templates and its bound."""

import re

import numpy as np
import pytest
import torch
from tiny_models import scramble, steady_tracker, tiny_batch

from lib.config import load_config
from lib.deploy.export import ExportOptions, export_model
from lib.families.build import build_tracker
from lib.families.odtrack.clips import OrderedClips
from lib.families.odtrack.model import TOKEN
from lib.families.odtrack.runtime import MemoryRules
from lib.families.rules import Found
from lib.models.base import Inputs
from lib.models.checkpoint import save_slim
from lib.models.layers.elimination import restore
from lib.test.tracker import Tracker
from lib.train.actors import build_actor
from lib.utils.errors import UserError
from lib.utils.window import hann_window

SMALL = ["MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2", "MODEL.BACKBONE.DEPTH=4",
         "MODEL.PRETRAIN_FILE=''", "MODEL.BACKBONE.CE_LOC=[1]", "MODEL.BACKBONE.CE_KEEP_RATIO=[0.7]",
         "MODEL.BACKBONE.IMG_SIZE=64", "MODEL.HEAD.NUM_CHANNELS=16", "DATA.TEMPLATE.SIZE=32", "DATA.SEARCH.SIZE=64",
         "TEST.TEMPLATE_SIZE=32", "TEST.SEARCH_SIZE=64"]
NO_ELIMINATION = ["MODEL.BACKBONE.CE_LOC=[]", "MODEL.BACKBONE.CE_KEEP_RATIO=[]"]


def small(*more: str):
    return load_config("odtrack", "baseline", [*SMALL, *more])


# ---------------------------------------------------------------- the official numbers

@pytest.fixture(scope="module")
def golden(golden_file):
    """`formula` and the arrays by name."""
    return golden_file("odtrack/odtrack_b.npz")


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
        assert tracker.rules.frames_of(frame) == [number for number in used if number >= 0]
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
        assert rules.frames_of(frame) == [index for index in wanted if index >= 0]


# ---------------------------------------------------------------- what needs no reference data

OFFICIAL = """
DATA:
  MAX_SAMPLE_INTERVAL: 400
  SEARCH: {CENTER_JITTER: 4.5, FACTOR: 5.0, SCALE_JITTER: 0.5, SIZE: 384, NUMBER: 2}
  TEMPLATE: {CENTER_JITTER: 0, FACTOR: 2.0, SCALE_JITTER: 0, SIZE: 192, NUMBER: 3}
MODEL:
  EXTRA_MERGER: False
  RETURN_INTER: False
  BACKBONE:
    TYPE: vit_large_patch16_224_ce
    CE_LOC: [3, 6, 9]
    CE_KEEP_RATIO: [0.7, 0.7, 0.7]
    CE_TEMPLATE_RANGE: 'CTR_POINT'
    ADD_CLS_TOKEN: True
    ATTN_TYPE: separate
TRAIN: {BBOX_TASK: True, CE_START_EPOCH: 20, CE_WARM_EPOCH: 50, BATCH_SIZE: 8}
TEST: {SEARCH_SIZE: 384, TEMPLATE_SIZE: 192, TEMPLATE_NUMBER: 4, MEMORY_THRESHOLD: 1000}
"""
"""The keys of the official files that other families' do not have, with the values that differ most."""


def test_official_files_load(tmp_path):
    (tmp_path / "baseline_large_got.yaml").write_text(OFFICIAL)
    cfg = load_config("odtrack", str(tmp_path / "baseline_large_got.yaml"))
    assert cfg.shape[:3] == (1024, 24, 16) and cfg.family.rules_of(cfg).number == 4
    for override, message in (("MODEL.BACKBONE.TYPE=vit_base_patch16_224", "ATTN_TYPE is separate"),
                              ("MODEL.BACKBONE.ADD_CLS_TOKEN=false", "crashes without the temporal token")):
        with pytest.raises(UserError, match=message):
            load_config("odtrack", str(tmp_path / "baseline_large_got.yaml"), [override])
    with pytest.raises(UserError, match="TRAIN.CARRY_TOKEN is true"):
        load_config("compresstracker", "compresstracker_odtrack_384_4", ["TRAIN.CARRY_TOKEN=true"])


def test_recipes():
    for config, size in (("baseline", 384), ("baseline_256", 256)):
        cfg = load_config("odtrack", config)
        student = load_config("compresstracker", f"compresstracker_odtrack_{size}_4")
        for one in (cfg, student):
            data = one.DATA
            assert (data.SEARCH.SIZE, data.TEMPLATE.SIZE, data.TEMPLATE.NUMBER, data.SEARCH.NUMBER) == (size, size // 2,
                                                                                                        3, 2)
            assert data.MAX_SAMPLE_INTERVAL == 400 and one.TEST.TEMPLATE_NUMBER == 3 and one.shape.depth == 12
        assert student.MODEL.BACKBONE.DISTILL_LAYER == 4 and not student.MODEL.BACKBONE.CE_LOC


def test_a_token_of_zeros_is_none_and_templates_have_no_place():
    model = scramble(build_tracker(small())).eval()
    templates, search = torch.randn(2, 3, 3, 32, 32), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        none = model(templates, search)
        zeros = model(templates, search, {TOKEN: torch.zeros(2, 1, 32)})
        turned = model(templates.flip(1), search)
        other = model(templates, search, {TOKEN: torch.randn(2, 1, 32)})
        fewer = model(templates[:, :2], search)
    assert torch.equal(none.score_map, zeros.score_map)
    torch.testing.assert_close(none.score_map, turned.score_map)
    for changed in (other, fewer):
        assert (none.score_map - changed.score_map).abs().max() > 1e-4
    assert none.further[TOKEN].shape == (2, 1, 32) and not none.further[TOKEN].requires_grad


def test_each_template_has_its_own_mask():
    rules = MemoryRules("GT_BOX", width=8)
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]])
    mask = rules.further(torch.zeros(1, 2, 3, 32, 32), boxes)["template_mask"]
    assert mask.tolist() == [[[True, False, False, False], [False, False, False, True]]]
    assert MemoryRules("ALL").further(torch.zeros(1, 2, 3, 32, 32), boxes) == {}


def test_a_sample_starts_without_a_token_unless_it_is_carried():
    batch = tiny_batch(small())
    for carry in (False, True):
        cfg = small(f"TRAIN.CARRY_TOKEN={carry}")
        torch.manual_seed(0)
        actor = build_actor(cfg, scramble(build_tracker(cfg)))
        actor.eval()
        first, second = (actor.validate(batch, 1)["Loss/total"].item() for _ in range(2))
        assert (first != second) == carry
        smaller = {name: values[:1] for name, values in batch.items()}
        assert TOKEN not in actor.objective.further(smaller, 1), "the tokens are of a batch of another size"


def test_the_second_search_frame_has_the_first_ones_token():
    cfg = small()
    model = scramble(build_tracker(cfg)).eval()
    actor, batch = build_actor(cfg, model), tiny_batch(cfg)
    batch["search"] = batch["search"][:, :1].expand(-1, 2, -1, -1, -1)
    (_, first), (_, second) = actor.run(batch, 1)
    further = {**actor.objective.further(batch, 1), TOKEN: first.further[TOKEN]}
    assert torch.equal(second.score_map, model(batch["template"], batch["search"][:, 0], further).score_map)
    assert not torch.equal(second.score_map, first.score_map)


def follow(rules: MemoryRules, frames: int):
    """The states behind frames 1, 2, ... of a target whose crops show the number of their frame."""
    state = rules.start(torch.zeros(1, 1, 3, 2, 2), torch.zeros(1, 1, 4))
    for number in range(1, frames + 1):
        def cut(box, number=number):
            return torch.full((1, 1, 3, 2, 2), float(number)), torch.zeros(1, 1, 4)

        yield number, state
        state = rules.update(state, Found(number, [0, 0, 1, 1], 0.5, {TOKEN: torch.full((1, 1, 4), number)}, cut))


def shown(state) -> list[int]:
    return state.templates[0, :, 0, 0, 0].int().tolist()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_memory_forgets_only_what_is_never_asked_for(number):
    rules = MemoryRules(width=4, number=number)
    for frame, state in follow(rules, 150):
        part = frame // number
        expected = {0, *(part * index + part // 2 for index in range(number))} if number > 1 else {0}
        assert shown(state) == (list(range(frame)) if frame <= number else sorted(expected))
        assert state.further[TOKEN].unique().tolist() == [frame - 1]
    kept = len(state.kept.frames)
    assert kept == 1 if number == 1 else kept <= 150 - 150 // (2 * number) + 2


def test_the_memory_has_a_bound():
    free, bound = MemoryRules(width=4, number=3), MemoryRules(width=4, number=3, memory=20)
    steps = []
    for (_, state), (_, bounded) in zip(follow(free, 300), follow(bound, 300), strict=True):
        step = bounded.kept.step
        assert len(bounded.kept.frames) <= 20
        assert all(min(abs(wanted - number) for number in shown(bounded)) < step for wanted in shown(state))
        steps.append(step)
    assert steps[:22] == [1] * 22 and steps == sorted(steps) and set(steps) == {1, 2, 4, 8, 16}


def test_clips_are_in_the_order_of_time():
    visible, rng = np.arange(300) % 7 > 0, np.random.default_rng(0)
    rule = small().family.clips(small())
    assert isinstance(rule, OrderedClips) and (rule.templates, rule.search, rule.max_gap) == (3, 2, 400)
    rule = OrderedClips("causal", 40, 3, 2)
    clips = [rule.draw(visible, visible, rng) for _ in range(200)]
    for templates, search in clips:
        assert list(templates) == sorted(templates) and list(search) == sorted(search)
        assert templates[-1] < search[0] and search[-1] - templates[0] < 80 and visible[[*templates, *search]].all()
        assert len(templates) == 3 and len(search) == 2 and templates[-2] < templates[-1]
    assert any(templates[0] == templates[1] for templates, _ in clips), "drawn with replacement"


@pytest.mark.parametrize("form", ["onnx", "torchscript", "torchexport"])
def test_an_export_follows_a_target_through_every_number_of_templates(form, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    cfg = small("TEST.TEMPLATE_NUMBER=2") if form != "torchscript" else small("TEST.TEMPLATE_NUMBER=2", *NO_ELIMINATION)
    model, checkpoint = steady_tracker(cfg), tmp_path / "tracker.pth.tar"
    save_slim(checkpoint, model, cfg)
    manifest = export_model(model, cfg, checkpoint, tmp_path / form, ExportOptions(format=form, check_crops=2))
    ports = manifest.parts["tracker"].inputs
    assert ports["template"].shape == (1, "templates", 3, 32, 32) and ports[TOKEN].shape == (1, 1, 32)
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    trackers = Tracker.from_model(model, cfg), Tracker.from_export(tmp_path / form)
    targets = [tracker.start(image, [60, 50, 20, 20]) for tracker in trackers]
    numbers = []
    for _ in range(6):
        numbers.append(targets[1].state.templates.shape[1])
        results = [tracker.step([image], [target])[0] for tracker, target in zip(trackers, targets, strict=True)]
        np.testing.assert_allclose(results[0].box_xywh, results[1].box_xywh, atol=1e-2)
        assert results[0].score == pytest.approx(results[1].score, abs=1e-4)
    assert numbers == [1, 2, 2, 3, 3, 3]


def test_it_trains_resumes_is_compressed_and_tracks(train_script, tmp_path, square_data):
    """The same weights with and without a stop; then a student of its checkpoint."""
    data = [f"DATA.TRAIN.DATASETS_NAME=['FOLDER:{square_data}']", "DATA.TRAIN.DATASETS_RATIO=[1]",
            "DATA.TRAIN.SAMPLE_PER_EPOCH=4", "DATA.VAL.DATASETS_NAME=[]", "DATA.VAL.DATASETS_RATIO=[]",
            "TRAIN.TOTAL_BATCH=2", "TRAIN.NUM_WORKER=0", "TRAIN.DEVICE=cpu", "TRAIN.SAVE_EPOCH_INTERVAL=1",
            "TRAIN.CE_START_EPOCH=0", "TRAIN.CE_WARM_EPOCH=1"]

    def train(script, config, folder, *more):
        overrides = [*SMALL, *data, *more]
        options = [word for override in overrides for word in ("--set", override)]
        command = ["--script", script, "--config", config, "--save_dir", str(tmp_path / folder), *options]
        assert train_script(command) == 0
        return tmp_path / folder / "checkpoints" / "train" / script / config

    def weights(path):
        return torch.load(path, weights_only=True)["net"]

    whole = train("odtrack", "baseline", "whole", "TRAIN.EPOCH=2") / "ODTrack_ep0002.pth.tar"
    train("odtrack", "baseline", "parts", "TRAIN.EPOCH=1", "TRAIN.LR_DROP_EPOCH=2")
    parts = train("odtrack", "baseline", "parts", "TRAIN.EPOCH=2") / "ODTrack_ep0002.pth.tar"
    assert weights(whole).keys() == weights(parts).keys()
    assert all(torch.equal(weights(whole)[name], value) for name, value in weights(parts).items())

    student = ["MODEL.BACKBONE.DISTILL_LAYER=2", *NO_ELIMINATION]
    train("compresstracker", "compresstracker_odtrack_384_4", "student", "TRAIN.EPOCH=1",
          f"MODEL.PRETRAIN_FILE={whole}", *student)
    tracker = Tracker.from_config("compresstracker", "compresstracker_odtrack_384_4", epoch=1,
                                  save_dir=tmp_path / "student", device="cpu", overrides=[*SMALL, *student])
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    tracker.initialize(image, [30, 20, 20, 16])
    assert all(np.isfinite(tracker.track(image).box_xywh).all() for _ in range(8))
