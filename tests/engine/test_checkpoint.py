import json

import pytest
import torch
from safetensors.torch import save_file

from unihap.engine.checkpoint import (
    WEIGHTS,
    Checkpoints,
    base_card,
    load_into,
    load_model,
    read_weights,
    save_weights,
    spec_from_json,
    spec_to_json,
    write_atomically,
)
from unihap.models.unihap import Architecture
from unihap.structures import Supervision, TaskSpec, Unit

SMALL = Architecture("vit_pico_patch16", (4, 4), 0.1, width=16, num_heads=2, num_layers=1, feedforward=8)
SPEC = TaskSpec("pose", 3, frozenset({Unit.PROBABILITY, Unit.HEATMAP}), Supervision.LAYERS_AND_QUERIES)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = SMALL.make([SPEC])
    card = base_card(SMALL, {"pose": {"kind": "pose", "spec": spec_to_json(SPEC)}})
    save_weights(tmp_path / WEIGHTS, model.state_dict(), card)
    return model.eval(), tmp_path


def test_a_model_comes_back_from_one_file_with_the_same_answers(saved):
    model, folder = saved
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    for path in (folder, folder / WEIGHTS):
        again = load_model(path)
        assert not again.training
        assert torch.equal(again(images, "pose")[-1].heatmap, model(images, "pose")[-1].heatmap)


def test_the_card_lies_beside_the_weights_too(saved):
    card = json.loads((saved[1] / "card.json").read_text())
    assert card["architecture"]["encoder"] == "vit_pico_patch16"
    assert spec_from_json("pose", card["tasks"]["pose"]["spec"]) == SPEC


def test_keys_say_shared_or_private(saved):
    assert {name.split(".")[0] for name in read_weights(saved[1])[0]} == {"shared", "private"}


def test_missing_weights_name_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere; give a checkpoint folder"):
        load_model(tmp_path / "nowhere")


def test_a_file_without_a_card_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="has no card; make it a unihap checkpoint"):
        load_model(tmp_path / "x.safetensors")


def test_another_architecture_is_refused_with_the_first_difference(saved):
    wider = Architecture("vit_pico_patch16", (4, 4), width=32, num_heads=2, num_layers=1, feedforward=8).make([SPEC])
    before = {name: value.clone() for name, value in wider.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"holds another architecture .*content has shape \(3, 16\), the model \(3, 32\)"
    ):
        load_into(wider, read_weights(saved[1])[0], "it")
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items())


def test_fewer_tasks_load_only_when_asked_for(saved):
    other = TaskSpec("parsing", 2, frozenset({Unit.HEATMAP}), Supervision.LAST)
    model, weights = SMALL.make([SPEC, other]), read_weights(saved[1])[0]
    with pytest.raises(ValueError, match=r"missing private\.parsing\.content"):
        load_into(model, weights, "it")
    assert load_into(model, weights, "it", partial=True) == ["private.parsing.content", "private.parsing.position"]
    assert torch.equal(model.private["pose"].content, weights["private.pose.content"])


def test_weights_of_nothing_we_know_are_refused(saved):
    with pytest.raises(ValueError, match="no weight in common"):
        load_into(saved[0], {"blocks.0.weight": torch.zeros(1)}, "it", partial=True)


def test_only_the_newest_complete_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() is None
    for iteration in (5, 10, 15):
        checkpoints.save(iteration, {"shared.x": torch.full((1,), float(iteration))}, {}, {"optimizer": {}})
    (tmp_path / "iteration_00000020.tmp").mkdir()  # what a killed run leaves
    assert [path.name for path in checkpoints.complete()] == ["iteration_00000010", "iteration_00000015"]
    path, weights, state = checkpoints.newest()
    assert path.name == "iteration_00000015"
    assert weights["shared.x"].item() == 15
    assert state["iteration"] == 15


def test_a_remainder_of_a_killed_run_does_not_hinder_the_next_checkpoint(tmp_path):
    remainder = tmp_path / "iteration_00000005.tmp"
    remainder.mkdir()
    (remainder / WEIGHTS).write_text("half")
    path = Checkpoints(tmp_path).save(5, {"shared.x": torch.zeros(1)}, {}, {})
    assert read_weights(path)[0]["shared.x"].item() == 0
    assert not remainder.exists()


def test_keeping_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"TRAIN\.KEEP_CHECKPOINTS must be at least 1, got 0"):
        Checkpoints(tmp_path, keep=0)


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "x.json"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
