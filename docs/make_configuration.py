"""Write docs/configuration.md from the configuration schema: `python docs/make_configuration.py`."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lib.config.document import configuration_markdown  # noqa: E402
from lib.utils.files import write_text  # noqa: E402
from lib.utils.log import run_script  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "configuration.md", help="default: %(default)s")
    write_text(parser.parse_args().output, configuration_markdown())


if __name__ == "__main__":
    run_script(main)
