"""A window on the screen, where there is one."""

import os
import re
import sys

import cv2
import numpy as np


def can_display() -> bool:
    """Whether this OpenCV has windows (the headless package has none) and there is a screen to show them on."""
    if re.search(r"^\s*GUI:\s+NONE", cv2.getBuildInformation(), re.MULTILINE):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Display:
    """One resizable window for RGB uint8 frames."""

    def __init__(self, title: str):
        self._title = title
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(self, image: np.ndarray) -> str:
        """Show a frame; the key that was pressed meanwhile, or an empty string."""
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return self.refresh()

    def refresh(self) -> str:
        """Let the window draw itself and take what the user does; the key that was pressed, or an empty string."""
        key = cv2.waitKey(1)
        return chr(key & 0xFF) if key >= 0 else ""

    def select(self, image: np.ndarray) -> list[float] | None:
        """Let the user draw a box: [x, y, w, h] in pixels, or None when the user gave none."""
        box = cv2.selectROI(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), fromCenter=False)
        return [float(v) for v in box] if box[2] > 0 and box[3] > 0 else None

    def close(self) -> None:
        """Take the window away."""
        cv2.destroyWindow(self._title)
