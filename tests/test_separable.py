"""Separable attention: SMAT's layer and block, and students made of them."""

import numpy as np
import pytest
import torch
from tiny_models import copies, same, scramble, tiny, tiny_batch

from lib.config import load_config
from lib.families.build import build_compressor, build_for_test, build_student, build_tracker
from lib.models.base import Segment, Tokens
from lib.models.checkpoint import load_weights, save_slim
from lib.models.layers.separable import (
    SeparableBlock,
    SeparableLayer,
    SeparableTokenBlock,
    SeparableTokenLayer,
    to_map,
    to_patches,
)
from lib.test.tracker import Tracker
from lib.train.actors import build_actor
from lib.utils.errors import UserError

KINDS = ("separable", "separable_block")
BLOCKS = [(256, 128, 2, 2, (32, 16)), (384, 192, 4, 2, (16, 8)), (768, 384, 1, 2, (16, 8)), (768, 384, 1, 1, (16, 8)),
          (768, 768, 1, 2, (16, 8))]


@pytest.fixture(scope="module")
def golden(golden_file):
    """(the numbers, the formula)"""
    smat = golden_file("smat/smat.npz")
    return smat.arrays, smat.formula


def fill(module, prefix, formula):
    module.load_state_dict({name: torch.from_numpy(np.asarray(formula.parameter(prefix + name, tuple(value.shape))))
                            for name, value in module.state_dict().items()})
    return module.eval()


def check(data, name, value, atol=1e-4):
    value = value.detach().numpy()
    if f"{name}_sample" in data:
        wanted = data[f"{name}_sample"]
        n, flat = len(wanted), value.reshape(-1)
        place = np.arange(n) if flat.size <= n else np.arange(n, dtype=np.int64) * (flat.size - 1) // (n - 1)
        np.testing.assert_allclose(flat[place], wanted, atol=atol)
    stats = [value.mean(dtype=np.float64), value.std(dtype=np.float64), np.abs(value).max()]
    np.testing.assert_allclose(stats, data[f"{name}_stats"], atol=atol)


def check_gradients(data, name, module, loss):
    np.testing.assert_allclose(loss.item(), data[f"{name}_loss"], rtol=1e-4, atol=1e-6)
    loss.backward()
    gradients = {key: parameter.grad.norm().item() for key, parameter in module.named_parameters()}
    for key, norm in zip(data[f"{name}_grad_names"], data[f"{name}_grad_norms"], strict=True):
        assert gradients[str(key)] == pytest.approx(norm, rel=1e-3, abs=1e-7), key


@pytest.mark.parametrize(("dim", "pixels", "patches"), [(128, 4, 320), (192, 4, 80), (768, 4, 80), (768, 1, 320)])
def test_the_layer_is_smats(golden, dim, pixels, patches):
    data, formula = golden
    name, shape = f"layer_{dim}_{pixels}x{patches}", (2, dim, pixels, patches)
    layer = fill(SeparableLayer(dim), f"smat_layer_{dim}.", formula)
    x = torch.from_numpy(formula.array(f"smat_{name}", shape)).requires_grad_()
    check(data, f"{name}_attn", x + layer.pre_norm_attn(x))
    out = layer(x)
    check(data, name, out)
    check_gradients(data, name, layer, (out * torch.from_numpy(formula.array(f"smat_{name}_weight", shape))).mean())
    check(data, f"{name}_input_grad", x.grad, atol=1e-8)
    if dim == 768:
        state = layer.state_dict()
        assert list(state) == [str(key) for key in data["layer_keys"]]
        assert [",".join(map(str, value.shape)) for value in state.values()] == list(data["layer_shapes"])
        assert sum(parameter.numel() for parameter in layer.parameters()) == 4_137_217


@pytest.mark.parametrize(("dim", "inner", "layers", "patch", "sides", "mix"), [*((*block, True) for block in BLOCKS),
                                                                             (*BLOCKS[2], False)])
def test_the_block_is_smats(golden, dim, inner, layers, patch, sides, mix):
    data, formula = golden
    name = f"block_{dim}_{inner}_{layers}_p{patch}" + "_nomix" * (not mix)
    block = fill(SeparableBlock(dim, inner, layers, patch, mix), f"smat_block_{dim}_{inner}_{layers}.", formula)
    shapes = {part: (2, dim, side, side) for part, side in zip("xz", sides, strict=True)}
    x, z = (torch.from_numpy(formula.array(f"smat_block_{dim}_{part}", shape)) for part, shape in shapes.items())
    if mix:
        joined = torch.cat([to_patches(block.local_rep(part), patch) for part in (x, z)], dim=-1)
        check(data, f"{name}_tokens", block.global_rep(joined))
    out = dict(zip("xz", block([x, z]), strict=True))
    for part, value in out.items():
        check(data, f"{name}_{part}", value)
    weighted = [(value * torch.from_numpy(formula.array(f"smat_weight_{part}", shapes[part]))).mean()
                for part, value in out.items()]
    check_gradients(data, name, block, sum(weighted))
    keys = f"block_{dim}_{inner}_{layers}"
    state = block.state_dict()
    assert list(state) == [str(key) for key in data[f"{keys}_keys"]]
    assert [",".join(map(str, value.shape)) for value in state.values()] == list(data[f"{keys}_shapes"])
    assert sum(parameter.numel() for parameter in block.parameters()) == data[f"{keys}_params"]


