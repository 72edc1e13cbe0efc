"""From a config to a pre-training model, its first weights and what it predicts."""

import logging
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from unihap.build.pretrain_data import patch_size, token_grid
from unihap.checkpoints.encoder_file import load_encoder
from unihap.checkpoints.files import read_weights
from unihap.config import CfgNode
from unihap.engine.groups import communication_device
from unihap.engine.pretrain import OWN, load_pretraining
from unihap.lookup import lookup
from unihap.models.encoder import Encoder
from unihap.pretrain.alignment import Alignment, SimSiamAlignment
from unihap.pretrain.context_autoencoder import ContextAutoencoder
from unihap.pretrain.dataset import PersonCrops
from unihap.pretrain.masked_autoencoder import MaskedAutoencoder
from unihap.pretrain.tokenizers import DVAE, PixelKMeans, RandomProjection, Tokenizer

logger = logging.getLogger(__name__)

CLASS_TOKEN = f"{OWN}cls_token"
PROTOTYPES = f"{OWN}tokenizer.prototypes"
PATCHES_PER_PROTOTYPE = 4  # that k-means is fitted to


def build_alignment(cfg: CfgNode, width: int) -> nn.Module | None:
    """The loss between the class tokens of two views, or ``None`` where there is none."""
    node = cfg.PRETRAIN.ALIGN
    kinds: Mapping[str, Callable[[], nn.Module]] = {
        "infonce": lambda: Alignment(node.WEIGHT, node.TEMPERATURE),
        "simsiam": lambda: SimSiamAlignment(width, node.WEIGHT),
    }
    build = lookup(kinds, node.LOSS, "PRETRAIN.ALIGN.LOSS")
    return build() if node.WEIGHT > 0 and node.VIEWS != "none" else None


def build_pretrain_model(cfg: CfgNode, tokenizer: Tokenizer | None = None) -> MaskedAutoencoder | ContextAutoencoder:
    """The model of ``PRETRAIN.FRAMEWORK`` with random weights drawn from ``SEED``.

    Args:
        cfg: the config.
        tokenizer: what a context autoencoder predicts.

    Raises:
        ValueError: unknown names or impossible sizes.
    """
    node, grid = cfg.PRETRAIN, token_grid(cfg)
    torch.manual_seed(cfg.SEED)
    encoder = Encoder(cfg.MODEL.ENCODER.NAME, grid, cfg.MODEL.ENCODER.DROP_PATH)
    alignment = build_alignment(cfg, encoder.width)
    by_attention = node.MASK.GUIDANCE == "attention"

    def mae() -> MaskedAutoencoder:
        return MaskedAutoencoder(
            encoder,
            grid,
            decoder_width=node.DECODER.WIDTH,
            decoder_layers=node.DECODER.LAYERS,
            decoder_heads=node.DECODER.HEADS,
            normalize_target=node.NORMALIZE_TARGET,
            views=node.ALIGN.VIEWS,
            alignment=alignment,
            guidance_by_attention=by_attention,
        )

    def cae() -> ContextAutoencoder:
        assert tokenizer is not None
        return ContextAutoencoder(
            encoder,
            grid,
            tokenizer,
            regressor_layers=node.CAE.REGRESSOR_LAYERS,
            decoder_layers=node.CAE.DECODER_LAYERS,
            views=node.ALIGN.VIEWS,
            alignment=alignment,
            align_weight=node.CAE.LATENT_WEIGHT,
            drop_path=cfg.MODEL.ENCODER.DROP_PATH,
            guidance_by_attention=by_attention,
        )

    frameworks: Mapping[str, Callable[[], MaskedAutoencoder | ContextAutoencoder]] = {"mae": mae, "cae": cae}
    return lookup(frameworks, node.FRAMEWORK, "PRETRAIN.FRAMEWORK")()


