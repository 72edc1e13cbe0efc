"""The parts of a model that are trained or frozen, and learn at rates of their own, when it is adapted to a task."""

from collections.abc import Collection

from torch import nn

from unihap.lookup import lookup

SHARED_PARTS = ("encoder", "decoder", "interpreter")
PARTS = (*SHARED_PARTS, "private")


def part_of(name: str) -> str:
    """The part that a weight or module belongs to, or ``""``.

    >>> part_of("shared.encoder.blocks.0.norm1.weight"), part_of("private.coco_pose.content"), part_of("shared")
    ('encoder', 'private', '')
    """
    return next((word for word in name.split(".") if word in PARTS), "")


def check_parts(parts: Collection[str]) -> frozenset[str]:
    """Parts that a user names.

    Raises:
        ValueError: none, or an unknown one.
    """
    for part in parts:
        lookup(dict.fromkeys(PARTS), part, "FINETUNE.PARTS entry")
    if not parts:
        raise ValueError(f"FINETUNE.PARTS is empty; name at least one of {', '.join(PARTS)}")
    return frozenset(parts)


def freeze(model: nn.Module, parts: Collection[str]) -> list[nn.Parameter]:
    """Switches the gradients of some parts off.

    Returns:
        The parameters that had one; those are what ``release`` may switch on again.
    """
    frozen = [p for name, p in model.named_parameters() if part_of(name) in parts and p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


def release(frozen: list[nn.Parameter]) -> None:
    """Switches the gradients of frozen parameters on."""
    for parameter in frozen:
        parameter.requires_grad_(True)


def set_modes(model: nn.Module) -> None:
    """Training mode for what trains and evaluation mode for parts without gradients: they must not drop paths."""
    model.train()
    trained = {part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, module in model.named_modules():
        if part_of(name) and part_of(name) not in trained:
            module.training = False