@pytest.mark.parametrize("patch", [1, 2])
def test_patches_are_unfolded_as_pytorch_does(patch):
    x = torch.randn(2, 3, 4, 4)
    patches = to_patches(x, patch)
    unfolded = torch.nn.functional.unfold(x, patch, stride=patch).view(2, 3, patch**2, -1)
    assert torch.equal(patches, unfolded) and torch.equal(to_map(patches, patch), x)


@pytest.mark.parametrize("layer", [SeparableTokenLayer(16, patch=1), SeparableTokenLayer(16, patch=2),
                                   SeparableTokenBlock(16, 8, patch=2)])
def test_over_tokens_it_is_the_layer_over_maps(layer):
    """The order of template and search makes no difference; each token comes back to its place."""
    scramble(layer).eval()
    segments = (Segment("template", 4, 2), Segment("search", 16, 4))
    tokens = Tokens(torch.randn(2, 20, 16), segments)
    turned = Tokens(torch.cat([tokens.part("search"), tokens.part("template")], dim=1), segments[::-1])
    found, other = layer(tokens), layer(turned)
    for name in ("template", "search"):
        torch.testing.assert_close(found.part(name), other.part(name), atol=1e-5, rtol=0)
    assert not torch.allclose(found.x, tokens.x)


# ---------------------------------------------------------------- students

def student_config(kind, **overrides):
    return tiny("compresstracker", **{"STUDENT__MODEL__BACKBONE__LAYER": kind, "COMPRESS__INIT": "none",
                                      "MODEL__BACKBONE__DISTILL_LAYER": 2, "MODEL__BACKBONE__DEPTH": 4} | overrides)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_of_separable_layers(kind, tmp_path):
    cfg = student_config(kind)
    teacher = scramble(build_tracker(cfg))
    save_slim(tmp_path / "teacher.pth.tar", teacher, tiny(MODEL__BACKBONE__DEPTH=4))
    net = build_compressor(cfg.with_overrides({"MODEL.PRETRAIN_FILE": str(tmp_path / "teacher.pth.tar")}))
    assert net.bridges is None and not hasattr(net.student.layers[0], "attn") and hasattr(net.teacher.layers[0], "attn")
    for part in ("embed", "norm", "head"):
        assert same(net.student.part_tensors(part), net.teacher.part_tensors(part))
    actor = build_actor(cfg, net)
    for pattern in ([True, True], [True, False], [False, True]):
        loss, _ = actor.loss_of(tiny_batch(cfg), pattern, 0.5)
        loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.learning())

    save_slim(tmp_path / "student.pth.tar", net.student, cfg)
    model = build_for_test(cfg)
    load_weights(model, tmp_path / "student.pth.tar")
    assert same(copies(model), copies(net.student))
    tracker = Tracker.from_model(model, cfg)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    tracker.initialize(image, [40, 30, 20, 20])
    assert np.isfinite(tracker.track(image).box_xywh).all()


def test_the_papers_variant():
    cfg = load_config("compresstracker", "compresstracker_smat_256_4")
    with torch.device("meta"):
        student = build_student(cfg)
    layers = sum(parameter.numel() for parameter in student.layers.parameters())
    assert (student.depth, layers) == (4, 4 * 4_137_217)


@pytest.mark.parametrize(("overrides", "message"), [
    ({"COMPRESS__INIT": "skip"}, "COMPRESS.INIT is skip, but separable layers cannot copy attention"),
    ({"STUDENT__MODEL__BACKBONE__LAYER_PATCH": 3}, "LAYER_PATCH is 3; expected a divisor of the 2 tokens"),
    ({"STUDENT__MODEL__BACKBONE__LAYER": "conv"}, "expected one of .*separable_block"),
])
def test_impossible_students(overrides, message):
    with pytest.raises(UserError, match=message):
        student_config("separable", **overrides)


def test_elimination_needs_attention():
    with pytest.raises(UserError, match="MODEL.BACKBONE.LAYER is separable, .* no candidates"):
        tiny("ce", MODEL__BACKBONE__LAYER="separable")
