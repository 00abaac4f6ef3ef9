#!/usr/bin/env bash
# Set up CompressTracker: `bash install.sh --help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'TEXT'
usage: bash install.sh [--here] [--cpu] [--gui] [--demo | --test] [-- ARGUMENTS]

Creates .venv in this folder (Python 3.10 to 3.13) and installs the tested set of
requirements.txt into it. Run again, it only checks.

  --here   install into the active conda or virtual environment instead of .venv
  --cpu    take PyTorch's CPU builds from https://download.pytorch.org/whl/cpu
           (smaller; without it PyPI's build is taken, which on Linux brings CUDA and
           also runs without a GPU)
  --gui    opencv-python instead of opencv-python-headless, to open windows
  --demo   set up, then run tracking/quickstart.py
  --test   set up, then run the tests, two at a time (-- -m slow: those that are left out)
  --help   show this text

ARGUMENTS after -- go to the quickstart or to pytest, e.g. --test -- -k config.
PYTHON=/path/to/python chooses the Python that .venv is made with.
TEXT
}

say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

readonly CPU_INDEX=https://download.pytorch.org/whl/cpu
readonly VENV=.venv
here=false cpu=false gui=false task=none
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --here) here=true ;;
        --cpu) cpu=true ;;
        --gui) gui=true ;;
        --demo | --test)
            [ "$task" = none ] || [ "$task" = "${1#--}" ] || die "choose one of --demo and --test"
            task=${1#--}
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        --)
            shift
            arguments=("$@")
            break
            ;;
        *) die "unknown option $1; see bash install.sh --help" ;;
    esac
    shift
done
[ "$task" != none ] || [ ${#arguments[@]} -eq 0 ] || die "arguments after -- need --demo or --test"

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }
version() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo "not a working Python"; }

# Print the first Python that fits and can make virtual environments.
find_python() {
    local candidate incomplete="" candidates=(python3.12 python3.11 python3.10 python3.13 python3 python)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if fits "$candidate"; then
            if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
                command -v "$candidate"
                return
            fi
            incomplete=${incomplete:-$candidate}
        fi
    done
    if [ -n "$incomplete" ]; then
        die "$incomplete ($(version "$incomplete")) cannot make virtual environments, because it lacks venv or" \
            "ensurepip. On Debian and Ubuntu: apt install python3-venv. Or activate an environment and use --here."
    fi
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is $(version "$PYTHON"); Python 3.10 to 3.13 is needed"
    die "no Python 3.10 to 3.13 found; install one, or name it: PYTHON=/path/to/python3.11 bash install.sh"
}

# Set `python`, the interpreter to install into; make .venv where it is needed.
choose_environment() {
    if $here; then
        [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || die "--here needs an active conda or virtual environment; \
activate one, or leave --here out to get .venv"
        python=$(command -v python || true)
        [ -n "$python" ] || die "the active environment has no python; for conda: conda install python=3.11 pip"
        fits "$python" || die "the active environment has Python $(version "$python"); 3.10 to 3.13 is needed"
        "$python" -c 'import pip' >/dev/null 2>&1 || die "the active environment has no pip; run: python -m ensurepip"
        return
    fi
    python=$PWD/$VENV/bin/python
    if "$python" -c 'import pip' >/dev/null 2>&1; then
        fits "$python" || die "$VENV has Python $(version "$python"), and 3.10 to 3.13 is needed; delete $VENV and run \
this again"
        return
    fi
    if [ -e "$VENV" ] && [ ! -f "$VENV/pyvenv.cfg" ]; then
        die "$PWD/$VENV is there but is no virtual environment; move it away"
    fi
    local base
    base=$(find_python)
    if $cpu; then need_cpu_index "$base"; fi
    say "Creating $VENV with Python $(version "$base")"
    "$base" -m venv --clear "$VENV" || die "$base could not create $VENV; see the message above"
}

# Does the environment hold exactly the versions of the requirements file $1? Fast: imports nothing heavy.
up_to_date() {
    "$python" - "$1" <<'CODE'
import sys
from importlib.metadata import PackageNotFoundError, version

from pip._vendor.packaging.requirements import Requirement

for line in open(sys.argv[1], encoding="utf-8"):
    line = line.partition("#")[0].strip()
    requirement = Requirement(line) if line else None
    if requirement is None or (requirement.marker and not requirement.marker.evaluate()):
        continue
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        sys.exit(1)
    if not requirement.specifier.contains(found):
        sys.exit(1)
CODE
}

# Import everything and say what was found.
check() {
    "$python" - <<'CODE'
import importlib
import platform
import sys

names = """torch torchvision timm safetensors numpy cv2 yaml easydict tensorboard thop lmdb simplejpeg pandas tqdm matplotlib
           setuptools pynvml got10k trax pytest xdist onnx onnxscript onnxruntime openvino"""
broken = []
for name in names.split():
    try:
        importlib.import_module(name)
    except Exception as error:
        broken.append(f"  {name}: {type(error).__name__}: {error}")
if broken:
    sys.exit("\n".join(["error: these packages are installed but cannot be imported:", *broken]))

import torch

if torch.cuda.is_available():
    device = f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} GPU(s): {torch.cuda.get_device_name(0)}"
else:
    device = "no CUDA GPU seen, everything runs on the CPU"
print(f"Checked: Python {platform.python_version()}, torch {torch.__version__}, all imports work; {device}")
CODE
}

