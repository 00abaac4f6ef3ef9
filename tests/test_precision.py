"""Precision, speed and memory switches: what they do to the numbers of a training, and that a step never waits."""

import functools
import re

import pytest
import torch
from tiny_models import tiny_batch
from torch.utils._python_dispatch import TorchDispatchMode
from training_fakes import NoisePairs, build_scrambled, fit, noise_config

from lib.models.layers.drop_path import drawn_paths
from lib.train.actors import build_actor
from lib.train.schedule import build_optimizer
from lib.train.seeds import draw_generator, path_generator
from lib.train.speed import apply_switches, check_compile, cuda_products
from lib.train.trainer import Trainer
from lib.utils.errors import UserError

CPU = torch.device("cpu")
ELIMINATION = {"MODEL__BACKBONE__CE_LOC": "[1]", "MODEL__BACKBONE__CE_KEEP_RATIO": "[0.7]",
               "TRAIN__CE_START_EPOCH": 0, "TRAIN__CE_WARM_EPOCH": 0}


@pytest.fixture(scope="module")
def trained():
    """Kind and settings -> losses and names of the trainings so far."""
    return {}


@pytest.fixture
def losses(monkeypatch, tmp_path, trained):
    """`losses(kind, **overrides)`: the losses of all steps of a small training, and the names of its result; each is
    trained once."""
    def go(kind="compresstracker", **overrides):
        name = "_".join(map(str, [kind, *overrides, *overrides.values()]))
        if name not in trained:
            weights, found = fit(monkeypatch, tmp_path / name, noise_config(kind, **({"TRAIN__EPOCH": 1} | overrides)))
            trained[name] = found, set(weights)
        return trained[name]
    return go


@pytest.mark.parametrize("kind", ["compresstracker", "ostrack"])
@pytest.mark.parametrize("switch, tolerance", [
    ({"TRAIN__CHECKPOINT_ACTIVATIONS": "true"}, 1e-6), ({"TRAIN__CHANNELS_LAST": "true"}, 1e-5),
    ({"TRAIN__FUSED_OPTIMIZER": "true"}, 1e-5), ({"TRAIN__TF32": "true"}, 0)])
def test_a_switch_changes_nothing_but_rounding(losses, kind, switch, tolerance):
    plain, names = losses(kind)
    switched, same_names = losses(kind, **switch)
    assert switched == pytest.approx(plain, rel=tolerance, abs=0) and same_names == names
    assert len(set(plain)) == 3


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_is_near_and_goes_with_passes(losses, dtype, tolerance):
    amp = {"TRAIN__AMP": "true", "TRAIN__AMP_DTYPE": dtype, "COMPRESS__HEAD_INIT": "teacher_frozen"}
    plain, _ = losses(COMPRESS__HEAD_INIT="teacher_frozen")
    whole, _ = losses(**amp)
    parts, _ = losses(**amp, TRAIN__ACCUMULATE=2)
    parts = [(first + second) / 2 for first, second in zip(parts[::2], parts[1::2], strict=True)]
    assert whole != plain and whole == pytest.approx(plain, rel=tolerance)
    assert parts == pytest.approx(whole, rel=tolerance)


