"""The configuration: schema, files, overrides, checks."""

import copy
import logging
import pickle
import subprocess
import sys

import pytest
import yaml

from lib.config import SCRIPTS, Config, list_configs, load_config, schema_of
from lib.config.document import configuration_markdown
from lib.config.schema import KINDS
from lib.config.values import checked
from lib.utils.errors import UserError

KEYS = schema_of("ostrack")
ALL = [(script, name) for script in ("ostrack", "compresstracker") for name in list_configs(script)]
CE = "vitb_256_mae_ce_32x4_ep300"
STUDENT = "compresstracker_vitb_256_4"

# The layout of the released CompressTracker yaml files: TRAIN stands twice under DATA, the first time empty.
OFFICIAL = """
DATA:
  MAX_SAMPLE_INTERVAL: 200
  MEAN: [0.485, 0.456, 0.406]
  SEARCH: {CENTER_JITTER: 3, FACTOR: 4.0, SCALE_JITTER: 0.25, SIZE: 256, NUMBER: 1}
  STD: [0.229, 0.224, 0.225]
  TEMPLATE: {CENTER_JITTER: 0, FACTOR: 2.0, SCALE_JITTER: 0, SIZE: 128}
  TRAIN:
  #  DATASETS_NAME: [TRACKINGNET]

  TRAIN:
    DATASETS_NAME: [LASOT, GOT10K_vottrain, COCO17, TRACKINGNET]
    DATASETS_RATIO: [1, 1, 1, 1]
    SAMPLE_PER_EPOCH: 60000
  VAL: {DATASETS_NAME: [GOT10K_votval], DATASETS_RATIO: [1], SAMPLE_PER_EPOCH: 10000}
MODEL:
  PRETRAIN_FILE: "./pretrained_models/OSTrack_ep0300.pth.tar"
  EXTRA_MERGER: False
  RETURN_INTER: False
  BACKBONE:
    PRETRAIN_FILE: "mae_pretrain_vit_base.pth"
    TYPE: vit_base_patch16_224_compress
    STRIDE: 16
    DISTILL_LAYER: 4
  HEAD: {TYPE: CENTER, NUM_CHANNELS: 256}
TRAIN:
  BACKBONE_MULTIPLIER: 0.1
  DROP_PATH_RATE: 0.1
  BATCH_SIZE: 32
  EPOCH: 500
  GIOU_WEIGHT: 2.0
  L1_WEIGHT: 5.0
  GRAD_CLIP_NORM: 0.1
  LR: 0.0004
  LR_DROP_EPOCH: 400
  NUM_WORKER: 8
  OPTIMIZER: ADAMW
  PRINT_INTERVAL: 50
  SCHEDULER: {TYPE: step, DECAY_RATE: 0.1}
  VAL_EPOCH_INTERVAL: 10
  WEIGHT_DECAY: 0.0001
  AMP: False
  SUP_LOGIT: True
  SUP_FEAT: True
  SUP_REPLACE: True
TEST: {EPOCH: 500, SEARCH_FACTOR: 4.0, SEARCH_SIZE: 256, TEMPLATE_FACTOR: 2.0, TEMPLATE_SIZE: 128}
"""


def flat(tree, prefix=""):
    """Nested dictionaries -> {dotted name: value}."""
    out = {}
    for name, value in tree.items():
        out.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return out


@pytest.fixture
def load(tmp_path):
    """Load a text as a yaml file of a script."""
    def load(text, script="ostrack", overrides=()):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return load_config(script, str(path), overrides)
    return load


def fails(function, *words):
    with pytest.raises(UserError) as error:
        function()
    for word in words:
        assert word in str(error.value), str(error.value)


# ---- the schema


@pytest.mark.parametrize("name", KEYS)
def test_every_key_is_complete_and_accepts_its_default(name):
    key = KEYS[name]
    assert key.kind in KINDS
    assert len(key.doc) > 8 and key.doc.endswith(".") and "\n" not in key.doc
    default = list(key.default) if isinstance(key.default, tuple) else key.default
    value = checked(KEYS, name, default, "here")
    assert value == key.default and type(value) is type(key.default)


