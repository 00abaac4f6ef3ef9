"""The tracker: sizes, heads, positions, candidate elimination, and the start from MAE weights."""

import math

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from tiny_models import copies, mae_file, same, scramble, tiny, tiny_batch

from lib.families.build import build_for_test, build_for_train, build_tracker, find_pretrained
from lib.models.base import Inputs, Segment, Tokens
from lib.models.checkpoint import save_slim
from lib.models.heads import build_head, decode
from lib.models.layers.elimination import Candidates, eliminate, restore, template_attention, template_mask
from lib.models.vit_weights import load_mae
from lib.utils.errors import UserError


def crops(cfg, size=2):
    batch = tiny_batch(cfg, size)
    return batch["template"], batch["search"]


# ---------------------------------------------------------------- sizes

@pytest.mark.parametrize("name, width, depth, heads, millions", [
    ("tiny", 192, 12, 3, 5.3), ("small", 384, 12, 6, 21.3), ("base", 768, 12, 12, 85.1),
    ("large", 1024, 24, 16, 302.3)])
def test_vit_sizes(name, width, depth, heads, millions):
    cfg = tiny(MODEL__BACKBONE__TYPE=f"vit_{name}_patch16_224", MODEL__BACKBONE__EMBED_DIM=0,
               MODEL__BACKBONE__DEPTH=0, MODEL__BACKBONE__NUM_HEADS=0)
    with torch.device("meta"):
        model = build_tracker(cfg)
    assert (model.embed_dim, model.depth, model.layers[0].attn.num_heads) == (width, depth, heads)
    assert model.layers[-1].mlp.fc1.weight.shape == (4 * width, width)
    weights = [*model.layers.parameters(), *model.backbone.norm.parameters()]
    assert sum(p.numel() for p in weights) / 1e6 == pytest.approx(millions, abs=0.1)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("patch", [7, 8, 14, 16, 32])
def test_any_patch_size(patch):
    cfg = tiny(MODEL__BACKBONE__STRIDE=patch, MODEL__BACKBONE__IMG_SIZE=4 * patch, MODEL__BACKBONE__DEPTH=2,
               DATA__TEMPLATE__SIZE=3 * patch, DATA__SEARCH__SIZE=5 * patch)
    model = build_tracker(cfg).eval()
    assert (model.feat_size, model.template_feat_size) == (5, 3)
    tokens = model.embed(Inputs.of(*crops(cfg)))
    assert (tokens.x.shape, tokens.segments) == ((2, 9 + 25, 32), (("template", 9, 3), ("search", 25, 5)))
    assert model(*crops(cfg)).score_map.shape == (2, 1, 5, 5)


def test_the_smallest_width_without_sine_positions():
    cfg = tiny(MODEL__BACKBONE__EMBED_DIM=6, MODEL__BACKBONE__DEPTH=1)
    assert build_tracker(cfg)(*crops(cfg)).boxes.isfinite().all()


def test_drop_path_rises_over_the_layers():
    model = build_tracker(tiny(TRAIN__DROP_PATH_RATE=0.3, MODEL__BACKBONE__DEPTH=4))
    rates = [getattr(layer.drop_path1, "drop_prob", 0.0) for layer in model.layers]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


def test_eval_mode_is_deterministic_and_train_mode_drops_paths():
    cfg = tiny(TRAIN__DROP_PATH_RATE=0.5, MODEL__BACKBONE__DEPTH=2)
    model = build_tracker(cfg).eval()
    assert torch.equal(model(*crops(cfg)).score_map, model(*crops(cfg)).score_map)
    model.train()
    torch.manual_seed(0)
    outputs = [model.layers[-1](model.embed(Inputs.of(*crops(cfg)))).x for _ in range(8)]
    assert any(not torch.equal(outputs[0], other) for other in outputs[1:])


