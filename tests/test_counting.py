"""Counting parameters and MACs."""

import torch
from timm.layers import LayerNorm, LayerNorm2d
from torch import nn

from lib.deploy.counting import count, exact_macs, thop_counts


class OneLayer(nn.Module):
    """Small parts with known counts: 3 -> 8 channels, tokens of width 8, one attention head."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.lost = nn.Parameter(torch.zeros(5))

    all_tokens = {}

    def forward(self, template, search, further=None):
        x = torch.cat([self.conv(t).flatten(2).transpose(1, 2) for t in (template, search)], dim=1)
        q, k, v = self.qkv(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)
        return nn.functional.scaled_dot_product_attention(q, k, v)


def test_counts_equal_a_count_by_hand():
    counts = count(OneLayer(), (2, 3, 8, 8), (2, 3, 16, 16))
    tokens = 2 * (4 + 16)
    convolution, linear, attention = tokens * 8 * 48, tokens * 8 * 24, 2 * (2 * 20 * 20 * 8)
    assert counts.macs == convolution + linear + attention
    assert counts.thop_macs == convolution + linear + 4 * tokens * 8, "thop: a norm costs 4 per number, attention none"
    assert counts.parameters == (8 * 48 + 8) + 16 + (8 * 24 + 24) + 5
    assert counts.thop_parameters == counts.parameters - 5


def test_counts_on_real_tensors_are_the_same():
    model, inputs = OneLayer().eval(), (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 16, 16))
    on_shapes = count(model, *(tuple(x.shape) for x in inputs))
    assert exact_macs(model, *inputs) == on_shapes.macs
    assert thop_counts(model, *inputs) == (on_shapes.thop_macs, on_shapes.thop_parameters)


def test_timm_norms_count_as_pytorchs(capsys):
    x = torch.zeros(1, 6, 4, 4)
    assert thop_counts(nn.Sequential(LayerNorm2d(6)), x) == (4 * 96, 12)
    assert capsys.readouterr().out == "", "quiet"


def test_counting_leaves_the_model_alone():
    model = OneLayer().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, (1, 3, 8, 8), (1, 3, 16, 16))
    assert model.training and set(model.state_dict()) == set(before)
    for name, module in model.named_modules():
        assert not hasattr(module, "total_ops") and not module._forward_hooks, name
    for name, value in model.state_dict().items():
        assert value.device.type == "cpu" and torch.equal(value, before[name]), name
