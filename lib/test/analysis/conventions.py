"""What the published analysis codes do beyond the formulas: frames without a target, first frames, averages.

docs/evaluation.md sets the conventions side by side. Sources, read for their rules only:
    ostrack     lib/test/analysis/extract_results.py of GitHub botaoye/OSTrack (33b5e12); CompressTracker's is the same
    pytracking  pytracking/analysis/extract_results.py of GitHub visionml/pytracking
    got10k      got10k/experiments/got10k.py and got10k/utils/metrics.py of GitHub got-10k/toolkit (956e728)
    lasot       utils/calc_seq_err_robust.m and utils/eval_tracker.m of GitHub HengLan/LaSOT_Evaluation_Toolkit
                (95bf38a)
"""

from dataclasses import dataclass, replace

from ...utils.errors import UserError

MISS = float("inf")
HIT = 0.0


@dataclass(frozen=True)
class Convention:
    """The rules of one analysis code on one kind of benchmark.

    The prediction of the first frame is never judged: the tracker was given that box. It counts as a perfect frame,
    or, with `skip_first`, not at all.

    Attributes:
        name: what `--convention` calls it.
        summary: one line for reports.
        skip_first: leave the first frame out of everything.
        use_visible: flags of hidden targets say which frames have a target; otherwise only the annotated box does.
        positive_corner: a box whose left or top edge is not above 0 counts as not annotated.
        count_absent: frames without a target stay in the denominator of the curves (their overlap never counts).
        absent_error: centre error given to a frame without a target: infinite is a miss, 0 a hit.
        absent_normalized: the same for the normalised error.
        unseen_is_miss: frames marked as not visible are misses in both precision curves whatever the two above say.
        repair: a prediction with NaN, infinity or a negative side takes the place of the one before it, as one without
            area does under every convention. False: it is refused.
        hold_over_absent: this holds in frames without an annotation too. False: a prediction without area stays as it
            is there, and later ones repeat it.
        clip: predictions and annotations are clipped to the image, where its size is known.
        pooled: curves, AO, SR50 and SR75 are taken over all frames of the benchmark; otherwise they are means over
            sequences.
    """

    name: str
    summary: str
    skip_first: bool = False
    use_visible: bool = True
    positive_corner: bool = False
    count_absent: bool = True
    absent_error: float = MISS
    absent_normalized: float = HIT
    unseen_is_miss: bool = False
    repair: bool = False
    hold_over_absent: bool = True
    clip: bool = False
    pooled: bool = False


CONVENTIONS = {
    convention.name: convention for convention in (
        Convention("ostrack", "OSTrack's analysis: frames without a target count as misses, but as hits in the "
                              "normalised precision"),
        Convention("pytracking", "PyTracking's analysis: as OSTrack's, and a box whose left or top edge is not above 0 "
                                 "counts as no target", positive_corner=True),
        Convention("got10k", "GOT-10k toolkit: over all frames together, frames without a target and first frames left "
                             "out, boxes clipped to the image where its size is known",
                   skip_first=True, count_absent=False, absent_normalized=MISS, clip=True, pooled=True),
        Convention("got10k_first", "as the GOT-10k toolkit, but first frames count as hits and boxes are not clipped",
                   count_absent=False, absent_normalized=MISS, pooled=True),
        Convention("lasot", "LaSOT toolkit: frames with a hidden target count as misses, other frames without a box "
                            "as hits in both precision curves; invalid predictions repeat the one before",
                   positive_corner=True, absent_error=HIT, unseen_is_miss=True, repair=True),
        Convention("plain", "frames without a target are left out, every score is a mean over sequences",
                   count_absent=False, absent_normalized=MISS),
    )
}
"""Conventions by name, as they are on a benchmark that the code makes no exception for."""

_EXCEPTIONS = {
    "lasot": {"unseen_is_miss": True,
              "summary": "{} analysis of LaSOT: frames without a visible target count as misses{}"},
    "uav": {"absent_error": HIT, "hold_over_absent": False,
            "summary": "{} analysis of UAV123: frames without a target count as misses in the success curve, as hits "
                       "in both precision curves{}"},
    "got10k": {"use_visible": False,
               "summary": "{} analysis of GOT-10k: the flags of hidden targets are not used{}"},
}
"""What OSTrack's and PyTracking's codes do differently on some benchmarks."""

_OWNERS = {"ostrack": ("OSTrack's", ""),
           "pytracking": ("PyTracking's", "; a box whose left or top edge is not above 0 counts as no target")}
_BY_DATASET = {"got10k": "got10k", "folder": "plain"}


def _family(dataset: str) -> str:
    """The kind of a data set, from the beginning of its name (lasot_test, uav123, got10k_val, folder:...); or ''.

    LaSOT's extension is another data set, of which the codes make no exception.
    """
    name = dataset.lower()
    if name.startswith("lasot_ext"):
        return ""
    return next((family for family in ("lasot", "uav", "got10k", "folder") if name.startswith(family)), "")


def convention_for(dataset: str, name: str | None = None) -> Convention:
    """The convention called `name` as it is on a data set, by default the one that the data set is scored with.

    Raises:
        UserError: there is none of that name.
    """
    family = _family(dataset)
    convention = get_convention(name or _BY_DATASET.get(family, "ostrack"))
    if convention.name not in _OWNERS or family not in _EXCEPTIONS:
        return convention
    exception = _EXCEPTIONS[family]
    return replace(convention, **exception | {"summary": exception["summary"].format(*_OWNERS[convention.name])})


def get_convention(name: str) -> Convention:
    """A convention by its own name, without the exceptions for some data sets.

    Raises:
        UserError: there is none of that name.
    """
    if name not in CONVENTIONS:
        raise UserError(f"unknown convention {name!r}; choose one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
