"""unihap: one model for people in images."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["build_model", "get_cfg", "load_model", "load_prompt", "save_prompt"]

if TYPE_CHECKING:
    from unihap.build import build_model
    from unihap.checkpoints.prompts import load_prompt, save_prompt
    from unihap.config import get_cfg
    from unihap.engine.checkpoint import load_model

_HOMES = {
    "build_model": "unihap.build",
    "get_cfg": "unihap.config",
    "load_model": "unihap.engine.checkpoint",
    "load_prompt": "unihap.checkpoints.prompts",
    "save_prompt": "unihap.checkpoints.prompts",
}


def __getattr__(name: str) -> Any:
    """Imports the public names when they are asked for, so that ``import unihap.losses`` loads no more than that."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'unihap' has no attribute {name!r}")
