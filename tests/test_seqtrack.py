"""SeqTrack: the official code's numbers (../shared/golden/seqtrack, made by the official implementation), and its own
rules on small models."""

from ast import literal_eval

import numpy as np
import pytest
import torch
import yaml
from tiny_models import mae_file

from lib.config import load_config
from lib.families.build import build_for_train, build_tracker
from lib.families.rules import Found, State
from lib.families.seqtrack.sequence import Vocabulary
from lib.models.base import Inputs
from lib.test.tracker import Tracker
from lib.train.actors import build_actor
from lib.utils.errors import UserError

PLAIN = ["TRAIN.DROP_PATH_RATE=0", "MODEL.DECODER.DROPOUT=0"]
TINY = ["MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2", "MODEL.BACKBONE.DEPTH=4", "MODEL.HIDDEN_DIM=16",
        "MODEL.DECODER.NHEADS=2", "MODEL.DECODER.DIM_FEEDFORWARD=24", "MODEL.BINS=50", "DATA.SEARCH.SIZE=64",
        "DATA.TEMPLATE.SIZE=64", "TEST.SEARCH_SIZE=64", "TEST.TEMPLATE_SIZE=64", "MODEL.PRETRAIN_FILE=''"]


def tiny(*more):
    return load_config("seqtrack", "seqtrack_b256", [*TINY, *more])


@pytest.fixture(scope="module")
def case(golden_file):
    """(the numbers, the formula, the model with its weights, the configuration)"""
    golden = golden_file("seqtrack/seqtrack_b256.npz")
    expected, formula = golden.arrays, golden.formula
    cfg = load_config("seqtrack", "seqtrack_b256", PLAIN)
    model = build_tracker(cfg)
    factors = {"vocab_embed.layers.2.weight": 3} | {f"decoder.body.layers.{layer}.multihead_attn.in_proj_weight": 4
                                                    for layer in range(2)}
    model.load_state_dict({
        name: torch.from_numpy(np.float32(factors.get(name, 1)) * formula.parameter(name, tuple(value.shape)))
        for name, value in model.state_dict().items()})
    return expected, formula, model.eval(), cfg


@pytest.fixture
def crops(case):
    """Templates (2, 2, 3, 256, 256) and search crops."""
    make = case[1].array
    templates = [torch.from_numpy(make(f"template_{number}", (2, 3, 256, 256))) for number in range(2)]
    return torch.stack(templates, dim=1), torch.from_numpy(make("search_0", (2, 3, 256, 256)))


