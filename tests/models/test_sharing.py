"""Whose decoder and interpreter decode a task (UniHCP, Table 10)."""

from pathlib import Path

import pytest
import torch

from unihap.build import build_model, dry_run
from unihap.checkpoints.card import architecture_of, base_card
from unihap.config import get_cfg
from unihap.models.unihap import SHARING, Architecture
from unihap.structures import Supervision, TaskSpec, Unit

P, F, H, B = Unit.PROBABILITY, Unit.FEATURE, Unit.HEATMAP, Unit.BOX
SPECS = [
    TaskSpec("reid", 3, frozenset({F}), Supervision.LAST, feature_norm=True),
    TaskSpec("coco", 4, frozenset({P, H}), Supervision.LAYERS_AND_QUERIES),
    TaskSpec("mpii", 5, frozenset({P, H}), Supervision.LAYERS_AND_QUERIES),
    TaskSpec("boxes", 2, frozenset({P, B}), Supervision.LAYERS, num_anchors=3),
]
KINDS = {"reid": "reid", "coco": "pose", "mpii": "pose", "boxes": "detection"}
SMALL = {"position_grid": (4, 4), "drop_path": 0.0, "width": 16, "num_heads": 2, "num_layers": 2, "feedforward": 8}
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "ablation"


def make(sharing, **kwargs):
    torch.manual_seed(0)
    return Architecture("vit_pico_patch16", **SMALL, sharing=sharing, **kwargs).make(SPECS, KINDS)


