"""The tracker families: each is one folder here and one name in `FAMILIES`.

The rest of the code asks this registry and knows no family. A folder's `FAMILY` (see `base.Family`) is imported when
it is asked for, and imports PyTorch only when it builds a model.
"""

from functools import cache
from importlib import import_module

from .base import Family

FAMILIES = ("ostrack", "vittrack", "mixformerv2", "odtrack", "sutrack", "seqtrack")
"""The names; the first is what `compresstracker` compresses where the yaml names none."""


@cache
def get_family(name: str) -> Family:
    """The family of a name in `FAMILIES`."""
    return import_module(f".{name}", __name__).FAMILY


__all__ = ["FAMILIES", "Family", "get_family"]