def sample(value):
    flat = value.detach().reshape(-1)
    return flat[::max(1, len(flat) // 64)][:64].numpy()


def check(expected, name, value, atol=1e-4):
    np.testing.assert_allclose(sample(value), expected[f"{name}_sample"], atol=atol)
    np.testing.assert_allclose(value.mean().item(), expected[f"{name}_mean"], atol=atol)
    np.testing.assert_allclose(value.std(unbiased=False).item(), expected[f"{name}_std"], atol=atol)


def test_keys_and_shapes_are_the_official_checkpoints(case):
    expected, _, model, _ = case
    names = [str(name) for name in expected["state_dict_keys"]]
    shapes = [literal_eval(str(shape)) for shape in expected["state_dict_shapes"]]
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert own == dict(zip(names, shapes, strict=True))
    assert sum(parameter.numel() for parameter in model.parameters()) == 90_596_002


def test_the_initial_positions_of_the_decoder(case):
    fresh = build_tracker(case[3]).pos_embed.detach().reshape(-1)
    np.testing.assert_allclose(fresh[::256].numpy(), case[0]["initial_pos_embed_sample"], atol=1e-5)


@torch.no_grad()
def test_encoder_and_decoder(case, crops):
    expected, _, model, _ = case
    given = torch.from_numpy(expected["sequence"])
    tokens = model.embed(Inputs.of(*crops, {"sequence": given}))
    assert [segment.name for segment in tokens.segments] == ["search", "template"]
    for index, layer in enumerate(model.layers):
        tokens = layer(tokens)
        np.testing.assert_allclose(sample(tokens.x), expected["layer_sample"][index], atol=1e-4)
        np.testing.assert_allclose(tokens.x.mean().item(), expected["layer_mean"][index], atol=1e-4)
        np.testing.assert_allclose(tokens.x.std(unbiased=False).item(), expected["layer_std"][index], atol=1e-4)
    out = model.encoder.body.norm(tokens.x)
    check(expected, "encoder_out", out)
    check(expected, "encoder_out_search", out[:, tokens.place("search")])
    check(expected, "bottleneck_out", model.bottleneck(out[:, tokens.place("search")]))
    outputs = []
    hooks = [layer.register_forward_hook(lambda _, __, out: outputs.append(out[0])) for layer in
             model.decoder.body.layers]
    logits = model.predict(tokens).further["logits"]
    for hook in hooks:
        hook.remove()
    for index, value in enumerate(outputs):
        np.testing.assert_allclose(value.numpy(), expected[f"decoder_layer_{index}"], atol=1e-4)
    np.testing.assert_allclose(logits[..., ::16].numpy(), expected["logits_strided"], atol=1e-4)
    np.testing.assert_allclose(logits[..., 4000:].numpy(), expected["logits_special"], atol=1e-4)
    best = logits.topk(5, dim=2)
    np.testing.assert_array_equal(best.indices.numpy(), expected["logits_top5_index"])
    np.testing.assert_allclose(best.values.numpy(), expected["logits_top5_value"], atol=1e-4)


@pytest.mark.parametrize(("name", "window", "form"), [
    ("window", True, "xywh"), ("whxy_window", True, "whxy"),
    pytest.param("plain", False, "xywh", marks=pytest.mark.slow)])
@torch.no_grad()
def test_generated_boxes(case, crops, name, window, form):
    expected, _, model, cfg = case
    other = build_tracker(cfg.with_overrides({"TEST.WINDOW": window, "DATA.SEQ_FORMAT": form})).eval()
    other.load_state_dict(model.state_dict())
    found = other(*crops)
    tokens = expected[f"infer_{name}_tokens"][:, [2, 3, 0, 1] if form == "whxy" else slice(None)]
    np.testing.assert_allclose(found.boxes[:, 0].numpy() * 3999, tokens, atol=1e-2)
    np.testing.assert_allclose(found.further["confidence"].numpy(), expected[f"infer_{name}_confidence"], atol=1e-5)


@torch.no_grad()
def test_kept_keys_and_values_change_nothing(case, crops):
    """Each step over the whole sequence so far, as the official code runs it."""
    _, _, model, _ = case
    tokens = model.embed(Inputs.of(*crops))
    for layer in model.layers:
        tokens = layer(tokens)
    features = model.bottleneck(model.encoder.body.norm(tokens.part("search")))
    memory, given = model.decoder.remember(features, model.pos_embed), torch.full((2, 1), 4001)
    for step in range(4):
        x, _ = model.decoder(given, 0, memory, [None, None])
        likely = model.logits(x[:, -1]).softmax(dim=1)[:, :4000] * (model.window if step < 2 else 1)
        given = torch.cat([given, likely.argmax(dim=1, keepdim=True)], dim=1)
    np.testing.assert_allclose(model.predict(tokens).boxes[:, 0].numpy() * 3999, given[:, 1:].numpy(), atol=1e-2)


@pytest.mark.parametrize("name", [pytest.param("train", marks=pytest.mark.slow), "train_clip"])
def test_a_training_step(case, crops, name):
    expected, _, model, cfg = case
    boxes = torch.from_numpy(expected[f"{name}_search_anno"][0])
    actor = build_actor(cfg, model)
    batch = {"template": crops[0], "search": crops[1], "search_box": boxes}
    vocabulary = actor.objective.vocabulary
    np.testing.assert_array_equal(vocabulary.wanted(vocabulary.tokens(boxes)).flatten(), expected[f"{name}_target"])
    model.zero_grad()
    prediction = model(*crops, actor.objective.further(batch, 1))
    logits = prediction.further["logits"].flatten(0, 1)
    check(expected, f"{name}_logits", logits)
    loss, terms = actor.objective.loss(prediction, boxes)
    nll = torch.nn.functional.cross_entropy(logits, torch.from_numpy(expected[f"{name}_target"]), reduction="none")
    np.testing.assert_allclose(nll.detach().numpy(), expected[f"{name}_unweighted_nll"], rtol=1e-4)
    assert loss.item() == pytest.approx(expected[f"{name}_loss"].item(), rel=1e-4)
    assert terms["IoU"].item() == pytest.approx(expected[f"{name}_IoU"].item(), abs=1e-4)
    if f"{name}_grad_names" not in expected:
        return
    loss.backward()
    norms = {key: parameter.grad.norm().item() for key, parameter in model.named_parameters()}
    for key, norm in zip(expected["train_grad_names"], expected["train_grad_norms"], strict=True):
        assert norms[str(key)] == pytest.approx(norm, rel=1e-3, abs=1e-6), key
    total = np.sqrt(sum(norm**2 for norm in norms.values()))
    assert total == pytest.approx(expected["train_total_grad_norm"].item(), rel=1e-3)


@pytest.mark.parametrize(("name", "benchmark", "overrides", "frames"), [
    ("got10k", "got10k_test", {}, 4), *(pytest.param(*run, 12, marks=pytest.mark.slow) for run in (
        ("got10k", "got10k_test", {}), ("default", "otb", {}),
        ("interval3", "folder:x", {"TEST.UPDATE_INTERVALS.DEFAULT": 3})))])
def test_the_tracker(case, name, benchmark, overrides, frames):
    expected, formula, model, cfg = case
    tracker = Tracker.from_model(model, cfg.with_overrides(overrides), benchmark=benchmark)
    assert [tracker.rules.interval, tracker.rules.threshold] == expected[f"track_{name}_interval_threshold"].tolist()
    boxes = expected[f"track_{name}_boxes"]
    target = tracker.start(formula.frame(0), boxes[0])
    updated = []
    for number in range(1, frames + 1):
        before = target.state
        result, = tracker.step([formula.frame(number)], [target])
        np.testing.assert_allclose(result.box_xywh, boxes[number], atol=1e-3)
        updated.append(int(target.state is not before))
        sure = expected[f"track_{name}_conf_score"][number - 1]
        assert result.score == pytest.approx(min(1, sure / 4), abs=1e-4)
    assert updated == expected[f"track_{name}_updated"][:frames].tolist()


# ---------------------------------------------------------------- without reference data

@pytest.mark.parametrize("form", ["xywh", "whxy", "corner"])
def test_boxes_are_tokens_and_back(form):
    words = Vocabulary(4000, form)
    boxes = torch.tensor([[0.1, 0.2, 0.3, 0.4], [-0.2, 0.5, 0.6, 0.9]])       # xywh; the second leaves the crop
    wanted = torch.tensor([[0.25, 0.4, 0.3, 0.4], [0.2, 0.75, 0.4, 0.5]])     # cxcywh
    np.testing.assert_allclose(words.boxes(words.tokens(boxes)), wanted, atol=2 / 3999)
    tokens = words.tokens(boxes)
    assert words.given(tokens)[:, 0].tolist() == [4001] * 2 and words.wanted(tokens)[:, 4].tolist() == [4000] * 2
    assert torch.equal(words.given(tokens)[:, 1:], words.wanted(tokens)[:, :4])


def test_the_template_of_a_sure_frame():
    cfg = tiny()
    rules = cfg.family.rules_of(cfg, "vot2020")
    assert (rules.interval, rules.threshold) == (1, 0.55)
    state = rules.start(torch.zeros(1, 1, 3, 4, 4), torch.zeros(1, 1, 4))
    new = torch.ones(1, 1, 3, 4, 4), torch.ones(1, 1, 4)

    def after(total) -> State:
        said = {"confidence": torch.full((1, 4), total / 4)}
        return rules.update(state, Found(1, [0, 0, 1, 1], 0.0, said, lambda box: new))

    assert after(0.0549) is state
    assert after(0.0551).templates[0, :, 0, 0, 0].tolist() == [0, 1]


def test_a_student_learns_from_the_teachers_tokens():
    cfg = load_config("compresstracker", "compresstracker_seqtrack_b256_4", [*TINY, "MODEL.BACKBONE.DISTILL_LAYER=2"])
    objective = cfg.family.objective(cfg)
    model = build_tracker(cfg).eval()
    batch = {"search_box": torch.tensor([[0.2, 0.3, 0.3, 0.3]])}
    said = model(torch.randn(1, 2, 3, 64, 64), torch.randn(1, 3, 64, 64), objective.further(batch, 1))
    assert objective.guidance(said, said).item() == pytest.approx(0, abs=1e-6)
    other = said._replace(further={"logits": said.further["logits"].roll(1, dims=2)})
    assert objective.guidance(said, other).item() > 0


def test_an_encoder_starts_from_mae(tmp_path):
    path, weights = mae_file(tmp_path)
    model = build_for_train(tiny(f"MODEL.PRETRAIN_FILE={path}"))
    body = model.encoder.body
    assert torch.equal(body.blocks[3].mlp.fc2.bias, weights["blocks.3.mlp.fc2.bias"])
    torch.testing.assert_close(body.pos_embed[:, :16], weights["pos_embed"][:, 1:])     # of the same grid
    torch.testing.assert_close(body.pos_embed[:, 16:], weights["pos_embed"][:, 1:])
    with pytest.raises(UserError, match="lacks blocks.4.norm1.weight.* of at least 6 layers"):
        build_for_train(tiny(f"MODEL.PRETRAIN_FILE={path}", "MODEL.BACKBONE.DEPTH=6"))


def test_official_names_are_read():
    cfg = tiny("MODEL.ENCODER.TYPE=vit_large_patch16", "TRAIN.ENCODER_MULTIPLIER=0.2", "TEST.UPDATE_INTERVALS.LASOT=7")
    assert cfg.MODEL.BACKBONE.TYPE == "vit_large_patch16" and cfg.TRAIN.BACKBONE_MULTIPLIER == 0.2
    assert cfg.family.rules_of(cfg, "lasot").interval == 7 and cfg.family.rules_of(cfg, "nfs").interval == 9999
    assert Tracker.from_model(None, cfg, benchmark="LaSOT_ext").rules.interval == 9999, "not LaSOT's"
    with pytest.raises(UserError, match="MODEL.HIDDEN_DIM is 16; expected a multiple of MODEL.DECODER.NHEADS"):
        tiny("MODEL.DECODER.NHEADS=3")


@pytest.mark.parametrize(("encoder", "side", "got10k", "batch"), [
    ("base", 256, False, 16), ("base", 384, False, 8), ("large", 256, False, 4), ("large", 384, True, 2)])
def test_official_files_load(tmp_path, encoder, side, got10k, batch):
    """With all that they state."""
    sizes = {"SIZE": side, "FACTOR": 4.0 if side == 256 else 5.0}
    content = {
        "DATA": {"MAX_SAMPLE_INTERVAL": 400, "MEAN": [0.485, 0.456, 0.406], "STD": [0.229, 0.224, 0.225],
                 "SEARCH": {**sizes, "CENTER_JITTER": 3.5, "SCALE_JITTER": 0.5, "NUMBER": 1},
                 "TEMPLATE": {**sizes, "CENTER_JITTER": 0, "SCALE_JITTER": 0, "NUMBER": 2},
                 "TRAIN": {"DATASETS_NAME": ["GOT10K_train_full"] if got10k else ["LASOT", "COCO17"],
                           "DATASETS_RATIO": [1] if got10k else [1, 1], "SAMPLE_PER_EPOCH": 60000}},
        "MODEL": {"ENCODER": {"TYPE": f"vit_{encoder}_patch16", "PRETRAIN_TYPE": "mae", "USE_CHECKPOINT": False},
                  "DECODER": {"DEC_LAYERS": 2}, "HIDDEN_DIM": 256, "BINS": 4000, "FEATURE_TYPE": "x"},
        "TRAIN": {"ENCODER_MULTIPLIER": 0.1, "BATCH_SIZE": batch, "EPOCH": 500, "GRAD_CLIP_NORM": 0.1, "CE_WEIGHT": 1.0,
                  "LR": 0.0001, "LR_DROP_EPOCH": 400, "NUM_WORKER": 8, "OPTIMIZER": "ADAMW", "PRINT_INTERVAL": 50,
                  "SCHEDULER": {"TYPE": "step", "DECAY_RATE": 0.1}, "WEIGHT_DECAY": 0.0001},
        "TEST": {"EPOCH": 500, "SEARCH_FACTOR": sizes["FACTOR"], "SEARCH_SIZE": side,
                 "TEMPLATE_FACTOR": sizes["FACTOR"], "TEMPLATE_SIZE": side, "WINDOW": True, "NUM_TEMPLATES": 2,
                 "UPDATE_INTERVALS": {"VOT20": 20, "VOT21": 20}, "UPDATE_THRESHOLD": {"VOT20": 0.45, "VOT21": 0.45}}}
    path = tmp_path / f"seqtrack_{encoder}{side}.yaml"
    path.write_text(yaml.safe_dump(content))
    cfg = load_config("seqtrack", str(path))
    assert cfg.shape.depth == {"base": 12, "large": 24}[encoder] and cfg.TRAIN.BACKBONE_MULTIPLIER == 0.1
    assert cfg.family.rules_of(cfg, "vot20").threshold == 0.45


def test_it_trains_compresses_resumes_and_tracks(tmp_path, square_data, train_script):
    """By the scripts' own functions, with dropout; a training that is taken up again ends as one in a row."""
    common = ["TRAIN.EPOCH=2", "TRAIN.TOTAL_BATCH=4", "TRAIN.NUM_WORKER=0", "TRAIN.DEVICE=cpu", "TRAIN.THREADS=1",
              f"DATA.TRAIN.DATASETS_NAME=['FOLDER:{square_data}']", "DATA.TRAIN.DATASETS_RATIO=[1]", "TEST.EPOCH=2",
              "DATA.TRAIN.SAMPLE_PER_EPOCH=8", "TRAIN.SAVE_EPOCH_INTERVAL=1", "MODEL.BACKBONE.DISTILL_LAYER=2"]

    def train(script, config, *more):
        line = ["--script", script, "--config", config, "--save_dir", str(tmp_path / "out")]
        for text in (*TINY, *common, *more):
            line += ["--set", text]
        assert train_script(line) == 0
        return tmp_path / "out" / "checkpoints" / "train" / script / config

    teacher = train("seqtrack", "seqtrack_b256") / "SeqTrack_ep0002.pth.tar"
    student = "compresstracker_seqtrack_b256_4"
    run = train("compresstracker", student, f"MODEL.PRETRAIN_FILE={teacher}")
    weights = torch.load(run / "CompressTracker_ep0002.pth.tar", weights_only=True)["net"]
    for file in (run / "CompressTracker_ep0002.pth.tar", run / "state_ep0002.pth"):
        file.unlink()
    train("compresstracker", student, f"MODEL.PRETRAIN_FILE={teacher}")
    again = torch.load(run / "CompressTracker_ep0002.pth.tar", weights_only=True)["net"]
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    tracker = Tracker.from_config("compresstracker", student, save_dir=tmp_path / "out", device="cpu",
                                  overrides=[*TINY, "MODEL.BACKBONE.DISTILL_LAYER=2", "TEST.EPOCH=2"])
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    tracker.initialize(image, [20, 20, 20, 16])
    assert np.isfinite(tracker.track(image).box_xywh).all()
