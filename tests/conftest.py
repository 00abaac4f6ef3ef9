"""Fixtures that all tests share."""

import importlib.util
import multiprocessing
import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

# Before PyTorch is imported:
os.environ.setdefault("OMP_NUM_THREADS", "1")  # OpenMP's threads do not survive a fork
if "PYTEST_XDIST_WORKER" not in os.environ and not any("test_cuda" in argument for argument in sys.argv):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""    # nor do autograd's threads for a GPU; tests/test_cuda.py runs by itself

import torch  # noqa: E402
import trees  # noqa: E402
from demo_fakes import FRAMES, SIZE, frame  # noqa: E402
from square_runs import become_rank, free_port, load_script  # noqa: E402
from tiny_models import require_packages, steady_tracker, tiny  # noqa: E402

from lib.deploy.export import export_model  # noqa: E402
from lib.deploy.formats import ExportOptions  # noqa: E402
from lib.models.checkpoint import save_slim  # noqa: E402
from lib.vis.draw import VideoWriter  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# The first backward pass decides whether this process may train in forks later on: it may, unless something was
# compiled or exported before (fake tensors make autograd start threads).
torch.ones((), requires_grad=True).backward()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture
def bfloat16_cpu(monkeypatch):
    """Whether this CPU has bfloat16 or emulates it, `auto` is bfloat16."""
    monkeypatch.setattr("lib.utils.device.has_bfloat16", lambda device: True)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with the larger reference data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def golden_file(shared_dir):
    """`golden_file(path)`: the `arrays` by name of a file in the reference data's folder `golden`, and `formula`, the
    module that made their inputs and weights; the test skips where the file is absent."""
    folder = shared_dir / "golden"

    def read(path: str) -> SimpleNamespace:
        if not (folder / path).is_file():
            pytest.skip(f"reference data not found: {folder / path}")
        spec = importlib.util.spec_from_file_location("formula", folder / "formula.py")
        formula = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(formula)
        with np.load(folder / path) as file:
            return SimpleNamespace(formula=formula, arrays={name: file[name] for name in file.files})
    return read


@pytest.fixture(scope="module")
def cfg():
    """A tiny student's configuration, for modules that have none of their own."""
    return tiny("compresstracker")


@pytest.fixture(scope="module")
def model(cfg):
    """The tracker of the module's `cfg`."""
    return steady_tracker(cfg)


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> SimpleNamespace:
    """A student to export: `model`, its configuration `cfg`, the file `checkpoint` with its weights, and `videos`."""
    folder = tmp_path_factory.mktemp("student")
    cfg = tiny("compresstracker", MODEL__BACKBONE__DISTILL_LAYER=2)
    model, checkpoint = steady_tracker(cfg), folder / "student.pth.tar"
    save_slim(checkpoint, model, cfg)
    return SimpleNamespace(model=model, cfg=cfg, checkpoint=checkpoint, videos=trees.folder(folder / "videos", 12))


@pytest.fixture(scope="session")
def exported(student, tmp_path_factory):
    """`exported(format, **options)`: folder and manifest of the student's export, each made once and left alone."""
    @cache
    def export(format, **options):
        require_packages(format)
        folder = tmp_path_factory.mktemp("export") / "out"
        options = ExportOptions(format, frames=str(student.videos), check_crops=5, **options)
        return folder, export_model(student.model, student.cfg, student.checkpoint, folder, options)
    return export


@pytest.fixture(autouse=True)
def no_environment_overrides(monkeypatch, tmp_path_factory):
    """A test never sees the paths that the user's shell overrides, and leaves no index in the data folder."""
    for name in list(os.environ):
        if name.startswith("COMPRESSTRACKER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COMPRESSTRACKER_INDEX_DIR", str(tmp_path_factory.getbasetemp() / "index"))


