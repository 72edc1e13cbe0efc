from unihap.config.defaults import TASK_DEFAULTS, get_cfg
from unihap.config.load import CfgNode, ConfigError

__all__ = ["TASK_DEFAULTS", "CfgNode", "ConfigError", "get_cfg"]