def test_fused_and_plain_attention_agree():
    cfg = tiny()
    models = []
    try:
        for fused in (True, False):
            timm.layers.set_fused_attn(fused)
            models.append(build_tracker(cfg).eval())
    finally:
        timm.layers.set_fused_attn(True)
    fused, plain = models
    assert fused.layers[0].attn.fused_attn and not plain.layers[0].attn.fused_attn
    plain.load_state_dict(scramble(fused).state_dict())
    for ours, theirs in zip(fused(*crops(cfg)), plain(*crops(cfg)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- heads

@pytest.mark.parametrize("kind", ["CENTER", "CORNER", "MLP"])
def test_heads(kind):
    cfg = tiny(MODEL__HEAD__TYPE=kind, MODEL__NUM_CHANNELS=16, MODEL__BACKBONE__DEPTH=2)
    model = build_tracker(cfg)
    out = model(*crops(cfg, 3))
    assert out.boxes.shape == (3, 1, 4)
    maps = [out.score_map, out.size_map, out.offset_map]
    if kind == "CENTER":
        assert [tuple(m.shape) for m in maps] == [(3, 1, 4, 4), (3, 2, 4, 4), (3, 2, 4, 4)]
        for bounded in maps[:2]:
            assert bounded.min() >= 1e-4 and bounded.max() <= 1 - 1e-4
        assert out.boxes[..., 2:].min() > 0 and out.boxes[..., 2:].max() < 1
    else:
        assert maps == [None] * 3
    if kind == "MLP":
        assert out.boxes.min() > 0 and out.boxes.max() < 1
    if kind == "CORNER":   # each corner is a mean of cell positions 0..3, so of 0..3/4 of the crop
        low, high = out.boxes[..., :2] - out.boxes[..., 2:] / 2, out.boxes[..., :2] + out.boxes[..., 2:] / 2
        assert min(low.min(), high.min()) >= -1e-6 and max(low.max(), high.max()) <= 0.75 + 1e-6
    sum(m.sum() for m in (out.boxes, *(m for m in maps if m is not None))).backward()
    assert all(p.grad is not None for p in model.box_head.parameters())


def test_score_is_clamped_where_the_logits_saturate():
    head = build_head("CENTER", 8, 16).eval()
    with torch.no_grad():
        head.conv5_ctr.bias.fill_(100.0)
        head.conv5_size.bias.fill_(-100.0)
        out = head(torch.zeros(1, 8, 4, 4))
    assert torch.all(out.score_map == 1 - 1e-4) and torch.all(out.size_map == 1e-4)


def test_decode_reads_the_best_cell():
    score = torch.zeros(2, 1, 4, 4)
    score[0, 0, 1, 3], score[1, 0, 2, 0] = 0.9, 0.8                    # (y, x)
    size, offset = torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4)
    size[0, :, 1, 3], offset[0, :, 1, 3] = torch.tensor([0.2, 0.3]), torch.tensor([0.5, 0.25])
    size[1, :, 2, 0], offset[1, :, 2, 0] = torch.tensor([0.4, 0.1]), torch.tensor([-0.5, 1.0])
    expected = torch.tensor([[3.5 / 4, 1.25 / 4, 0.2, 0.3], [-0.5 / 4, 3 / 4, 0.4, 0.1]])
    torch.testing.assert_close(decode(score, size, offset), expected)


def test_corner_head_takes_the_expected_cell():
    head = build_head("CORNER", 8, 16)
    logits = torch.full((1, 1, 4, 4), -1e4)
    logits[0, 0, 1, 2] = logits[0, 0, 3, 2] = 0.0                      # y 1 and 3, x 2
    torch.testing.assert_close(head._expected_cell(logits), torch.tensor([[2.0, 2.0]]))


# ---------------------------------------------------------------- positions

def test_positions_are_resized_from_the_raw_ones():
    cfg = tiny(MODEL__BACKBONE__IMG_SIZE=128, DATA__SEARCH__SIZE=128)   # raw 8x8, search 8x8, template 2x2
    backbone = build_tracker(cfg).backbone
    steps = torch.arange(8.0)
    ramp = (steps.view(8, 1) * 10 + steps).reshape(1, 64, 1).expand(1, 64, 32)
    with torch.no_grad():
        backbone.pos_embed[:, 1:] = ramp
    backbone.reset_positions()
    torch.testing.assert_close(backbone.pos_embed_x.data, ramp)         # the same grid: a copy
    # Bicubic resizing keeps a linear ramp away from the border; cells of 4 are centred at 1.5 and 5.5.
    expected = torch.tensor([10 * y + x for y in (1.5, 5.5) for x in (1.5, 5.5)]).view(1, 4, 1).expand(1, 4, 32)
    torch.testing.assert_close(backbone.pos_embed_z.data, expected, atol=1e-4, rtol=0)
    assert not backbone.pos_embed.requires_grad and not backbone.cls_token.requires_grad
    assert backbone.pos_embed_x.requires_grad and backbone.pos_embed_z.requires_grad


# ---------------------------------------------------------------- candidate elimination

def ce_config(**overrides):
    values = {"MODEL__BACKBONE__DEPTH": 4, "MODEL__BACKBONE__CE_LOC": "[1, 3]",
              "MODEL__BACKBONE__CE_KEEP_RATIO": "[0.7, 0.5]", "DATA__SEARCH__SIZE": 128}
    return tiny("ce", **(values | overrides))


def test_elimination_keeps_the_configured_share():
    cfg = ce_config()
    model = scramble(build_tracker(cfg)).eval()
    tokens, lengths = model.embed(Inputs.of(*crops(cfg))), []
    for layer in model.layers:
        tokens = layer(tokens)
        lengths.append(tokens.part("search").shape[1])
    first, second = math.ceil(0.7 * 64), math.ceil(0.5 * math.ceil(0.7 * 64))
    assert lengths == [64, first, first, second]
    assert [removed.shape[1] for removed in tokens.extra.removed] == [64 - first, first - second]

    features = model.backbone.search_features(tokens).flatten(2).transpose(1, 2)    # (B, 64, C)
    normed = model.backbone.norm(tokens.part("search"))
    for item in range(2):
        gone = torch.cat([removed[item] for removed in tokens.extra.removed])
        assert sorted([*gone.tolist(), *tokens.extra.kept[item].tolist()]) == list(range(64))
        assert torch.all(features[item, gone] == 0)
        assert torch.equal(features[item, tokens.extra.kept[item]], normed[item])


def test_eliminated_tokens_return_as_zeros_in_their_place():
    marks = torch.arange(1.0, 11.0)                                     # search token i holds i + 1
    x = torch.cat([torch.full((1, 2, 1), -1.0), marks.view(1, 10, 1)], dim=1)
    votes = torch.tensor([[5.0, 1, 4, 0, 9, 8, 2, 3, 7, 6]])
    tokens = Tokens(x, (Segment("template", 2), Segment("search", 10)), Candidates())
    tokens = eliminate(tokens, votes, 0.55)                             # ceil(5.5) = 6
    assert tokens.extra.removed[0].tolist() == [[1, 3, 6, 7]]                 # the four lowest votes
    assert torch.all(tokens.x[:, :2] == -1)
    assert restore(tokens, 10).flatten().tolist() == [1, 0, 3, 0, 5, 6, 0, 0, 9, 10]
    votes = tokens.extra.kept.float()                                   # next: the higher the position, the better
    tokens = eliminate(tokens, votes, 0.5)
    assert tokens.extra.removed[1].tolist() == [[0, 2, 4]]
    assert restore(tokens, 10).flatten().tolist() == [0, 0, 0, 0, 0, 6, 0, 0, 9, 10]
    assert eliminate(tokens, votes[:, :3], 1.0) is tokens


def test_keep_rate_overrides_the_layers_own():
    cfg = ce_config()
    model = scramble(build_tracker(cfg)).eval()
    without = {"MODEL.BACKBONE.CE_LOC": [], "MODEL.BACKBONE.CE_KEEP_RATIO": []}
    plain = build_tracker(cfg.with_overrides(without)).eval()
    plain.load_state_dict(model.state_dict())
    everything, reference = model(*crops(cfg), model.all_tokens), plain(*crops(cfg))
    assert torch.equal(everything.score_map, reference.score_map)
    assert not torch.equal(model(*crops(cfg)).score_map, reference.score_map)
    tokens = model.embed(Inputs.of(*crops(cfg), {"keep_rate": 0.9}))
    for layer in model.layers:
        tokens = layer(tokens)
    assert [removed.shape[1] for removed in tokens.extra.removed] == [64 - 58, 58 - 53]   # ceil(57.6), ceil(52.2)


def test_votes_are_the_attention_of_the_masked_template_tokens():
    layer = scramble(build_tracker(tiny(MODEL__BACKBONE__DEPTH=1))).layers[0]
    x = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[True, False, False, True], [False, True, False, False]])
    weight, bias = layer.attn.qkv.weight, layer.attn.qkv.bias
    for chosen in (mask, None):
        for item in range(2):
            rows = [r for r in range(4) if chosen is None or chosen[item, r]]
            total = torch.zeros(6)
            for head in range(2):
                part = slice(16 * head, 16 * head + 16)
                q = x[item] @ weight[:32][part].T + bias[:32][part]
                k = x[item] @ weight[32:64][part].T + bias[32:64][part]
                attention = torch.softmax(q @ k.T / 4, dim=1)           # sqrt(16)
                total = total + attention[rows, 4:].mean(0) / 2
            tokens = Tokens(x, (Segment("template", 4), Segment("search", 6)), Candidates(template_mask=chosen))
            torch.testing.assert_close(template_attention(layer.attn, tokens)[item], total)


