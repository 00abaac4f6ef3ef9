"""The compressor and its training step: mixed chains, what learns and what stays, where the student starts from."""

import pytest
import torch
from tiny_models import copies, mae_file, same, scramble, tiny, tiny_batch

from lib.families.build import build_compressor, build_for_train, build_teacher
from lib.models.base import Inputs
from lib.models.checkpoint import save_slim
from lib.models.compress import Compressor
from lib.models.layers.drop_path import DropPath
from lib.train.actors import build_actor
from lib.train.speed import resolve_precision
from lib.utils.errors import UserError

MIXED = [True, False, False, True]


def config(**overrides):
    """12 tiny layers to 4, without drop path."""
    return tiny("compresstracker", **({"TRAIN__DROP_PATH_RATE": 0.0} | overrides))


def compressor(cfg) -> Compressor:
    """Teacher and student with weights that differ everywhere."""
    net = build_compressor(cfg, load=False)
    scramble(net.teacher, 1)
    scramble(net.student, 2)
    return net


def train_steps(actor, cfg, patterns=(MIXED,)) -> None:
    groups = actor.parameter_groups()
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for number, pattern in enumerate(patterns):
        optimizer.zero_grad()
        loss, _ = actor.loss_of(tiny_batch(cfg, seed=number), list(pattern), 0.5)
        loss.backward()
        optimizer.step()


def same_prediction(first, second) -> bool:
    first, second = first.tensors(), second.tensors()
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


# ---------------------------------------------------------------- mixed chains

def test_all_student_is_the_student_alone():
    cfg = config()
    net, batch = compressor(cfg).eval(), tiny_batch(cfg)
    out = net(batch["template"], batch["search"], [True] * 4)
    assert same_prediction(out.student, net.student(batch["template"], batch["search"]))
    assert same_prediction(out.teacher, net.teacher(batch["template"], batch["search"]))
    assert not same_prediction(out.student, out.teacher)


def test_all_teacher_runs_its_layers_between_the_students_embedding_and_head():
    cfg = config()
    net, batch = compressor(cfg).eval(), tiny_batch(cfg)
    out = net(batch["template"], batch["search"], [False] * 4)
    tokens = net.student.embed(Inputs.of(batch["template"], batch["search"]))
    for layer in net.teacher.layers:
        tokens = layer(tokens)
    assert same_prediction(out.student, net.student.predict(tokens))
    assert not same_prediction(out.student, out.teacher)                  # the embedding and head are the student's


@pytest.mark.parametrize("stages", ["[]", "[2, 2, 6, 2]"])
def test_a_mixed_chain_and_its_features(stages):
    cfg = config(COMPRESS__STAGES=stages)
    net, batch = compressor(cfg).eval(), tiny_batch(cfg)
    out = net(batch["template"], batch["search"], MIXED)
    bounds = [0, 3, 6, 9, 12] if stages == "[]" else [0, 2, 4, 10, 12]
    inputs = Inputs.of(batch["template"], batch["search"])
    tokens, target = (model.embed(inputs) for model in (net.student, net.teacher))
    for index, replaced in enumerate(MIXED):
        block = net.teacher.layers[bounds[index]:bounds[index + 1]]
        for layer in [net.student.layers[index]] if replaced else block:
            tokens = layer(tokens)
        for layer in block:
            target = layer(target)
        assert torch.equal(out.student_features[index], tokens.x)
        assert torch.equal(out.teacher_features[index], target.x)
    assert len(out.student_features) == 4 and out.segments == 4 * ((("template", 4, 2), ("search", 16, 4)),)
    assert not any(feature.requires_grad for feature in out.teacher_features) and not out.teacher.boxes.requires_grad
    bare = net(batch["template"], batch["search"], MIXED, guide=False, mimic=False)
    assert same_prediction(bare.student, out.student)
    assert (bare.teacher, bare.student_features, bare.teacher_features) == (None, (), ())


def test_a_pattern_of_another_length_is_an_error():
    cfg = config()
    net, batch = compressor(cfg), tiny_batch(cfg)
    with pytest.raises(ValueError):
        net(batch["template"], batch["search"], [True] * 3)
    with pytest.raises(ValueError, match="4 stages for a student of 12 layers"):
        Compressor(net.teacher, net.teacher, net.stages)


# ---------------------------------------------------------------- the teacher

