"""The schema as a page of documentation."""

from collections.abc import Mapping

from ..families import FAMILIES, get_family
from .schema import KEYS, Key, show

_INTRODUCTION = """# Configuration keys

<!-- written by docs/make_configuration.py from lib/config/schema.py and the families; do not edit -->

A run is `experiments/<script>/<config>.yaml` over the defaults below; a file states only what differs. Any key can be
set on the command line, `--set TRAIN.TOTAL_BATCH=64 --set "COMPRESS.STAGES=[2, 2, 6, 2]"`. An unknown key, a wrong
value or an impossible combination is an error before anything runs. All keys are saved as `config.yaml` beside every
run. The yaml files of the OSTrack and CompressTracker repositories load unchanged; keys marked *only* belong to parts
of that code that are not built here and accept just the value that they always had.
"""

_TITLES = {"MODEL": "The model", "STUDENT": "The student", "COMPRESS": "Compression", "TRAIN": "Training",
           "DATA": "Data", "TEST": "Test"}


def configuration_markdown() -> str:
    """The page as Markdown: one table for each top section, in the schema's order."""
    parts = [_INTRODUCTION]
    for section, title in _TITLES.items():
        parts.append(_table(title, {name: key for name, key in KEYS.items() if name.startswith(section + ".")}))
    for family in map(get_family, FAMILIES):
        if family.keys:
            parts.append(_table(f"{family.title} only", family.keys))
        if family.aliases:
            names = ", ".join(f"`{alias}` is `{name}`" for alias, name in family.aliases.items())
            parts.append(f"Other names in its official files: {names}.\n")
    return "\n".join(parts)


def _table(title: str, keys: Mapping[str, Key]) -> str:
    rows = [f"| `{name}` | `{show(key.default)}` | {_cell(key.allowed())} | {_cell(key.doc)} |"
            for name, key in keys.items()]
    return "\n".join([f"## {title}", "", "| key | default | allowed | meaning |", "|---|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    """Text that is safe in a Markdown table."""
    return text.replace("|", r"\|").replace("<", "&lt;").replace(">", "&gt;")
