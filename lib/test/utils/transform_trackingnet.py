#!/usr/bin/env python
"""Pack results for the TrackingNet server:
python lib/test/utils/transform_trackingnet.py --tracker_name compresstracker --cfg_name compresstracker_vitb_256_4"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from lib.test.utils.packing import SERVERS, script  # noqa: E402
from lib.utils.log import run_script  # noqa: E402

if __name__ == "__main__":
    run_script(lambda: script(SERVERS["trackingnet"]))