def paint_box(box, side: int, stride: int) -> torch.Tensor:
    """The slow way: paint the box's whole pixels, without its last row and column, and shrink the picture."""
    x, y, w, h = (float(v) * side for v in box)
    picture = torch.zeros(1, 1, side, side)
    for row in range(max(int(y), 0), min(int(y + h - 1), side)):
        picture[0, 0, row, max(int(x), 0):max(int(x + w - 1), 0)] = 1
    return F.interpolate(picture, scale_factor=1 / stride, mode="bilinear", align_corners=False)[0, 0] > 0


@pytest.mark.parametrize("grid, stride", [(8, 16), (12, 16), (4, 8), (7, 7), (5, 1), (6, 14)])
def test_template_mask_of_a_box(grid, stride):
    generator = torch.Generator().manual_seed(grid * stride)
    boxes = torch.rand(40, 4, generator=generator, dtype=torch.float64) * 0.5
    boxes[0] = torch.tensor([-0.2, 0.1, 1.4, 0.5])                      # over the edge
    masks = template_mask("GT_BOX", grid, boxes, stride).view(40, grid, grid)
    painted = torch.stack([paint_box(box, grid * stride, stride) for box in boxes])
    empty = ~painted.flatten(1).any(1)
    assert torch.equal(masks[~empty], painted[~empty]) and masks[empty].all()
    assert len({tuple(mask.flatten().tolist()) for mask in painted}) > 5


