"""The fast module gives the plain model's outputs, switch by switch and in a whole track."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from recorded_graph import replace_cuda_graphs
from tiny_models import scramble, steady_tracker, tiny, tiny_batch

from lib.config import load_config
from lib.deploy.counting import exact_macs
from lib.deploy.cuda_graph import GraphReplay, padded_batch
from lib.deploy.fast import HEAD_SWITCHES, FastOptions, build_fast, can_pack
from lib.deploy.heads import PeakHead
from lib.families.build import build_for_test
from lib.models.base import Prediction
from lib.models.checkpoint import load_weights
from lib.models.heads import decode
from lib.models.layers.elimination import template_mask
from lib.test.tracker import Tracker
from lib.utils.crop import normalize
from lib.utils.errors import UserError
from lib.utils.window import hann_window

SWITCHES = ["cache_template", "trim_last_layer", "fold_batchnorm", "merge_branches", "peak_only", "fused_attention",
            "channels_last", "pack_linear", "take_pixels"]
CE = {"MODEL__BACKBONE__DEPTH": 4, "MODEL__BACKBONE__CE_LOC": "[1, 3]", "MODEL__BACKBONE__CE_KEEP_RATIO": "[0.7, 0.5]",
      "MODEL__BACKBONE__CE_TEMPLATE_RANGE": "GT_BOX", "DATA__SEARCH__SIZE": 128}


def pixels(cfg, batch=2, seed=0):
    """uint8 crops (B, H, W, 3), and the same normalised."""
    generator = torch.Generator().manual_seed(seed)
    raw = [torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)
           for side in (cfg.DATA.TEMPLATE.SIZE, cfg.DATA.SEARCH.SIZE)]
    return raw, [normalize(crop.numpy(), cfg.DATA.MEAN, cfg.DATA.STD) for crop in raw]


@torch.inference_mode()
def largest_difference(model, options, cfg, batch=2, mask=None):
    """Of all fields of the prediction that the fast form of `model` gives, between it and the model itself."""
    raw, normalised = pixels(cfg, batch)
    rest = () if mask is None else ({"template_mask": mask},)
    expected = model(*normalised, *rest)
    fast = build_fast(model, options, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    template, search = raw if options.take_pixels else normalised
    found = fast(fast.prepare(template), search, *rest)
    if options.peak_only:
        expected = expected._replace(size_map=None, offset_map=None)
    assert [value is None for value in found] == [value is None for value in expected]
    return max((ours - theirs).abs().max().item() for ours, theirs in zip(found, expected, strict=True)
               if theirs is not None)


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_alone_changes_nothing(model, cfg, switch):
    if switch == "pack_linear" and not can_pack():
        pytest.skip("this CPU or PyTorch has no packed linear layers")
    needed = {"fold_batchnorm": True} if switch in HEAD_SWITCHES else {}
    assert largest_difference(model, replace(FastOptions.plain(), **needed, **{switch: True}), cfg) < 1e-4


@pytest.mark.parametrize("options", [FastOptions.plain(), FastOptions.best("cpu"),
                                     replace(FastOptions.best("cuda"), cuda_graph=False),
                                     FastOptions(merge_branches=True, peak_only=False, channels_last=False)])
@pytest.mark.parametrize("batch", [1, 3])
def test_combinations(model, cfg, options, batch):
    assert largest_difference(model, options, cfg, batch) < 1e-4


@pytest.mark.parametrize("kind", ["CORNER", "MLP"])
def test_other_heads(kind):
    cfg = tiny(MODEL__HEAD__TYPE=kind, MODEL__NUM_CHANNELS=16, MODEL__BACKBONE__DEPTH=2)
    assert largest_difference(scramble(build_for_test(cfg)).eval(), FastOptions.best("cpu"), cfg) < 1e-4


@pytest.mark.parametrize("trim", [True, False])
def test_candidate_elimination(trim):
    """The last layer both eliminates and is trimmed."""
    cfg = tiny("ce", **CE)
    model = scramble(build_for_test(cfg)).eval()
    mask = template_mask("GT_BOX", 2, tiny_batch(cfg)["template_box"], 16)
    options = replace(FastOptions.best("cpu"), trim_last_layer=trim)
    for chosen in (mask, None):
        assert largest_difference(model, options, cfg, mask=chosen) < 1e-4


def test_full_size():
    """The shapes of the published student, with random weights."""
    cfg = load_config("compresstracker", "compresstracker_vitb_256_2")
    torch.manual_seed(0)
    assert largest_difference(build_for_test(cfg).eval(), FastOptions.best("cpu"), cfg, batch=1) < 1e-4


def test_the_trimmed_layer_does_less(model, cfg):
    _, (template, search) = pixels(cfg, 1)
    work = []
    for trim in (False, True):
        fast = build_fast(model, replace(FastOptions.plain(), trim_last_layer=trim))
        work.append(exact_macs(fast, template, search))
    lz, lx, c = 4, 16, 32
    attention, projection, mlp = 2 * lz * (lz + lx) * c, lz * c * c, 8 * lz * c * c
    assert work[0] - work[1] == attention + projection + mlp


def test_the_template_is_embedded_once(model, cfg):
    fast = build_fast(model, FastOptions())
    _, (template, search) = pixels(cfg, 1)
    calls = []
    fast.patches.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape[-1]))
    state = fast.prepare(template)
    for _ in range(3):
        fast(state, search)
    assert calls == [32, 64, 64, 64]
    assert state.shape == (1, 4, 4 * 32), "tokens, queries, keys and values"


def test_the_first_layer_makes_nothing_of_the_template_again(model, cfg):
    _, (template, search) = pixels(cfg, 1)
    work = []
    for cached in (False, True):
        fast = build_fast(model, replace(FastOptions.plain(), cache_template=cached))
        work.append(exact_macs(fast, fast.prepare(template), search))
    lz, c = 4, 32
    assert work[0] - work[1] == lz * 3 * 16**2 * c + lz * c * 3 * c


@pytest.mark.parametrize("options", [FastOptions(), FastOptions(channels_last=False),
                                     FastOptions(merge_branches=True, peak_only=False), FastOptions.plain()])
def test_the_box_at_any_peak(model, cfg, options):
    """The window moves the peak over every cell, the map's edges and corners among them."""
    _, (template, search) = pixels(cfg, 2)
    fast = build_fast(model, options)
    with torch.inference_mode():
        expected, state = model(template, search), fast.prepare(template)
        side = expected.score_map.shape[-1]
        for cell in range(side**2):
            window = torch.full((side, side), 1e-6)
            window.view(-1)[cell] = 1
            found = fast(state, search, window=window)
            boxes = decode(expected.score_map * window, expected.size_map, expected.offset_map)
            assert (found.boxes[:, 0] - boxes).abs().max() < 1e-4
        assert (found.score_map - expected.score_map).abs().max() < 1e-4, "the window does not change the map"