def test_there_is_one_copy_of_the_teacher():
    net = compressor(config())
    count = {part: sum(p.numel() for p in model.parameters())
             for part, model in (("all", net), ("teacher", net.teacher), ("student", net.student))}
    assert count["all"] == count["teacher"] + count["student"]
    pointers = [p.data_ptr() for p in net.parameters()]
    assert len(set(pointers)) == len(pointers)
    assert {name.split(".")[0] for name in net.state_dict()} == {"teacher", "student"}
    assert not any(p.requires_grad for p in net.teacher.parameters())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_teacher_mode(mode):
    cfg = config(COMPRESS__TEACHER_MODE=mode, TRAIN__DROP_PATH_RATE=0.5)
    net = compressor(cfg)
    actor = build_actor(cfg, net)
    actor.train()
    assert net.student.training and net.teacher.training == net.teacher.box_head.training == (mode == "train")
    before = copies(net.teacher)
    train_steps(actor, cfg, [MIXED] * 2)
    changed = {name for name, value in net.teacher.state_dict().items() if not torch.equal(value, before[name])}
    if mode == "eval":
        assert not changed
    else:                                                                 # batch statistics, and nothing else
        assert "box_head.conv1_ctr.1.running_mean" in changed
        assert all(name.rsplit(".", 1)[1] in ("running_mean", "running_var", "num_batches_tracked")
                   for name in changed)
    batch = tiny_batch(cfg)
    torch.manual_seed(0)
    targets = [net(batch["template"], batch["search"], MIXED).teacher.score_map for _ in range(4)]
    drops_paths = any(not torch.equal(targets[0], other) for other in targets[1:])
    assert drops_paths == (mode == "train")
    actor.eval()
    assert not net.student.training and not net.teacher.training


def test_gradients_reach_student_stages_before_the_teachers():
    cfg = config()
    net = compressor(cfg)
    actor = build_actor(cfg, net)
    actor.train()
    loss, _ = actor.objective.loss(net(*tiny_crops(cfg), MIXED).student, tiny_batch(cfg)["search_box"])
    loss.backward()
    reached = [any(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
               for layer in net.student.layers]
    assert reached == MIXED
    assert net.student.backbone.patch_embed.proj.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.teacher.parameters())


def tiny_crops(cfg):
    batch = tiny_batch(cfg)
    return batch["template"], batch["search"]


# ---------------------------------------------------------------- work that two passes share

FROZEN_EMBEDDING = {"COMPRESS__TRAINABLE": "[layers, norm, head]"}


def with_the_teachers_embedding(cfg) -> Compressor:
    """As `compressor`, but with an embedding as `initialise_student` leaves it."""
    net = compressor(cfg)
    net.student.load_part("embed", net.teacher.state_dict())
    return net


def counted_pass(net, cfg, pattern):
    """A training pass, and how many teacher layers, student layers and embeddings it ran."""
    counts = {"teacher": 0, "student": 0, "embed": 0}
    hooks = [layer.register_forward_hook(lambda *_, part=part: counts.update({part: counts[part] + 1}))
             for part in ("teacher", "student") for layer in getattr(net, part).layers]
    hooks += [tracker.backbone.patch_embed.register_forward_hook(lambda *_: counts.update(embed=counts["embed"] + 1))
              for tracker in (net.teacher, net.student)]
    actor = build_actor(cfg, net)
    actor.train()
    loss, stats = actor.loss_of(tiny_batch(cfg), pattern, 0.5)
    loss.backward()
    for hook in hooks:
        hook.remove()
    gradients = {name: parameter.grad for name, parameter in net.student.named_parameters()}
    net.zero_grad(set_to_none=True)
    return stats, gradients, counts


@pytest.mark.parametrize("pattern, shared", [("1011", 0), ("0110", 3), ("0001", 9), ("0000", 12)])
@pytest.mark.parametrize("amp", [False, True])
def test_the_shared_prefix_is_computed_once_and_changes_nothing(pattern, shared, amp):
    cfg = config(**FROZEN_EMBEDDING)
    net = with_the_teachers_embedding(cfg)
    draws = [draw == "1" for draw in pattern]
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        assert not net.shares_prefix
        stats, gradients, counts = counted_pass(net, cfg, draws)
        assert net.share_prefix()
        once_stats, once_gradients, once = counted_pass(net, cfg, draws)
    assert counts == {"teacher": 12 + 3 * pattern.count("0"), "student": pattern.count("1"), "embed": 4}
    assert once == {"teacher": counts["teacher"] - shared, "student": counts["student"], "embed": 2}
    assert same(stats, once_stats)
    for name, gradient in gradients.items():
        assert (gradient is None and once_gradients[name] is None) or torch.equal(gradient, once_gradients[name]), name


