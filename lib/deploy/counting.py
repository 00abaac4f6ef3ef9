"""Parameters and multiply-accumulates (MACs) of a model. Counted on shapes only: nothing is computed."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..models.base import StagedTracker
from ..utils.errors import UserError


@dataclass(frozen=True)
class Counts:
    """Size and work of a model for one batch.

    Attributes:
        parameters: all of them, with the raw position and class embeddings that the tracker never reads.
        thop_parameters: those thop sees, the parameters of layers it has a rule for (what the paper's table counts).
        thop_macs: thop's rule: convolutions and linear layers, plus a little for the norms; attention's products left
            out; without candidate elimination (what the paper's table counts).
        macs: matrix products and convolutions, with attention's two products, and with candidate elimination where the
            model has it.
    """

    parameters: int
    thop_parameters: int
    thop_macs: int
    macs: int


def count(model: StagedTracker, template_shape: tuple[int, ...], search_shape: tuple[int, ...],
          further: Mapping[str, Tensor] | None = None) -> Counts:
    """Count a tracker's parameters and MACs; the model is not touched.

    Args:
        template_shape, search_shape: (B, 3, h, w), or (B, T, 3, h, w), and (B, 3, H, W); the MACs are those of the
            whole batch.
        further: see `Inputs`; the numbers do not matter.

    Raises:
        UserError: thop is not installed, or cannot be imported.
    """
    twin = _shape_twin(model)
    template, search = (torch.empty(shape, device="meta") for shape in (template_shape, search_shape))
    further = {name: tensor.to("meta") for name, tensor in (further or {}).items()}
    macs = exact_macs(twin, template, search, further)
    thop_macs, thop_parameters = thop_counts(twin, template, search, {**further, **model.all_tokens})
    return Counts(sum(p.numel() for p in model.parameters()), thop_parameters, thop_macs, macs)


def exact_macs(model: nn.Module, *inputs: Any) -> int:
    """MACs of all matrix products (attention's too) and convolutions in one forward pass; biases, norms and activations
    are not counted. Works on real and on `meta` tensors."""
    # Attention is run unfused: the counter does not know every device's fused kernel.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops() // 2


def thop_counts(model: nn.Module, *inputs: Any) -> tuple[int, int]:
    """MACs and parameters by thop's rules. thop leaves buffers in `model`: give it a copy.

    thop looks layers up by their exact class, so layers derived from PyTorch's (timm has its own norms) would count
    nothing; they get the rule of the PyTorch class they derive from.

    Raises:
        UserError: thop cannot be imported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thop compares versions in a deprecated way
        try:
            from thop import profile
            from thop.profile import register_hooks
        except ImportError as error:
            raise UserError(f"thop, which counts MACs as the paper does, cannot be imported ({error}); "
                            "install it with: pip install thop setuptools") from error
        rules = {}
        for layer_type in {type(module) for module in model.modules()} - set(register_hooks):
            base = next((base for base in layer_type.__mro__ if base in register_hooks), None)
            if base is not None:
                rules[layer_type] = register_hooks[base]
        macs, parameters = profile(model, inputs=inputs, custom_ops=rules, verbose=False)
    return int(macs), int(parameters)


def _shape_twin(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode on the `meta` device: shapes without numbers, so it costs no memory."""

    def without_numbers(tensor: Tensor) -> Tensor:
        empty = torch.empty_like(tensor, device="meta")
        return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty

    tensors = [*model.parameters(), *model.buffers()]
    twin = copy.deepcopy(model, {id(tensor): without_numbers(tensor) for tensor in tensors})
    return twin.eval()
