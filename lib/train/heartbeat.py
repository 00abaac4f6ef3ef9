"""Noticing a process that is gone without a word: its machine lost power, the network is cut, or it hangs.

A process that dies closes its connections, and its launcher ends the others. Where neither happens, the others would
wait in their next collective operation for `COLLECTIVE_TIMEOUT`. So each process shows twelve times a minute that it
lives, and looks at the next one.
"""

import contextlib
import datetime
import logging
import os
import threading
from collections.abc import Iterator, Mapping

import torch.distributed as dist

from ..utils.errors import UserError
from .distributed import World
from .failures import record_failure

logger = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two signs of life."""

MISSED = 9
"""How many of its own beats a process waits for a sign of the next one. (Counting beats, not seconds, makes a pause of
the whole job harmless.)"""


@contextlib.contextmanager
def heartbeat(world: World, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """End this process with status 1 when the next one (by rank) gives no sign of life for about 45 seconds.

    Works through the store where the processes met (MASTER_ADDR, MASTER_PORT); alone, there is nobody to look at, and
    processes that met in another way are not watched.
    """
    if world.size == 1 or "MASTER_ADDR" not in environ:
        yield
        return
    store = dist.TCPStore(environ["MASTER_ADDR"], int(environ["MASTER_PORT"]), is_master=False, wait_for_workers=False,
                          timeout=datetime.timedelta(seconds=BEAT))
    next_rank, over, signs = (world.rank + 1) % world.size, threading.Event(), [0]
    talk = threading.Thread(target=_exchange, args=(store, world.rank, next_rank, over, signs), daemon=True)
    judge = threading.Thread(target=_judge, args=(next_rank, over, signs), daemon=True)
    talk.start()
    judge.start()
    try:
        yield
    finally:
        over.set()
        judge.join()


def _exchange(store: dist.Store, rank: int, next_rank: int, over: threading.Event, signs: list[int]) -> None:
    """Give signs of life, and count in `signs[0]` those of the next process; may hang where the store is lost."""
    seen = 0
    while True:
        try:
            store.add(f"alive/{rank}", 1)
            now = store.add(f"alive/{next_rank}", 0)
        except dist.DistError as error:
            logger.debug("no word from the store: %s", error)
        else:
            signs[0] += now != seen
            seen = now
        if over.wait(BEAT):
            return


def _judge(next_rank: int, over: threading.Event, signs: list[int]) -> None:
    """End this process when `signs[0]` stands still."""
    seen, missed = 0, 0
    while not over.wait(BEAT):
        missed = 0 if signs[0] != seen else missed + 1
        seen = signs[0]
        if missed >= MISSED:
            lost = UserError(f"process {next_rank} gives no sign of life: it hangs, or its machine or the first one is "
                             "lost; run the same command again to go on from the last saved state")
            if not record_failure(lost):
                logger.error("%s", lost)
            os._exit(1)
