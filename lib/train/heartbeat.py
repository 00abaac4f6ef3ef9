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

from lib.train.distributed import World
from lib.train.failures import record_failure
from lib.utils.errors import UserError

logger = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two signs of life."""

MISSED = 9
"""How many of its own beats a process waits for a sign of the next one. (Counting beats, not seconds, makes a pause of
the whole job harmless.)"""


@contextlib.contextmanager
def heartbeat(world: World, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """End this process with status 1 when the next one (by rank) gives no sign of life for about 45 seconds.

    Works through the store where the processes met (MASTER_ADDR, MASTER_PORT); alone, there is nobody to look at.
    """
    if world.size == 1:
        yield
        return
    store = dist.TCPStore(environ["MASTER_ADDR"], int(environ["MASTER_PORT"]), is_master=False, wait_for_workers=False,
                          timeout=datetime.timedelta(seconds=BEAT))
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=(store, world, over), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _beat(store: dist.Store, world: World, over: threading.Event) -> None:
    """What the thread does."""
    mine, other = (f"alive/{rank}" for rank in (world.rank, (world.rank + 1) % world.size))
    seen, missed, began = 0, 0, False
    while not over.wait(BEAT):
        try:
            store.add(mine, 1)
            now = store.add(other, 0)
        except dist.DistError as error:
            logger.debug("no word from the store: %s", error)
            now = seen
        began = began or now != seen
        missed = 0 if now != seen else missed + 1
        seen = now
        if began and missed >= MISSED:
            lost = UserError(f"process {(world.rank + 1) % world.size} gives no sign of life, its machine may be lost; "
                             "run the same command again to go on from the last saved state")
            record_failure(lost)
            logger.error("%s", lost)
            os._exit(1)
