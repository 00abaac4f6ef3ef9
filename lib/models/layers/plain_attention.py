"""Attention as the official repositories compute it."""

from torch import nn


def write_out_attention(net: nn.Module) -> None:
    """Let every attention layer of timm in `net` make its weights as a matrix, with two products and a softmax, in
    place of PyTorch's fused operator."""
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
