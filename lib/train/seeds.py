"""Seeds for every random choice of a step, derived from its place in the run.

Nothing random is carried from one step to the next: stage draws, drop path and PyTorch's own generators are seeded anew
before each step. So a run that stops anywhere continues exactly, with no generator state to keep.
"""

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed of 32 bits that depends on all `parts` (the same on every machine and Python)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed PyTorch's generators, on all devices, for one step of one process."""
    torch.manual_seed(derive_seed("step", seed, epoch, step, rank))


def draw_generator(seed: int, epoch: int, step: int, unit: int | None = None) -> torch.Generator:
    """The CPU generator that draws a step's stages: one for the whole batch, or (with its number) for each unit of it.

    A unit is what one process works on in one pass.
    """
    parts = ("draws", seed, epoch, step) if unit is None else ("draws", seed, epoch, step, unit)
    return torch.Generator().manual_seed(derive_seed(*parts))


def path_generator(seed: int, epoch: int, step: int, use: str) -> torch.Generator:
    """The CPU generator that draws a step's drop path, the same on all processes; `use` tells kinds of passes apart."""
    return torch.Generator().manual_seed(derive_seed("paths", seed, epoch, step, use))