def test_the_page_of_documentation_is_current(root):
    written = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == configuration_markdown(), "run python docs/make_configuration.py"
    assert all(f"| `{name}` |" in written for name in KEYS)


def test_the_page_can_be_made_from_anywhere(root, tmp_path):
    target = tmp_path / "page.md"
    subprocess.run([sys.executable, root / "docs" / "make_configuration.py", "--output", target], cwd=tmp_path,
                   check=True)
    assert target.read_text(encoding="utf-8") == configuration_markdown()


# ---- the experiments


def test_the_promised_experiments_are_there():
    sizes = {(256, ""), (256, "ce_"), (384, ""), (384, "ce_")}
    teachers = {f"vitb_{size}_mae_{ce}32x4_ep300" for size, ce in sizes}
    teachers |= {f"vitb_{size}_mae_ce_32x4_got10k_ep100" for size in (256, 384)}
    students = {f"compresstracker_vitb_256_{n}" for n in (2, 3, 4, 6, 8)} | {"compresstracker_vitb_384_4"}
    students |= {f"compresstracker_vitb_256_{n}_released" for n in (2, 3, 4, 6)}
    assert teachers <= set(list_configs("ostrack"))
    assert students <= set(list_configs("compresstracker"))


@pytest.mark.parametrize(("script", "name"), ALL)
def test_an_experiment_loads_and_states_only_what_differs(script, name, caplog):
    cfg = load_config(script, name)
    assert (cfg.script, cfg.name) == (script, name)
    assert not caplog.records
    stated = flat(yaml.safe_load(cfg.source.read_text(encoding="utf-8")))
    resolved = flat(cfg.to_dict())
    keys = schema_of(cfg.family.name)
    assert set(resolved) == set(keys)
    if name.startswith("quickstart"):
        return  # these spell out their whole small model
    same = [key for key in stated if checked(keys, key, stated[key], name) == keys[key].default
            and key != "MODEL.FAMILY"]
    assert not same, f"these lines restate a default: {same}"


@pytest.mark.parametrize("layers", [2, 3, 4, 6, 8])
def test_students_follow_the_paper(layers):
    cfg = load_config("compresstracker", f"compresstracker_vitb_256_{layers}")
    train, compress = cfg.TRAIN, cfg.COMPRESS
    assert (train.EPOCH, train.LR_DROP_EPOCH, train.TOTAL_BATCH) == (500, 400, 128)
    assert train.LR * train.BACKBONE_MULTIPLIER == pytest.approx(4e-5)
    assert (train.SUP_LOGIT, train.SUP_FEAT, train.SUP_REPLACE) == (True, True, True)
    assert (compress.SCHEDULE, compress.P_INIT, compress.ALPHA1, compress.ALPHA2) == ("progressive", 0.5, 0.1, 0.1)
    assert (compress.TRACK_WEIGHT, compress.PRED_WEIGHT, compress.FEAT_WEIGHT) == (1, 1, 0.2)
    assert (compress.PRED_FORM, compress.FEAT_FORM) == ("full", "tokens")
    assert (compress.DRAWS, compress.TEACHER_MODE, compress.FORCED_STUDENT) == ("batch", "eval", False)
    assert compress.TRAINABLE == ("embed", "layers", "norm", "head")
    assert (cfg.MODEL.BACKBONE.DISTILL_LAYER, cfg.shape.depth) == (layers, 12)
    assert cfg.DATA.TRAIN.DATASETS_NAME == ("LASOT", "GOT10K_vottrain", "COCO17", "TRACKINGNET")
    assert compress.STAGES == ((1, 2) * 4 if layers == 8 else ())


