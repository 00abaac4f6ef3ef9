"""Which stored results belong to which sequences: names as other toolkits write them.

UAV123's `uav_bike1` is `bike1` to some, OTB's `Jogging_1` is `jogging-1` or `Jogging.1`, and some put the benchmark's
name before all of them (`otb_Basketball`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from ..evaluation.benchmarks import ALIASES, BENCHMARKS, VIDEO_NAMES


def match_names(wanted: Sequence[str], stored: Iterable[str], dataset: str, exact: bool = False
                ) -> dict[str, list[str]]:
    """Wanted name -> the stored names that can mean it and nothing else; without those that nothing stored can mean.

    Names that are equal come first. Of the rest, those are matched that differ in case and in the separators . - _ and
    space only, then those that differ in a benchmark's name before them too, and last those of a sequence that is the
    only one of its video and called like the video (OTB's `Human4` for `Human4_2`). More than one stored name for a
    wanted one is an ambiguity, for the caller to refuse. A stored name that several wanted ones could mean is given to
    none.

    Args:
        dataset: of the wanted names, as in `Sequence.dataset`; known benchmarks take only prefixes of their own.
        exact: equal names only.
    """
    videos = VIDEO_NAMES.get(dataset, {})
    forms: list[Callable[[str], str]] = [
        str, plain_name, lambda name: _without_prefix(plain_name(name), dataset),
        lambda name: _without_prefix(plain_name(videos.get(name, name)), dataset)]
    matches: dict[str, list[str]] = {}
    wanted, stored = list(wanted), list(stored)
    for form in forms[:1] if exact else forms:
        by_form: dict[str, list[str]] = {}
        for name in stored:
            by_form.setdefault(form(name), []).append(name)
        times = Counter(map(form, wanted))
        for name in list(wanted):
            key = form(name)
            if key in by_form and times[key] == 1:
                matches[name] = by_form[key]
                wanted.remove(name)
        used = {name for names in matches.values() for name in names}
        stored = [name for name in stored if name not in used]
        if not stored or not wanted:
            break
    return matches


def plain_name(name: str) -> str:
    """A name in lower case with one kind of separator."""
    return re.sub(r"[\s._-]+", "_", name.lower())


def _without_prefix(name: str, dataset: str) -> str:
    """A plain name without a benchmark's name before it."""
    prefix = next((prefix for prefix in _prefixes(_family(dataset)) if name.startswith(prefix)), "")
    return name[len(prefix):] or name


@cache
def _prefixes(family: str) -> list[str]:
    """What names may begin with, longest first: names of a family of benchmarks, or of all if it is none of them."""
    names = {*BENCHMARKS, *ALIASES}
    own = {name for name in names if _family(name) == family}
    return sorted((f"{plain_name(name)}_" for name in own or names), key=len, reverse=True)


def _family(dataset: str) -> str:
    """The letters that a data set's name begins with: `uav` of `uav123`; of `folder:...` nothing that names one."""
    return re.match(r"[a-z]*", dataset.lower())[0]
