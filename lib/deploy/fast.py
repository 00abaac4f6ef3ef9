"""A trained tracker rearranged for speed: the same boxes and score map from less work.

`build_fast(model, options)` copies a one-stream tracker into a `FastTracker`, any other into a `PlainTracker`, which
runs it as it is, in the number format asked for, compiled or recorded. Every rearrangement is one field of
`FastOptions`; what each brings is in docs/performance.md. In float32 they are the plain model's within 1e-4 (on CUDA
inside `full_float32`: PyTorch's default there is TF32 for convolutions, in both models, which rounds them differently);
lower precision changes them, by how much is measured there too.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.base import Prediction, SplitTracker, StagedTracker, Tokens
from ..models.heads import CenterHead
from ..models.layers.elimination import Candidates, eliminate, restore, template_votes
from ..models.layers.encoder import EncoderLayer
from ..models.one_stream import OneStreamTracker
from ..utils.device import choose_dtype, has_bfloat16
from ..utils.errors import UserError
from .cuda_graph import GraphReplay
from .heads import MergedCenterHead, PeakHead, fold_batchnorm

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HEAD_SWITCHES = ("merge_branches", "peak_only")
"""Options that rewrite a CENTER head in different ways: at most one, and on folded BatchNorm."""


@dataclass(frozen=True)
class FastOptions:
    """What a `FastTracker` does differently from the plain model.

    Attributes:
        cache_template: embed the template, and make the first layer's queries, keys and values of it, once per target
            (`FastTracker.prepare`), not in every frame; of a `SplitTracker` all that it can know of its templates.
        trim_last_layer: in the last layer only the search tokens are queries and pass the MLP; nothing reads the
            template tokens after it.
        fold_batchnorm: BatchNorm becomes part of the convolution before it.
        merge_branches: the three branches of a CENTER head as one wide and three grouped convolutions; needs
            fold_batchnorm.
        peak_only: the offset and size branches of a CENTER head at the best cell only, with score map and box as the
            prediction; needs fold_batchnorm and takes the place of merge_branches.
        fused_attention: PyTorch's `scaled_dot_product_attention`; else two matrix products and a softmax.
        channels_last: memory order of the convolutions.
        pack_linear: oneDNN's linear layers with weights in its own order and GELU within the product (CPU only).
        take_pixels: crops come as uint8 (B, H, W, 3) pixels and the normalisation is part of the patch embedding.
        dtype: float32, bfloat16 or float16, of weights and features. Norms and softmax add up in float32; the maps are
            float32.
        head_dtype: the same for the head; None takes `dtype`.
        compile: torch.compile.
        cuda_graph: record the kernels of a call, compiled or not, once per input shape, batch sizes rounded up
            (`padded_batch`), and replay them (CUDA only).
    """

    cache_template: bool = True
    trim_last_layer: bool = True
    fold_batchnorm: bool = True
    merge_branches: bool = False
    peak_only: bool = True
    fused_attention: bool = True
    channels_last: bool = True
    pack_linear: bool = False
    take_pixels: bool = False
    dtype: str = "float32"
    head_dtype: str | None = None
    compile: bool = False
    cuda_graph: bool = False

    def __post_init__(self):
        for name in ("dtype", "head_dtype"):
            value = getattr(self, name)
            if value not in DTYPES and not (name == "head_dtype" and value is None):
                raise UserError(f"{name} is {value!r}; choose one of {', '.join(DTYPES)}")
        chosen = [name for name in HEAD_SWITCHES if getattr(self, name)]
        if chosen and not self.fold_batchnorm:
            raise UserError(f"{chosen[0]} needs fold_batchnorm; turn both on or both off")
        if len(chosen) > 1:
            raise UserError(f"{' and '.join(chosen)} exclude each other; turn one of them off")
        if self.pack_linear and self.compile:
            raise UserError("pack_linear and compile exclude each other: the compiler packs the weights itself")

    def unavailable(self, device: torch.device) -> str | None:
        """What of these options `device` or this PyTorch cannot do, and the remedy; None where it can do all."""
        if self.pack_linear and (device.type != "cpu" or not can_pack(self.dtype)):
            return (f"pack_linear needs oneDNN's linear layers for {self.dtype}, which this device ({device}) or this "
                    "PyTorch does not have; turn it off")
        if self.cuda_graph and device.type != "cuda":
            return f"cuda_graph needs a CUDA device, not {device}; turn it off"
        return None

    @classmethod
    def plain(cls) -> "FastOptions":
        """Every switch off: the plain model's work in the plain model's order."""
        return cls(**{field.name: False for field in fields(cls) if isinstance(field.default, bool)})

    @classmethod
    def best(cls, device: torch.device | str, dtype: str = "float32") -> "FastOptions":
        """The switches for a kind of device and a number format: on the CPU those that were measured to be fastest, on
        CUDA those that spare launches and copies (measured together, not one by one)."""
        if torch.device(device).type == "cuda":
            return cls(merge_branches=True, peak_only=False, take_pixels=True, dtype=dtype, cuda_graph=True)
        return cls(pack_linear=can_pack(dtype), take_pixels=True, dtype=dtype, fused_attention=dtype == "float32")

    @classmethod
    def parse(cls, texts: Sequence[str], device: torch.device | str) -> "FastOptions":
        """The best options for `device` with "NAME=VALUE" texts applied (`dtype` first, since the best depend on it).

        Number formats may be `auto` (see `choose_dtype`).

        Raises:
            UserError: no such option, no such value, or a number format that the device does not have.
        """
        defaults = {field.name: field.default for field in fields(cls)}
        changes: dict[str, bool | str] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals or name not in defaults:
                raise UserError(f"fast option {text!r}: expected NAME=VALUE with NAME one of {', '.join(defaults)}")
            if isinstance(defaults[name], bool) and value not in ("true", "false"):
                raise UserError(f"fast option {text!r}: expected true or false")
            if name.endswith("dtype"):
                value = choose_dtype(value, torch.device(device), f"fast option {name}")
            changes[name] = value == "true" if isinstance(defaults[name], bool) else value
        return replace(cls.best(device, str(changes.get("dtype", "float32"))), **changes)


def can_pack(dtype: str = "float32") -> bool:
    """Whether this PyTorch and CPU have oneDNN's packed linear layers for a number format."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == "bfloat16":
        return has_bfloat16(torch.device("cpu"))
    return dtype == "float32"


