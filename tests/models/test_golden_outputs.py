"""Outputs and losses of the original implementation, from checkpoints made by the same recipe, converted to ours."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from yaml import safe_load

from unihap.build import build_task
from unihap.checkpoints.unihcp import from_unihcp
from unihap.config import get_cfg
from unihap.engine.checkpoint import load_criterion, load_into
from unihap.models.unihap import Architecture
from unihap.structures import Target
from unihap.tasks import Statistics

TASK_OF = {
    "reid": "general_reid",
    "pedattr": "pa100k_attributes",
    "pose": "coco_pose",
    "parsing": "lip_parsing",
    "peddet": "pedestrian_detection",
}
RELEASE = Path(__file__).parents[2] / "configs" / "joint" / "unihcp_vitb_33datasets.yaml"


class Reference:
    """Our model with the recipe's weights, and what the original computed with them, section by section."""

    def __init__(self, golden: Path) -> None:
        self.folder = golden / "unihcp"
        spec = importlib.util.spec_from_file_location("golden_recipe", golden / "recipe.py")
        self.recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.recipe)
        keys = self.recipe.read_keys(self.folder / "keys.tsv")
        shared = self.recipe.state_dict(self.folder / "keys.tsv", "peddet")  # the section that stores every unit
        states = {"pedestrian_detection": shared}
        for section in set(TASK_OF) - {"peddet"}:
            states[TASK_OF[section]] = {
                key: self.recipe.tensor(key, shape, scope=f"{section}:")
                for kind, key, shape in keys[section]
                if kind == "T"
            }
        cfg = get_cfg()
        cfg.LOSS.PARSING.IGNORED_PIXELS = "release"
        self.tasks = {name: build_task(cfg, name) for name in TASK_OF.values()}
        self.weights, _ = from_unihcp(states)
        self.model = Architecture().make([task.spec for task in self.tasks.values()]).eval()
        load_into(self.model, self.weights, "the recipe")
        self.cache = {}

    def arrays(self, section):
        return np.load(self.folder / f"{section}.npz")

    def told(self, section):
        return json.loads((self.folder / f"{section}_losses.json").read_text())

    def predictions(self, section):
        if section not in self.cache:
            given = self.told(section)["input"]
            images = self.recipe.image(given["name"], given["batch"], given["height"], given["width"])
            queries = self.model.private[TASK_OF[section]]
            with torch.no_grad():
                features = self.model.shared.encoder(images)
                predictions = self.model.shared.interpret(features, queries, all_layers=True)
                if queries.feature_norm is not None:
                    predictions[-1].normed_feature = queries.feature_norm(predictions[-1].feature)
            self.cache[section] = features, predictions
        return self.cache[section]


@pytest.fixture(scope="module")
def reference(golden):
    return Reference(golden)


def outputs(reference, section):
    features, predictions = reference.predictions(section)
    first, last = predictions[0], predictions[-1]
    arrays = {"encoder_output": features[:, ::8]}
    if section == "reid":
        return arrays | {"feature": last.feature, "feature_bn": last.normed_feature}
    if section == "pedattr":
        return arrays | {"logit": last.logit}
    if section == "peddet":
        return arrays | {
            "logit": last.logit[..., None],
            "box": last.box,
            "logit_layer0": first.logit[..., None],
            "box_layer0": first.box,
        }
    with torch.no_grad():
        pixels = reference.model.shared.interpreter.pixel_features(features)
    return arrays | {
        "logit": last.logit,
        "heatmap_every4": last.heatmap[..., ::4, ::4],
        "logit_initial": first.logit,
        "heatmap_initial_every8": first.heatmap[..., ::8, ::8],
        "logit_layer4": predictions[4].logit,
        "mask_features_every4": pixels[:, ::32, ::8, ::8],
    }


@pytest.mark.parametrize("section", TASK_OF)
def test_every_stored_output_is_ours_within_1e_4(reference, section):
    stored = reference.arrays(section)
    computed = outputs(reference, section)
    no_outputs = ("target_", "match_", "final_point", "num_points")
    assert {name for name in stored.files if not name.startswith(no_outputs)} == set(computed)
    worst = {name: float(np.abs(value.numpy() - stored[name]).max()) for name, value in computed.items()}
    assert max(worst.values()) < 1e-4, worst


def release_ratio(task):
    return torch.tensor(safe_load(RELEASE.read_text())["TASKS"][task]["POSITIVE_RATIO"])


def target_of(section, arrays, task):
    """The recorded target, in our form; and what the losses are divided by."""
    if section == "reid":
        return Target(identity=torch.from_numpy(arrays["target_identity"]).long()), 1.0
    if section == "pedattr":
        return Target(probability=torch.from_numpy(arrays["target_attributes"]).float()), 1.0
    if section == "pose":
        from unihap.structures import PoseLabel

        fields = []
        for xy, visible in zip(arrays["target_keypoints"], arrays["target_visible"], strict=True):
            keypoints = np.column_stack([xy[:, :2], visible])
            fields.append(task.encode(PoseLabel(keypoints, np.zeros(4), 0), (256, 192)))
        return Target(**{name: torch.stack([f[name] for f in fields]) for name in fields[0]}), 1.0
    if section == "parsing":
        small = torch.from_numpy(arrays["target_labels_every40"]).to(torch.uint8)
        label_map = small.repeat_interleave(40, 1).repeat_interleave(40, 2)
        target = Target(label_map=label_map)
        return target, float(task.count_items(target))
    boxes, ignored = torch.from_numpy(arrays["target_box"]).float(), torch.from_numpy(arrays["target_ignore"]).bool()
    target = Target(box=[boxes[~ignored]], ignore_box=[boxes[ignored]])
    return target, float(task.count_items(target))


# Their names of our terms.  The suffix is _0, _1, ... for earlier layers and nothing for the last one.
TERMS = {
    "reid": {"identity": "Softmax_loss", "triplet": "tri_loss"},
    "pedattr": {"probability": "loss"},
    "pose": {"heatmap": "loss_mask_pos", "probability": "loss_bce_pos"},
    "parsing": {"probability": "loss_bce", "mask": "loss_mask", "dice": "loss_dice"},
    "peddet": {"class": "loss_ce", "l1": "loss_bbox", "giou": "loss_giou"},
}
SAMPLED = {("parsing", "mask"), ("parsing", "dice")}  # at random points, whose seed is not portable


@pytest.mark.parametrize("section", TASK_OF)
def test_every_loss_term_of_every_layer_is_the_original_s(reference, section):
    torch.manual_seed(0)
    task = reference.tasks[TASK_OF[section]]
    ratio = release_ratio(task.spec.name) if section in ("pedattr", "pose", "parsing") else None
    criterion = task.criterion(Statistics(positive_ratio=ratio, num_identities=2559), 256)
    if section == "reid":
        load_criterion(criterion, reference.weights, task.spec.name, "the recipe")
    target, num_items = target_of(section, reference.arrays(section), task)
    with torch.no_grad():
        ours = criterion(reference.predictions(section)[1], target, num_items)
    theirs = reference.told(section)["losses"]
    assert set(ours) == set(TERMS[section])
    for term, name in TERMS[section].items():
        layers = len(ours[term])
        expected = [theirs[f"{name}_{i}"] for i in range(layers - 1)] + [theirs[name]]
        tolerance = 0.02 if (section, term) in SAMPLED else 1e-4
        assert ours[term].tolist() == pytest.approx(expected, rel=tolerance), term
