"""SUTrack's own rules, on small models."""

import numpy as np
import pytest
import torch
from tiny_models import scramble, tiny_batch

from lib.config import load_config
from lib.families.build import build_compressor, build_student, build_tracker
from lib.families.rules import Found
from lib.families.sutrack.model import foreground_share
from lib.models.base import Inputs
from lib.models.checkpoint import load_weights, save_slim
from lib.models.layers.drop_path import DropPath, drawn_paths
from lib.test.tracker import Tracker
from lib.utils.errors import UserError

TINY = ["MODEL.BACKBONE.TYPE=fastitpnt", "MODEL.BACKBONE.EMBED_DIM=32", "MODEL.BACKBONE.NUM_HEADS=2",
        "MODEL.BACKBONE.DEPTH=4", "MODEL.BACKBONE.DISTILL_LAYER=2", "DATA.TEMPLATE.SIZE=32", "DATA.SEARCH.SIZE=64",
        "TEST.TEMPLATE_SIZE=32", "TEST.SEARCH_SIZE=64", "MODEL.HEAD.NUM_CHANNELS=16", "MODEL.PRETRAIN_FILE=''"]
OFFICIAL = """
DATA:
  MAX_SAMPLE_INTERVAL: 400
  MULTI_MODAL_LANGUAGE: True
  MULTI_MODAL_VISION: True
  MEAN: [0.485, 0.456, 0.406]
  SEARCH: {CENTER_JITTER: 3.5, FACTOR: 4.0, SCALE_JITTER: 0.5, SIZE: 224, NUMBER: 1}
  STD: [0.229, 0.224, 0.225]
  TEMPLATE: {CENTER_JITTER: 0, FACTOR: 2.0, SCALE_JITTER: 0, SIZE: 112, NUMBER: 2}
  TRAIN:
    DATASETS_NAME: [LASOT, GOT10K_vottrain, COCO17, TRACKINGNET, VASTTRACK, TNL2K_train, DepthTrack_train, VisEvent,
                    LasHeR_train]
    DATASETS_RATIO: [4, 4, 4, 4, 4, 4, 2, 2, 2]
    SAMPLE_PER_EPOCH: 100000
  USE_NLP: {TNL2K: True}
MODEL:
  ENCODER:
    TYPE: fastitpnb
    STRIDE: 16
    PRETRAIN_TYPE: 'pretrained/itpn/fast_itpn_base_clipl_e1600.pt'
    PATCHEMBED_INIT: halfcopy
    DROP_PATH: 0.1
    TOKEN_TYPE_INDICATE: True
  TEXT_ENCODER: {TYPE: ViT-L/14}
  DECODER: {TYPE: CENTER, NUM_CHANNELS: 256, CONV_TYPE: normal, XAVIER_INIT: True}
  TASK_DECODER: {NUM_CHANNELS: 256, FEATURE_TYPE: average}
  TASK_NUM: 5
  TASK_INDEX: {VASTTRACK: 0, LASOT: 0, TRACKINGNET: 0, GOT10K: 0, COCO: 0, TNL2K: 1, DEPTHTRACK: 2, LASHER: 3,
               VISEVENT: 4}
TRAIN:
  TYPE: text_frozen
  ENCODER_MULTIPLIER: 0.1
  BATCH_SIZE: 32
  EPOCH: 180
  GRAD_CLIP_NORM: 0.1
  LR: 0.0001
  LR_DROP_EPOCH: 144
  NUM_WORKER: 10
  OPTIMIZER: ADAMW
  PRINT_INTERVAL: 50
  SCHEDULER: {TYPE: step, DECAY_RATE: 0.1}
  WEIGHT_DECAY: 0.0001
TEST:
  EPOCH: 180
  SEARCH_FACTOR: 4.0
  SEARCH_SIZE: 224
  TEMPLATE_FACTOR: 2.0
  TEMPLATE_SIZE: 112
  WINDOW: True
  NUM_TEMPLATES: 2
  UPDATE_INTERVALS: {DEFAULT: 25}
  UPDATE_THRESHOLD: {DEFAULT: 0.70}
  MULTI_MODAL_VISION: {DEFAULT: True}
  MULTI_MODAL_LANGUAGE: {DEFAULT: True}
  USE_NLP: {DEFAULT: False, TNL2K: True}
"""
"""The keys and values of experiments/sutrack/sutrack_b224.yaml of the SUTrack repository."""