def build_fast(model: StagedTracker, options: FastOptions | None = None, *, device: torch.device | str = "cpu",
               mean: Sequence[float] | None = None, std: Sequence[float] | None = None
               ) -> "FastTracker | PlainTracker":
    """A fast copy of a trained model, in eval mode on `device`; the model itself is not changed.

    Args:
        model: a trained tracker of any family, depth and head.
        options: None takes `FastOptions.best(device)`. A `PlainTracker` leaves out those that it cannot do.
        mean, std: per channel, of images scaled to 0..1; needed for `take_pixels`.

    Raises:
        UserError: an option or a number format that this device or PyTorch cannot do.
    """
    device = torch.device(device)
    options = FastOptions.best(device) if options is None else options
    for name in ("dtype", "head_dtype"):
        choose_dtype(getattr(options, name) or "float32", device, f"{name} of the fast module")
    problem = options.unavailable(device)
    if problem is not None:
        raise UserError(problem)
    if options.take_pixels and (mean is None or std is None):
        raise UserError("take_pixels needs the mean and std of the normalisation")
    rearranged = (isinstance(model, OneStreamTracker) and model.rearrangeable
                  and all(type(layer) is EncoderLayer for layer in model.layers))
    with torch.no_grad():
        fast = (FastTracker if rearranged else PlainTracker)(model, options, mean, std).to(device)
        if fast.options.pack_linear:
            fast.pack()
    if options.compile:
        fast.run = torch.compile(fast.run, dynamic=False)
    if options.cuda_graph:
        fast.run = GraphReplay(fast.run, device, fast.batched)
    return fast


