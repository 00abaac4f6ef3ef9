"""Initial weights."""

import torch
from timm.layers import trunc_normal_
from torch import nn


@torch.no_grad()
def start_linear(net: nn.Module) -> None:
    """Truncated normal weights (0.02) and zero biases in all linear layers of `net`, as ViTs start."""
    for linear in (module for module in net.modules() if isinstance(module, nn.Linear)):
        trunc_normal_(linear.weight, std=0.02)
        if linear.bias is not None:
            linear.bias.zero_()
