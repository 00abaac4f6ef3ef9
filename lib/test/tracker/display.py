"""A window on the screen, where there is one."""

import os
import re
import sys
from contextlib import suppress

import cv2
import numpy as np

LARGEST = (1280, 800)
"""Width and height in pixels that a window has at first, at the most."""
ENLARGED = 2
"""How many times its own size a small frame has at first."""


def can_display() -> bool:
    """Whether this OpenCV has windows (the headless package has none) and there is a screen to show them on."""
    if re.search(r"^\s*GUI:\s+NONE", cv2.getBuildInformation(), re.MULTILINE):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Display:
    """One resizable window for RGB uint8 frames; the first frame gives it its size, within what suits a screen."""

    def __init__(self, title: str):
        self._title = title
        self._sized = self._was_visible = False
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(self, image: np.ndarray) -> str:
        """Show a frame; the key that was pressed meanwhile, or an empty string."""
        cv2.imshow(self._title, self._prepared(image))
        return self.refresh()

    def refresh(self) -> str:
        """Let the window draw itself and take what the user does; the key that was pressed, q where the window was
        closed, or an empty string."""
        key = cv2.waitKey(1)
        if key >= 0:
            return chr(key & 0xFF)
        visible = self._is_visible()
        closed, self._was_visible = self._was_visible and not visible, visible    # some systems never tell
        return "q" if closed else ""

    def select(self, image: np.ndarray) -> list[float] | None:
        """Let the user draw a box: [x, y, w, h] in pixels, or None when the user gave none."""
        box = cv2.selectROI(self._title, self._prepared(image), fromCenter=False)
        return [float(v) for v in box] if box[2] > 0 and box[3] > 0 else None

    def close(self) -> None:
        """Take the window away."""
        with suppress(cv2.error):     # the user has closed it
            cv2.destroyWindow(self._title)

    def _prepared(self, image: np.ndarray) -> np.ndarray:
        """The frame as OpenCV shows it; the first gives the window its size."""
        if not self._sized:
            self._sized = True
            height, width = image.shape[:2]
            scale = min(*(most / side for most, side in zip(LARGEST, (width, height), strict=True)), ENLARGED)
            cv2.resizeWindow(self._title, round(scale * width), round(scale * height))
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)

    def _is_visible(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) > 0
        except cv2.error:             # Qt does not know a window that is gone
            return False