def cast(further: Mapping[str, Tensor] | None, dtype: torch.dtype) -> dict[str, Tensor]:
    """Further inputs with their floating-point tensors in a number format."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in (further or {}).items()}


class PlainTracker(nn.Module):
    """Any family's tracker as it is, in the number format of the options. Made by `build_fast`.

    Attributes:
        options: those that it can do; the others are off.
        takes_pixels: see `FastTracker`.
        batched: inputs of `run` with one row for each image; None for all.
    """

    takes_window, batched = False, None

    def __init__(self, model: StagedTracker, options: FastOptions, mean: Sequence[float] | None,
                 std: Sequence[float] | None):
        super().__init__()
        cached = options.cache_template and isinstance(model, SplitTracker)
        self.options = replace(FastOptions.plain(), cache_template=cached, dtype=options.dtype,
                               take_pixels=options.take_pixels, compile=options.compile,
                               cuda_graph=options.cuda_graph)
        self.takes_pixels, self.dtype = options.take_pixels, DTYPES[options.dtype]
        self.model = copy.deepcopy(model).to(self.dtype)
        self.normalise = _Normalisation(mean, std) if options.take_pixels else nn.Identity()
        self._names: tuple[str, ...] = ()
        self.requires_grad_(False).eval()

    def prepare(self, templates: Tensor) -> Tensor:
        """What every frame takes as `templates`: see `embed_template`, or the crops without cache_template."""
        return self.embed_template(templates) if self.options.cache_template else templates

    def embed_template(self, templates: Tensor) -> Tensor:
        """Template crops -> what `SplitTracker.read_templates` makes of them."""
        return self.model.read_templates(self._crops(templates))

    def forward(self, templates: Tensor, search: Tensor, further: Mapping[str, Tensor] | None = None) -> Prediction:
        """One batch, with what `prepare` gave; the prediction is float32. See `StagedTracker.forward` and
        `takes_pixels`."""
        further = further or {}
        self._names = tuple(further)
        return self.run(templates, search, *further.values())

    def run(self, templates: Tensor, search: Tensor, *further: Tensor) -> Prediction:
        """`forward`, as the one call that is compiled or recorded."""
        named = cast(dict(zip(self._names, further, strict=True)), self.dtype)
        if self.options.cache_template:
            prediction = self.model.read_search(templates, self._crops(search))
        else:
            prediction = self.model(self._crops(templates), self._crops(search), named)
        return prediction.map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)

    def _crops(self, crops: Tensor) -> Tensor:
        if self.takes_pixels:
            crops = self.normalise(crops.movedim(-1, -3).float())
        return crops.to(self.dtype)


class FastTracker(nn.Module):
    """A one-stream tracker with the work of a frame reduced to what the frame needs. Made by `build_fast`.

    Use: `state = fast.prepare(template)` once, then `fast(state, search)` in every frame.

    Attributes:
        takes_pixels: crops are uint8 (B, H, W, 3) RGB pixels; otherwise float32 (B, 3, H, W), normalised.
        takes_window: the box is read within, at the best cell of the score map times a window.
        batched: inputs of `run` with one row for each image: all but the window.
    """

    batched = 3

    def __init__(self, model: OneStreamTracker, options: FastOptions, mean: Sequence[float] | None,
                 std: Sequence[float] | None):
        super().__init__()
        self.options, self.takes_pixels = options, options.take_pixels
        backbone = model.backbone
        self.dtype = DTYPES[options.dtype]
        self.head_dtype = DTYPES[options.head_dtype or options.dtype]
        memory = torch.channels_last if options.channels_last else torch.contiguous_format
        embedding = copy.deepcopy(backbone.patch_embed)
        if options.fold_batchnorm:
            fold_batchnorm(embedding)
        self.patches = embedding.proj
        if options.take_pixels:
            self.patches = _of_pixels(self.patches, mean, std)
        self.patches.to(self.dtype, memory_format=memory)
        self.register_buffer("template_positions", backbone.pos_embed_z.detach().clone().to(self.dtype))
        self.register_buffer("search_positions", backbone.pos_embed_x.detach().clone().to(self.dtype))
        last = len(backbone.blocks) - 1
        self.layers = nn.ModuleList(
            FastLayer(layer, options.fused_attention, trim=options.trim_last_layer and index == last)
            for index, layer in enumerate(backbone.blocks)).to(self.dtype)
        self.norm = copy.deepcopy(backbone.norm).to(self.dtype)
        self.search_grid, self.segments = backbone.search_grid, backbone.segments
        head = copy.deepcopy(model.box_head)
        self.takes_window = isinstance(head, CenterHead)
        if options.fold_batchnorm:
            fold_batchnorm(head)
        if isinstance(head, CenterHead) and (options.merge_branches or options.peak_only):
            head = PeakHead(head) if options.peak_only else MergedCenterHead(head)
        self.head = head.to(self.head_dtype)
        if memory is torch.channels_last:
            self.head.to(memory_format=memory)
        self.requires_grad_(False).eval()

    def pack(self) -> None:
        """Replace the layers' linear parts by oneDNN's packed ones."""
        rows = self.template_positions.shape[1] + self.search_positions.shape[1]
        for layer in self.layers:
            layer.pack(rows)

    def prepare(self, template: Tensor) -> Tensor:
        """What every frame takes as `template`: see `embed_template`, or the crops with cache_template off."""
        return self.embed_template(template) if self.options.cache_template else template

    def embed_template(self, template: Tensor) -> Tensor:
        """Template crops -> (B, Lz, 4 * C): tokens with positions, then the first layer's queries, keys and values."""
        z = self._embed(template, self.template_positions)
        return torch.cat([z, self.layers[0].project(z)], dim=2)

    def forward(self, template: Tensor, search: Tensor, further: Mapping[str, Tensor] | None = None,
                window: Tensor | None = None) -> Prediction:
        """One batch.

        Args:
            template: what `prepare` gave.
            search: crops (see `takes_pixels`).
            further: template_mask (B, Lz) bool, for candidate elimination only (see `Candidates`).
            window: (S, S) weights of the scores, for `takes_window` only; None weighs all the same.
        """
        return self.run(template, search, (further or {}).get("template_mask"), window)

    def run(self, template: Tensor, search: Tensor, template_mask: Tensor | None, window: Tensor | None) -> Prediction:
        """`forward`, as the one call that is compiled or recorded."""
        x, first, qkv = self._embed(search, self.search_positions), self.layers[0], None
        if self.options.cache_template:
            width = x.shape[2]
            z = template[:, :, :width]
            qkv = _in_a_row(template[:, :, width:], first.project(x))
        else:
            z = self._embed(template, self.template_positions)
        tokens = first(Tokens(_in_a_row(z, x), self.segments, Candidates(template_mask=template_mask)), qkv)
        for layer in self.layers[1:]:
            tokens = layer(tokens)
        features = restore(replace(tokens, x=self.norm(tokens.x)), self.search_grid**2)
        features = features.unflatten(1, (self.search_grid, self.search_grid)).permute(0, 3, 1, 2)
        if not self.options.channels_last:     # the tokens lie with the channels last
            features = features.contiguous()
        return self.head(features.to(self.head_dtype), *([window] if self.takes_window else []))

    def _embed(self, crops: Tensor, positions: Tensor) -> Tensor:
        if self.takes_pixels:
            crops = crops.permute(0, 3, 1, 2)
        return self.patches(crops.to(self.dtype)).flatten(2).transpose(1, 2) + positions