def start_model(cfg: CfgNode, model: MaskedAutoencoder | ContextAutoencoder) -> None:
    """Gives a new model the weights that a config names.

    ``MODEL.ENCODER.WEIGHTS`` gives the encoder and, where it has one, the class token; ``MODEL.WEIGHTS`` everything.

    Raises:
        FileNotFoundError: no such file.
        ValueError: weights of another model.
    """
    if cfg.MODEL.ENCODER.WEIGHTS:
        start_encoder(model, cfg.MODEL.ENCODER.WEIGHTS)
    if cfg.MODEL.WEIGHTS:
        weights, _ = read_weights(cfg.MODEL.WEIGHTS)
        weights.pop(PROTOTYPES, None)
        load_pretraining(model, weights, cfg.MODEL.WEIGHTS)


def start_encoder(model: MaskedAutoencoder | ContextAutoencoder, source: str) -> None:
    """Copies an encoder and, where the file has one, its class token into a pre-training model."""
    load_encoder(model.encoder, source)
    token = read_weights(source)[0].get(CLASS_TOKEN)
    if token is None:
        logger.warning("%s has no class token (%s); it starts from random numbers", source, CLASS_TOKEN)
        return
    with torch.no_grad():
        model.cls_token.copy_(token)


def build_tokenizer(cfg: CfgNode, crops: PersonCrops, prototypes: Tensor | None) -> tuple[Tokenizer, dict[str, Tensor]]:
    """What a context autoencoder predicts.

    Args:
        cfg: the config.
        crops: training data, for k-means without a file.
        prototypes: of k-means in a checkpoint that is resumed.

    Returns:
        The tokenizer, and what a checkpoint must hold of it.
    """
    node, patch = cfg.PRETRAIN.CAE, patch_size(cfg)

    def random() -> tuple[Tokenizer, dict[str, Tensor]]:
        return RandomProjection(node.VOCABULARY, patch=patch, seed=cfg.SEED), {}

    def kmeans() -> tuple[Tokenizer, dict[str, Tensor]]:
        if node.TOKENIZER_WEIGHTS:
            return PixelKMeans.load(node.TOKENIZER_WEIGHTS), {}
        centres = fit_prototypes(cfg, crops) if prototypes is None else prototypes
        return PixelKMeans(centres), {PROTOTYPES: centres}

    def dvae() -> tuple[Tokenizer, dict[str, Tensor]]:
        if not node.TOKENIZER_WEIGHTS:
            raise ValueError("PRETRAIN.CAE.TOKENIZER dvae needs its file; set PRETRAIN.CAE.TOKENIZER_WEIGHTS")
        return DVAE.load(node.TOKENIZER_WEIGHTS, patch), {}

    return lookup({"random": random, "kmeans": kmeans, "dvae": dvae}, node.TOKENIZER, "PRETRAIN.CAE.TOKENIZER")()


def fit_prototypes(cfg: CfgNode, crops: PersonCrops) -> Tensor:
    """Prototypes of k-means, fitted on the first process to crops of images spread over the training set."""
    vocabulary, patch, (rows, columns) = cfg.PRETRAIN.CAE.VOCABULARY, patch_size(cfg), token_grid(cfg)
    centres = torch.empty(vocabulary, 3 * patch**2)
    if not dist.is_initialized() or dist.get_rank() == 0:
        number = min(len(crops), math.ceil(PATCHES_PER_PROTOTYPE * vocabulary / (rows * columns)))
        chosen = [i * len(crops) // number for i in range(number)]
        logger.info("fitting %d prototypes of patches to %d images", vocabulary, number)
        images = torch.stack([crops[(draw, index)].image for draw, index in enumerate(chosen)])
        fitted = PixelKMeans.fit(images, vocabulary, rng=np.random.default_rng(cfg.SEED), patch=patch)
        centres.copy_(fitted.centres)
    if dist.is_initialized():
        sent = centres.to(communication_device())
        dist.broadcast(sent, 0)
        centres = sent.cpu()
    return centres
