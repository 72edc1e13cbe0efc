import pytest
import torch

from unihap.engine.checkpoint import load_into
from unihap.engine.optimizer import parameter_groups
from unihap.engine.parts import SHARED_PARTS, check_parts, freeze, part_of, release, set_modes
from unihap.models.unihap import Architecture
from unihap.structures import Supervision, TaskSpec, Unit

POSE = TaskSpec("pose", 3, frozenset({Unit.PROBABILITY, Unit.HEATMAP}), Supervision.LAYERS_AND_QUERIES)
REID = TaskSpec("reid", 2, frozenset({Unit.FEATURE}), Supervision.LAST, feature_norm=True)


def model(specs=(POSE,), kinds=None, **more):
    torch.manual_seed(0)
    return Architecture(
        "vit_pico_patch16", (4, 4), 0.5, width=16, num_heads=2, num_layers=1, feedforward=8, **more
    ).make(specs, kinds)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("shared.encoder.blocks.0.attn.qkv.weight", "encoder"),
        ("shared.decoder.layers.0.self_attention.in_proj_weight", "decoder"),
        ("shared.branches.pose.decoder.level", "decoder"),
        ("shared.branches.pose.interpreter.to_logit.weight", "interpreter"),
        ("private.pose.content", "private"),
        ("private.pose.decoder.level", "private"),
        ("private.pose.prompts.encoder", "private"),
        ("private.pose.criterion.classifier.weight", "private"),
        ("shared", ""),
    ],
)
def test_the_first_word_that_names_a_part_decides(name, part):
    assert part_of(name) == part


def test_unknown_parts_and_none_are_refused():
    assert check_parts(["decoder", "private"]) == {"decoder", "private"}
    with pytest.raises(ValueError, match=r"unknown FINETUNE\.PARTS entry 'encodr'; did you mean encoder\?"):
        check_parts(["encodr"])
    with pytest.raises(ValueError, match=r"FINETUNE\.PARTS is empty"):
        check_parts([])


def test_a_release_gives_back_only_the_gradients_that_were_taken():
    trained = model([REID])
    trained.shared.encoder.norm.bias.requires_grad_(False)
    before = {name: p.requires_grad for name, p in trained.named_parameters()}
    assert before["private.reid.feature_norm.bias"] is False
    frozen = freeze(trained, [*SHARED_PARTS, "private"])
    assert not any(p.requires_grad for p in trained.parameters())
    release(frozen)
    assert {name: p.requires_grad for name, p in trained.named_parameters()} == before


def test_a_part_without_gradients_answers_the_same_every_time():
    trained, images = model(), torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    set_modes(trained)
    encoder = trained.shared.encoder
    assert not torch.equal(encoder(images), encoder(images))  # drop path
    frozen = freeze(trained, ["encoder"])
    set_modes(trained)
    assert torch.equal(encoder(images), encoder(images))
    assert trained.shared.decoder.training
    assert trained.private["pose"].training
    release(frozen)
    set_modes(trained)
    assert all(module.training for module in trained.modules())


def test_prompts_do_not_decay_and_every_part_has_its_scale():
    trained = model(decoder_prompts=2, encoder_prompts=2)
    groups = parameter_groups(
        trained.named_parameters(),
        trained.shared.encoder,
        weight_decay=0.1,
        layer_decay=1.0,
        part_scale={"encoder": 0.5, "private": 3.0},
    )
    rules = {name: (g["lr_scale"], g["weight_decay"]) for g in groups for name in g["names"]}
    for name in ("content", "position", "prompts.decoder", "prompts.encoder"):
        assert rules[f"private.pose.{name}"] == (3.0, 0.0)
    assert rules["shared.encoder.blocks.0.mlp.fc1.weight"] == (0.5, 0.1)
    assert rules["shared.decoder.project.weight"] == (1.0, 0.1)


def test_a_model_of_one_kind_takes_its_branch_from_a_model_of_two():
    both = model([POSE, REID], {"pose": "pose", "reid": "reid"}, sharing="by_kind")
    alone = model([POSE], {"pose": "pose"}, sharing="by_kind")
    assert load_into(alone, both.state_dict(), "it", partial=True) == []
    with pytest.raises(ValueError, match=r"unexpected shared\.branches\.reid"):
        load_into(alone, both.state_dict(), "it")
