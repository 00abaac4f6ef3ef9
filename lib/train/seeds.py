"""Seeds for every random choice of a step, derived from its place in the run.

Nothing random is carried from one step to the next: the stage draws and PyTorch's own generator (drop path) are seeded
anew before each step. So a run that stops anywhere continues exactly, with no generator state to keep.
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


def draw_generator(seed: int, epoch: int, step: int, rank: int | None = None) -> torch.Generator:
    """The CPU generator that draws a step's stages: the same on all processes, or (with `rank`) each its own."""
    parts = ("draws", seed, epoch, step) if rank is None else ("draws", seed, epoch, step, rank)
    return torch.Generator().manual_seed(derive_seed(*parts))