def small(*more, config="sutrack_b224", script="sutrack"):
    return load_config(script, config, [*TINY, *more])


def batch_of(cfg, names=("lasot", "tnl2k")):
    return {**tiny_batch(cfg, len(names)), "dataset": list(names)}


def test_the_official_file_is_the_recipe(tmp_path):
    """But for the data sets with a second kind of picture and the name of the start."""
    (tmp_path / "official.yaml").write_text(OFFICIAL)
    official, ours = load_config("sutrack", str(tmp_path / "official.yaml")), load_config("sutrack", "sutrack_b224")
    differing = {f"{top}.{name}" for top, section in ours.to_dict().items() for name, value in section.items()
                 if official.to_dict()[top][name] != value}
    assert differing == {"DATA.TRAIN", "DATA.USE_NLP", "MODEL.PRETRAIN_FILE", "MODEL.ENCODER", "TRAIN.TOTAL_BATCH",
                         "TRAIN.BATCH_SIZE"}
    assert official.TRAIN.BATCH_SIZE * 4 == ours.TRAIN.TOTAL_BATCH
    assert official.shape == (512, 24, 8, 3.0)


def test_another_name_of_a_key_is_the_key(tmp_path):
    assert small("TRAIN.ENCODER_MULTIPLIER=0.5").TRAIN.BACKBONE_MULTIPLIER == 0.5
    assert small().with_overrides({"MODEL.ENCODER.TYPE": "fastitpns"}).MODEL.BACKBONE.TYPE == "fastitpns"
    path = tmp_path / "twice.yaml"
    path.write_text("MODEL: {ENCODER: {STRIDE: 16}, BACKBONE: {STRIDE: 16}}\n")
    with pytest.raises(UserError, match=r"MODEL.ENCODER.STRIDE and MODEL.BACKBONE.STRIDE are the same key"):
        load_config("sutrack", str(path))
    with pytest.raises(UserError, match="ENCODER_MULTIPLIER"):
        load_config("ostrack", "vitb_256_mae_32x4_ep300", ["TRAIN.ENCODER_MULTIPLIER=0.5"])


@pytest.mark.parametrize("changes, words", [
    (["TEST.NUM_TEMPLATES=1"], "TEST.NUM_TEMPLATES is 1; expected DATA.TEMPLATE.NUMBER"),
    (["DATA.MULTI_MODAL_LANGUAGE=false"], "DATA.MULTI_MODAL_LANGUAGE and TEST.MULTI_MODAL_LANGUAGE.DEFAULT differ"),
    (["MODEL.TASK_NUM=3"], "MODEL.TASK_INDEX has LASHER 3, VISEVENT 4; expected numbers below MODEL.TASK_NUM"),
    (["MODEL.BACKBONE.STRIDE=8"], "expected 16"),
    (["MODEL.BACKBONE.EMBED_DIM=30"], "expected a multiple of 4"),
])
def test_impossible_combinations(changes, words):
    with pytest.raises(UserError, match=words):
        small(*changes)


def test_a_student_of_other_stages_and_the_same_width():
    with pytest.raises(UserError, match="fastitpns has the width of the teacher's fastitpnt, but other early stages"):
        load_config("compresstracker", "compresstracker_sutrack_t224_4", ["STUDENT.MODEL.BACKBONE.TYPE=fastitpns"])


def test_a_student_of_the_same_width_has_its_teachers_mlps():
    with pytest.raises(UserError, match="MLP_RATIO 1 is not the teacher's 3, which the early stages have too"):
        load_config("compresstracker", "compresstracker_sutrack_b224_8", ["STUDENT.MODEL.BACKBONE.MLP_RATIO=1"])


