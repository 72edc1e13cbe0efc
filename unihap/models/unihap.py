"""UniHAP: one encoder, one decoder and one interpreter for every task, and private queries for each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from unihap.lookup import lookup
from unihap.models.decoder import Decoder
from unihap.models.encoder import Encoder
from unihap.models.interpreter import Interpreter
from unihap.models.private import Private
from unihap.models.prompts import DeepPrompts, check_blocks
from unihap.models.readout import LinearReadout
from unihap.models.shared import Branch, Shared
from unihap.structures import Prediction, TaskSpec


class UniHAP(nn.Module):
    """The model.

    Args:
        architecture: what it is made of.
        shared: encoder, decoder and interpreter.
        private: of the tasks it serves; their order is the order of ``tasks``.

    Attributes:
        architecture: of the tasks it was made with; a task that is added later may have prompts of its own.
        shared: weights that every task trains.
        private: ``private[task]``, weights that one task trains.
    """

    def __init__(self, architecture: "Architecture", shared: Shared, private: Iterable[Private]) -> None:
        super().__init__()
        self.architecture = architecture
        self.shared = shared
        self.private = nn.ModuleDict({p.spec.name: p for p in private})

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks the model serves."""
        return list(self.private)

    def make_private(
        self, spec: TaskSpec, decoder_prompts: int = 0, encoder_prompts: int = 0, *, kind: str = ""
    ) -> Private:
        """Random private weights of a task that fit this model; to serve it, put them into ``private``.

        Args:
            spec: the task.
            decoder_prompts: see ``Architecture``.
            encoder_prompts: see ``Architecture``.
            kind: of the task, for a model whose decoders are shared by kind.

        Raises:
            ValueError: see ``Architecture.make``.
        """
        architecture = replace(self.architecture, decoder_prompts=decoder_prompts, encoder_prompts=encoder_prompts)
        private = architecture.make_private(spec, self.shared.encoder, kind)
        if private.branch:
            lookup(dict(self.shared.branches.items()), private.branch, f"kind of task {spec.name} in this model")
        return private

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


# By name: whether all tasks share the decoder, and the interpreter.
SHARING: Mapping[str, tuple[bool, bool]] = {
    "all": (True, True),
    "private_interpreter": (True, False),
    "private_decoder": (False, False),
    "by_kind": (False, False),
}


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
        sharing: which tasks share decoder and interpreter (UniHCP, Table 10), a key of ``SHARING``: ``all`` share both;
            with ``private_interpreter`` and ``private_decoder`` each task has its own interpreter, or both;
            ``by_kind`` gives both to each kind of task.  The encoder is everyone's.
        decoder_prompts: length of each task's deep prompts in the decoder; 0 for none.
        encoder_prompts: the same in the encoder.
        readout: ``decoder``, or ``linear`` to probe the encoder: tasks have a ``LinearReadout`` and no queries.  The
            decoder then stays unused in the model, so that a trained model's weights fit.
    """

    encoder: str = "vit_base_patch16"
    position_grid: tuple[int, int] = (84, 84)
    drop_path: float = 0.2
    width: int = 256
    num_heads: int = 8
    num_layers: int = 9
    feedforward: int = 2048
    sharing: str = "all"
    decoder_prompts: int = 0
    encoder_prompts: int = 0
    readout: str = "decoder"

    def make(self, specs: Iterable[TaskSpec], kinds: Mapping[str, str] | None = None) -> UniHAP:
        """A model with random weights that serves the given tasks.

        Args:
            specs: the tasks.
            kinds: kind of every task by name; only sharing by kind needs it.

        Raises:
            ValueError: unknown encoder, sharing or readout, a task without a kind, a task with boxes for a linear
                readout, or prompts where there is nothing to prompt.
        """
        specs, kinds = list(specs), kinds or {}
        shares_decoder, shares_interpreter = lookup(SHARING, self.sharing, "MODEL.SHARING")
        encoder = Encoder(self.encoder, self.position_grid, self.drop_path)
        shared = Shared(
            encoder,
            self._decoder(encoder) if shares_decoder else None,
            self._interpreter(encoder) if shares_interpreter else None,
        )
        if self.sharing == "by_kind":
            for kind in dict.fromkeys(self._branch(spec, kinds.get(spec.name, "")) for spec in specs):
                shared.branches[kind] = Branch(self._decoder(encoder), self._interpreter(encoder))
        return UniHAP(self, shared, [self.make_private(spec, encoder, kinds.get(spec.name, "")) for spec in specs])

    def make_private(self, spec: TaskSpec, encoder: Encoder, kind: str = "") -> Private:
        """One task's random private weights; see ``make``."""
        linear = lookup({"decoder": False, "linear": True}, self.readout, "MODEL.READOUT")
        branch = "" if linear else self._branch(spec, kind)
        prompts = decoder = interpreter = None
        if linear and self.decoder_prompts:
            raise ValueError("MODEL.READOUT linear has no decoder to prompt; set PROMPT.DECODER_LENGTH 0")
        if self.encoder_prompts:
            check_blocks(encoder.blocks)
        if self.decoder_prompts or self.encoder_prompts:
            blocks, width = len(encoder.blocks), encoder.width
            prompts = DeepPrompts(
                self.num_layers, self.width, self.decoder_prompts, blocks, width, self.encoder_prompts
            )
        if not linear and self.sharing == "private_decoder":
            decoder = self._decoder(encoder)
        if not linear and self.sharing in ("private_decoder", "private_interpreter"):
            interpreter = self._interpreter(encoder)
        readout = LinearReadout(spec, encoder.width, self.width) if linear else None
        return Private(
            spec,
            self.width,
            prompts=prompts,
            decoder=decoder,
            interpreter=interpreter,
            readout=readout,
            branch=branch,
        )

    def _decoder(self, encoder: Encoder) -> Decoder:
        return Decoder(encoder.width, self.width, self.num_heads, self.num_layers, self.feedforward)

    def _interpreter(self, encoder: Encoder) -> Interpreter:
        return Interpreter(encoder.width, self.width)

    def _branch(self, spec: TaskSpec, kind: str) -> str:
        """The branch of a task, named after its kind."""
        if self.sharing != "by_kind":
            return ""
        if not kind:
            raise ValueError(f"MODEL.SHARING by_kind needs the kind of task {spec.name}; give it in kinds")
        return kind


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
    predictions: list[Prediction] = shared(
        images, sizes, private, all_layers=all_layers, checkpoint_activations=checkpoint_activations
    )
    if private.feature_norm is not None:
        for p in predictions:
            assert p.feature is not None
            p.normed_feature = private.feature_norm(p.feature)
    return predictions