def test_only_the_cells_around_the_peak_are_computed():
    cfg = load_config("compresstracker", "compresstracker_vitb_256_2")
    torch.manual_seed(0)
    head = build_for_test(cfg).box_head.eval()
    features = torch.empty(1, 768, 16, 16, device="meta")
    whole, peak = (exact_macs(module.to("meta"), features) for module in (head, PeakHead(head)))
    layers = ((768, 256), (256, 128), (128, 64), (64, 32))
    score = sum(9 * i * o for i, o in layers) * 256 + 32 * 256
    cells = sum(9 * i * o * side**2 for i, o, side in ((768, 512, 7), (256, 256, 5), (128, 128, 3), (64, 64, 1)))
    assert whole == 3 * score + 2 * 32 * 256 and peak == score + cells + 2 * 2 * 32


def moving_frames(number):
    """A bright square on a textured background, moving; frames and the first box."""
    generator = np.random.default_rng(0)
    background = generator.integers(0, 120, (120, 160, 3), dtype=np.uint8)
    for i in range(number):
        frame = background.copy()
        x, y = int(60 + 25 * np.sin(i / 9)), int(45 + 20 * np.cos(i / 7))
        frame[y:y + 24, x:x + 24] = generator.integers(150, 256, 3)
        yield frame


def boxes_of(tracker, frames):
    frames = iter(frames)
    tracker.initialize(next(frames), [60, 65, 24, 24])
    return np.array([[*result.box_xywh, result.score] for result in map(tracker.track, frames)])


