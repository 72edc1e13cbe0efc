"""UniHAP: one encoder, one decoder and one interpreter for every task, and private queries for each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unihap.lookup import lookup
from unihap.models.decoder import Decoder
from unihap.models.encoder import Encoder
from unihap.models.interpreter import Interpreter
from unihap.models.private import Private, Queries
from unihap.structures import Prediction, Supervision, TaskSpec


class Shared(nn.Module):
    """The weights that every task trains.

    Args:
        encoder: images to (B, D, h, w).
        decoder: queries read the features.
        interpreter: states become predictions.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, interpreter: Interpreter) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.interpreter = interpreter

    def forward(
        self,
        images: Tensor,
        sizes: Tensor | None,
        queries: Queries,
        spec: TaskSpec,
        *,
        all_layers: bool,
        checkpoint_activations: bool = False,
    ) -> list[Prediction]:
        """See ``UniHAP.forward``; ``queries`` and ``spec`` are the task's."""
        features = self.encoder(images, sizes, checkpoint_activations=checkpoint_activations)
        return self.interpret(features, queries, spec, all_layers=all_layers)

    def interpret(self, features: Tensor, queries: Queries, spec: TaskSpec, *, all_layers: bool) -> list[Prediction]:
        """Predictions of one task from (B, D, h, w) encoder features, which several tasks may share."""
        states = self.decoder(features, queries)
        if not all_layers or spec.supervision is Supervision.LAST:
            states = states[-1:]
        elif spec.supervision is Supervision.LAYERS:
            states = states[1:]
        stacked = torch.stack(states, dim=1)  # (B, L, Q, C): every unit runs once for all layers
        return self.interpreter(stacked, self.decoder.norm(stacked), features, queries.anchor, spec)


class UniHAP(nn.Module):
    """The model.

    Args:
        shared: encoder, decoder and interpreter.
        specs: the tasks it serves; their order is the order of ``tasks``.

    Attributes:
        shared: weights that every task trains.
        private: ``private[task]``, weights that one task trains.
    """

    def __init__(self, shared: Shared, specs: Iterable[TaskSpec]) -> None:
        super().__init__()
        self.shared = shared
        self.private = nn.ModuleDict({spec.name: Private(spec, shared.decoder.width) for spec in specs})

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks the model serves."""
        return list(self.private)

    def forward(
        self, images: Tensor, task: str, sizes: Tensor | None = None, *, all_layers: bool | None = None
    ) -> list[Prediction]:
        """Predicts for one task.

        Args:
            images: (B, 3, H, W) uint8 or float, RGB 0-255; H and W are padded to multiples of 16 inside.
            task: one of ``tasks``.
            sizes: (B, 2) heights and widths of the images before padding, when a batch mixes sizes.
            all_layers: give a prediction per supervised layer; default: in training mode.

        Returns:
            Predictions of the supervised layers, or of the last one alone; the last entry is the answer.

        Raises:
            ValueError: unknown task, or images of another shape.
        """
        private = lookup({name: self.private[name] for name in self.private}, task, "task")
        assert isinstance(private, Private)
        return task_forward(
            self.shared, private, images, sizes, all_layers=self.training if all_layers is None else all_layers
        )


@dataclass(frozen=True)
class Architecture:
    """What must be known to make the model before its weights fit; a checkpoint's card holds it.

    Attributes:
        encoder: a key of ``ENCODERS`` or a plain timm ViT.
        position_grid: (h, w) of the encoder's position table.
        drop_path: stochastic depth of the encoder's last block.
        width: decoder width C.
        num_heads: of the decoder's attention.
        num_layers: of the decoder.
        feedforward: hidden width of the decoder's feed-forward networks.
    """

    encoder: str = "vit_base_patch16"
    position_grid: tuple[int, int] = (84, 84)
    drop_path: float = 0.2
    width: int = 256
    num_heads: int = 8
    num_layers: int = 9
    feedforward: int = 2048

    def make(self, specs: Iterable[TaskSpec]) -> UniHAP:
        """A model with random weights that serves the given tasks."""
        encoder = Encoder(self.encoder, self.position_grid, self.drop_path)
        decoder = Decoder(encoder.width, self.width, self.num_heads, self.num_layers, self.feedforward)
        return UniHAP(Shared(encoder, decoder, Interpreter(encoder.width, self.width)), specs)


def task_forward(
    shared: nn.Module,
    private: Private,
    images: Tensor,
    sizes: Tensor | None,
    *,
    all_layers: bool,
    checkpoint_activations: bool = False,
) -> list[Prediction]:
    """The forward pass of one task, from its shared (possibly wrapped for distribution) and its private weights."""
    predictions: Sequence[Prediction] = shared(
        images,
        sizes,
        private(),
        private.spec,
        all_layers=all_layers,
        checkpoint_activations=checkpoint_activations,
    )
    if private.feature_norm is not None:
        for p in predictions:
            assert p.feature is not None
            p.normed_feature = private.feature_norm(p.feature)
    return list(predictions)
