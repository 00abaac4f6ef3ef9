"""What a student of another width, with fewer heads or another MLP, takes over from its teacher.

The tokens of a pre-norm transformer are a sum to which every layer adds and of which every layer reads the normed
values. So they can be turned to other axes: a narrower student has those on which the teacher's tokens vary most
(SliceGPT: Ashkboos et al., ICLR 2024, arXiv 2401.15024; there each layer has axes of its own, here all share one
choice, so that nothing stands between the layers). Of heads and hidden units those stay that add most to the tokens.
What reads fewer values than the teacher's reads the best linear guess of those that are gone. All of it is measured
on frames.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Branch, Inputs, StagedTracker, evaluating


class Narrowing:
    """Second moments of a teacher on frames, and the axes of a student's tokens.

    Args:
        teacher: put in evaluation mode while it is measured; on the device of the batches.
        layers: numbers of the layers that will be taken over.
        batches: each sample counts alike.
        width: of the student's tokens, at most the teacher's.
    """

    def __init__(self, teacher: StagedTracker, layers: Iterable[int], batches: Iterable[Inputs], width: int):
        self.teacher = teacher
        self._moments: dict[nn.Module, Tensor] = {}
        normed: list[nn.Module] = [_final_norm(teacher)] if width != teacher.embed_dim else []
        inner = []
        for layer in map(teacher.layers.__getitem__, sorted(set(layers))):
            for branch in layer.branches:
                normed.append(layer.get_submodule(branch.norm))
                inner.append(layer.get_submodule(branch.write))
        self._measure(normed, inner, batches)
        self.axes = None if width == teacher.embed_dim else _axes(sum(map(self._moments.get, normed)), width)
        """(teacher's width, student's) tokens on the student's axes are x @ axes; None where the widths are equal."""

    @torch.no_grad()
    def _measure(self, normed: Sequence[nn.Module], inner: Sequence[nn.Module], batches: Iterable[Inputs]) -> None:
        """The moments of what each norm gives before its weights, and of what each of `inner` is given."""
        with evaluating(self.teacher), ExitStack() as hooks:
            for module in normed:
                hooks.enter_context(_hook(module, lambda norm, x: self._add(
                    norm, F.layer_norm(x, norm.normalized_shape, eps=norm.eps))))
            for module in inner:
                hooks.enter_context(_hook(module, self._add))
            for templates, search, further in batches:
                self.teacher(templates, search, {**further, **self.teacher.all_tokens})

    def _add(self, module: nn.Module, x: Tensor) -> None:
        rows = x.double().flatten(0, -2)            # (B * L, n)
        self._moments[module] = self._moments.get(module, 0) + (rows.T @ rows / x.shape[1]).cpu()

    @torch.no_grad()
    def start_layer(self, own: nn.Module, layer: nn.Module) -> None:
        """A student's layer from one of the teacher's that were measured, in place."""
        for branch, smaller in zip(layer.branches, own.branches, strict=True):
            self._start_branch(layer, branch, own, smaller)

    def _start_branch(self, layer: nn.Module, branch: Branch, own: nn.Module, smaller: Branch) -> None:
        norm, read, write = (layer.get_submodule(name) for name in branch[:3])
        own_norm, own_read, own_write = (own.get_submodule(name) for name in smaller[:3])
        inner = write.in_features
        kept = _kept_units(self._moments[write], write.weight, own_write.in_features, branch.unit)
        rows = torch.cat([kept + copy * inner for copy in range(branch.copies)])
        weight, bias = self._read(norm, read.weight[rows], read.bias[rows], own_norm)
        places = torch.cat([torch.arange(len(kept)) + copy * own_write.in_features for copy in range(branch.copies)])
        own_read.weight[places], own_read.bias[places] = weight, bias
        weight, bias = write.weight, write.bias
        if len(kept) < inner:
            chosen = torch.eye(inner, dtype=torch.float64)[:, kept]
            weight = (weight.double() @ _guess(self._moments[write], chosen)).to(weight.dtype)
        own_write.weight[:, :len(kept)] = self._written(weight)
        own_write.bias[:] = self._written(bias)

    def _written(self, values: Tensor) -> Tensor:
        """What is added to the tokens, (C, ...) of the teacher's, on the student's axes."""
        return values if self.axes is None else torch.tensordot(self.axes.T.to(values.dtype), values, dims=1)

    def _read(self, norm: nn.LayerNorm, weight: Tensor, bias: Tensor, own: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """A map (n, C, ...) of a norm's values, and its bias, as a map of the student's, whose weights are set here."""
        if self.axes is None:
            own.load_state_dict(norm.state_dict())
            return weight, bias
        moment = self._moments[norm]
        size = ((self.axes.T @ moment @ self.axes).diagonal().mean() / moment.diagonal().mean()).sqrt()
        nn.init.ones_(own.weight)
        nn.init.zeros_(own.bias)
        seen = torch.tensordot(weight.double(), norm.weight.double()[:, None] * _guess(moment, self.axes) * size,
                               dims=([1], [0]))             # (n, ..., student's C)
        shift = torch.tensordot(weight, norm.bias, dims=([1], [0])).reshape(len(weight), -1).sum(1)
        return seen.movedim(-1, 1).to(weight.dtype), bias + shift

    @torch.no_grad()
    def start_rest(self, student: StagedTracker, *, embed: bool, head: bool) -> None:
        """Embedding, and head with the final norm, of a student of another width, in place."""
        source, own = self.teacher.state_dict(), student.state_dict()
        changed = {}
        if embed:
            for name in self.teacher.part_tensors("embed"):
                value = source[name]
                last = value.shape[0] != self.teacher.embed_dim
                changed[name] = self._written(value.movedim(-1, 0)).movedim(0, -1) if last else self._written(value)
            student.load_part("embed", source | changed, self.teacher.token_grids)
        if head:
            for name in self.teacher.part_tensors("head"):
                if source[name].shape != own[name].shape:
                    bias = name.removesuffix("weight") + "bias"
                    changed[name], changed[bias] = self._read(_final_norm(self.teacher), source[name], source[bias],
                                                              _final_norm(student))
            student.load_part("head", source | changed)


def _final_norm(tracker: StagedTracker) -> nn.Module:
    (prefix,) = tracker.part_prefixes["norm"]
    return tracker.get_submodule(prefix.removesuffix("."))


def _hook(module: nn.Module, function: Callable[[nn.Module, Tensor], None]) -> torch.utils.hooks.RemovableHandle:
    """Call the function with the module and its input, whenever it runs."""
    return module.register_forward_pre_hook(lambda own, given: function(own, given[0]))


def _axes(moment: Tensor, width: int) -> Tensor:
    """(C, width) axes of the student's tokens: the directions in which values without a mean vary most.

    One less than the width, as the student's norms take a mean away too: they are turned so that every token on them
    has the mean 0.
    """
    directions = torch.linalg.eigh(moment).eigenvectors.flip(1)[:, :width - 1]          # (C, width - 1)
    place = torch.arange(width, dtype=torch.float64)
    waves = torch.cos(torch.pi * (place + 0.5) * place[1:, None] / width) * (2 / width) ** 0.5
    return directions @ waves           # rows of the cosine transform but the constant one: (width - 1, width)


def _guess(moment: Tensor, axes: Tensor) -> Tensor:
    """(n, k) the linear map that makes of values on k axes those of all n with the least squared error, for values with
    this second moment (n, n)."""
    seen = moment @ axes
    return seen @ torch.linalg.pinv(axes.T @ seen, rtol=1e-6, hermitian=True)


def _kept_units(moment: Tensor, write: Tensor, number: int, unit: int) -> Tensor:
    """Which of the inner values, `unit` neighbours each together, add most to the tokens, in their order.

    Args:
        moment: of the inner values.
        write: (C, n) how they are added.
        number: how many the student has; all where it has more.
    """
    added = (moment.diagonal() * write.double().square().sum(0)).unflatten(0, (-1, unit)).sum(1)
    chosen = added.topk(min(number // unit, len(added))).indices.sort().values
    return (chosen[:, None] * unit + torch.arange(unit)).flatten()