@pytest.mark.parametrize("layers", [2, 3, 4, 6])
def test_released_twins_differ_from_the_paper_only_where_said(layers):
    paper = flat(load_config("compresstracker", f"compresstracker_vitb_256_{layers}").to_dict())
    released = flat(load_config("compresstracker", f"compresstracker_vitb_256_{layers}_released").to_dict())
    assert {key: released[key] for key in released if released[key] != paper[key]} == {
        "COMPRESS.SCHEDULE": "released", "COMPRESS.FORCED_STUDENT": True, "COMPRESS.DRAWS": "process",
        "COMPRESS.TEACHER_MODE": "train", "COMPRESS.PRED_FORM": "boxes", "COMPRESS.FEAT_FORM": "halves",
        "TRAIN.TOTAL_BATCH": 256}


def test_the_384_models():
    for script, name in (("ostrack", "vitb_384_mae_ce_32x4_ep300"), ("compresstracker", "compresstracker_vitb_384_4")):
        cfg = load_config(script, name)
        search = cfg.DATA.SEARCH
        assert (search.SIZE, search.FACTOR, search.CENTER_JITTER, search.SCALE_JITTER) == (384, 5.0, 4.5, 0.5)
        assert (cfg.DATA.TEMPLATE.SIZE, cfg.TEST.TEMPLATE_SIZE, cfg.TEST.SEARCH_SIZE) == (192, 192, 384)


# ---- files of the official repositories


def test_an_official_yaml_loads_unchanged(load, caplog):
    cfg = load(OFFICIAL, "compresstracker")
    assert cfg.DATA.TRAIN.DATASETS_NAME == ("LASOT", "GOT10K_vottrain", "COCO17", "TRACKINGNET")
    assert not caplog.records  # the empty first TRAIN loses nothing
    ours = load_config("compresstracker", STUDENT + "_released")
    differing = {key for key, value in flat(cfg.to_dict()).items() if value != flat(ours.to_dict())[key]}
    assert {key for key in differing if not key.startswith("COMPRESS.")} == {
        "MODEL.PRETRAIN_FILE", "TRAIN.BATCH_SIZE", "TRAIN.TOTAL_BATCH"}
    assert cfg.TRAIN.BATCH_SIZE * 8 == ours.TRAIN.TOTAL_BATCH  # on 8 processes, as the official code was run


def test_a_key_written_twice_is_reported_and_the_last_counts(load, caplog):
    with caplog.at_level(logging.WARNING):
        cfg = load("TRAIN:\n  EPOCH: 3\n  LR: 0.1\n  EPOCH: 4\n")
    assert cfg.TRAIN.EPOCH == 4
    assert "run.yaml, line 4: EPOCH is written twice" in caplog.text


def test_an_empty_file_is_all_defaults(load):
    assert flat(load("").to_dict()) == {name: list(key.default) if isinstance(key.default, tuple) else key.default
                                        for name, key in KEYS.items()}


# ---- values


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("'1e-4'", 1e-4), ("3", 3.0), ("4.0E-5", 4e-5)])
def test_numbers_in_every_spelling(load, text, value):
    cfg = load(f"TRAIN:\n  LR: {text}\n")
    assert cfg.TRAIN.LR == value and isinstance(cfg.TRAIN.LR, float)


