"""Prompt files: which shared weights they fit, what they hold, and several of them in one model."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file

import unihap
from unihap.build.adapt import copy_queries, namesakes
from unihap.checkpoints.card import base_card, spec_to_json
from unihap.checkpoints.files import read_weights, save_weights
from unihap.checkpoints.prompts import load_prompt, save_prompt, shared_digest
from unihap.engine.checkpoint import load_model
from unihap.models.unihap import Architecture
from unihap.structures import Supervision, TaskSpec, Unit

SMALL = Architecture("vit_pico_patch16", (4, 4), 0.0, width=32, num_heads=2, num_layers=2, feedforward=32)
UNITS = frozenset({Unit.PROBABILITY, Unit.HEATMAP})
POSE = TaskSpec("pose", 5, UNITS, Supervision.LAYERS_AND_QUERIES)
HANDS = TaskSpec("hands", 3, UNITS, Supervision.LAYERS_AND_QUERIES)
IMAGE = torch.arange(3 * 32 * 32, dtype=torch.uint8).reshape(1, 3, 32, 32)


def model(seed=0, specs=(POSE,)):
    torch.manual_seed(seed)
    return SMALL.make(specs).eval()


def with_task(spec, decoder_prompts, encoder_prompts, seed=1):
    """The model of seed 0 with a task that has prompts."""
    served = model()
    torch.manual_seed(seed)
    served.private[spec.name] = served.make_private(spec, decoder_prompts, encoder_prompts).eval()
    return served


def test_the_digest_is_of_names_types_shapes_and_bytes():
    served, expected = model(), hashlib.sha256()
    for name, value in sorted(served.shared.state_dict().items()):
        expected.update(f"shared.{name} {value.dtype} {tuple(value.shape)}\n".encode())
        expected.update(value.numpy().tobytes())
    assert shared_digest(served) == expected.hexdigest()


def test_the_digest_changes_with_one_bit_and_not_with_private_weights():
    served, before = model(), shared_digest(model())
    with torch.no_grad():
        served.private["pose"].content.zero_()
        assert shared_digest(served) == before
        first = next(served.shared.parameters())
        first.view(torch.int32).view(-1)[0] ^= 1
    assert shared_digest(served) != before
    assert shared_digest(model().double()) != before


@pytest.mark.parametrize("lengths", [(0, 0), (3, 0), (0, 2), (3, 2)])
def test_a_prompt_comes_back_to_a_model_that_lacks_its_task(lengths, tmp_path):
    trained = with_task(HANDS, *lengths)
    save_prompt(tmp_path / "hands.safetensors", trained, "hands")
    assert [path.name for path in tmp_path.iterdir()] == ["hands.safetensors"]
    served = model()
    assert load_prompt(served, tmp_path / "hands.safetensors") == "hands"
    assert served.tasks == ["pose", "hands"]
    assert not served.private["hands"].training
    for task in served.tasks:
        assert torch.equal(served(IMAGE, task)[-1].heatmap, trained(IMAGE, task)[-1].heatmap)
    _, card = read_weights(tmp_path / "hands.safetensors")
    assert (card["tasks"]["hands"]["decoder_prompts"], card["tasks"]["hands"]["encoder_prompts"]) == lengths


def test_prompts_of_different_lengths_live_in_one_model_and_a_later_one_replaces_an_earlier_one(tmp_path):
    one, two = with_task(HANDS, 3, 1), with_task(POSE, 1, 0, seed=2)
    other = with_task(HANDS, 0, 0, seed=3)
    for name, saved, task in (("one", one, "hands"), ("two", two, "pose"), ("other", other, "hands")):
        save_prompt(tmp_path / f"{name}.safetensors", saved, task)
    served = model()
    for name in ("one", "two"):
        unihap.load_prompt(served, tmp_path / f"{name}.safetensors")
    assert torch.equal(served(IMAGE, "hands")[-1].heatmap, one(IMAGE, "hands")[-1].heatmap)
    assert torch.equal(served(IMAGE, "pose")[-1].heatmap, two(IMAGE, "pose")[-1].heatmap)
    unihap.load_prompt(served, tmp_path / "other.safetensors")
    assert torch.equal(served(IMAGE, "hands")[-1].heatmap, other(IMAGE, "hands")[-1].heatmap)


def test_other_shared_weights_are_refused_unless_forced(tmp_path):
    save_prompt(tmp_path / "hands.safetensors", with_task(HANDS, 2, 0), "hands")
    other = model(seed=7)
    with pytest.raises(ValueError, match="was trained with other shared weights than this model has"):
        load_prompt(other, tmp_path / "hands.safetensors")
    assert other.tasks == ["pose"]
    assert load_prompt(other, tmp_path / "hands.safetensors", force=True) == "hands"


def test_a_prompt_of_another_architecture_is_refused_even_if_forced(tmp_path):
    save_prompt(tmp_path / "hands.safetensors", with_task(HANDS, 2, 0), "hands")
    wider = Architecture("vit_pico_patch16", (4, 4), 0.0, width=64, num_heads=2, num_layers=2, feedforward=32)
    with pytest.raises(ValueError, match="holds a prompt for another architecture"):
        load_prompt(wider.make([POSE]), tmp_path / "hands.safetensors", force=True)


def test_a_model_is_no_prompt_and_a_prompt_no_model(tmp_path):
    whole = model()
    card = base_card(SMALL, {"pose": {"kind": "pose", "spec": spec_to_json(POSE)}})
    save_weights(tmp_path / "whole" / "weights.safetensors", whole.state_dict(), card)
    with pytest.raises(ValueError, match=r"is not a prompt .* load a whole model with load_model"):
        load_prompt(whole, tmp_path / "whole")
    save_prompt(tmp_path / "pose.safetensors", whole, "pose", card)
    with pytest.raises(ValueError, match="is a prompt, without the shared weights of a model; load the model that it"):
        load_model(tmp_path / "pose.safetensors")
    assert read_weights(tmp_path / "pose.safetensors")[1]["tasks"]["pose"]["kind"] == "pose"
    with pytest.raises(ValueError, match="unknown task 'pos'; did you mean pose"):
        save_prompt(tmp_path / "pos.safetensors", whole, "pos")


def test_a_prompt_at_full_size_is_about_a_hundred_kilobytes(tmp_path):
    spec = TaskSpec("parsing", 20, UNITS, Supervision.LAYERS_AND_QUERIES)
    served = Architecture(encoder="vit_pico_patch16", position_grid=(4, 4)).make([spec])  # the paper's decoder
    save_prompt(tmp_path / "parsing.safetensors", served, "parsing")
    assert set(load_file(tmp_path / "parsing.safetensors")) == {"private.parsing.content", "private.parsing.position"}
    assert (tmp_path / "parsing.safetensors").stat().st_size < 50_000


def test_queries_are_copied_by_name_whatever_the_order_and_the_rest_stays():
    mine, theirs = model(specs=(HANDS,)).private["hands"], model(seed=1).private["pose"]
    weights = {f"private.pose.{name}": value for name, value in theirs.state_dict().items()}
    before = mine.content.clone()
    copy_queries(mine, weights, "pose", ["Left hand", "thumb", "head"], ["head", "neck", "left_hand", "hip", "foot"])
    assert torch.equal(mine.content, torch.stack([theirs.content[2], before[1], theirs.content[0]]))
    assert torch.equal(mine.position[[0, 2]], theirs.position[[2, 0]])


@pytest.mark.parametrize(
    ("classes", "origin", "message"),
    [
        ((), ("head",), "the class names of hands are not known"),
        (("thumb",) * 3, (), "the class names of pose are not known"),
        (("thumb", "palm", "ring"), ("head",), r"no class of hands \(thumb, palm, ring\) is one of pose \(head\)"),
    ],
)
def test_queries_without_a_namesake_are_refused(classes, origin, message):
    with pytest.raises(ValueError, match=message):
        copy_queries(model(specs=(HANDS,)).private["hands"], {}, "pose", classes, origin)


def test_namesakes_ignore_case_and_the_sign_between_words():
    assert list(namesakes(["Upper-clothes", "left  arm", "tail"], ["left_arm", "upper clothes"])) == [(0, 1), (1, 0)]
