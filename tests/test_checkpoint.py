"""Checkpoints: official and own formats, damaged files, and objects that try to run code."""

import os
import re
import resource
import sys
import types

import pytest
import safetensors.torch
import timm
import torch
from tiny_models import copies, same, scramble, tiny

from lib.families.build import build_for_test, build_student, build_teacher
from lib.models.checkpoint import load_weights, read_checkpoint, save_slim, slim_state_dict
from lib.models.vit_weights import load_mae
from lib.utils.errors import UserError

FORMATS = pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])


@pytest.fixture(scope="module")
def cfg():
    return tiny("compresstracker", MODEL__BACKBONE__DEPTH=6, MODEL__BACKBONE__DISTILL_LAYER=3)


@pytest.fixture(scope="module")
def teacher_cfg():
    return tiny("ostrack", MODEL__BACKBONE__DEPTH=6)


@pytest.fixture(scope="module")
def teacher(cfg):
    return scramble(build_teacher(cfg), 1)


@pytest.fixture(scope="module")
def student(cfg):
    return scramble(build_student(cfg), 2)


def save(path, content, new_format=True):
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    return path


def assert_loads(cfg, path, wanted, role="test", build=build_for_test):
    model = scramble(build(cfg), 9)
    assert not same(copies(model), copies(wanted))
    extra = load_weights(model, path, role)
    assert same(copies(model), copies(wanted))
    return extra


# ---------------------------------------------------------------- round trips

def test_round_trip_of_a_teacher(tmp_path, teacher_cfg, teacher):
    path = tmp_path / "run" / "OSTrack_ep0300.pth.tar"
    save_slim(path, teacher, teacher_cfg, {"epoch": 300})
    extra = assert_loads(teacher_cfg, path, teacher)
    assert (extra["epoch"], extra["net_type"], extra["config"]["script"]) == (300, "OSTrack", "ostrack")
    assert extra["config"]["values"]["MODEL"]["BACKBONE"]["DEPTH"] == 6
    assert torch.load(path, weights_only=True)["net"].keys() == teacher.state_dict().keys()


def test_round_trip_of_a_student(tmp_path, cfg, student):
    path = tmp_path / "CompressTracker_ep0500.pth.tar"
    save_slim(path, student, cfg)
    assert assert_loads(cfg, path, student)["net_type"] == "CompressTracker"
    names = torch.load(path, weights_only=True)["net"].keys()
    assert "backbone.distill_blocks.2.attn.qkv.weight" in names and "box_head.conv1_ctr.0.weight" in names
    assert not any(name.startswith("backbone.blocks.") for name in names) and len(names) == len(student.state_dict())


def test_slim_weights_do_not_follow_the_model(cfg):
    model = build_student(cfg)
    weights = slim_state_dict(model, student=True)
    before = {name: value.clone() for name, value in weights.items()}
    scramble(model)
    assert same(weights, before)


# ---------------------------------------------------------------- official files

class Settings:
    """What the official training state holds beside the weights."""

    def __init__(self):
        self.env, self.batchsize = {"workspace_dir": "/root"}, 32