def test_a_track_of_100_frames(root):
    """With a trained model, the quickstart's teacher: it follows the square."""
    cfg = load_config("ostrack", "quickstart_teacher")
    model = build_for_test(cfg)
    load_weights(model, root / "pretrained_models" / "quickstart_teacher.pth.tar")
    expected = boxes_of(Tracker.from_model(model, cfg), moving_frames(101))
    fast = build_fast(model, FastOptions.best("cpu"), mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    found = boxes_of(Tracker.from_model(fast, cfg), moving_frames(101))
    assert len(found) == 100 and np.ptp(expected[:, :2], axis=0).min() > 30, "it did not follow"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)      # pixels, and the score
    np.testing.assert_allclose(found[:, 4], expected[:, 4], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.1), ("float16", 0.02)])
@pytest.mark.parametrize("head", HEAD_SWITCHES)
def test_half_precision_stays_near_and_gives_float32(model, cfg, head, dtype, tolerance):
    options = FastOptions(dtype=dtype, **{name: name == head for name in HEAD_SWITCHES})
    difference = largest_difference(model, options, cfg)
    assert 1e-6 < difference < tolerance
    _, (template, search) = pixels(cfg, 1)
    fast = build_fast(model, options)
    found = [value for value in fast(fast.prepare(template), search) if value is not None]
    assert len(found) == (2 if head == "peak_only" else 4)
    assert all(value.dtype == torch.float32 for value in found)


def test_head_in_float32(model, cfg):
    fast = build_fast(model, FastOptions(dtype="bfloat16", head_dtype="float32"))
    assert {p.dtype for p in fast.head.parameters()} == {torch.float32}
    assert fast.layers[0].qkv.weight.dtype == torch.bfloat16
    assert largest_difference(model, FastOptions(dtype="bfloat16", head_dtype="float32"), cfg) < 0.1


