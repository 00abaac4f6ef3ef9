"""The documentation is true: links lead somewhere, commands and keys exist, quoted messages are the code's."""

import argparse
import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from lib.config import list_configs, load_config, schema_of
from lib.families import FAMILIES
from lib.models.checkpoint import run_folder, slim_name
from lib.pipeline.ladder import Ladder
from lib.test.tracker.choice import OPENCV, parse_tracker
from lib.test.tracker.opencv import KINDS
from lib.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "pretrained_models/README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
EXECUTED = "docs/new_tracker.md"
"""A page about files of its own, which tests/test_new_tracker.py makes and runs."""
BUILT = ("data/", "output/", "output", "pretrained_models/", ".venv")


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text(name), flags=re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line of a bash block and of every code span that is a command."""
    found = []
    for name in (name for name in NAMES if name != EXECUTED):
        blocks = re.findall(r"^```bash\n(.*?)^```", text(name), flags=re.MULTILINE | re.DOTALL)
        lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`((?:python|bash) [^`]+)`", prose(name))
        found += [(name, " ".join(line.split())) for line in lines if line.strip()]
    return list(dict.fromkeys(found))


COMMANDS = commands()


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_and_pictures_exist(name):
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", text(name))
    for link in links:
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(file), f"{name}: no heading for {link}"


@pytest.mark.parametrize("name", NAMES)
def test_no_marker_is_left(name):
    assert re.findall(r"@@\w+@@", text(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_keys_exist(name):
    for key in set(re.findall(r"\b(?:MODEL|COMPRESS|TRAIN|DATA|TEST)(?:\.[A-Z][A-Z0-9_]*)+", text(name))):
        known = any(key in schema or key in schema.sections or key in schema.aliases
                    for schema in map(schema_of, FAMILIES))
        assert known or (name == EXECUTED and f'"{key}": Key(' in text(name)), f"{name}: {key}"


@pytest.mark.parametrize("name", NAMES)
def test_files_exist(name):
    spans = re.findall(r"`((?:lib|tracking|experiments|docs|tests)/[\w./]+)`", prose(name))
    missing = [span for span in spans if not span.endswith("local.py") and f"`{span}`:\n\n```" not in text(name)
               and not any((ROOT / path).exists() for path in (span, f"{span}.yaml"))]
    assert missing == []


def test_configurations_exist():
    """Names such as compresstracker_vitb_256_{2,3}, and in paths of checkpoints the epoch that is tested."""
    known = {name: script for script in ("ostrack", "compresstracker") for name in list_configs(script)}
    shown = set(re.findall(r"\b(?:compresstracker_)?vitb_\w*\{?[\w,{}]*", " ".join(map(text, NAMES))))
    assert len(shown) > 5
    for pattern in shown:
        head, brace, rest = pattern.partition("{")
        numbers, _, tail = rest.partition("}")
        for name in [f"{head}{number}{tail}" for number in numbers.split(",")] if brace else [pattern]:
            assert name in known, pattern
    for name in (name for name in NAMES if name != EXECUTED):
        for script, config, epoch in re.findall(r"train/(\w+)/(\w+)/\w+_ep(\d{4})\.pth\.tar", text(name)):
            assert load_config(script, config).TEST.EPOCH == int(epoch), f"{name}: {config}"


# ---------------------------------------------------------------- commands

class Parsed(Exception):
    """Carries what a script's parser made of a command."""


@cache
def script_module(path: Path):
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parse(monkeypatch):
    """Run a Python script's `main` up to its parser: the options of a command line, or SystemExit."""
    original = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        raise Parsed(original(self, args, namespace))

    def run(words):
        path = ROOT / words[0]
        assert path.is_file(), f"no script {words[0]}"
        module = script_module(path)
        with monkeypatch.context() as patch, pytest.raises(Parsed) as parsed:
            patch.setattr(argparse.ArgumentParser, "parse_args", stop)
            patch.setattr(sys, "argv", words)
            if hasattr(module, "main"):
                module.main()
            else:
                module.script(module.SERVERS[path.stem.removeprefix("transform_")])
        return parsed.value.args[0]

    return run


PYTHON = [(name, line) for name, line in COMMANDS if line.startswith("python ")]


def test_commands_are_found():
    scripts = {line.split()[1] for _, line in PYTHON}
    assert {f"tracking/{path.name}" for path in (ROOT / "tracking").glob("*.py")} <= scripts


@pytest.mark.parametrize(("name", "line"), PYTHON)
def test_python_commands_are_understood(name, line, parse, capsys):
    words = shlex.split(line, comments=True)
    try:
        options = vars(parse(words[1:]))
    except SystemExit:
        pytest.fail(f"{name}: {line}\n{capsys.readouterr().err}")
    script = options.get("script") or options.get("tracker_name") or "compresstracker"      # of ladders
    config = options.get("config") or options.get("tracker_param") or options.get("cfg_name")
    trackers = [parse_tracker(word)[1] for word in options.get("trackers", ())]
    named = [(tracker.tracker_name, tracker.tracker_param) for tracker in trackers] or [(script, config)]
    for script, config in named:
        if script == OPENCV:
            assert config in KINDS
        elif config:
            assert load_config(script, config, options.get("overrides") or ()).name == config
    for option in ("teacher", "recipe", "reference"):
        if "/" in (options.get(option) or ""):
            load_config(*options[option].split("/"))
    assert (ROOT / options.get("ladder", "")).exists()


