"""SUTrack's model (Chen et al., SUTrack: Towards Simple and Unified Single Object Tracking, AAAI 2025): Fast-iTPN over
search, templates and a text token, a CENTER head, and a head that tells the task apart. Names are those of its
checkpoints."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from ...models.base import Inputs, Prediction, Segment, StagedTracker, Tokens
from ...models.heads import build_head
from ...models.layers.start import start_linear
from ...utils.errors import UserError
from ..base import Shape
from .keys import SIZES
from .layers import EPS, MainLayer, early_stages
from .text import TextEncoder, feature_without_words

if TYPE_CHECKING:
    from ...config import Config

PATCH = 16
"""Side of a token in pixels: a 4x4 convolution and two halvings."""
MERGE = re.compile(r"encoder\.body\.blocks\.(\d+)\.reduction\.weight")
"""Names of what ends an early stage."""
CHANNELS = 6
"""Of a crop: the picture, and depth, heat or events as a picture; the picture again where there is no other."""


def build(cfg: "Config", shape: Shape, drop_rates: Sequence[float]) -> "SUTrackModel":
    """See `lib.families.Family.build`.

    The official drop-path rates rise over the early blocks and the main ones together, so the ones given, which rise
    over the main ones, are moved up, a student's with its teacher's.
    """
    model, data = cfg.MODEL, cfg.DATA
    size = SIZES[model.BACKBONE.TYPE]
    early = sum(size.early)
    steps = early + size.depth - 1      # from the first to the last of all
    step, share = cfg.TRAIN.DROP_PATH_RATE / steps, (size.depth - 1) / steps
    body = FastITPN(shape, size.early, [early * step + share * rate for rate in drop_rates],
                    [number * step for number in range(early)], data.TEMPLATE.SIZE // PATCH, data.SEARCH.SIZE // PATCH)
    dim, channels = shape.embed_dim, model.HEAD.NUM_CHANNELS
    text = TextEncoder(dim) if data.MULTI_MODAL_LANGUAGE else None
    return SUTrackModel(body, text, TaskHead(dim, channels, model.TASK_NUM), build_head("CENTER", dim, channels))


class PatchEmbed(nn.Module):
    """A 4x4 convolution: (B, 6, H, W) -> (B, dim, H / 4, W / 4). Three channels are taken twice."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, dim, kernel_size=4, stride=4)

    def forward(self, crops: Tensor) -> Tensor:
        return self.proj(crops if crops.shape[1] == CHANNELS else torch.cat([crops, crops], dim=1))