@pytest.mark.parametrize("grid, point, rectangle", [(8, [3], [3, 4]), (12, [5], [5, 6]), (7, [3], [3]),
                                                    (14, [6], [6, 7])])
def test_template_mask_at_the_centre(grid, point, rectangle):
    boxes = torch.zeros(3, 4)
    assert template_mask("ALL", grid, boxes) is None
    for mode, cells in (("CTR_POINT", point), ("CTR_REC", rectangle)):
        mask = template_mask(mode, grid, boxes)
        assert mask.shape == (3, grid * grid) and mask.dtype == torch.bool
        expected = {row * grid + column for row in cells for column in cells}
        assert all(set(row.nonzero().flatten().tolist()) == expected for row in mask)


@pytest.mark.parametrize("mode", ["ALL", "CTR_POINT", "CTR_REC", "GT_BOX"])
def test_each_template_range_runs(mode):
    cfg = ce_config(MODEL__BACKBONE__CE_TEMPLATE_RANGE=mode)
    further = cfg.family.rules_of(cfg).further(crops(cfg)[0], tiny_batch(cfg)["template_box"].unsqueeze(1))
    assert further.keys() == ({"template_mask"} if mode != "ALL" else set())
    assert build_tracker(cfg)(*crops(cfg), further).boxes.isfinite().all()


# ---------------------------------------------------------------- MAE weights

def test_mae_initialisation(tmp_path):
    path, weights = mae_file(tmp_path)
    model = build_for_train(tiny(MODEL__PRETRAIN_FILE=path, MODEL__BACKBONE__DEPTH=4))
    own = model.backbone.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in weights if name in own)
    assert {"blocks.3.mlp.fc2.bias", "norm.weight", "cls_token", "pos_embed"} <= weights.keys() & own.keys()
    assert torch.equal(model.backbone.pos_embed_x.data, weights["pos_embed"][:, 1:])


def test_first_layers_that_keep_their_weights(tmp_path):
    path, weights = mae_file(tmp_path)
    cfg = tiny(MODEL__PRETRAIN_FILE=path, MODEL__BACKBONE__DEPTH=4, TRAIN__FROZEN_LAYERS=3)
    model = build_for_train(cfg)
    prediction = model(*crops(cfg))
    (prediction.boxes.sum() + prediction.score_map.sum()).backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {"backbone.blocks.3.attn.qkv.weight", "backbone.norm.weight"} <= learning
    assert not [name for name in learning if model.part_of(name) == "embed" or name.startswith(
        tuple(f"backbone.blocks.{number}." for number in range(3)))]
    assert torch.equal(model.backbone.state_dict()["blocks.0.mlp.fc2.bias"], weights["blocks.0.mlp.fc2.bias"])