def test_options_are_told_without_pytorch():
    """Its import takes seconds, which is too long for a `--help` or a misspelt option."""
    code = ("import runpy, sys\nfor path in sys.argv[1:]: runpy.run_path(path, run_name='a script')\n"
            "print(*{'torch', 'matplotlib'} & set(sys.modules))")
    scripts = [*(ROOT / "tracking").glob("*.py"), *(ROOT / "lib/test/utils").glob("transform_*.py")]
    done = subprocess.run([sys.executable, "-c", code, *map(str, scripts)], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(("name", "line"), [command for command in COMMANDS if "install.sh" in command[1]])
def test_install_commands_are_understood(name, line):
    known = re.findall(r"(--\w+)", re.search(r"^usage: (.*)$", text("install.sh"), flags=re.MULTILINE)[1])
    options = [word for word in shlex.split(line.split(" -- ")[0], comments=True) if word.startswith("--")]
    assert set(options) <= {*known, "--help"}, f"{name}: {line}"


# ---------------------------------------------------------------- messages and figures

@cache
def spoken() -> list[str]:
    """Every text in the code, with a gap where a value is put in."""
    texts = [text("install.sh").replace("\\\n", "")]
    for file in [*(ROOT / "lib").rglob("*.py"), *(ROOT / "tracking").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
    return texts


def troubles() -> list[str]:
    """The messages that are explained."""
    return re.findall(r"^\| `(.+?)` \|", text("docs/troubleshooting.md"), flags=re.MULTILINE)


def test_there_are_troubles():
    assert len(troubles()) > 15


@pytest.mark.parametrize("message", troubles())
def test_explained_messages_are_the_codes(message):
    pattern = re.compile(".*?".join(map(re.escape, message.split("…"))), flags=re.DOTALL)
    assert any(pattern.search(words) for words in spoken()), message


def test_the_figures_can_be_drawn(tmp_path):
    module = script_module(ROOT / "docs" / "make_figures.py")
    module.main(["--output", str(tmp_path)])
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in (ROOT / "docs" / "figures").glob("*.png"))
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_the_curves_of_trainings_can_be_drawn(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    module = script_module(ROOT / "docs" / "draw_curves.py")
    for seed in (0, 1):
        with SummaryWriter(str(tmp_path / f"seed{seed}" / "tensorboard" / "train")) as writer:
            for epoch in (2, 4, 4):         # epoch 4 was done twice
                writer.add_scalar("IoU/val", 0.1 * epoch + seed, epoch)
            writer.add_scalar("AUC/track", 50 + seed, 4)
            writer.add_scalar("Loss/total/val", 1, 4)
    curves = module.read_curves(tmp_path / "seed1")
    assert curves == {"IoU/val": {2: pytest.approx(1.2), 4: pytest.approx(1.4)}, "AUC/track": {4: 51}}

    module.main([f"student={tmp_path / 'seed0'}", f"student={tmp_path / 'seed1'}",
                 "--output", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with SummaryWriter(str(tmp_path / "once" / "tensorboard")) as writer:
        writer.add_scalar("IoU/val", 0.5, 2)
    with pytest.raises(UserError, match="validated twice"):
        module.main([f"a={tmp_path / 'once'}", "--output", str(tmp_path / "none.png")])
    with pytest.raises(UserError, match="one training .* has those of 3"):
        module.read_curves(tmp_path)


def test_hybrids_of_a_ladder_that_is_not_trained_are_an_error(tmp_path, monkeypatch):
    module = script_module(ROOT / "docs" / "measure_hybrids.py")
    monkeypatch.setattr(sys, "argv", ["measure_hybrids.py", "experiments/ladders/replacement.yaml", "--output",
                                      str(tmp_path)])
    with pytest.raises(UserError, match="no run of .*replacement.yaml is trained"):
        module.main()


def test_hybrids_with_a_student_of_another_width_are_an_error(tmp_path, monkeypatch):
    """The bridges it was trained with are not kept, so what others would give is no measurement."""
    module, path = script_module(ROOT / "docs" / "measure_hybrids.py"), "experiments/ladders/students.yaml"
    cfg = Ladder.read(path).load("width_64", 0)
    folder = run_folder(tmp_path / "runs" / "width_64_seed0", cfg.script, cfg.name)
    folder.mkdir(parents=True)
    (folder / slim_name(cfg.title, cfg.TRAIN.EPOCH)).touch()
    monkeypatch.setattr(sys, "argv", ["measure_hybrids.py", path, "--output", str(tmp_path)])
    with pytest.raises(UserError, match="width_64: .*lacks its bridges"):
        module.main()
