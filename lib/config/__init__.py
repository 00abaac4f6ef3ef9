"""Configurations: a yaml file over a schema with defaults; immutable once loaded."""

from .checks import BackboneShape, backbone_shape
from .config import SCRIPTS, Config, Section, config_from_dict, list_configs, load_config
from .schema import COCO_PREFIX, DATASETS, FOLDER_PREFIX, KEYS, SAMPLER_MODES

__all__ = ["COCO_PREFIX", "DATASETS", "FOLDER_PREFIX", "KEYS", "SAMPLER_MODES", "SCRIPTS", "BackboneShape", "Config",
           "Section", "backbone_shape", "config_from_dict", "list_configs", "load_config"]
