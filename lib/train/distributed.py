"""Several processes that train one model: who am I, how do we agree, how do we part."""

import datetime
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..utils.device import pick_device
from ..utils.errors import UserError

logger = logging.getLogger(__name__)

COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=10)
"""How long a process waits for the others before it gives up: longer than writing a large checkpoint or tracking a
sequence takes, and the time after which a machine that is gone without a word is missed (gloo's and NCCL's own watch).
"""


@dataclass(frozen=True)
class World:
    """This process among all: its global rank, its rank on this machine, and the number of processes.

    `control` is a CPU group for small messages, so that agreeing never waits for a GPU.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    control: dist.ProcessGroup | None = None
    owns_group: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0

    def any(self, value: bool) -> bool:
        """Whether any process says yes; every process must ask at the same place and gets the same answer."""
        if self.size == 1:
            return value
        flag = torch.tensor([int(value)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.control)
        return bool(flag.item())

    def min(self, value: int) -> int:
        """The smallest number that any process gives."""
        if self.size == 1:
            return value
        number = torch.tensor([value])
        dist.all_reduce(number, op=dist.ReduceOp.MIN, group=self.control)
        return int(number.item())

    def sum(self, values: Tensor) -> Tensor:
        """Sum of the CPU tensor `values` over all processes (a new tensor)."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values, op=dist.ReduceOp.SUM, group=self.control)
        return values

    def sum_on_device(self, values: Tensor) -> Tensor:
        """Sum of `values`, which lie on the training device, over all processes (a new tensor); nothing waits."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    @torch.no_grad()
    def share_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the main process's values of `tensors`, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            values = tensor.contiguous()
            dist.broadcast(values, src=0)
            tensor.copy_(values)

    def share(self, value: object) -> object:
        """The main process's `value` (anything that pickles), on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier(group=self.control)

    def close(self, failed: bool = False) -> None:
        """Leave the process group, if `join_world` made it, so that none of its threads is at work when Python ends.

        A process that failed does not wait for what it has queued on its GPU; NCCL gives that up with the process.
        """
        if self.owns_group and dist.is_initialized() and not (failed and dist.get_backend() == "nccl"):
            dist.destroy_process_group()


def read_place(environ: Mapping[str, str] = os.environ) -> tuple[int, int, int]:
    """Rank, rank on this machine and number of the processes that torchrun (or another launcher) started.

    Raises:
        UserError: the launcher's environment variables are incomplete, or no numbers.
    """
    if environ.get("WORLD_SIZE", "1") == "1":
        return 0, 0, 1
    absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environ.get(name)]
    if absent:
        raise UserError(f"the environment has WORLD_SIZE={environ['WORLD_SIZE']}, but no {' and no '.join(absent)}; "
                        "start the processes with torchrun or --mode multiple, or unset WORLD_SIZE")
    try:
        rank, size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        return rank, int(environ.get("LOCAL_RANK", "0")), size
    except ValueError as error:
        raise UserError("RANK, LOCAL_RANK and WORLD_SIZE of the environment must be whole numbers; start the processes "
                        "with torchrun or --mode multiple") from error


def join_world(device: str, environ: Mapping[str, str] = os.environ) -> tuple[World, torch.device]:
    """Join the processes that torchrun started (RANK, LOCAL_RANK, WORLD_SIZE), or stand alone where it did not.

    CUDA processes talk through NCCL, CPU processes through gloo. `device` is `auto`, `cpu` or `cuda`; with several
    processes each takes the GPU of its local rank.

    Raises:
        UserError: fewer GPUs than processes, a device that is not there, or the other processes cannot be reached.
    """
    rank, local_rank, size = read_place(environ)
    if size == 1:
        return World(), pick_device(device)
    chosen = pick_device(device)
    if chosen.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                            "start as many processes as there are GPUs (--nproc_per_node), or use --device cpu")
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    owns_group = not dist.is_initialized()
    if owns_group:
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
        except (RuntimeError, ValueError) as error:  # RuntimeError: gloo's own, as DistError is the store's
            cause = str(error).partition("\n")[0]
            raise UserError(f"process {rank} of {size} cannot reach the others at {environ['MASTER_ADDR']}:"
                            f"{environ['MASTER_PORT']} ({cause}); check --ip, --port and --world-size (of torchrun: "
                            "--master-addr, --master-port and --nnodes), and the network interface where "
                            "GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names one") from error
    control = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT) if chosen.type == "cuda" else None
    return World(rank, local_rank, size, control, owns_group), chosen