class EasyDict(dict):
    """A dictionary with attributes, as the official code keeps its configuration in."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        vars(self).update(self)


class History(list):
    """A list of a class of its own."""


class AverageMeter:
    """Pickled under the name of a module that cannot be imported when the file is read."""


@pytest.fixture
def training_objects(monkeypatch):
    """Objects as in the official checkpoints; the module of one exists only until they are pickled."""
    with monkeypatch.context() as patch:
        gone = types.ModuleType("official_admin.stats")
        gone.AverageMeter = AverageMeter
        patch.setattr(AverageMeter, "__module__", gone.__name__)
        patch.setitem(sys.modules, "official_admin", types.ModuleType("official_admin"))
        patch.setitem(sys.modules, gone.__name__, gone)
        meter, settings = AverageMeter(), Settings()
        meter.history, settings.cfg = History([1.0, 2.0]), EasyDict(TRAIN=EasyDict(LR=4e-4))
        yield {"epoch": 300, "actor_type": "OSTrackActor", "net_type": "OSTrack", "net_info": None,
               "constructor": None, "stats": {"train": {"Loss/total": meter}}, "settings": settings,
               "cfg": EasyDict(a=1), "names": {"a", "b"}, "history": History([3])}


@FORMATS
def test_official_ostrack_file(tmp_path, teacher_cfg, teacher, training_objects, new_format):
    model = scramble(build_for_test(teacher_cfg), 1)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters() if p.requires_grad).backward()
    optimizer.step()
    content = training_objects | {"net": model.state_dict(), "optimizer": optimizer.state_dict()}
    path = save(tmp_path / "OSTrack_ep0300.pth.tar", content, new_format)
    sys.modules.pop("official_admin.stats")
    extra = assert_loads(teacher_cfg, path, model)
    assert (extra["epoch"], extra["actor_type"]) == (300, "OSTrackActor")
    assert not {"net", "settings", "cfg", "history"} & extra.keys()      # objects are left out
    momentum = {index: state["exp_avg"] for index, state in optimizer.state_dict()["state"].items()}
    assert same({index: state["exp_avg"] for index, state in extra["optimizer"]["state"].items()}, momentum)


@FORMATS
def test_official_slim_student(tmp_path, cfg, student, new_format):
    weights = {f"module.{name}": value for name, value in slim_state_dict(student, student=True).items()}
    assert_loads(cfg, save(tmp_path / "CompressTracker_ep0500.pth.tar", {"net": weights}, new_format), student)


@FORMATS
def test_raw_training_checkpoint_holds_both_models(tmp_path, cfg, teacher, student, training_objects, new_format):
    in_path = scramble(build_teacher(cfg), 3)            # the in-path teacher blocks: neither of the two models
    weights = {f"module.{name}": value for name, value in slim_state_dict(student, student=True).items()}
    weights |= {f"module.{name}": value for name, value in in_path.state_dict().items() if ".blocks." in name}
    weights |= {f"module.ori_{name}": value for name, value in teacher.state_dict().items()}
    assert {"module.ori_backbone.blocks.5.norm1.weight", "module.ori_box_head.conv5_ctr.bias"} <= weights.keys()
    path = save(tmp_path / "raw.pth.tar", training_objects | {"net": weights}, new_format)
    assert_loads(cfg, path, student, "test")
    assert_loads(cfg, path, teacher, "teacher", build_teacher)


def test_weights_that_the_tracker_never_uses_may_be_missing_or_of_another_size(tmp_path, teacher_cfg, teacher):
    weights = teacher.state_dict()
    del weights["backbone.cls_token"]
    weights["backbone.pos_embed"] = torch.zeros(1, 197, 32)
    model = build_for_test(teacher_cfg)
    load_weights(model, save(tmp_path / "a.pth", {"net": weights}))
    assert torch.equal(model.backbone.pos_embed_x, teacher.backbone.pos_embed_x)


def test_half_precision_and_parameter_weights(tmp_path, teacher_cfg, teacher):
    half = {name: value.bfloat16() if value.is_floating_point() else value
            for name, value in teacher.state_dict().items()}
    half["backbone.norm.weight"] = torch.nn.Parameter(half["backbone.norm.weight"])
    content = {"net": half, "settings": Settings()}
    for new_format in (True, False):
        model = build_for_test(teacher_cfg)
        load_weights(model, save(tmp_path / "half.pth", content, new_format))
        assert torch.equal(model.backbone.norm.weight.data, half["backbone.norm.weight"].data.float())


# ---------------------------------------------------------------- files of others

def renamed(weights, change):
    return {change(name): value for name, value in weights.items()}


def prefixed(prefix):
    return lambda weights: renamed(weights, lambda name: prefix + name)


def compiled_layers(weights):
    """Each layer compiled by itself, the whole in DistributedDataParallel."""
    return renamed(weights, lambda name: "module." + re.sub(r"(blocks\.\d+\.)", r"\1_orig_mod.", name))


LAYOUTS = {
    "compiled": lambda w: {"net": prefixed("_orig_mod.")(w)},
    "compiled in ddp": lambda w: {"net": prefixed("module._orig_mod.")(w)},
    "ddp compiled": lambda w: {"net": prefixed("_orig_mod.module.")(w)},
    "compiled layers": lambda w: {"net": compiled_layers(w)},
    "ddp of the backbone": lambda w: {"net": renamed(w, lambda name: name.replace("backbone.", "backbone.module."))},
    "lightning": lambda w: {"state_dict": prefixed("net.")(w), "pytorch-lightning_version": "2.1"},
    "lightning with others": lambda w: {"state_dict": prefixed("model._orig_mod.")(w) | {"loss.scale": torch.ones(1)}},
    "a prefix of one's own": lambda w: {"state_dict": prefixed("tracker.student.")(w)},
    "deepspeed": lambda w: {"module": w, "ds_version": "0.14"},
    "ema": lambda w: {"ema": w, "updates": 3},
    "ema in the names": lambda w: {"model": prefixed("model_ema.module.")(w)},
    "ema beside": lambda w: {"ema": zeros(w), "model": w},
    "ema beside, in the names": lambda w: {"state_dict": prefixed("net_ema.")(zeros(w)) | prefixed("net.")(w)},
    "a teacher beside": lambda w: {"student": w, "teacher": zeros(w)},
    "averaged model": lambda w: prefixed("module.")(w) | {"n_averaged": torch.tensor(7)},
    "nested": lambda w: {"checkpoint": {"model": {"state_dict": w}}},
    "nested deeper": lambda w: {"run": {"trainer": {"model": {"module": {"net": w}}}}},
    "parts apart": lambda w: {"model": {part: {name.removeprefix(f"{part}."): v for name, v in w.items()
                                               if name.startswith(f"{part}.")} for part in ("backbone", "box_head")}},
    "bare": lambda w: w,
    "without counters": lambda w: {"net": {k: v for k, v in w.items() if not k.endswith("num_batches_tracked")}},
}


def zeros(weights):
    return {name: torch.zeros_like(value) for name, value in weights.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_others(tmp_path, cfg, student, layout):
    content = LAYOUTS[layout](slim_state_dict(student, student=True))
    assert_loads(cfg, save(tmp_path / "a.ckpt", content), student)


def test_raw_checkpoint_of_a_compiled_net(tmp_path, cfg, teacher, student):
    weights = slim_state_dict(student, student=True) | {f"ori_{name}": v for name, v in teacher.state_dict().items()}
    path = save(tmp_path / "raw.pth", {"net": prefixed("module._orig_mod.")(weights)})
    assert_loads(cfg, path, student)
    assert_loads(cfg, path, teacher, "teacher", build_teacher)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_safetensors(tmp_path, cfg, student, name):
    weights = prefixed("model.")(slim_state_dict(student, student=True))
    safetensors.torch.save_file(weights, tmp_path / name)
    assert assert_loads(cfg, tmp_path / name, student) == {}
    content = (tmp_path / name).read_bytes()
    size = 0x8b1f  # the header's length may look like the start of another kind
    longer = size.to_bytes(8, "little") + content[8:8 + int.from_bytes(content[:8], "little")].ljust(size)
    (tmp_path / name).write_bytes(longer + content[8 + int.from_bytes(content[:8], "little"):])
    assert_loads(cfg, tmp_path / name, student)
    (tmp_path / name).write_bytes(content[:-100])
    with pytest.raises(UserError, match=rf"{name} cannot be read as a PyTorch checkpoint: it is truncated or damaged"):
        read_checkpoint(tmp_path / name)


def test_two_models_that_fit_are_not_guessed_between(tmp_path, cfg, student):
    weights = slim_state_dict(student, student=True)
    path = save(tmp_path / "two.pth", {"a": weights, "b": zeros(weights)})
    with pytest.raises(UserError, match=r"two\.pth holds several models that fit \(a, b\); write the one"):
        load_weights(build_student(cfg), path)
    assert_loads(cfg, save(tmp_path / "same.pth", {"a": weights, "b": dict(weights)}), student)


@pytest.mark.parametrize("layout", [
    lambda w: w, lambda w: {"model": w}, lambda w: {"state_dict": prefixed("module.encoder.")(w)},
    lambda w: {"student": prefixed("module.backbone.")(w) | {"module.head.mlp.0.weight": torch.ones(2, 2)},
               "teacher": prefixed("backbone.")(zeros(w))}],
    ids=["bare", "mae", "contrastive", "dino"])
def test_vit_weights_of_others(tmp_path, layout):
    vit = timm.create_model("vit_tiny_patch16_224", depth=6, embed_dim=32, num_heads=2, img_size=64)
    model = build_for_test(tiny("ostrack", MODEL__BACKBONE__DEPTH=4))
    load_mae(model, save(tmp_path / "vit.pth", layout(scramble(vit, 3).state_dict())))
    assert torch.equal(model.backbone.blocks[3].attn.qkv.weight, vit.blocks[3].attn.qkv.weight)
    assert torch.equal(model.backbone.patch_embed.proj.weight, vit.patch_embed.proj.weight)


def test_weights_of_another_vit_are_told_by_their_names(tmp_path):
    model = build_for_test(tiny("ostrack"))
    path = save(tmp_path / "hf.pth", {"vit.embeddings.cls_token": torch.ones(2), "vit.layernorm.bias": torch.ones(2)})
    with pytest.raises(UserError, match="entries are vit.embeddings.cls_token, vit.layernorm.bias; expected cls_tok"):
        load_mae(model, path)


@pytest.mark.parametrize("convert, kind", [
    (lambda value: (value * 100).to(torch.int8), "int8"),
    pytest.param(lambda value: value.to_sparse(), "sparse, float32",
                 marks=pytest.mark.filterwarnings("ignore:Sparse invariant checks")),
    (lambda value: value.to("meta"), r"without numbers \(device meta\), float32"),
])
def test_tensors_that_are_no_weights(tmp_path, teacher_cfg, teacher, convert, kind):
    weights = {name: convert(value) for name, value in teacher.state_dict().items()}
    with pytest.raises(UserError, match=rf"odd\.pth does not fit .* is {kind} .*expected float32 .*\. Save the"):
        load_weights(build_for_test(teacher_cfg), save(tmp_path / "odd.pth", {"net": weights}))


# ---------------------------------------------------------------- files that do not fit

@pytest.mark.parametrize("override, problem", [
    ({"MODEL__BACKBONE__DEPTH": 4}, r"holds a tracker of 6 layers, .* asks for 4; use the configuration"),
    ({"MODEL__BACKBONE__EMBED_DIM": 48}, r"does not fit .*\(1, 4, 32\), expected float32 \(1, 4, 48\)\. Use the"),
    ({"DATA__SEARCH__SIZE": 128}, r"does not fit .*pos_embed_x.* Use the configuration"),
    ({"MODEL__HEAD__TYPE": "MLP"}, r"does not fit .*lacks box_head\.layers.* more; it has the unknown box_head\.conv")])
def test_wrong_model(tmp_path, teacher_cfg, teacher, override, problem):
    path = tmp_path / "teacher.pth.tar"
    save_slim(path, teacher, teacher_cfg)
    with pytest.raises(UserError, match=r"teacher\.pth\.tar " + problem):
        load_weights(build_for_test(tiny(**({"MODEL__BACKBONE__DEPTH": 6} | override))), path)


def test_a_student_in_the_place_of_the_teacher(tmp_path, cfg, student, teacher):
    path = tmp_path / "student.pth.tar"
    save_slim(path, student, cfg)
    with pytest.raises(UserError, match=r"student\.pth\.tar holds a tracker of 3 layers, .* asks for 6"):
        load_weights(build_teacher(cfg), path, "teacher")


@pytest.mark.parametrize("content, problem", [
    ([torch.zeros(2)], "holds one list, not a dictionary"),
    ({"epoch": 3}, "holds no weights"),
    ({"net": {0: torch.zeros(1)}}, "holds no weights"),
    ({"model": {"blocks.0.norm1.weight": torch.zeros(2)}},
     "holds no tracker: its first entries are blocks.0.norm1.weight; expected backbone.pos_embed_z, .*Weights of a "
     "backbone alone are"),
    ({"net": {"backbone.blocks.x.weight": torch.zeros(2)}}, "holds a tracker of 1 layers"),
    (Settings(), "holds one object, not a dictionary")])
def test_files_of_another_kind(tmp_path, teacher_cfg, content, problem):
    path = save(tmp_path / "other.pth", content)
    with pytest.raises(UserError, match=r"other\.pth " + problem):
        load_weights(build_for_test(teacher_cfg), path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth does not exist; check the path"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"is a folder; name the file in it"):
        read_checkpoint(tmp_path)


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = save(tmp_path / "locked.pth", {"net": {}})

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"locked\.pth cannot be read: Permission denied; change its permissions"):
        read_checkpoint(path)


@FORMATS
@pytest.mark.parametrize("objects", [True, False])
def test_truncated_file(tmp_path, student, new_format, objects):
    content = {"net": student.state_dict()} | ({"settings": Settings()} if objects else {})
    whole = save(tmp_path / "whole.pth", content, new_format).read_bytes()
    path = tmp_path / "cut.pth"
    for length in (1, 10, 100, 1000, len(whole) // 3, len(whole) // 2, len(whole) - 1000, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.pth cannot be read as a PyTorch checkpoint: .* download it again"):
            read_checkpoint(path)


# ---------------------------------------------------------------- files that try to run code

class Attack:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@FORMATS
@pytest.mark.parametrize("kind", ["system", "eval", "open", "nested"])
def test_calls_in_a_file_are_not_made(tmp_path, teacher_cfg, teacher, new_format, kind):
    mark = tmp_path / "was_here"
    attack = {"system": Attack(os.system, f"touch {mark}"), "eval": Attack(eval, f"open({str(mark)!r}, 'w')"),
              "open": Attack(open, str(mark), "w"),
              "nested": Attack(getattr, Attack(exec, f"open({str(mark)!r}, 'w')"), "a")}[kind]
    content = {"settings": attack, "net": teacher.state_dict(), "stats": [attack]}
    extra = assert_loads(teacher_cfg, save(tmp_path / "attack.pth", content, new_format), teacher)
    assert "settings" not in extra
    with pytest.raises(UserError, match="holds one object"):
        read_checkpoint(save(tmp_path / "attack.pth", attack, new_format))
    with pytest.raises(UserError):
        load_weights(build_for_test(teacher_cfg), save(tmp_path / "attack.pth", {"net": attack}, new_format))
    assert not mark.exists()


# ---------------------------------------------------------------- writing

def test_a_full_disk_leaves_the_old_file(tmp_path, cfg, student):
    path = tmp_path / "student.pth.tar"
    save_slim(path, student, cfg, {"epoch": 1})
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, limits[1]))
        with pytest.raises(UserError, match=r"cannot write .*student\.pth\.tar: .*free disk space"):
            save_slim(path, student, cfg, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["student.pth.tar"]


def test_a_folder_that_cannot_be_written(tmp_path, cfg, student):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*student\.pth\.tar: .* choose another folder"):
        save_slim(tmp_path / "file" / "student.pth.tar", student, cfg)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