def test_a_narrower_student_has_its_own_early_stages():
    cfg = load_config("compresstracker", "compresstracker_sutrack_b224_8", [
        "STUDENT.MODEL.BACKBONE.TYPE=fastitpnt", "COMPRESS.INIT=none", "COMPRESS.HEAD_INIT=random"])
    with torch.device("meta"):
        student = build_student(cfg)
    assert (student.embed_dim, student.depth, student.body.first) == (384, 8, 4)
    assert next(iter(student.layers[0].parameters())) is student.body.blocks[4].gamma_1


def test_parts_hold_each_name_once():
    model = build_tracker(small())
    named = {part: set(model.part_tensors(part)) for part in model.part_prefixes}
    assert sorted(name for names in named.values() for name in names) == sorted(model.state_dict())
    assert all(name.startswith(tuple(f"encoder.body.blocks.{index}." for index in (4, 5, 6, 7)))
               for name in named["layers"])
    assert {"encoder.body.blocks.0.norm2.weight", "encoder.body.blocks.3.norm.weight"} <= named["embed"]


def test_a_template_token_knows_how_much_of_it_is_target():
    share = foreground_share(torch.tensor([[[0.0, 0.5, 0.25, 0.5]], [[3 / 32, 0, 10.5 / 32, 1]]]), grid=2)
    assert share.shape == (2, 1, 4, 1)
    np.testing.assert_allclose(share.flatten(1), [[0, 0, 0.5, 0], [11 / 16, 0, 11 / 16, 0]])


def test_the_task_is_told_by_the_data_set():
    cfg = small()
    objective = cfg.family.objective(cfg)
    names = ["lasot", "coco", "tnl2k", "folder:/a/b", "DepthTrack_train"]
    assert objective.further(batch_of(cfg, names), 1)["task"].tolist() == [0, 0, 1, 0, 2]


def test_without_the_text_token(tmp_path):
    """The model has no text encoder, and reads files that have one."""
    cfg = small("DATA.MULTI_MODAL_LANGUAGE=false", "TEST.MULTI_MODAL_LANGUAGE.DEFAULT=false")
    model, source = build_tracker(cfg), scramble(build_tracker(small()))
    save_slim(tmp_path / "with.pth.tar", source, small())
    load_weights(model, tmp_path / "with.pth.tar")
    assert torch.equal(model.body.cls_token, source.body.cls_token)
    batch = batch_of(cfg)
    tokens = model.embed(Inputs.of(batch["template"], batch["search"], {"template_boxes": batch["template_box"]}))
    assert [segment.name for segment in tokens.segments] == ["class", "search", "template"]


def test_a_file_without_clip_says_what_is_missing(tmp_path):
    model = build_tracker(small())
    state = {name: value for name, value in model.state_dict().items() if name != "text_encoder.feature"}
    torch.save({"net": state}, tmp_path / "stripped.pth.tar")
    with pytest.raises(UserError, match=r"stripped.pth.tar holds neither text_encoder.feature nor all of CLIP's text "
                                        r"tower \(no text_encoder.clip.token_embedding.weight\).*MULTI_MODAL_LANGUAGE"):
        load_weights(model, tmp_path / "stripped.pth.tar")


def test_a_file_of_another_size(tmp_path):
    cfg = small("MODEL.BACKBONE.TYPE=fastitpnb")
    save_slim(tmp_path / "b.pth.tar", build_tracker(cfg), cfg)
    with pytest.raises(UserError, match=r"its main blocks begin with number 8, those of the configured model with 4"):
        load_weights(build_tracker(small()), tmp_path / "b.pth.tar")


def fast_itpn(model, side=14):
    """A file of Fast-iTPN's kind for a model, with three channels and positions of a square grid."""
    body = scramble(model.body, 3)
    state = {name: value.clone() for name, value in body.state_dict().items()
             if name.startswith(("patch_embed.", "blocks."))}
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :3]
    state["pos_embed"] = torch.arange(side * side, dtype=torch.float32).view(1, -1, 1).expand(-1, -1, 32).clone()
    return {"model": {**state, "norm.weight": torch.ones(32), "decoder_embed.weight": torch.ones(3, 3)}}