def test_mae_with_another_patch_size_and_grid(tmp_path):
    path, weights = mae_file(tmp_path)
    model = build_tracker(tiny(MODEL__BACKBONE__DEPTH=4, MODEL__BACKBONE__STRIDE=8, MODEL__BACKBONE__IMG_SIZE=48))
    load_mae(model, path)
    kernel = F.interpolate(weights["patch_embed.proj.weight"], size=(8, 8), mode="bicubic")
    torch.testing.assert_close(model.backbone.patch_embed.proj.weight.data, kernel)
    old = weights["pos_embed"][0, 1:].T.reshape(1, 32, 4, 4)
    torch.testing.assert_close(model.backbone.pos_embed.data[0, 1:].T.reshape(1, 32, 6, 6),
                               F.interpolate(old, size=(6, 6), mode="bicubic"))
    assert torch.equal(model.backbone.pos_embed.data[0, 0], weights["pos_embed"][0, 0])
    resized = model.backbone.pos_embed_x.clone()
    model.backbone.reset_positions()
    assert torch.equal(resized, model.backbone.pos_embed_x)


def test_mae_into_a_shallower_and_a_deeper_model(tmp_path):
    path, weights = mae_file(tmp_path)
    model = build_tracker(tiny(MODEL__BACKBONE__DEPTH=2))
    load_mae(model, path)
    assert torch.equal(model.layers[1].attn.qkv.weight, weights["blocks.1.attn.qkv.weight"])
    with pytest.raises(UserError, match=r"mae\.pth lacks .*6 layers.*blocks\.4\..*at least this depth"):
        load_mae(build_tracker(tiny(MODEL__BACKBONE__DEPTH=6)), path)


def test_layer_scale_is_folded(tmp_path):
    """A file with LayerScale, as DINOv2's, is the same function as timm's model of it."""
    torch.manual_seed(5)
    vit = scramble(VisionTransformer(img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2, num_classes=0,
                                     init_values=0.5)).eval()
    assert vit.blocks[0].ls1.gamma.std() > 0.01
    torch.save(vit.state_dict(), tmp_path / "dinov2.pth")
    model = build_tracker(tiny(MODEL__BACKBONE__DEPTH=4)).eval()
    load_mae(model, tmp_path / "dinov2.pth")
    x = torch.randn(2, 20, 32)
    with torch.no_grad():
        for own, block in zip(model.layers, vit.blocks, strict=True):
            out = own(Tokens(x, model.backbone.segments)).x
            torch.testing.assert_close(out, block(x), rtol=1e-4, atol=1e-4)
    for name in ("blocks.1.attn.q_norm.weight", "register_tokens"):
        torch.save(vit.state_dict() | {name: torch.ones(16)}, tmp_path / "other.pth")
        with pytest.raises(UserError, match=f"other.pth is another kind of ViT: it has {name}"):
            load_mae(model, tmp_path / "other.pth")


def test_mae_that_does_not_fit(tmp_path):
    path, weights = mae_file(tmp_path)
    with pytest.raises(UserError, match=r"mae\.pth is a ViT of width 32, .* has 48; choose another"):
        load_mae(build_tracker(tiny(MODEL__BACKBONE__EMBED_DIM=48)), path)
    with pytest.raises(UserError, match=r"mae\.pth does not fit .*mlp\.fc1.* Use the configuration"):
        load_mae(build_tracker(tiny(MODEL__BACKBONE__MLP_RATIO=2.0, MODEL__BACKBONE__DEPTH=4)), path)
    torch.save({"model": weights | {"pos_embed": torch.zeros(1, 15, 32)}}, path)
    with pytest.raises(UserError, match=r"mae\.pth has a pos_embed of shape \(1, 15, 32\); expected"):
        load_mae(build_tracker(tiny(MODEL__BACKBONE__DEPTH=4)), path)
    torch.save({"model": {"head.weight": torch.zeros(2)}}, path)
    with pytest.raises(UserError, match=r"mae\.pth holds no ViT"):
        load_mae(build_tracker(tiny()), path)


def test_an_ostrack_checkpoint_in_the_place_of_mae_weights(tmp_path):
    cfg = tiny(MODEL__BACKBONE__DEPTH=2)
    trained = scramble(build_for_test(cfg))
    save_slim(tmp_path / "ostrack.pth.tar", trained, cfg)
    started = build_for_train(cfg.with_overrides({"MODEL.PRETRAIN_FILE": str(tmp_path / "ostrack.pth.tar")}))
    assert same(copies(started), copies(trained))


def test_missing_pretrained_file_names_the_key_and_the_places():
    with pytest.raises(UserError, match=r"MODEL\.PRETRAIN_FILE: no/such\.pth.*pretrained_models.*--set MODEL\."):
        find_pretrained("no/such.pth", "MODEL.PRETRAIN_FILE")
    with pytest.raises(UserError, match=r"MODEL\.PRETRAIN_FILE is empty"):
        find_pretrained("", "MODEL.PRETRAIN_FILE")