@pytest.mark.parametrize(("key", "text", "words"), [
    ("TRAIN.LR", "fast", ["'fast'", "a number", "above 0"]),
    ("TRAIN.LR", "0", ["0", "above 0"]),
    ("TRAIN.LR", ".nan", ["nan", "a number"]),
    ("TRAIN.LR", "true", ["true", "a number"]),
    ("TRAIN.EPOCH", "2.5", ["2.5", "whole number"]),
    ("TRAIN.EPOCH", "true", ["true", "whole number"]),
    ("TRAIN.EPOCH", "0", ["0", "at least 1"]),
    ("TRAIN.EPOCH", "", ["empty", "whole number"]),
    ("TRAIN.AMP", "1", ["1", "true or false"]),
    ("TRAIN.AMP", "{a: 1}", ["a section with a"]),
    ("TRAIN.DEVICE", "tpu", ["'tpu'", "auto, cpu, cuda, cuda:N"]),
    ("TRAIN.DROP_PATH_RATE", "1.0", ["at most 0.99"]),
    ("DATA.MEAN", "[0.5, 0.5]", ["3 entries"]),
    ("DATA.STD", "[0.5, 0, 0.5]", ["above 0"]),
    ("DATA.MEAN", "0.5", ["a list of numbers"]),
    ("DATA.TRAIN.DATASETS_NAME", "[LASOT, GOT10K_train]", ["GOT10K_vottrain", "did you mean GOT10K_"]),
    ("DATA.TRAIN.DATASETS_NAME", "['FOLDER:', LASOT]", ["FOLDER:<path>"]),
    ("DATA.TRAIN.DATASETS_NAME", "[]", ["each of"]),
    ("MODEL.HEAD.TYPE", "center", ["did you mean CENTER?"]),
    ("MODEL.BACKBONE.TYPE", "vit_huge_patch16_224", ["one of vit_tiny_patch16_224"]),
    ("MODEL.BACKBONE.CAT_MODE", "partition", ["only direct", "not built"]),
    ("MODEL.BACKBONE.MID_PE", "true", ["only false"]),
    ("TRAIN.OPTIMIZER", "SGD", ["only ADAMW"]),
    ("COMPRESS.TRAINABLE", "[layers, neck]", ["embed, layers, norm, head"]),
])
@pytest.mark.parametrize("way", ["file", "override"])
def test_a_wrong_value_is_an_error_with_key_and_choices(load, way, key, text, words):
    if way == "override":
        fails(lambda: load("", overrides=[f"{key}={text}"]), "override", key, *words)
        return
    *sections, leaf = key.split(".")
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
    fails(lambda: load("\n".join([*lines, f"{'  ' * len(sections)}{leaf}: {text}"])), "run.yaml", key, *words)


@pytest.mark.parametrize(("text", "words"), [
    ("TRAIN:\n  BACH_SIZE: 3\n", ["TRAIN.BACH_SIZE", "did you mean TRAIN.BATCH_SIZE?"]),
    ("BATCH_SIZE: 3\n", ["did you mean TRAIN.BATCH_SIZE?"]),
    ("TRIAN:\n  EPOCH: 3\n", ["did you mean TRAIN?"]),
    ("TEST:\n  ZZZ: 3\n", ["TEST.ZZZ", "TEST.EPOCH".split(".")[1], "WINDOW"]),
    ("TRAIN: 3\n", ["section TRAIN holds 3"]),
    ("- 1\n", ["the file holds [1]"]),
    ("TRAIN: {EPOCH: 3\n", ["not valid yaml", "line 2"]),
    ("TRAIN:\n  EPOCH: !!python/object/apply:os.getcwd []\n", ["not valid yaml"]),
])
def test_a_wrong_file_is_an_error_with_its_name(load, text, words):
    fails(lambda: load(text), "run.yaml", *words)


@pytest.mark.parametrize(("text", "words"), [
    ("TRAIN.EPOCH", ["KEY=VALUE"]),
    ("=3", ["KEY=VALUE"]),
    ("EPOCH=3", ["did you mean TRAIN.EPOCH or TEST.EPOCH?"]),
    ("TRAIN={EPOCH: 3}", ["TRAIN is a section", "TRAIN.EPOCH"]),
    ("DATA.MEAN=[1, 2", ["not valid yaml"]),
])
def test_a_wrong_override_is_an_error(load, text, words):
    fails(lambda: load("", overrides=[text]), "override", *words)


# ---- combinations