@pytest.mark.parametrize("amp", [{}, {"TRAIN__AMP": "true", "TRAIN__AMP_DTYPE": "float16"}])
@pytest.mark.parametrize("clip", [0.001, 0])
def test_the_gradient_norm_is_that_before_clipping_and_without_the_scale(monkeypatch, tmp_path, amp, clip):
    cfg = noise_config(TRAIN__EPOCH=1, DATA__TRAIN__SAMPLE_PER_EPOCH=8, TRAIN__DROP_PATH_RATE=0.0,
                       TRAIN__GRAD_CLIP_NORM=clip, COMPRESS__TRACK_WEIGHT=0.001, COMPRESS__PRED_WEIGHT=0.001,
                       COMPRESS__FEAT_WEIGHT=0.001, **amp)
    fit(monkeypatch, tmp_path, cfg)
    log = next((tmp_path / "logs").iterdir()).read_text()
    torch.manual_seed(cfg.TRAIN.SEED)
    actor = build_actor(cfg, build_scrambled(cfg))
    actor.train()
    pairs = NoisePairs(cfg)
    samples = [pairs[1, index] for index in range(8)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    loss, _ = actor(batch, 1, draw_generator(cfg.TRAIN.SEED, 1, 0))
    loss.backward()
    squares = [parameter.grad.square().sum() for parameter in actor.module.parameters() if parameter.grad is not None]
    expected = torch.stack(squares).sum().sqrt().item()
    assert float(re.search(r"GradNorm ([\d.e+-]+)", log)[1]) == pytest.approx(expected, rel=0.02 if amp else 2e-3)


def test_too_large_a_scale_counts_as_no_gradient(monkeypatch, tmp_path):
    """float16 begins with a scale of 65536; a loss so large overflows, and the scaler leaves the step out."""
    cfg = noise_config(TRAIN__EPOCH=1, DATA__TRAIN__SAMPLE_PER_EPOCH=8, TRAIN__AMP="true", TRAIN__AMP_DTYPE="float16",
                       COMPRESS__TRACK_WEIGHT=1e6)
    weights, _ = fit(monkeypatch, tmp_path, cfg)
    assert "GradNorm 0," in next((tmp_path / "logs").iterdir()).read_text()
    torch.manual_seed(cfg.TRAIN.SEED)
    before = build_scrambled(cfg).student.state_dict()
    assert torch.equal(weights["backbone.norm.weight"], before["backbone.norm.weight"])


def test_tf32_is_for_cuda_and_for_the_run(monkeypatch):
    cfg = noise_config(TRAIN__TF32="true")
    before = torch.get_float32_matmul_precision()
    with cuda_products(cfg, torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high" and not torch.backends.cuda.cudnn_sdp_enabled()
    with cuda_products(cfg, CPU), cuda_products(noise_config(), torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before and torch.backends.cuda.cudnn_sdp_enabled()


# ---------------------------------------------------------------- the switches, looked at

def gradients(cfg, net, pattern):
    """The gradients of one pass in training mode, with drop path drawn."""
    actor = build_actor(cfg, net)
    actor.train()
    net.zero_grad(set_to_none=True)
    with drawn_paths(net, path_generator(1, 1, 0, "loss"), 4, slice(None), CPU):
        loss, _ = actor.loss_of(tiny_batch(cfg, size=4), pattern, 0.5)
        loss.backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("pattern", [[True, False], [False, True], [False, False]])
def test_checkpointing_computes_the_layers_twice_and_the_gradients_once(pattern):
    cfg = noise_config(TRAIN__CHECKPOINT_ACTIVATIONS="true", COMPRESS__TRAINABLE="[embed, layers, norm, head]")
    net = build_scrambled(cfg)
    calls = []
    for layer in [*net.student.layers, *net.teacher.layers]:
        layer.mlp.fc1.register_forward_hook(lambda *_: calls.append(1))
    plain = gradients(cfg, net, pattern)
    once = len(calls)
    apply_switches(cfg, net, CPU)
    again = gradients(cfg, net, pattern)
    assert once == 4 + sum(1 if replaced else 2 for replaced in pattern)
    assert len(calls) - once == once + sum(1 if replaced else 2 for replaced in pattern)
    for name, gradient in plain.items():
        assert (gradient is None and again[name] is None) or torch.equal(gradient, again[name]), name


def test_channels_last_is_the_order_of_the_convolutions():
    cfg = noise_config(TRAIN__CHANNELS_LAST="true")
    net = build_scrambled(cfg)
    names = set(net.state_dict())
    apply_switches(cfg, net, CPU)
    weight = net.student.box_head.conv1_ctr[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert set(net.state_dict()) == names


def test_the_fused_optimiser_is_asked_for():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.1}]
    assert build_optimizer(noise_config(TRAIN__FUSED_OPTIMIZER="true"), groups).param_groups[0]["fused"] is True
    assert build_optimizer(noise_config(), groups).param_groups[0]["fused"] is None


@pytest.fixture
def quick_compiler(monkeypatch):
    """torch.compile without code generation: everything but the compiler itself."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    yield
    torch._dynamo.reset()


def test_compiled_layers_give_the_same_training_whatever_is_drawn(losses, quick_compiler):
    plain, names = losses()
    torch._dynamo.utils.counters.clear()
    compiled, same_names = losses(TRAIN__COMPILE="true")
    assert compiled == pytest.approx(plain, rel=1e-5) and same_names == names
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 12    # not one for each draw or layer


def test_compiled_layers_beside_layers_that_eliminate_candidates(losses, quick_compiler):
    plain, _ = losses("ce", **ELIMINATION)
    compiled, _ = losses("ce", **ELIMINATION, TRAIN__COMPILE="true")
    assert compiled == pytest.approx(plain, rel=1e-5)


def test_a_missing_compiler_is_found_at_once(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(UserError, match=r"TRAIN\.COMPILE: .* cpu: No working C\+\+ compiler found\. .*COMPILE=false"):
        check_compile(CPU)


# ---------------------------------------------------------------- no waiting

class Watch(TorchDispatchMode):
    """Raises where a number is read from a tensor: on a GPU the step would wait for it."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise AssertionError(f"the step reads a tensor: {function}")
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("kind, more", [
    ("compresstracker", {}), ("compresstracker", {"TRAIN__AMP": "true", "TRAIN__AMP_DTYPE": "float16"}),
    ("compresstracker", {"COMPRESS__DRAWS": "process", "TRAIN__CHECKPOINT_ACTIVATIONS": "true"}),
    ("ostrack", {}), ("ce", ELIMINATION)])
def test_a_step_reads_nothing_back(kind, more, monkeypatch, tmp_path):
    """(float16 without the fused optimiser does: PyTorch's scaler asks whether the gradients are finite.)"""
    cfg = noise_config(kind, TRAIN__EPOCH=1, TRAIN__ACCUMULATE=2, TRAIN__EMA=0.9, TRAIN__PRINT_INTERVAL=50,
                       TRAIN__FUSED_OPTIMIZER="true", **more)
    steps = []

    def watched(self, *arguments):
        with Watch():
            step(self, *arguments)
        steps.append(1)

    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", watched)
    fit(monkeypatch, tmp_path, cfg, watch=False)
    assert len(steps) == 3
    with pytest.raises(AssertionError, match="reads a tensor"), Watch():
        torch.ones(1).item()