def test_nothing_is_shared_where_the_two_passes_may_differ():
    assert not with_the_teachers_embedding(config()).share_prefix()             # it learns: the paper's setting
    assert not compressor(config(**FROZEN_EMBEDDING)).share_prefix()            # it is another one
    cfg = config(**FROZEN_EMBEDDING, COMPRESS__TEACHER_DTYPE="bfloat16")
    assert not with_the_teachers_embedding(cfg).share_prefix()                  # another number format
    cfg = config(**FROZEN_EMBEDDING, COMPRESS__TEACHER_MODE="train")
    net = with_the_teachers_embedding(cfg)
    net.share_prefix()
    _, _, counts = counted_pass(net, cfg, [False] * 4)                          # the teacher's drop path
    assert counts == {"teacher": 24, "student": 0, "embed": 4}
    cfg = config(**FROZEN_EMBEDDING, TRAIN__SUP_LOGIT="false", TRAIN__SUP_FEAT="false")
    net = with_the_teachers_embedding(cfg)
    assert net.share_prefix()
    _, _, counts = counted_pass(net, cfg, [False] * 4)                          # no pass of the teacher's own
    assert counts == {"teacher": 12, "student": 0, "embed": 2}


def test_an_embedding_with_other_buffers_is_another_one():
    net = with_the_teachers_embedding(config(**FROZEN_EMBEDDING))
    for tracker, mean in ((net.student, 0.0), (net.teacher, 1.0)):
        tracker.backbone.patch_embed.register_buffer("mean", torch.tensor(mean))
    assert not net.share_prefix()
    net.student.backbone.patch_embed.mean.fill_(1.0)
    assert net.share_prefix()


def test_frozen_layers_drop_no_paths():
    """Nor does anything else in them follow the training mode; what learns does."""
    for trainable, training in (("[norm, head]", False), ("[layers]", True)):
        net = compressor(config(TRAIN__DROP_PATH_RATE=0.9, COMPRESS__TRAINABLE=trainable,
                                COMPRESS__FORCED_STUDENT="true")).train()
        assert all(module.training == training for module in net.student.layers.modules())
        assert net.student.box_head.training != training
        drops = [module for module in net.student.modules() if isinstance(module, DropPath)]
        assert drops and all(drop.training == training for drop in drops)


def test_sharing_is_a_switch(teacher_file):
    path, _ = teacher_file
    for share in ("true", "false"):
        net = build_for_train(config(**FROZEN_EMBEDDING, MODEL__PRETRAIN_FILE=path, COMPRESS__SHARE_PREFIX=share))
        assert net.shares_prefix == (share == "true")


@pytest.mark.parametrize("dtype, training, own", [
    ("same", {}, None), ("float32", {}, None), ("bfloat16", {}, "bfloat16"), ("float16", {}, "float16"),
    ("bfloat16", {"TRAIN__AMP": "true"}, None), ("auto", {"TRAIN__AMP": "true"}, None), ("auto", {}, "bfloat16"),
    ("float32", {"TRAIN__AMP": "true"}, "float32")])
def test_the_teachers_own_pass_has_its_number_format(bfloat16_cpu, dtype, training, own):
    cfg = resolve_precision(config(COMPRESS__TEACHER_DTYPE=dtype, **training), torch.device("cpu"))
    net, seen = compressor(cfg).eval(), []
    assert net.teacher_dtype == (own and getattr(torch, own))
    net.teacher.layers[0].mlp.fc1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=cfg.TRAIN.AMP):
        out = net(*tiny_crops(cfg), [False, True, True, True])
    normal = torch.bfloat16 if cfg.TRAIN.AMP else torch.float32
    assert seen == [net.teacher_dtype or normal, normal]                        # its own pass, then the mixed one
    assert {feature.dtype for feature in out.teacher_features} == {torch.float32}
    assert out.teacher.boxes.dtype == torch.float32
    net.teacher_dtype = None
    exact = net.targets(*tiny_crops(cfg)).features[-1]
    difference = (out.teacher_features[-1] - exact).norm() / exact.norm()
    assert difference < 0.05 and (difference > 0) == (seen[0] != torch.float32)


# ---------------------------------------------------------------- what learns

PARTS = {"embed": ("backbone.patch_embed.", "backbone.pos_embed_"), "layers": ("backbone.blocks.",),
         "norm": ("backbone.norm.",), "head": ("box_head.",)}


@pytest.mark.parametrize("trainable, head_init, learning", [
    ("[embed, layers, norm, head]", "teacher", {"embed", "layers", "norm", "head"}),
    ("[embed, layers, norm, head]", "teacher_frozen", {"embed", "layers", "norm"}),
    ("[layers, head]", "random", {"layers", "head"}), ("[norm]", "teacher", {"norm"}),
    ("[embed]", "teacher", {"embed"})])
def test_only_trainable_parts_learn(trainable, head_init, learning):
    cfg = config(COMPRESS__TRAINABLE=trainable, COMPRESS__HEAD_INIT=head_init)
    net = compressor(cfg)
    actor = build_actor(cfg, net)
    actor.train()
    before = copies(net)
    train_steps(actor, cfg, [MIXED, [True] * 4])
    after = net.state_dict()
    changed = {name.removeprefix("student.") for name in after if not torch.equal(before[name], after[name])}
    for part, prefixes in PARTS.items():
        assert any(name.startswith(prefixes) for name in changed) == (part in learning), part
    assert not changed & {"backbone.cls_token", "backbone.pos_embed"}
    for name, parameter in net.student.named_parameters():
        if not any(name.startswith(PARTS[part]) for part in learning):
            assert parameter.grad is None and not parameter.requires_grad, name