@pytest.fixture
def twice(tmp_path):
    """Run a function in two processes that torchrun might have started; gives both results, or what they raised."""
    from lib.utils.errors import UserError
    from lib.utils.signals import TrainingInterrupted

    def child(function, rank, port, result):
        become_rank(rank, port)
        try:
            outcome = function()
        except (UserError, TrainingInterrupted) as error:
            outcome = f"{type(error).__name__}: {error}"
        result.write_bytes(pickle.dumps(outcome))
        os._exit(0)

    def go(function):
        port = free_port()
        results = [tmp_path / f"result{rank}" for rank in (0, 1)]
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=child, args=(function, rank, port, results[rank])) for rank in (0, 1)]
        for process in children:
            process.start()
        for process in children:
            process.join(120)
            assert process.exitcode == 0
        return [pickle.loads(result.read_bytes()) for result in results]
    return go


@pytest.fixture(scope="session")
def square_data(tmp_path_factory) -> Path:
    """Two sequences of a bright square that moves over noise."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        frames = folder / name / "img"
        frames.mkdir(parents=True)
        boxes = []
        for number in range(24):
            image = rng.integers(0, 80, (60, 80, 3), dtype=np.uint8)
            x, y = 15 + 2 * number, 12 + number
            image[y:y + 16, x:x + 20] = 230
            cv2.imwrite(str(frames / f"{number + 1:04d}.jpg"), image)
            boxes.append(f"{x},{y},20,16")
        (folder / name / "groundtruth_rect.txt").write_text("\n".join(boxes) + "\n")
    return folder


@pytest.fixture
def square_config(tmp_path, square_data) -> Path:
    """A configuration of a tracker of 2 layers and 24 channels on that data."""
    path = tmp_path / "tiny.yaml"
    path.write_text(f"""
DATA:
  MAX_SAMPLE_INTERVAL: 5
  SEARCH: {{SIZE: 64, FACTOR: 4.0, CENTER_JITTER: 1, SCALE_JITTER: 0.1}}
  TEMPLATE: {{SIZE: 32, FACTOR: 2.0}}
  TRAIN: {{DATASETS_NAME: ["FOLDER:{square_data}"], DATASETS_RATIO: [1], SAMPLE_PER_EPOCH: 12}}
  VAL: {{DATASETS_NAME: ["FOLDER:{square_data}"], DATASETS_RATIO: [1], SAMPLE_PER_EPOCH: 7}}
MODEL:
  PRETRAIN_FILE: ''
  BACKBONE: {{TYPE: vit_tiny_patch16_224, EMBED_DIM: 24, DEPTH: 2, NUM_HEADS: 2}}
  HEAD: {{NUM_CHANNELS: 16}}
TRAIN: {{BATCH_SIZE: 2, EPOCH: 2, LR: 0.001, LR_DROP_EPOCH: 2, NUM_WORKER: 0, PRINT_INTERVAL: 2, DEVICE: cpu,
        VAL_EPOCH_INTERVAL: 2, SAVE_EPOCH_INTERVAL: 1, DROP_PATH_RATE: 0.1, THREADS: 1}}
TEST: {{EPOCH: 2, SEARCH_SIZE: 64, TEMPLATE_SIZE: 32}}
""")
    return path


@pytest.fixture
def train_arguments(square_config, tmp_path):
    """`train_arguments(*more)`: the command line of a training of the tiny configuration."""
    def line(*more):
        return ["--script", "ostrack", "--config", str(square_config), "--save_dir", str(tmp_path / "out"), *more]
    return line


@pytest.fixture
def train_script(root, monkeypatch):
    """`train_script(arguments)`: run tracking/train.py's main in this process; gives its status."""
    module = load_script(root / "tracking" / "train.py")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_ERROR_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(line):
        monkeypatch.setattr(sys, "argv", ["train.py", *line])
        return module.main()
    return run


@pytest.fixture
def start_training(root, tmp_path):
    """`start_training(arguments)`: tracking/train.py in a process of its own, from another folder."""
    def run(line):
        environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
        return subprocess.Popen([sys.executable, str(root / "tracking" / "train.py"), *line], cwd=tmp_path,
                                env={**environment, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
                                start_new_session=True)
    return run


@pytest.fixture
def film(tmp_path) -> Path:
    """A video of the moving square."""
    path = tmp_path / "film.avi"
    with VideoWriter(path, 12, SIZE) as video:
        for index in range(FRAMES):
            video.write(frame(index))
    return path


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of pictures of the moving square."""
    folder = tmp_path / "walk"
    folder.mkdir()
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"{index + 1}.png"), frame(index))
    return folder
