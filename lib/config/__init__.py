"""Configurations: a yaml file over a schema with defaults; immutable once loaded."""

from .config import (
    SCRIPTS,
    Config,
    Section,
    changed_keys,
    config_from_dict,
    list_configs,
    load_config,
    parse_override,
    read_yaml,
)
from .schema import COCO_PREFIX, DATASETS, FOLDER_PREFIX, SAMPLER_MODES, schema_of

__all__ = ["COCO_PREFIX", "DATASETS", "FOLDER_PREFIX", "SAMPLER_MODES", "SCRIPTS", "Config", "Section",
           "changed_keys", "config_from_dict", "list_configs", "load_config", "parse_override", "read_yaml",
           "schema_of"]
