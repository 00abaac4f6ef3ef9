"""install.sh and the files that name versions. Nothing is installed: a stub stands for the environment's Python."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")

PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[\w.+]+)(; python_version (?P<side>>=|<) \"3\.11\")?"
                 r"(; sys_platform == \"linux\" and platform_machine == \"x86_64\")?$")

# Writes each call to calls.txt; answers what would install, test or reach the network; the rest is the real Python.
STUB = """#!/usr/bin/env bash
echo "$*" >>"$PWD/calls.txt"
case "$*" in
    *sys.prefix*) echo "$PWD/.venv" ;;
    "-m pip install"*) exit "${PIP_STATUS:-0}" ;;
    "-m pip show"* | "-m pip uninstall"*) exit 1 ;;
    "-m pytest"*) exit 7 ;;
    "-c import sys, torch"*) exit 1 ;;
    "tracking/quickstart.py"*) echo "the quickstart ran" ;;
    "-") echo "imports checked"; exit "${CHECK_STATUS:-0}" ;;
    "- https://"*) echo "no route"; exit 1 ;;
    *) exec "REAL" "$@" ;;
esac
"""


def pins(root):
    """[(name, version, side of Python 3.11 or None)] of requirements.txt."""
    lines = [line.partition("#")[0].strip() for line in (root / "requirements.txt").read_text().splitlines()]
    matches = [(line, PIN.match(line)) for line in lines if line]
    assert all(match for _, match in matches), [line for line, match in matches if not match]
    return [(match["name"], match["version"], match["side"]) for _, match in matches]


def numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version))


@pytest.fixture
def checkout(root, tmp_path):
    """A copy of the set-up files with a stub in .venv, and a function that runs a script of it from elsewhere."""
    folder = tmp_path / "check out"
    (folder / ".ci").mkdir(parents=True)
    for name in ("install.sh", ".ci/run"):
        shutil.copy(root / name, folder / name)
    (folder / "requirements.txt").write_text(f"pytest=={importlib.metadata.version('pytest')}\n"
                                             "opencv-python-headless==5.0.0.93\ntorch==2.11.0\n")
    return folder


@pytest.fixture
def stub(checkout):
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB.replace("REAL", sys.executable))
    python.chmod(0o755)
    (checkout / "requirements.txt").write_text(f"pytest=={importlib.metadata.version('pytest')}\n")
    return checkout


def run(folder, *arguments, script="install.sh", **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    environment.update(variables)
    return subprocess.run(["bash", folder / script, *arguments], cwd=folder.parent, env=environment, timeout=60,
                          capture_output=True, text=True)


def calls(folder, start):
    """The stub's calls that start so, since the last question."""
    file = folder / "calls.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [line for line in lines if line.startswith(start)]


# ---- the files


@pytest.mark.parametrize("script", ["install.sh", ".ci/run"])
def test_the_scripts_are_valid_bash(root, script):
    subprocess.run(["bash", "-n", root / script], check=True)


def test_ci_run_is_executable_and_runs_all_tests_from_anywhere(checkout, root):
    assert os.access(root / ".ci" / "run", os.X_OK)
    (checkout / "install.sh").write_text('echo "$PWD $*"\n')
    done = run(checkout, script=".ci/run")
    assert done.returncode == 0
    assert done.stdout.strip() == f"{checkout} --test"