class FastITPN(nn.Module):
    """The backbone.

    Attributes:
        first: index among `blocks` of the first main block.
        main: the main blocks, which stand behind the early ones in `blocks`.

    Args:
        shape: of the main blocks; their number is that of `drop_rates`.
        early: number of blocks of the two early stages.
        drop_rates, early_rates: drop-path rate of each main and each early block.
        template_grid, search_grid: sides of the crops in tokens.
    """

    def __init__(self, shape: Shape, early: Sequence[int], drop_rates: Sequence[float], early_rates: Sequence[float],
                 template_grid: int, search_grid: int):
        super().__init__()
        dim = shape.embed_dim
        self.template_grid, self.search_grid = template_grid, search_grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, search_grid**2 + template_grid**2, dim))   # search, template
        self.template_background_token = nn.Parameter(torch.zeros(dim))
        self.template_foreground_token = nn.Parameter(torch.zeros(dim))
        self.search_token = nn.Parameter(torch.zeros(dim))
        self.patch_embed = PatchEmbed(dim // 4)
        stages = early_stages(dim, early, shape.mlp_ratio, early_rates)
        self.first = len(stages)
        main = nn.ModuleList(MainLayer(dim, shape.num_heads, shape.mlp_ratio, rate) for rate in drop_rates)
        self.blocks = nn.ModuleList([*stages, *main])
        vars(self)["main"] = main       # the same modules once more, without names of their own
        self.fc_norm = nn.LayerNorm(dim, eps=EPS)
        for parameter in (self.cls_token, self.pos_embed):
            trunc_normal_(parameter, std=0.02)
        start_linear(self)

    def patches(self, crops: Tensor) -> Tensor:
        """(B, 3 or 6, H, W) -> (B, H / 16 * W / 16, C)."""
        x = self.patch_embed(crops)
        for index in range(self.first):
            x = self.blocks[index](x)
        return x.flatten(2).transpose(1, 2)

    def search_tokens(self, crops: Tensor) -> Tensor:
        """(B, 3 or 6, H, W) -> (B, Lx, C) with positions and type."""
        return self.patches(crops) + self.pos_embed[:, :self.search_grid**2] + self.search_token

    def template_tokens(self, crops: Tensor, boxes: Tensor) -> Tensor:
        """Templates with positions and the soft type of their tokens.

        Args:
            crops: (B, T, 3 or 6, h, w).
            boxes: (B, T or 1, 4) xywh of the targets in 0..1 of the crops; one stands for all.

        Returns:
            (B, T * Lz, C).
        """
        z = self.patches(crops.flatten(0, 1)).unflatten(0, crops.shape[:2])            # (B, T, Lz, C)
        z = z + self.pos_embed[:, None, self.search_grid**2:]
        share = foreground_share(boxes, self.template_grid).to(z.dtype)                # (B, T or 1, Lz, 1)
        z = z + share * self.template_foreground_token + (1 - share) * self.template_background_token
        return z.flatten(1, 2)


def foreground_share(boxes: Tensor, grid: int) -> Tensor:
    """Share of the pixels of each token that lie in a box: those whose number is at least the low and below the high
    edge times the crop's side.

    Args:
        boxes: (B, T, 4) xywh in 0..1.
        grid: side of the crop in tokens.

    Returns:
        (B, T, grid * grid, 1) float32 in 0..1.
    """
    edges = boxes.float() * (grid * PATCH)
    low = edges[..., None, :2]                                                         # (B, T, 1, 2)
    pixels = torch.arange(grid * PATCH, device=boxes.device).unsqueeze(1)              # (h, 1)
    inside = ((pixels >= low) & (pixels < low + edges[..., None, 2:])).float()         # (B, T, h, 2)
    columns, rows = inside.unflatten(2, (grid, PATCH)).mean(dim=3).unbind(-1)          # (B, T, grid)
    return (rows.unsqueeze(3) * columns.unsqueeze(2)).flatten(2).unsqueeze(3)


class TaskHead(nn.Module):
    """Which kind of data the crops are (SUTrack, section 3.4): an MLP of three layers on the mean token."""

    def __init__(self, dim: int, channels: int, tasks: int):
        super().__init__()
        widths = (dim, channels, channels, tasks)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, tasks) logits."""
        x = x.mean(dim=1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class SUTrackModel(StagedTracker):
    """The tracker. Its layers are the main blocks; the early stages belong to the embedding.

    Further inputs: `template_boxes` (B, T or 1, 4), see `FastITPN.template_tokens`; optional `text_token` (B, 1, C) in
    place of the constant one; in training `task` (B,), the number of the task. With the latter the prediction has
    `task_logits` (B, tasks) float32 and `task` besides.
    """

    position_names = {"encoder.body.pos_embed": ("search", "template")}

    def __init__(self, body: FastITPN, text: TextEncoder | None, task_head: TaskHead, head: nn.Module):
        super().__init__()
        self.encoder = nn.ModuleDict({"body": body})
        self.text_encoder = text
        self.task_decoder = task_head
        self.decoder = head
        blocks = "encoder.body.blocks."
        self.part_prefixes = {
            "embed": ("encoder.body.", "text_encoder.", *(f"{blocks}{index}." for index in range(body.first))),
            "layers": (blocks,), "norm": ("encoder.body.fc_norm.",), "head": ("decoder.", "task_decoder.")}

    @property
    def body(self) -> FastITPN:
        """The backbone."""
        return self.encoder["body"]

    @property
    def layers(self) -> nn.ModuleList:
        return self.body.main

    @property
    def embed_dim(self) -> int:
        return self.body.cls_token.shape[-1]

    @property
    def token_grids(self) -> dict[str, int]:
        return {"search": self.body.search_grid, "template": self.body.template_grid}

    def embed(self, inputs: Inputs) -> Tokens:
        """Class token, search tokens, those of the templates one behind the other, and the text token."""
        body, further = self.body, inputs.further
        x = body.search_tokens(inputs.search)
        z = body.template_tokens(inputs.templates, further["template_boxes"])
        parts = [body.cls_token.expand(len(x), -1, -1), x, z]
        segments = [Segment("class", 1), Segment("search", x.shape[1], body.search_grid),
                    Segment("template", z.shape[1], body.template_grid)]
        text = further.get("text_token")
        if text is None and self.text_encoder is not None:
            text = self.text_encoder().expand(len(x), -1, -1)
        if text is not None:
            parts.append(text)
            segments.append(Segment("text", 1))
        return Tokens(torch.cat(parts, dim=1), tuple(segments), extra=further.get("task"))

    def predict(self, tokens: Tokens) -> Prediction:
        """See `Prediction`; the task head runs only where there is a task to learn."""
        x, side = self.body.fc_norm(tokens.x), self.body.search_grid
        prediction = self.decoder(x[:, tokens.place("search")].transpose(1, 2).unflatten(2, (side, side)))
        if tokens.extra is None:
            return prediction
        return prediction._replace(further={"task_logits": self.task_decoder(x).float(), "task": tokens.extra})

    def adapt(self, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Without CLIP, whose answer is kept instead, and the norms that the official code never calls."""
        merges = [int(found[1]) for found in map(MERGE.fullmatch, state) if found]
        if merges and max(merges) + 1 != self.body.first:
            raise UserError(f"{path} holds a Fast-iTPN of another size: its main blocks begin with number "
                            f"{max(merges) + 1}, those of the configured model with {self.body.first}; use the "
                            "configuration that belongs to the file (MODEL.BACKBONE.TYPE)")
        clip, feature, projection = "text_encoder.clip.", "text_encoder.feature", "text_encoder.text_proj.weight"
        own = {name: value for name, value in state.items()
               if not name.startswith((clip, "text_encoder.norm1.", "text_encoder.norm2."))}
        if self.text_encoder is None:
            return {name: value for name, value in own.items() if not name.startswith("text_encoder.")}
        if feature not in own and projection in own:
            tower = {name.removeprefix(clip): value for name, value in state.items() if name.startswith(clip)}
            try:
                own[feature] = feature_without_words(tower)
            except KeyError as error:
                raise UserError(
                    f"{path} holds neither {feature} nor all of CLIP's text tower (no {clip}{error.args[0]}), of which "
                    f"the text token is made; expected an official checkpoint as it was published, or one made here. "
                    "To do without the token, at some loss, set DATA.MULTI_MODAL_LANGUAGE and "
                    "TEST.MULTI_MODAL_LANGUAGE.DEFAULT to false") from error
        return own