def test_compiled(model, cfg, monkeypatch):
    """torch.compile with the tracing of its front end only: no C++ compiler is needed."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **options: original(call, backend="eager", fullgraph=True,
                                                                           **options))
    assert largest_difference(model, FastOptions(compile=True), cfg) < 1e-4


def test_the_model_is_left_alone(cfg):
    model = scramble(build_for_test(cfg)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build_fast(model, FastOptions.best("cpu", "bfloat16"), mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad == ("cls_token" not in name and name != "backbone.pos_embed")
               for name, parameter in model.named_parameters())


@pytest.mark.parametrize("kind", ["compresstracker", "ce"])
@pytest.mark.parametrize("head", HEAD_SWITCHES)
def test_graph_replay_gives_what_the_call_gives(kind, head, monkeypatch):
    """Recorded once per shape, replayed with other crops, inside and outside of inference mode. A batch of 5 runs as
    one of 6; a window may have as many rows as the batch."""
    replace_cuda_graphs(monkeypatch)
    cfg = tiny(kind, **(CE if kind == "ce" else {}))
    model = steady_tracker(cfg)
    options = replace(FastOptions.best("cuda"), cuda_graph=False, **{name: name == head for name in HEAD_SWITCHES})
    fast = build_fast(model, options, mean=cfg.DATA.MEAN, std=cfg.DATA.STD)
    window = hann_window(fast.search_grid)
    replay = GraphReplay(fast.run, torch.device("cuda"), batched=3)
    mask, results = None, []
    if kind == "ce":
        grid = cfg.TEST.TEMPLATE_SIZE // 16
        mask = template_mask("GT_BOX", grid, torch.tensor([[0.2, 0.2, 0.4, 0.4]]), 16)
    for seed, batch in ((0, 1), (1, 1), (2, 6), (3, 1), (4, 5), (5, len(window)), (6, 5), (7, 6)):
        (template, search), _ = pixels(cfg, batch, seed)
        inputs = fast.prepare(template), search, None if mask is None else mask.expand(batch, -1), window
        with torch.inference_mode(seed == 1):
            results.append((replay(*inputs), fast.run(*inputs)))
    assert len(replay._recorded) == 3, "one recording for each shape"
    for replayed, expected in results:     # all of them in the end: a later replay must not change an earlier result
        for ours, theirs in zip(replayed, expected, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.allclose(ours, theirs, rtol=0, atol=1e-6)    # sums of 6 rows and of 5


def test_a_call_that_waits_for_the_device_cannot_be_recorded(monkeypatch):
    replace_cuda_graphs(monkeypatch)
    replay = GraphReplay(lambda x: Prediction(x * float(x.sum())), torch.device("cuda"), batched=1)
    with pytest.raises(RuntimeError, match="read back"):
        replay(torch.ones(2))


def test_any_batch_size_makes_few_recordings_of_one_pool(monkeypatch):
    """As re-detection varies it: 1 to 300 crops."""
    replace_cuda_graphs(monkeypatch)
    pools = []
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: (pools.append(pool), graph)[1])
    replay = GraphReplay(lambda x, window: Prediction(x * 2 + window.sum()), torch.device("cuda"), batched=1)
    window = torch.ones(2, 2)
    for batch in (1, 300, *range(1, 300)):
        x = torch.rand(batch, 3)
        assert torch.equal(replay(x, window).boxes, x * 2 + 4)
        assert batch <= padded_batch(batch) < 1.5 * batch
    assert len(replay._recorded) == len(pools) == 17 and len(set(map(id, pools))) == 1


def test_options_from_texts():
    best = FastOptions.best("cpu", "bfloat16")
    assert FastOptions.parse(["dtype=bfloat16"], "cpu") == best
    untrimmed = replace(FastOptions.best("cpu"), trim_last_layer=False)
    assert FastOptions.parse(["trim_last_layer=false"], "cpu") == untrimmed
    assert not any(getattr(FastOptions.plain(), field.name) for field in fields(FastOptions)
                   if isinstance(field.default, bool))
    assert FastOptions.best("cuda").cuda_graph and not FastOptions.best("cuda").pack_linear


@pytest.mark.parametrize(("text", "message"), [
    ("speed=true", "NAME one of cache_template"), ("compile", "NAME=VALUE"), ("compile=yes", "true or false"),
    ("dtype=int4", "dtype is 'int4'; choose one of float32"), ("head_dtype=none", "head_dtype is 'none'")])
def test_wrong_option_texts(text, message):
    with pytest.raises(UserError, match=message):
        FastOptions.parse([text], "cpu")


def test_impossible_options(model):
    for impossible in ({"peak_only": True, "fold_batchnorm": False}, {"merge_branches": True, "peak_only": True},
                       {"pack_linear": True, "compile": True}):
        with pytest.raises(UserError, match=next(iter(impossible))):
            FastOptions(**impossible)
    with pytest.raises(UserError, match="cuda_graph needs a CUDA device, not cpu"):
        build_fast(model, FastOptions(cuda_graph=True))
    with pytest.raises(UserError, match="mean and std"):
        build_fast(model, FastOptions(take_pixels=True))
    with pytest.raises(UserError, match="pack_linear needs oneDNN.*float16"):
        build_fast(model, FastOptions(pack_linear=True, dtype="float16"))