def images():
    return torch.randint(0, 256, (2, 3, 32, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def values(prediction):
    return [v for v in vars(prediction).values() if v is not None]


def groups(model):
    """Paths of all decoders and interpreters of a model."""
    found = set()
    for name, _ in model.named_parameters():
        words = name.split(".")
        found |= {".".join(words[: words.index(part) + 1]) for part in ("decoder", "interpreter") if part in words}
    return found


def test_decoders_and_interpreters_belong_to_whom_the_sharing_says():
    assert groups(make("all")) == {"shared.decoder", "shared.interpreter"}
    own = {f"private.{spec.name}.interpreter" for spec in SPECS}
    assert groups(make("private_interpreter")) == {"shared.decoder", *own}
    assert groups(make("private_decoder")) == {*own, *(f"private.{spec.name}.decoder" for spec in SPECS)}
    assert groups(make("by_kind")) == {
        f"shared.branches.{kind}.{part}"
        for kind in ("reid", "pose", "detection")
        for part in ("decoder", "interpreter")
    }


def copy_shared_to_private(source, model):
    """Gives every decoder and interpreter of ``model`` the weights of the shared ones of ``source``."""
    given = source.state_dict()
    for name, value in model.state_dict().items():
        words = name.split(".")
        for part in ("decoder", "interpreter"):
            if part in words:
                name = ".".join(["shared", *words[words.index(part) :]])
        value.copy_(given[name])


@pytest.mark.parametrize("sharing", [name for name in SHARING if name != "all"])
@pytest.mark.parametrize("training", [False, True])
def test_with_equal_weights_the_numbers_are_the_same_whoever_owns_them(sharing, training):
    """Every unit, every supervised layer, and ReID's feature norm."""
    source, model = make("all").train(training), make(sharing).train(training)
    with torch.no_grad():
        copy_shared_to_private(source, model)
        for spec in SPECS:
            expected, found = source(images(), spec.name), model(images(), spec.name)
            assert len(found) == len(expected)
            assert (found[-1].normed_feature is not None) is spec.feature_norm
            for a, b in zip(found, expected, strict=True):
                assert len(values(a)) == len(values(b)) > 0
                assert all(torch.equal(x, y) for x, y in zip(values(a), values(b), strict=True))


@pytest.mark.parametrize(
    ("sharing", "trained"),
    [
        ("all", {"shared.decoder", "shared.interpreter"}),
        ("private_interpreter", {"shared.decoder", "private.coco.interpreter"}),
        ("private_decoder", {"private.coco.decoder", "private.coco.interpreter"}),
        ("by_kind", {"shared.branches.pose.decoder", "shared.branches.pose.interpreter"}),
    ],
)
def test_a_task_trains_the_encoder_and_the_decoder_that_it_uses(sharing, trained):
    model = make(sharing)
    predictions = model(images(), "coco", all_layers=True)
    sum(p.heatmap.square().sum() + p.logit.sum() for p in predictions).backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    owners = {owner for owner in groups(model) if any(name.startswith(f"{owner}.") for name in touched)}
    assert owners == trained
    assert "shared.encoder.patch_embed.proj.weight" in touched
    assert not any(name.startswith(("private.reid", "private.mpii", "private.boxes")) for name in touched)


def test_a_model_with_default_values_draws_what_the_plain_parts_draw():
    """Encoder, decoder, interpreter, then content and position of each task: other options must not come between."""
    from unihap.models.decoder import Decoder
    from unihap.models.encoder import Encoder
    from unihap.models.interpreter import Interpreter

    model = make("all")
    torch.manual_seed(0)
    encoder = Encoder("vit_pico_patch16", (4, 4), 0.0)
    parts = {"encoder": encoder, "decoder": Decoder(encoder.width, 16, 2, 2, 8), "interpreter": Interpreter(64, 16)}
    drawn = {
        f"shared.{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
    }
    for spec in SPECS:
        drawn[f"private.{spec.name}.content"] = torch.randn(spec.num_queries, 16)
        place = "anchor" if spec.num_anchors else "position"
        drawn[f"private.{spec.name}.{place}"] = torch.rand(*((3, 2) if spec.num_anchors else (spec.num_queries, 16)))
    state = {name: value for name, value in model.state_dict().items() if ".feature_norm." not in name}
    assert state.keys() == drawn.keys()
    assert all(torch.equal(value, drawn[name]) for name, value in state.items())


def test_a_card_says_how_weights_are_shared_and_old_cards_need_not():
    architecture = Architecture("vit_pico_patch16", **SMALL, sharing="by_kind", decoder_prompts=3, encoder_prompts=2)
    card = base_card(architecture, {})
    assert architecture_of(card) == architecture
    for key in ("sharing", "decoder_prompts", "encoder_prompts", "readout"):
        del card["architecture"][key]
    assert architecture_of(card) == Architecture("vit_pico_patch16", **SMALL)


def test_a_new_task_takes_the_branch_of_its_kind():
    model = make("by_kind").eval()
    new = TaskSpec("new", 4, SPECS[1].units, SPECS[1].supervision)
    model.private["new"] = model.make_private(new, kind="pose").eval()
    model.private["new"].load_state_dict(model.private["coco"].state_dict())
    assert torch.equal(model(images(), "new")[-1].heatmap, model(images(), "coco")[-1].heatmap)
    with pytest.raises(ValueError, match="unknown kind of task new in this model 'parsing'"):
        model.make_private(new, kind="parsing")


def test_impossible_sharing_is_refused():
    with pytest.raises(ValueError, match=r"unknown MODEL\.SHARING 'by_kin'; did you mean by_kind"):
        make("by_kin")
    with pytest.raises(ValueError, match="by_kind needs the kind of task reid"):
        Architecture("vit_pico_patch16", **SMALL, sharing="by_kind").make(SPECS)


# ------------------------------------------------------------------------------------------------- ablation

ENCODER, DECODER, INTERPRETER, QUERIES, NORMS = 91_065_600, 14_537_984, 3_478_533, 248_664, 2 * 2 * 6 * 256
CELLS = {
    "all": (ENCODER + DECODER + INTERPRETER, 0),
    "private_interpreter": (ENCODER + DECODER, 24 * INTERPRETER),
    "private_decoder": (ENCODER, 24 * (DECODER + INTERPRETER)),
    "by_kind": (ENCODER + 5 * (DECODER + INTERPRETER), 0),
}


def load(path):
    cfg = get_cfg()
    cfg.merge_from_file(path)
    return cfg


@pytest.mark.parametrize("cell", CELLS)
def test_the_cells_of_table_10_share_the_parameters_that_they_name(cell):
    """The paper prints 109.08M shared of 109.32M for its own model; 24 tasks, of which two have a feature norm."""
    shared, private = CELLS[cell]
    with torch.device("meta"):
        said = dry_run(load(CONFIGS / "sharing" / f"{cell}.yaml"), 1).splitlines()
    table = {line[:34].strip(): line[34:].strip() for line in said[said.index(f"{'parameters':<34} {'number':>12}") :]}
    assert int(table["all shared"].replace(",", "")) == shared
    assert int(table["all"].replace(",", "")) == shared + private + QUERIES + NORMS
    each = private // 24
    assert int(table["private coco_pose"].replace(",", "")) == 8704 + each
    if cell == "all":
        assert round(shared / 1e6, 2) == 109.08


def test_the_cells_are_every_way_of_sharing_at_both_scales():
    for folder in ("sharing", "sharing_cpu"):
        paths = sorted((CONFIGS / folder).glob("*.yaml"))
        assert {path.stem: load(path).MODEL.SHARING for path in paths} == {name: name for name in SHARING}
        outputs = {load(path).OUTPUT_DIR for path in paths}
        assert outputs == {f"output/ablation/{folder}/{name}" for name in SHARING}


def test_a_config_s_sharing_and_readout_reach_the_model():
    cfg = load(CONFIGS / "sharing_cpu" / "by_kind.yaml")
    with torch.device("meta"):
        assert set(build_model(cfg).shared.branches) == {"parsing", "detection", "reid", "attributes", "pose"}
    cfg = get_cfg()
    cfg.merge_from_list(["TRAIN.TASKS", "[coco_pose]", "MODEL.READOUT", "linear"])
    with torch.device("meta"):
        assert build_model(cfg).private["coco_pose"].readout.to_heatmap.weight.shape == (17, 768, 1, 1)