def test_every_pin_is_a_lower_bound_of_the_project(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    bounds = dict(line.partition(";")[0].split(">=") for line in project["dependencies"] + extras)
    oldest = {}
    for name, version, _ in pins(root):
        oldest[name] = min(oldest.get(name, version), version, key=numbers)
    assert bounds == oldest


def test_both_sides_of_python_3_11_are_pinned(root):
    sides = {}
    for name, _, side in pins(root):
        sides.setdefault(name, []).append(side)
    assert all(sorted(found, key=str) in ([None], ["<", ">="]) for found in sides.values()), sides


def test_the_conda_environment_is_the_same_set(root):
    environment = yaml.safe_load((root / "compresstracker_env.yaml").read_text())
    assert environment["name"] == "compresstracker"
    python = next(line for line in environment["dependencies"] if str(line).startswith("python="))
    assert (3, 10) <= numbers(python) <= (3, 13)
    pip = next(line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    assert pip == ["-r requirements.txt"]


def test_the_python_range_is_the_same_everywhere(root):
    text = (root / "install.sh").read_text()
    assert "(3, 10) <= sys.version_info[:2] <= (3, 13)" in text
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    assert pyproject["project"]["requires-python"] == ">=3.10,<3.14"
    assert pyproject["tool"]["ruff"]["target-version"] == "py310"


def test_install_checks_the_import_of_every_requirement(root):
    modules = {"opencv-python-headless": "cv2", "PyYAML": "yaml", "vot-trax": "trax", "nvidia-ml-py": "pynvml",
               "pytest-xdist": "xdist"}
    checked = re.search(r'^names = """(.*?)"""', (root / "install.sh").read_text(), re.MULTILINE | re.DOTALL)[1].split()
    wanted = {modules.get(name, name) for name, _, _ in pins(root)} - {"ruff", "turbojpeg"}  # not imported
    assert set(checked) == wanted


# ---- options and errors


def test_help_names_every_option(checkout):
    done = run(checkout, "--help")
    assert done.returncode == 0 and not done.stderr
    for option in re.findall(r"(--\w+)(?= \||\))", (checkout / "install.sh").read_text()):
        assert option in done.stdout
    assert {"--here", "--cpu", "--gui", "--demo", "--test"} <= set(re.findall(r"--\w+", done.stdout))
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(("arguments", "words"), [
    (["--fast"], "unknown option --fast"),
    (["--demo", "--test"], "choose one"),
    (["--", "-k", "x"], "need --demo or --test"),
    (["--here"], "--here needs an active"),
])
def test_wrong_calls_end_at_once_with_a_message(checkout, arguments, words):
    done = run(checkout, *arguments)
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert words in done.stderr
    assert not (checkout / ".venv").exists()


def fake_python(folder, body):
    path = folder / "fake python"
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("body", "words"), [
    ("exit 127", ["is not a working Python", "3.10 to 3.13"]),
    (f'case "$*" in *version_info*) exit 1 ;; esac; exec "{sys.executable}" "$@"', ["is 3.", "is needed"]),
    (f'case "$*" in *ensurepip*) exit 1 ;; esac; exec "{sys.executable}" "$@"', ["python3-venv", "--here"]),
])
def test_an_unfit_python_is_refused_with_advice(checkout, tmp_path, body, words):
    done = run(checkout, PYTHON=fake_python(tmp_path, body))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_cpu_index_is_said_plainly_before_anything_is_made(checkout, tmp_path):
    python = fake_python(tmp_path, f'case "$*" in "- https"*) echo "no route"; exit 1 ;; esac; '
                                   f'exec "{sys.executable}" "$@"')
    done = run(checkout, "--cpu", PYTHON=python)
    assert done.returncode == 1
    assert "https://download.pytorch.org/whl/cpu does not answer (no route)" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_folder_in_the_way_is_left_alone(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "precious").write_text("mine")
    done = run(checkout)
    assert done.returncode == 1 and "no virtual environment" in done.stderr
    assert (checkout / ".venv" / "precious").read_text() == "mine"


# ---- with the stub


def test_the_second_run_installs_nothing(stub):
    first = run(stub)
    assert first.returncode == 0, first.stderr
    assert "imports checked" in first.stdout
    assert len(calls(stub, "-m pip install")) == 1
    second = run(stub)
    assert second.returncode == 0
    assert "Up to date" in second.stdout and "imports checked" not in second.stdout
    assert not calls(stub, "-m pip install")


def test_a_changed_pin_or_a_changed_environment_installs_again(stub):
    run(stub)
    (stub / "requirements.txt").write_text("pytest==0.0.1\n")
    calls(stub, "")
    for _ in range(2):  # the stub's pip changes nothing, so the version stays wrong, stamp or not
        assert run(stub).returncode == 0
        assert len(calls(stub, "-m pip install")) == 1


@pytest.mark.parametrize(("variable", "words"), [("PIP_STATUS", "installation failed"),
                                                 ("CHECK_STATUS", "does not work")])
def test_a_failed_installation_is_not_taken_for_done(stub, variable, words):
    failed = run(stub, "--test", **{variable: "1"})
    assert failed.returncode == 1 and words in failed.stderr
    assert not calls(stub, "-m pytest")
    assert run(stub).returncode == 0
    assert len(calls(stub, "-m pip install")) == 1


def test_test_passes_its_arguments_and_its_result_on(stub):
    done = run(stub, "--test", "--", "-k", "a b")
    assert done.returncode == 7
    assert calls(stub, "-m pytest") == ["-m pytest -n 2 --dist worksteal -k a b"]


def test_demo_runs_the_quickstart(stub):
    done = run(stub, "--demo", "--", "--seed", "1")
    assert done.returncode == 0 and "the quickstart ran" in done.stdout
    assert calls(stub, "tracking") == ["tracking/quickstart.py --seed 1"]


def test_gui_takes_the_other_opencv(stub):
    (stub / "requirements.txt").write_text("opencv-python-headless==5.0.0.93\n")
    run(stub, "--gui")
    stamp = (stub / ".venv" / "compresstracker-installed.txt").read_text()
    assert "opencv-python==5.0.0.93" in stamp and "headless" not in stamp


def test_cpu_builds_that_cannot_be_had_end_the_installation(stub):
    (stub / "requirements.txt").write_text("torch==2.11.0\ntorchvision==0.26.0\n")
    done = run(stub, "--cpu")
    assert done.returncode == 1 and "does not answer" in done.stderr
    assert not calls(stub, "-m pip install")