@pytest.mark.parametrize(("script", "name", "overrides", "words"), [
    ("compresstracker", STUDENT, ["COMPRESS.STAGES=[2, 2, 6, 1]"], ["COMPRESS.STAGES", "11 layers", "teacher's 12"]),
    ("compresstracker", STUDENT, ["COMPRESS.STAGES=[6, 6]"], ["2 stages", "DISTILL_LAYER (4)"]),
    ("compresstracker", STUDENT, ["MODEL.BACKBONE.DISTILL_LAYER=13"], ["only 12 layers"]),
    ("compresstracker", STUDENT, ["COMPRESS.ALPHA1=0.7", "COMPRESS.ALPHA2=0.4"], ["COMPRESS.ALPHA1 0.7", "at most 1"]),
    ("compresstracker", STUDENT, ["COMPRESS.TRAINABLE=[layers]", "COMPRESS.HEAD_INIT=random"], ["stay random"]),
    ("compresstracker", STUDENT, ["COMPRESS.TRAINABLE=[head]", "COMPRESS.INIT=none"], ["stay random"]),
    ("compresstracker", STUDENT, ["COMPRESS.TRAINABLE=[head, head]"], ["once"]),
    ("compresstracker", STUDENT, ["MODEL.BACKBONE.TYPE=vit_base_patch16_224_ce", "MODEL.BACKBONE.CE_LOC=[3]",
                                  "MODEL.BACKBONE.CE_KEEP_RATIO=[0.7]"], ["keeps all tokens"]),
    ("ostrack", CE, ["MODEL.BACKBONE.CE_LOC=[3, 6]"], ["2 entries", "CE_KEEP_RATIO 3"]),
    ("ostrack", CE, ["MODEL.BACKBONE.CE_LOC=[3, 6, 12]"], ["from 0 to 11"]),
    ("ostrack", CE, ["MODEL.BACKBONE.CE_LOC=[6, 3, 9]"], ["rising"]),
    ("ostrack", CE, ["MODEL.BACKBONE.TYPE=vit_base_patch16_224"], ["ends in _ce"]),
    ("ostrack", CE, ["MODEL.BACKBONE.TYPE=vit_base_patch16_224_compress"], ["script compresstracker"]),
    ("ostrack", CE, ["DATA.SEARCH.SIZE=250", "TEST.SEARCH_SIZE=250"], ["DATA.SEARCH.SIZE is 250", "STRIDE (16)"]),
    ("ostrack", CE, ["TEST.SEARCH_SIZE=320"], ["TEST.SEARCH_SIZE is 320", "DATA.SEARCH.SIZE (256)"]),
    ("ostrack", CE, ["TEST.TEMPLATE_SIZE=192"], ["TEST.TEMPLATE_SIZE is 192"]),
    ("ostrack", CE, ["MODEL.BACKBONE.EMBED_DIM=100"], ["100", "12 attention heads"]),
    ("ostrack", CE, ["MODEL.BACKBONE.STRIDE=10"], ["IMG_SIZE is 224"]),
    ("ostrack", CE, ["DATA.TRAIN.DATASETS_NAME=[LASOT]"], ["has 1 entries", "DATASETS_RATIO 4"]),
    ("ostrack", CE, ["DATA.VAL.DATASETS_RATIO=[0]"], ["above 0"]),
    ("ostrack", CE, ["DATA.SCALED_DECODE=true", "DATA.LOADER=crops"], ["LOADER crops", "use LOADER frames"]),
    ("ostrack", CE, ["DATA.SCALED_DECODE=true", "DATA.DECODER=opencv"], ["DECODER opencv"]),
    ("ostrack", CE, ["TRAIN.SCHEDULER.TYPE=Mstep"], ["MILESTONES is empty"]),
    ("ostrack", CE, ["TRAIN.SCHEDULER.MILESTONES=[20, 10]"], ["rising"]),
    ("ostrack", CE, ["TRAIN.EPOCH=1", "TRAIN.WARMUP_EPOCH=1.5"], ["TRAIN.WARMUP_EPOCH is 1.5"]),
    ("ostrack", CE, ["TRAIN.FROZEN_LAYERS=13"], ["TRAIN.FROZEN_LAYERS is 13; the tracker has only 12 layers"]),
    ("ostrack", CE, ["TRAIN.FROZEN_LAYERS=6", "MODEL.PRETRAIN_FILE="], ["these layers would stay random"]),
    ("compresstracker", STUDENT, ["TRAIN.FROZEN_LAYERS=6"], ["COMPRESS.TRAINABLE"]),
    ("ostrack", CE, ["TRAIN.BATCH_SIZE=4"], ["no effect", "TRAIN.TOTAL_BATCH is 128", "TRAIN.TOTAL_BATCH=0"]),
])
def test_an_impossible_combination_is_an_error(script, name, overrides, words):
    fails(lambda: load_config(script, name, overrides), f"{name}.yaml", overrides[0].split("=")[0], *words)


