"""Averages of a step's statistics, kept on the device until somebody wants to read them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...utils.errors import UserError
from ..distributed import World


class StatSums:
    """Sums of named 0-dim statistics. Adding never waits for the device; `take` reads all with one transfer.

    The steps' losses and gradients are watched as well: `take` tells the first step with one that was not finite.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._reset()

    def _reset(self) -> None:
        self._on_device: dict[tuple[str, ...], tuple[Tensor, int]] = {}
        self._on_host: dict[str, list[float]] = {}
        self._bad_step: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was added since the last `take`."""
        return not self._on_device and not self._on_host

    def add(self, stats: Mapping[str, Tensor | float], weight: int = 1) -> None:
        """Add one step's values, `weight` times (tensors on the device stay there; other numbers are summed here)."""
        names, values = [], []
        for name, value in stats.items():
            if isinstance(value, Tensor) and value.device.type == self._device.type:
                names.append(name)
                values.append(value.detach().reshape(()).float())
            else:
                merge(self._on_host, {name: [float(value) * weight, weight]})
        if names:
            key, total = tuple(names), torch.stack(values) * weight
            previous, count = self._on_device.get(key, (None, 0))
            self._on_device[key] = (total if previous is None else previous + total, count + weight)

    def watch(self, loss: Tensor, step: int) -> None:
        """Remember `step` if `loss` (0-dim) is the first that is NaN or infinite since the last `take`."""
        self._note(loss, step)

    def watch_gradient(self, norm: Tensor, step: int) -> None:
        """The same for the norm of a step's gradient, which all processes have in common; it counts as half a step
        later, so that the process whose loss was bad is named."""
        self._note(norm, step + 0.5)

    def _note(self, value: Tensor, step: float) -> None:
        value = value.detach().reshape(())
        bad = torch.full((), step, dtype=torch.float64, device=value.device)
        unset = torch.full_like(bad, -1)
        now = torch.where(torch.isfinite(value), unset, bad)
        self._bad_step = now if self._bad_step is None else torch.where(self._bad_step < 0, now, self._bad_step)

    def take(self) -> tuple[dict[str, list[float]], float | None]:
        """`name -> [sum, count]` since the last call and the first bad step or None; starts again from nothing."""
        sums = self._on_host
        for names, (total, count) in self._on_device.items():
            merge(sums, {name: [value, count] for name, value in zip(names, total.tolist(), strict=True)})
        bad = -1 if self._bad_step is None else float(self._bad_step)
        self._reset()
        return sums, None if bad < 0 else bad


def sum_up(totals: dict[str, list[float]], bad_step: float | None, world: World
           ) -> tuple[dict[str, list[float]], int | None, int]:
    """Sums over all processes of what `StatSums.take` gives on each, and the first bad step of any with its rank.

    Raises:
        UserError: the processes have different statistics.
    """
    if world.size == 1:
        return totals, None if bad_step is None else int(bad_step), 0
    names = world.share(list(totals))
    if world.any(set(names) != set(totals)):
        raise UserError(f"the processes report different statistics (here {sorted(totals)}); "
                        "start them all with the same configuration and the same version")
    values = torch.tensor([totals[name] for name in names], dtype=torch.float64).reshape(-1, 2)
    bad_steps = torch.zeros(world.size, dtype=torch.float64)
    bad_steps[world.rank] = 0 if bad_step is None else bad_step + 1
    flat = world.sum(torch.cat([values.flatten(), bad_steps]))
    failures = [(step - 1, rank) for rank, step in enumerate(flat[values.numel():].tolist()) if step > 0]
    first, rank = min(failures, default=(None, 0))
    summed = dict(zip(names, flat[:values.numel()].reshape(-1, 2).tolist(), strict=True))
    return summed, None if first is None else int(first), rank


def merge(total: dict[str, list[float]], stats: Mapping[str, list[float]]) -> None:
    """Add the sums and counts of `stats` to `total`, in place."""
    for name, (value, count) in stats.items():
        entry = total.setdefault(name, [0.0, 0])
        entry[0] += value
        entry[1] += count


def means(sums: Mapping[str, list[float]]) -> dict[str, float]:
    """The averages of `name -> [sum, count]`."""
    return {name: value / count for name, (value, count) in sums.items() if count}


def format_stats(averages: Mapping[str, float]) -> str:
    """`p 0.500, Loss/total 1.234, ..., IoU 0.71`: p first, losses in their order, IoU last."""
    parts = [f"p {averages['p']:.3f}"] if "p" in averages else []
    parts += [f"{name} {value:.4g}" for name, value in averages.items() if name not in ("p", "IoU")]
    if "IoU" in averages:
        parts.append(f"IoU {averages['IoU']:.3f}")
    return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """`1:02:03`, with days in front where there are any."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}d {hour}:{minute:02d}:{second:02d}" if days else f"{hour}:{minute:02d}:{second:02d}"
