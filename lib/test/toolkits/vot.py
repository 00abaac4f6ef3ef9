"""The tracker as a server of the VOT toolkit, which speaks TraX over standard input and output.

TraX: Cehovin Zajc, "TraX: The visual Tracking eXchange Protocol and Library", Neurocomputing 2017 (votchallenge/trax,
package `vot-trax`); the toolkit: votchallenge/toolkit.
"""

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...utils.errors import UserError
from ...utils.files import ROOT
from ...utils.images import read_rgb

if TYPE_CHECKING:
    from ..tracker import Tracker

logger = logging.getLogger(__name__)


def serve(tracker: "Tracker", name: str) -> int:
    """Track what the toolkit sends, one sequence after the other, until it says that it is done.

    One target at a time, given as a rectangle (the toolkit's side of the protocol turns polygons and masks into their
    bounding boxes), in RGB frames that are files. Answers are rectangles in pixels with the property `confidence`, the
    tracker's score.

    Args:
        tracker: with `initialize(image, box_xywh)` and `track(image)`.
        name: what the tracker is called there.

    Returns:
        Number of frames answered.

    Raises:
        UserError: the package is missing, nothing at the other end speaks TraX, or a frame cannot be read or tracked.
            The toolkit is told the reason.
    """
    trax = _trax()
    try:
        server = trax.server.Server([trax.Region.RECTANGLE], [trax.Image.PATH], ["color"], tracker_name=name,
                                    tracker_family="CompressTracker")
    except trax.TraxException as error:
        raise UserError(f"no VOT toolkit at the other end ({error})") from error
    frames = 0
    try:
        while True:
            request = server.wait()
            if request.type == trax.TraxStatus.QUIT:
                break
            image = read_rgb(request.image["color"].path())
            if request.type == trax.TraxStatus.INITIALIZE:
                (target, _), = request.objects
                box, properties = target.bounds(), {}
                tracker.initialize(image, box)
            else:
                result = tracker.track(image)
                box, properties = result.box_xywh, {"confidence": result.score}
            server.status([(trax.Rectangle.create(*box), properties)])
            frames += 1
    except trax.TraxException as error:
        raise UserError(f"the VOT toolkit is gone after {frames} frames ({error})") from error
    except Exception as error:
        server.quit(f"{type(error).__name__}: {error}")
        raise
    server.quit()
    return frames


def trackers_ini(label: str, script: str, config: str, options: Mapping[str, Any]) -> str:
    """An entry for the toolkit's `trackers.ini` that starts `tracking/vot_tracker.py` with this Python.

    Args:
        label: the tracker's name; letters, numbers, `-` and `_`.
        script, config: the configuration.
        options: option without `--` -> value, a list of values, or None to leave it out; paths must be absolute, since
            the toolkit starts the tracker in a folder of its own.

    Raises:
        UserError: the toolkit does not accept the label.
    """
    if not label or not all(letter.isalnum() or letter in "-_" for letter in label):
        raise UserError(f"the label {label!r} cannot name a tracker of the VOT toolkit; use letters, numbers, - and _")
    command = [sys.executable, str(ROOT / "tracking" / "vot_tracker.py"), script, config]
    for option, value in options.items():
        values: Sequence[Any] = value if isinstance(value, list) else [] if value is None else [value]
        command += [part for item in values for part in (f"--{option}", str(item))]
    return f"[{label}]\nlabel = {label}\nprotocol = trax\ncommand = {shlex.join(command)}\n"


def _trax() -> Any:
    """The package of the protocol.

    Raises:
        UserError: it is not installed.
    """
    try:
        import trax
        import trax.server
    except (ImportError, OSError) as error:  # OSError: its native library does not load
        raise UserError(f"the VOT toolkit needs the package vot-trax ({error}): pip install vot-trax") from error
    return trax