def test_a_training_that_could_not_learn_is_refused():
    with pytest.raises(UserError, match=r"COMPRESS\.TRAINABLE.* add embed, norm or head, or set COMPRESS\.FORCED"):
        build_compressor(config(COMPRESS__TRAINABLE="[layers]"), load=False)
    for allowed in ({"COMPRESS__FORCED_STUDENT": "true"}, {"TRAIN__SUP_REPLACE": "false"},
                    {"COMPRESS__SCHEDULE": "stagewise"}):
        build_compressor(config(COMPRESS__TRAINABLE="[layers]", **allowed), load=False)
    with pytest.raises(UserError, match=r"nothing learns: COMPRESS\.TRAINABLE is \[head\], .* teacher_frozen"):
        build_compressor(config(COMPRESS__TRAINABLE="[head]", COMPRESS__HEAD_INIT="teacher_frozen"), load=False)


@pytest.mark.parametrize("backbone", ["vit_base_patch16_224", "vit_base_patch16_224_ce"])
def test_candidate_elimination_is_refused(backbone):
    with pytest.raises(UserError, match=r"MODEL\.BACKBONE\.CE_LOC"):
        config(MODEL__BACKBONE__TYPE=backbone, MODEL__BACKBONE__CE_LOC="[3]", MODEL__BACKBONE__CE_KEEP_RATIO="[0.7]")


# ---------------------------------------------------------------- where the student starts from

@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    """A teacher's checkpoint, and its weights."""
    cfg = tiny()
    teacher = scramble(build_teacher(cfg), 3)
    path = tmp_path_factory.mktemp("teacher") / "OSTrack_ep0300.pth.tar"
    save_slim(path, teacher, cfg)
    return path, copies(teacher)


def layer_of(state, number) -> dict[str, torch.Tensor]:
    prefix = f"backbone.blocks.{number}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def part_of(state, part) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name.startswith(PARTS[part])}


@pytest.mark.parametrize("init, sources", [("skip", [2, 5, 8, 11]), ("first", [0, 1, 2, 3]), ("none", None)])
def test_initialisation_from_the_teacher(teacher_file, init, sources):
    path, weights = teacher_file
    net = build_for_train(config(MODEL__PRETRAIN_FILE=path, COMPRESS__INIT=init))
    assert same(copies(net.teacher), weights)
    state = copies(net.student)
    assert all(same(part_of(state, part), part_of(weights, part)) for part in ("embed", "norm", "head"))
    for index in range(4):
        equal = [same(layer_of(state, index), layer_of(weights, number)) for number in range(12)]
        assert equal == [sources is not None and number == sources[index] for number in range(12)]


def test_initialisation_from_mae(teacher_file, tmp_path):
    path, weights = teacher_file
    mae, mae_weights = mae_file(tmp_path)
    net = build_for_train(config(MODEL__PRETRAIN_FILE=path, COMPRESS__INIT="mae", MODEL__BACKBONE__PRETRAIN_FILE=mae))
    state = copies(net.student)
    assert torch.equal(state["backbone.patch_embed.proj.weight"], mae_weights["patch_embed.proj.weight"])
    assert torch.equal(state["backbone.blocks.3.attn.qkv.weight"], mae_weights["blocks.3.attn.qkv.weight"])
    assert same(part_of(state, "head"), part_of(weights, "head")) and same(copies(net.teacher), weights)


@pytest.mark.parametrize("head", ["teacher", "teacher_frozen", "random"])
def test_head_initialisation(teacher_file, head):
    path, weights = teacher_file
    net = build_for_train(config(MODEL__PRETRAIN_FILE=path, COMPRESS__HEAD_INIT=head))
    assert same(part_of(copies(net.student), "head"), part_of(weights, "head")) == (head != "random")
    learns = {p.requires_grad for p in net.student.box_head.parameters()}
    assert learns == {head != "teacher_frozen"}


def test_student_and_teacher_do_not_share_weights_after_initialisation(teacher_file):
    path, weights = teacher_file
    net = build_for_train(config(MODEL__PRETRAIN_FILE=path))
    scramble(net.student)
    assert same(copies(net.teacher), weights)


def test_a_missing_teacher_is_named():
    with pytest.raises(UserError, match=r"the teacher's checkpoint \(MODEL\.PRETRAIN_FILE: gone\.pth\) was not found"):
        build_for_train(config(MODEL__PRETRAIN_FILE="gone.pth"))
