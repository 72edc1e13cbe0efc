import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import convert_checkpoint

from unihap.checkpoints.unihcp import from_unihcp, our_name, to_unihcp
from unihap.engine.checkpoint import load_model, read_weights

D = "decoder_module.predictor"


@pytest.mark.parametrize(
    ("theirs", "shape", "ours"),
    [
        ("backbone_module.pos_embed", (1, 7056, 768), "shared.encoder.position.table"),
        ("backbone_module.blocks.11.attn.qkv.bias", (2304,), "shared.encoder.blocks.11.attn.qkv.bias"),
        ("neck_module.mask_map.3.weight", (768, 256, 2, 2), "shared.interpreter.to_pixel.weight"),
        (f"{D}.mask_embed.layers.2.bias", (256,), "shared.interpreter.to_kernel.6.bias"),
        (
            f"{D}.transformer_cross_attention_layers.8.multihead_attn.in_proj_weight",
            (768, 256),
            "shared.decoder.layers.8.cross_attention.in_proj_weight",
        ),
        (f"{D}.transformer_ffn_layers.0.linear2.weight", (256, 2048), "shared.decoder.layers.0.feedforward.2.weight"),
        (f"{D}.query_embed.weight", (17, 256), "private.position"),
        (f"{D}.query_embed.weight", (300, 2), "private.anchor"),
        (f"{D}.static_query.weight", (17, 256), "private.content"),
        ("decoder_module.loss.SoftmaxLoss.classifier.weight", (2559, 1536), "private.criterion.classifier.weight"),
        ("neck_module.mask_map.1.ln.weight", (768,), None),
    ],
)
def test_names_are_translated(theirs, shape, ours):
    assert our_name(theirs, shape) == ours


def test_a_key_that_unihcp_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"'backbone_module\.cls_token' is not a key of a UniHCP checkpoint"):
        our_name("backbone_module.cls_token", (1, 1, 768))


def test_the_position_table_becomes_a_map():
    table = torch.arange(24.0).reshape(1, 6, 4)  # 2 x 3 cells of 4 channels
    weights, _ = from_unihcp({"t": {"module.backbone_module.pos_embed": table}}, grid=(2, 3))
    converted = weights["shared.encoder.position.table"]
    assert converted.shape == (1, 4, 2, 3)
    assert converted[0, :, 1, 0].tolist() == table[0, 3].tolist()


def test_every_key_is_reported_and_shared_weights_are_stored_once():
    state = {"module.backbone_module.norm.bias": torch.ones(2), "module.neck_module.mask_map.1.ln.bias": torch.ones(2)}
    own = {f"module.{D}.query_feat.weight": torch.zeros(3, 2)}
    weights, report = from_unihcp({"a": state, "b": state | own})
    assert set(weights) == {"shared.encoder.norm.bias", "private.b.content"}
    assert report.used["b:module.backbone_module.norm.bias"] == "shared.encoder.norm.bias"
    assert report.dropped == ["a:module.neck_module.mask_map.1.ln.bias", "b:module.neck_module.mask_map.1.ln.bias"]


def test_files_of_two_runs_are_refused():
    states = {task: {"module.backbone_module.norm.bias": torch.full((2,), float(i))} for i, task in enumerate("ab")}
    with pytest.raises(ValueError, match="of task b differs from the other files by up to 1; give checkpoints of one"):
        from_unihcp(states)


def test_the_way_back_leaves_out_other_tasks_and_the_box_unit_of_tasks_without_it():
    weights = {
        "shared.encoder.norm.bias": torch.ones(2),
        "shared.interpreter.to_box.0.bias": torch.ones(2),
        "private.a.content": torch.ones(3, 2),
        "private.a.criterion.positive_ratio": torch.ones(3),
        "private.b.content": torch.ones(3, 2),
    }
    assert set(to_unihcp(weights, "a", box_unit=False)) == {
        "module.backbone_module.norm.bias",
        f"module.{D}.query_feat.weight",
    }
    assert f"module.{D}.bbox_embed.layers.0.bias" in to_unihcp(weights, "a", box_unit=True)


def test_the_tool_converts_a_whole_checkpoint_and_back_without_a_changed_bit(golden, tmp_path, capsys):
    import importlib.util

    spec = importlib.util.spec_from_file_location("golden_recipe", golden / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    state = recipe.state_dict(golden / "unihcp" / "keys.tsv", "pose")
    torch.save({"step": 1, "state_dict": state, "optimizer": {}}, tmp_path / "task0.pth.tar")
    ours, back = tmp_path / "pose.safetensors", tmp_path / "back.pth.tar"
    assert (
        convert_checkpoint.main(
            ["--from", "unihcp", "--out", str(ours), "--task", f"coco_pose={tmp_path / 'task0.pth.tar'}"]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "336 keys used, 2 dropped, 6 unfilled" in said
    assert "no converted task opens the box unit" in said
    assert load_model(ours).tasks == ["coco_pose"]
    assert convert_checkpoint.main(["--to", "unihcp", "--out", str(back), "--task", "coco_pose", str(ours)]) == 0
    returned = torch.load(back, weights_only=True)["state_dict"]
    assert returned.keys() == state.keys()
    assert all(torch.equal(returned[key], state[key].float()) for key in state)  # the recipe draws some in float64


def test_a_checkpoint_with_a_missing_weight_ends_with_status_1(golden, tmp_path, capsys):
    state = {"module.backbone_module.norm.bias": torch.zeros(768)}
    torch.save({"state_dict": state}, tmp_path / "part.pth.tar")
    words = ["--from", "unihcp", "--out", str(tmp_path / "o.safetensors")]
    assert convert_checkpoint.main([*words, "--task", f"coco_pose={tmp_path / 'part.pth.tar'}"]) == 1
    assert "unfilled  shared.decoder.level" in capsys.readouterr().out
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "coco_pose=nowhere.pth"], "no checkpoint at nowhere.pth"),
        (["--task", "coco_poes=x"], "did you mean coco_pose?"),
        (["--task", "coco_pose"], "name every upstream file as --task NAME=CKPT"),
        ([], "name every upstream file as --task NAME=CKPT"),
    ],
)
def test_mistakes_are_one_line_and_status_2(words, message, tmp_path, capsys):
    assert convert_checkpoint.main(["--from", "unihcp", "--out", str(tmp_path / "o.safetensors"), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, capsys):
    (tmp_path / "x.pth").write_text("hello")
    words = ["--from", "unihcp", "--out", str(tmp_path / "o.safetensors"), "--task", f"coco_pose={tmp_path / 'x.pth'}"]
    assert convert_checkpoint.main(words) == 2
    assert "is not a torch checkpoint" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"is not a readable \.safetensors file"):
        read_weights(tmp_path / "x.pth")