def test_all_problems_are_told_at_once():
    fails(lambda: load_config("ostrack", CE, ["TEST.SEARCH_SIZE=320", "TEST.TEMPLATE_SIZE=64"]), "320", "64")


def test_possible_combinations_pass():
    cfg = load_config("compresstracker", STUDENT, ["COMPRESS.STAGES=[2, 2, 6, 2]", "COMPRESS.ALPHA1=0.5",
                                                   "COMPRESS.ALPHA2=0.5"])
    assert cfg.COMPRESS.STAGES == (2, 2, 6, 2)
    cfg = load_config("compresstracker", STUDENT, ["MODEL.BACKBONE.DISTILL_LAYER=5"])  # an even division with a rest
    assert cfg.COMPRESS.STAGES == ()
    names = "[FOLDER:data/my set@lists/a.txt, LASOT]"
    cfg = load_config("ostrack", CE, [f"DATA.TRAIN.DATASETS_NAME={names}", "DATA.TRAIN.DATASETS_RATIO=[3, 0]"])
    assert cfg.DATA.TRAIN.DATASETS_NAME == ("FOLDER:data/my set@lists/a.txt", "LASOT")
    cfg = load_config("ostrack", CE, ["TRAIN.TOTAL_BATCH=0", "TRAIN.BATCH_SIZE=4"])
    assert cfg.TRAIN.BATCH_SIZE == 4


@pytest.mark.parametrize(("kind", "shape"), [("tiny", (192, 12, 3, 4)), ("small", (384, 12, 6, 4)),
                                             ("base", (768, 12, 12, 4)), ("large", (1024, 24, 16, 4))])
def test_the_backbone_shape_comes_from_its_type(load, kind, shape):
    text = f"MODEL:\n  BACKBONE:\n    TYPE: vit_{kind}_patch16_224\n"
    assert load(text).shape == shape
    assert load(text + "    DEPTH: 3\n    EMBED_DIM: 96\n    NUM_HEADS: 2\n    MLP_RATIO: 2\n").shape == (
        96, 3, 2, 2)


# ---- the object


def test_a_configuration_cannot_be_changed():
    cfg = load_config("ostrack", CE)
    for change in (lambda: setattr(cfg.TRAIN, "EPOCH", 1), lambda: setattr(cfg, "TRAIN", None),
                   lambda: setattr(cfg.TRAIN, "NEW", 1), lambda: delattr(cfg.TRAIN, "EPOCH")):
        with pytest.raises(AttributeError, match="cannot be changed"):
            change()
    cfg.to_dict()["TRAIN"]["EPOCH"] = 1
    cfg.to_dict()["DATA"]["MEAN"].append(1)
    assert cfg == load_config("ostrack", CE)


def test_a_misspelt_attribute_names_the_near_one():
    with pytest.raises(AttributeError, match="did you mean BATCH_SIZE?"):
        print(load_config("ostrack", CE).TRAIN.BATCHSIZE)


