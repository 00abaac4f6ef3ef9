"""Weights that a MixFormerV2 starts from."""

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from ...models.checkpoint import choose, read_checkpoint, some, wrong_tensor
from ...models.vit_weights import vit_candidates
from .model import MixFormerV2Model


def load_start(model: MixFormerV2Model, path: Path) -> None:
    """Start from a MixFormerV2 or from MAE's or timm's ViT weights, in place.

    A MixFormerV2 may lack the score head, which then stays random, as the prediction tokens and heads do with a ViT.
    The fixed positions are not read, so the crops may have another size. Of the file's layers those of `model.left_out`
    are skipped, and the first of the others are used where the model is shallower.

    Raises:
        UserError: the file cannot be read or does not fit.
    """
    content, left_out = read_checkpoint(path), model.left_out
    own = {name: value for name, value in model.state_dict().items() if name not in model.unused}

    def named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries that the model has, under its names."""
        bare = not any(name.startswith("backbone.") for name in state)
        names = {name: f"backbone.{name}" if bare else name for name in state}
        return {new: state[old] for old, name in names.items() if (new := _renumbered(name, left_out)) in own}

    def problem(state: Mapping[str, Tensor]) -> str:
        used = named(state)
        tracker = any(name.startswith("box_head.") for name in used)
        needed = [name for name in own if not name.startswith("score_head.")
                  and (tracker or name.startswith(("backbone.blocks.", "backbone.patch_embed.")))]
        lacks = [name for name in needed if name not in used]
        if lacks:
            return (f"lacks {some(lacks)}, and has {some(state)}; expected a MixFormerV2, or MAE or timm ViT weights, "
                    f"of at least {model.depth} layers" + f" besides {sorted(left_out)}" * bool(left_out))
        return wrong_tensor(used, own)

    parts = [name for name, _ in model.named_children()]
    chosen = choose(vit_candidates(content, [*parts, "patch_embed", "blocks"], path), problem, path)
    model.load_state_dict(named(chosen.state), strict=False)


def _renumbered(name: str, left_out: Collection[int]) -> str:
    """An entry's name once some layers are left out; empty for an entry of one of these."""
    prefix = "backbone.blocks."
    if not name.startswith(prefix):
        return name
    number, _, rest = name.removeprefix(prefix).partition(".")
    if int(number) in left_out:
        return ""
    return f"{prefix}{int(number) - sum(layer < int(number) for layer in left_out)}.{rest}"