def test_a_start_from_fast_itpn(tmp_path):
    cfg = small()
    content = fast_itpn(build_tracker(cfg))
    torch.save(content, tmp_path / "itpn.pt")
    model = build_tracker(cfg)
    cfg.family.load_start(model, tmp_path / "itpn.pt")
    raw, own = content["model"], model.body.state_dict()
    weight = raw["patch_embed.proj.weight"]
    assert torch.equal(own["patch_embed.proj.weight"], torch.cat([weight / 2, weight / 2], dim=1))
    assert all(torch.equal(own[name], value) for name, value in raw.items() if name.startswith("blocks."))
    rows = torch.arange(4).view(-1, 1) * 14 + torch.arange(4)               # the top left 4 x 4 and 2 x 2 of 14 x 14
    assert own["pos_embed"][0, :, 0].tolist() == [*rows.flatten().tolist(), 0, 1, 14, 15]
    assert not own["search_token"].any() and (own["fc_norm.weight"] == 1).all()


def test_a_larger_grid_is_interpolated_from_corner_to_corner(tmp_path):
    cfg = small()
    torch.save(fast_itpn(build_tracker(cfg), side=2), tmp_path / "itpn.pt")
    model = build_tracker(cfg)
    cfg.family.load_start(model, tmp_path / "itpn.pt")
    search = model.body.pos_embed[0, :16, 5].view(4, 4)
    np.testing.assert_allclose(search[[0, 0, 3, 3], [0, 3, 0, 3]].detach(), [0, 1, 2, 3], atol=1e-6)
    assert model.body.pos_embed[0, 16:, 5].tolist() == [0, 1, 2, 3]


def test_a_start_that_does_not_fit(tmp_path):
    cfg = small()
    content = fast_itpn(build_tracker(small("MODEL.BACKBONE.DEPTH=2")))
    torch.save(content, tmp_path / "shallow.pt")
    with pytest.raises(UserError, match=r"is not the Fast-iTPN of the configuration: it lacks blocks.6.gamma_1"):
        cfg.family.load_start(build_tracker(cfg), tmp_path / "shallow.pt")


def test_the_templates_of_a_target():
    """The first stays; the other is the latest of a multiple of the interval with a score above the threshold."""
    cfg = small("TEST.UPDATE_INTERVALS.DEFAULT=2", "TEST.UPDATE_THRESHOLD.DEFAULT=0.5")
    rules = cfg.family.rules_of(cfg)
    state = rules.start(torch.zeros(1, 1, 3, 8, 8), torch.full((1, 1, 4), 0.1))

    def seen(state, number, score):
        cut = torch.full((1, 1, 3, 8, 8), float(number)), torch.full((1, 1, 4), number / 10)
        state = rules.update(state, Found(number, [0, 0, 1, 1], score, {}, lambda box: cut))
        return state, state.templates[0, :, 0, 0, 0].tolist()

    for number, score, held in ((1, 0.9, [0, 0]), (2, 0.5, [0, 0]), (4, 0.6, [0, 4]), (5, 0.9, [0, 4]),
                                (6, 0.8, [0, 6])):
        state, templates = seen(state, number, score)
        assert templates == held
    np.testing.assert_allclose(state.further["template_boxes"][0, :, 0], [0.1, 0.6])
    one = cfg.family.rules(number=1, interval=1, threshold=0.0)
    state = one.start(torch.zeros(1, 1, 3, 8, 8), torch.full((1, 1, 4), 0.1))
    assert state.templates.shape[1] == 1 and one.update(state, None) is state


def test_drop_path_rates_rise_over_all_blocks():
    """A student's layer has that of the first teacher layer of its stage."""
    def rates(model):
        early = [getattr(module.drop_path, "drop_prob", 0) for module in model.body.blocks
                 if hasattr(module, "drop_path")]
        return early, [layer.drop_path1.drop_prob for layer in model.layers]

    early, main = rates(build_tracker(small("TRAIN.DROP_PATH_RATE=0.5", "MODEL.BACKBONE.DEPTH=12")))
    np.testing.assert_allclose([*early, *main], torch.linspace(0, 0.5, 14), atol=1e-6)
    student = build_student(small("TRAIN.DROP_PATH_RATE=0.5", "MODEL.BACKBONE.DEPTH=12", script="compresstracker",
                                  config="compresstracker_sutrack_b224_8"))
    assert rates(student) == (early, [main[0], main[6]])


