"""Configurations, batches and files of models that are small enough to be run many times."""

import math
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from lib.config import load_config
from lib.families.build import build_for_test

BASES = {"ostrack": "vitb_256_mae_32x4_ep300", "ce": "vitb_256_mae_ce_32x4_ep300",
         "compresstracker": "compresstracker_vitb_256_4"}
TINY = {"MODEL.BACKBONE.EMBED_DIM": 32, "MODEL.BACKBONE.DEPTH": 12, "MODEL.BACKBONE.NUM_HEADS": 2,
        "MODEL.BACKBONE.IMG_SIZE": 64, "MODEL.BACKBONE.STRIDE": 16, "MODEL.HEAD.NUM_CHANNELS": 16,
        "DATA.TEMPLATE.SIZE": 32, "DATA.SEARCH.SIZE": 64, "MODEL.PRETRAIN_FILE": "''"}


def tiny(kind: str = "ostrack", **overrides):
    """A tiny configuration; `kind` is a key of `BASES`, overrides are written MODEL__BACKBONE__DEPTH=4."""
    values = TINY | {name.replace("__", "."): value for name, value in overrides.items()}
    values["TEST.TEMPLATE_SIZE"], values["TEST.SEARCH_SIZE"] = values["DATA.TEMPLATE.SIZE"], values["DATA.SEARCH.SIZE"]
    script = "ostrack" if kind == "ce" else kind
    return load_config(script, BASES[kind], [f"{name}={value}" for name, value in values.items()])


def tiny_batch(cfg, size: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """A training batch of noise, with boxes inside the crops."""
    generator = torch.Generator().manual_seed(seed)
    views = {"template": cfg.DATA.TEMPLATE, "search": cfg.DATA.SEARCH}
    crops = {part: torch.randn(size, view.NUMBER, 3, view.SIZE, view.SIZE, generator=generator).squeeze(1)
             for part, view in views.items()}
    boxes = {f"{part}_box": (torch.rand(size, view.NUMBER, 4, generator=generator) * 0.4 + 0.1).squeeze(1)
             for part, view in views.items()}
    return crops | boxes


@torch.no_grad()
def scramble(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Move every floating parameter and buffer away from its initial value (variances stay positive)."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator) - 0.5, alpha=0.2)
    return module


def steady_tracker(cfg) -> torch.nn.Module:
    """The configuration's model with fixed random weights and boxes of about the target's size, so that its tracks
    wander without shrinking to nothing."""
    torch.manual_seed(0)
    model = scramble(build_for_test(cfg)).eval()
    share = 1 / cfg.TEST.SEARCH_FACTOR
    head, = (module for module in model.modules() if hasattr(module, "conv5_size"))
    with torch.no_grad():
        head.conv5_size.weight.mul_(0.1)
        head.conv5_size.bias.fill_(math.log(share / (1 - share)))
    return model


def copies(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's state dict, detached from it."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Two state dicts hold the same names and numbers."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def mae_file(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file as MAE's authors publish them: timm's names under `model`; and its weights."""
    torch.manual_seed(5)
    vit = scramble(VisionTransformer(img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2, num_classes=0))
    path = folder / "mae.pth"
    torch.save({"model": vit.state_dict()}, path)
    return path, vit.state_dict()


def require_packages(format: str) -> None:
    """Skip the test where what writes or runs this format of exports is not installed."""
    needs = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
    for package in needs.get(format, ()):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