def test_overrides_make_another_configuration():
    cfg = load_config("ostrack", CE, ["TRAIN.TOTAL_BATCH=4"])
    other = cfg.with_overrides({"TRAIN.EPOCH": 3, "MODEL.BACKBONE.CE_KEEP_RATIO": [0.5, 0.5, 1]})
    assert isinstance(other, Config)
    assert (cfg.TRAIN.EPOCH, other.TRAIN.EPOCH, other.TRAIN.TOTAL_BATCH) == (300, 3, 4)
    assert other.MODEL.BACKBONE.CE_KEEP_RATIO == (0.5, 0.5, 1.0)
    assert other.overrides == ("TRAIN.TOTAL_BATCH", "TRAIN.EPOCH", "MODEL.BACKBONE.CE_KEEP_RATIO")
    fails(lambda: cfg.with_overrides({"TRAIN.EPOC": 3}), "TRAIN.EPOC", "did you mean TRAIN.EPOCH?")
    fails(lambda: cfg.with_overrides({"TRAIN.EPOCH": 0}), "TRAIN.EPOCH is 0")
    fails(lambda: cfg.with_overrides({"DATA.SEARCH.SIZE": 320}), "TEST.SEARCH_SIZE")


def test_the_last_override_counts_and_a_text_may_be_empty():
    cfg = load_config("ostrack", CE, ["TRAIN.EPOCH=4", "MODEL.PRETRAIN_FILE=", "TRAIN.EPOCH=5", "TRAIN.LR=2e-4"])
    assert (cfg.TRAIN.EPOCH, cfg.MODEL.PRETRAIN_FILE, cfg.TRAIN.LR) == (5, "", 2e-4)


@pytest.mark.parametrize(("script", "name"), ALL)
def test_a_saved_configuration_reads_back_the_same(script, name, tmp_path):
    cfg = load_config(script, name, ["TRAIN.LR=1e-7", "TRAIN.SEED=5"])
    path = tmp_path / "deep" / "config.yaml"
    cfg.save(path)
    assert load_config(script, str(path)) == cfg
    assert cfg.name in path.read_text(encoding="utf-8").splitlines()[0]


def test_copies_and_pickles_are_equal():
    cfg = load_config("compresstracker", STUDENT, ["TRAIN.EPOCH=7"])
    for twin in (pickle.loads(pickle.dumps(cfg)), copy.deepcopy(cfg)):
        assert twin == cfg and hash(twin) == hash(cfg)
        assert (twin.script, twin.name, twin.source, twin.origin()) == (cfg.script, cfg.name, cfg.source, cfg.origin())
    assert cfg != load_config("compresstracker", STUDENT)
    assert pickle.loads(pickle.dumps(cfg.TRAIN)) == cfg.TRAIN


# ---- finding files


def test_a_missing_experiment_is_an_error_that_helps():
    fails(lambda: load_config("ostrack", "vitb_256_mae_ce_32x4_ep30"), "did you mean", CE)
    fails(lambda: load_config("ostrack", STUDENT), "belongs to script compresstracker")
    fails(lambda: load_config("ostrack", "zzz"), "choose one of", CE)
    fails(lambda: load_config("ostracc", CE), ", ".join(SCRIPTS))
    fails(lambda: load_config("ostrack", "nowhere/run.yaml"), "nowhere/run.yaml", "not found")


def test_paths_start_at_the_working_directory_and_then_at_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("TRAIN:\n  EPOCH: 9\n")
    assert load_config("ostrack", "mine.yaml").TRAIN.EPOCH == 9
    assert load_config("ostrack", f"experiments/ostrack/{CE}.yaml") == load_config("ostrack", CE)


def test_training_without_validation():
    cfg = load_config("ostrack", "vitb_256_mae_32x4_ep300",
                      ["DATA.VAL.DATASETS_NAME=[]", "DATA.VAL.DATASETS_RATIO=[]"])
    assert cfg.DATA.VAL.DATASETS_NAME == ()
    with pytest.raises(UserError, match=r"DATA\.TRAIN\.DATASETS_NAME"):
        load_config("ostrack", "vitb_256_mae_32x4_ep300",
                    ["DATA.TRAIN.DATASETS_NAME=[]", "DATA.TRAIN.DATASETS_RATIO=[]"])