def _in_a_row(z: Tensor, x: Tensor) -> Tensor:
    """(B, Lz, C) and (B, Lx, C) -> (B, Lz + Lx, C). By way of four dimensions: where OpenVINO joins three, it turns the
    channels outside, and each layer's input and output with them (2 to 3 % of a frame)."""
    return torch.cat([z.unsqueeze(1), x.unsqueeze(1)], dim=2).squeeze(1)


class FastLayer(nn.Module):
    """An `EncoderLayer` over `Tokens` without drop path; with `trim` it gives the search tokens only."""

    def __init__(self, layer: EncoderLayer, fused: bool, trim: bool):
        super().__init__()
        attention = layer.attn
        self.heads, self.scale, self.keep_rate = attention.num_heads, attention.scale, layer.keep_rate
        self.fused, self.trim = fused, trim
        self.norm1, self.norm2, self.act, self.qkv, self.proj, self.fc1, self.fc2 = map(copy.deepcopy, (
            layer.norm1, layer.norm2, layer.mlp.act, attention.qkv, attention.proj, layer.mlp.fc1, layer.mlp.fc2))

    def pack(self, rows: int) -> None:
        """Linear layers in oneDNN's order, for about `rows` tokens."""
        self.qkv, self.proj, self.fc2 = (PackedLinear(part, rows) for part in (self.qkv, self.proj, self.fc2))
        self.fc1, self.act = PackedLinear(self.fc1, rows, gelu=True), nn.Identity()

    def project(self, x: Tensor) -> Tensor:
        """(B, N, C) tokens -> (B, N, 3 * C) queries, keys and values."""
        return self.qkv(self.norm1(x))

    def forward(self, tokens: Tokens, qkv: Tensor | None = None) -> Tokens:
        """`qkv`: what `project` gives, where it is known."""
        x, template, search = tokens.x, tokens.place("template"), tokens.place("search")
        qkv = self.project(x) if qkv is None else qkv
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        votes = None
        if self.keep_rate < 1:
            votes = template_votes(q[:, :, template], k, self.scale, search, tokens.extra.template_mask)
        if self.trim:
            x, q = x[:, search], q[:, :, search]
            tokens = replace(tokens, x=x, segments=tokens.segments[1:])
        tokens = replace(tokens, x=x + self.proj(self._attend(q, k, v).transpose(1, 2).flatten(2)))
        if votes is not None:
            tokens = eliminate(tokens, votes, self.keep_rate)
        return replace(tokens, x=tokens.x + self.fc2(self.act(self.fc1(self.norm2(tokens.x)))))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, heads, queries, d), (B, heads, N, d) twice -> (B, heads, queries, d)."""
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v)
        return (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1) @ v


class PackedLinear(nn.Module):
    """A linear layer, with GELU where asked for, whose weights lie in oneDNN's order (CPU, inference only).

    The operator is the one that torch.compile's weight freezing uses.
    """

    def __init__(self, linear: nn.Linear, rows: int, gelu: bool = False):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), rows)
        self.bias = linear.bias.detach()
        self.post = ("gelu", [], "none") if gelu else ("none", [], None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *self.post)


def _of_pixels(patches: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """A patch embedding of normalised images as one of 0..255 pixels. The normalisation is folded into one convolution
    without padding (in place); padding with zeros means the mean colour there, so any other has it in front."""
    if not isinstance(patches, nn.Conv2d) or patches.padding != (0, 0):
        return nn.Sequential(_Normalisation(mean, std), patches)
    weight = patches.weight.detach().double()
    mean_, std_ = (weight.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    patches.bias.copy_(patches.bias.detach().double() - (weight * mean_ / std_).sum(dim=(1, 2, 3)))
    patches.weight.copy_(weight / (255 * std_))
    return patches


class _Normalisation(nn.Module):
    """(B, 3, H, W) pixels in 0..255, less the mean, over the standard deviation."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor(std).view(1, 3, 1, 1)))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) * self.scale