def test_a_student_of_another_resolution_starts_from_resampled_positions():
    cfg = small("STUDENT.DATA.SEARCH.SIZE=96", script="compresstracker", config="compresstracker_sutrack_b224_8")
    net = build_compressor(cfg, load=False)
    teacher, student = net.teacher.body.pos_embed, net.student.body.pos_embed           # 16 + 4 and 36 + 4 positions
    with torch.no_grad():
        teacher.copy_(torch.randn(teacher.shape))
    net.student.load_part("embed", net.teacher.state_dict(), net.teacher.token_grids)
    grid = teacher[:, :16].transpose(1, 2).unflatten(2, (4, 4))
    wanted = torch.nn.functional.interpolate(grid, size=(6, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(student[:, :36], wanted.flatten(2).transpose(1, 2))
    assert torch.equal(student[:, 36:], teacher[:, 16:])


def test_paths_are_dropped_for_all_crops_of_a_sample():
    """In the early stages, where a sample has several rows."""
    layer = DropPath(0.5).train()
    with drawn_paths(layer, torch.Generator().manual_seed(0), 8, slice(None), torch.device("cpu")):
        two, one = layer(torch.ones(16, 3, 2, 2)), layer(torch.ones(8, 5, 3))
    assert torch.equal(two[:, 0, 0, 0].view(8, 2), one[:, :1, 0].expand(8, 2))
    assert set(one.flatten().tolist()) == {0.0, 2.0}


def test_it_trains_compresses_resumes_and_tracks(tmp_path, square_data, train_script):
    """By the scripts' own functions, on two templates; a training that is taken up again ends as one in a row."""
    common = ["TRAIN.EPOCH=2", "TRAIN.TOTAL_BATCH=4", "TRAIN.NUM_WORKER=0", "TRAIN.DEVICE=cpu", "TRAIN.THREADS=1",
              f"DATA.TRAIN.DATASETS_NAME=['FOLDER:{square_data}']", "DATA.TRAIN.DATASETS_RATIO=[1]", "TEST.EPOCH=2",
              "DATA.TRAIN.SAMPLE_PER_EPOCH=8", "DATA.TEMPLATE.LATER_CENTER_JITTER=0.2", "TRAIN.SAVE_EPOCH_INTERVAL=1",
              "DATA.VAL.DATASETS_NAME=[]", "DATA.VAL.DATASETS_RATIO=[]"]

    def train(script, config, folder, *more):
        line = ["--script", script, "--config", config, "--save_dir", str(tmp_path / folder)]
        for text in (*TINY, *common, *more):
            line += ["--set", text]
        assert train_script(line) == 0
        return tmp_path / folder / "checkpoints" / "train" / script / config

    teacher = train("sutrack", "sutrack_b224", "out") / "SUTrack_ep0002.pth.tar"
    student = "compresstracker_sutrack_b224_8"
    whole = train("compresstracker", student, "out", f"MODEL.PRETRAIN_FILE={teacher}")
    weights = torch.load(whole / "CompressTracker_ep0002.pth.tar", weights_only=True)["net"]
    for file in (whole / "CompressTracker_ep0002.pth.tar", whole / "state_ep0002.pth"):
        file.unlink()
    train("compresstracker", student, "out", f"MODEL.PRETRAIN_FILE={teacher}")
    assert any("state_ep0001.pth" in file.read_text() for file in (tmp_path / "out").rglob("*.log"))
    again = torch.load(whole / "CompressTracker_ep0002.pth.tar", weights_only=True)["net"]
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    tracker = Tracker.from_config("compresstracker", student, save_dir=tmp_path / "out", device="cpu",
                                  overrides=[*TINY, "TEST.EPOCH=2"])
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    tracker.initialize(image, [20, 20, 20, 16])
    assert np.isfinite(tracker.track(image).box_xywh).all()
