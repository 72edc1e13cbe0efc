"""The shared weights, and the way of one task through them and through its own."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unihap.models.decoder import Decoder
from unihap.models.encoder import Encoder
from unihap.models.interpreter import Interpreter
from unihap.models.private import Private
from unihap.structures import Prediction, Supervision


class Branch(nn.Module):
    """A decoder and an interpreter that the tasks of one kind share.

    Args:
        decoder: queries read the features.
        interpreter: states become predictions.
    """

    def __init__(self, decoder: Decoder, interpreter: Interpreter) -> None:
        super().__init__()
        self.decoder = decoder
        self.interpreter = interpreter


class Shared(nn.Module):
    """The weights that several tasks train.

    Args:
        encoder: images to (B, D, h, w).
        decoder: queries read the features; ``None`` where tasks or branches have their own.
        interpreter: states become predictions; ``None`` where tasks or branches have their own.
        branches: by kind of task, where each kind has its own.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder | None,
        interpreter: Interpreter | None,
        branches: Mapping[str, Branch] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.interpreter = interpreter
        self.branches = nn.ModuleDict(branches or {})

    def forward(
        self,
        images: Tensor,
        sizes: Tensor | None,
        private: Private,
        *,
        all_layers: bool,
        checkpoint_activations: bool = False,
    ) -> list[Prediction]:
        """See ``UniHAP.forward``.

        ``private`` is the task's.  Its modules run in here, yet belong to no distributed wrapper of the shared weights:
        gradients are summed by whoever owns the parameter, wherever it was used.
        """
        features = self.encoder(
            images,
            sizes,
            prompts=None if private.prompts is None else private.prompts.encoder,
            checkpoint_activations=checkpoint_activations,
        )
        return self.interpret(features, private, all_layers=all_layers)

    def interpret(self, features: Tensor, private: Private, *, all_layers: bool) -> list[Prediction]:
        """Predictions of one task from (B, D, h, w) encoder features, which several tasks may share."""
        if private.readout is not None:
            return [private.readout(features)]
        decoder, interpreter = self._parts(private)
        queries, spec = private(), private.spec
        states = decoder(features, queries)
        if not all_layers or spec.supervision is Supervision.LAST:
            states = states[-1:]
        elif spec.supervision is Supervision.LAYERS:
            states = states[1:]
        stacked = torch.stack(states, dim=1)  # (B, L, Q, C): every unit runs once for all layers
        return interpreter(stacked, decoder.norm(stacked), features, queries.anchor, spec)

    def _parts(self, private: Private) -> tuple[Decoder, Interpreter]:
        """The decoder and the interpreter of a task: its own, those of its kind, or everyone's."""
        decoder, interpreter = private.decoder or self.decoder, private.interpreter or self.interpreter
        if private.branch:
            branch = self.branches[private.branch]
            assert isinstance(branch, Branch)
            return branch.decoder, branch.interpreter
        assert decoder is not None
        assert interpreter is not None
        return decoder, interpreter