# End with a message when Python $1 cannot reach the index of PyTorch's CPU builds.
need_cpu_index() {
    local reason
    reason=$("$1" - "$CPU_INDEX/torch/" 2>&1 <<'CODE'
import sys
import urllib.request

try:
    urllib.request.urlopen(sys.argv[1], timeout=10).close()
except OSError as error:
    sys.exit(str(getattr(error, "reason", error)))
CODE
    ) || die "PyTorch's CPU builds cannot be had: $CPU_INDEX does not answer ($reason)." \
        "Check the network or proxy, or leave --cpu out: PyPI's build works on the CPU, too, but is larger."
}

pip_install() {
    "$python" -m pip install -qq --progress-bar off "$@" ||
        die "the installation failed; see pip's message above. Run the same command again to go on."
}

install() {
    local prefix stamp wanted
    prefix=$("$python" -c 'import sys; print(sys.prefix)')
    stamp=$prefix/compresstracker-installed.txt
    wanted=$prefix/compresstracker-wanted.txt
    # An environment keeps the builds that it was made with.
    if grep -qs '^# torch: cpu' "$stamp"; then cpu=true; fi
    if "$python" -m pip show -q opencv-python >/dev/null 2>&1; then gui=true; fi
    {
        if $cpu; then echo "# torch: cpu"; else echo "# torch: PyPI"; fi
        if $gui; then sed 's/^opencv-python-headless==/opencv-python==/' requirements.txt; else cat requirements.txt; fi
    } >"$wanted"
    if cmp -s "$wanted" "$stamp" && up_to_date "$stamp"; then
        rm -f "$wanted"
        say "Up to date: $prefix"
        return
    fi
    if $cpu; then install_cpu_torch; fi
    if $gui; then "$python" -m pip uninstall --quiet --yes opencv-python-headless 2>/dev/null || true; fi
    say "Installing requirements.txt into $prefix (a first time this takes some minutes)"
    pip_install -r "$wanted"
    check || die "the environment $prefix does not work; delete it and run this again"
    mv "$wanted" "$stamp"
}

install_cpu_torch() {
    local pins
    pins=$(grep -E '^(torch|torchvision)==' requirements.txt)
    if up_to_date <(printf '%s\n' "$pins") && "$python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'
    then
        return
    fi
    need_cpu_index "$python"
    say "Installing" $pins "(CPU builds)"
    "$python" -m pip uninstall --quiet --yes torch torchvision 2>/dev/null || true
    pip_install --index-url "$CPU_INDEX" $pins
}

choose_environment
install
case $task in
    demo) exec "$python" tracking/quickstart.py ${arguments[@]+"${arguments[@]}"} ;;
    test) exec "$python" -m pytest -n 2 --dist worksteal ${arguments[@]+"${arguments[@]}"} ;;
esac
if ! $here; then say "Activate it: source $PWD/$VENV/bin/activate"; fi
