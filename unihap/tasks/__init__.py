"""Every named task, in one screen: a task is a set of queries, named for what they were learned on."""

from collections.abc import Callable, Mapping
from functools import partial

from unihap.data.parsing_classes import (
    ATR_CLASSES,
    CIHP_CLASSES,
    DEEPFASHION2_CLASSES,
    H36M_CLASSES,
    LIP_CLASSES,
    MODANET_CLASSES,
)
from unihap.tasks.attributes import attributes_task
from unihap.tasks.detection import detection_task
from unihap.tasks.parsing import parsing_task
from unihap.tasks.pose import pose_task
from unihap.tasks.reid import reid_task
from unihap.tasks.task import Criterion, Statistics, Task, TaskOptions

__all__ = ["TASKS", "Criterion", "Statistics", "Task", "TaskOptions"]

LIP_MIRROR = ((14, 15), (16, 17), (18, 19))  # arms, legs, shoes; also CIHP and VIP
ATR_MIRROR = ((9, 10), (12, 13), (14, 15))  # shoes, legs, arms
# Query order of Human3.6M: background, right hip, knee, foot, left hip, knee, foot, ...
H36M_MIRROR = ((1, 4), (2, 5), (3, 6), (7, 10), (8, 11), (9, 12), (14, 16), (15, 17), (21, 23), (22, 24))

TASKS: Mapping[str, Callable[[str, TaskOptions], Task]] = {
    "coco_pose": partial(
        pose_task, skeleton="coco", train_datasets=("coco_keypoints_train",), test_datasets=("coco_keypoints_val",)
    ),
    "aic_pose": partial(pose_task, skeleton="aic", train_datasets=("aic_train",), test_datasets=("aic_val",)),
    "posetrack18_pose": partial(
        pose_task,
        skeleton="posetrack18",
        train_datasets=("posetrack18_train",),
        test_datasets=("posetrack18_val",),
    ),
    "h36m_pose": partial(
        pose_task,
        skeleton="h36m",
        train_datasets=("h36m_pose_train",),
        test_datasets=("h36m_pose_test",),
        main_metric="EPE",
    ),
    "mhp_pose": partial(pose_task, skeleton="mhp", train_datasets=("mhp_train",), test_datasets=("mhp_val",)),
    "pennaction_pose": partial(pose_task, skeleton="pennaction"),
    "threedpw_pose": partial(pose_task, skeleton="threedpw"),
    "jrdb_pose": partial(pose_task, skeleton="jrdb"),
    "halpe_pose": partial(pose_task, skeleton="halpe", train_datasets=("halpe_train",), test_datasets=("halpe_val",)),
    "mpii_pose": partial(
        pose_task, skeleton="mpii", train_datasets=("mpii_train",), test_datasets=("mpii_val",), main_metric="PCKh"
    ),
    "h36m_parsing": partial(
        parsing_task,
        num_classes=25,
        mirror=H36M_MIRROR,
        classes=H36M_CLASSES,
        train_datasets=("h36m_parsing_train",),
        test_datasets=("h36m_parsing_val",),
    ),
    "lip_parsing": partial(
        parsing_task,
        num_classes=20,
        mirror=LIP_MIRROR,
        classes=LIP_CLASSES,
        train_datasets=("lip_train",),
        test_datasets=("lip_val",),
    ),
    "cihp_parsing": partial(
        parsing_task,
        num_classes=20,
        mirror=LIP_MIRROR,
        classes=CIHP_CLASSES,
        train_datasets=("cihp_train",),
        test_datasets=("cihp_val",),
    ),
    "deepfashion2_parsing": partial(
        parsing_task, num_classes=14, classes=DEEPFASHION2_CLASSES, train_datasets=("deepfashion2_train",)
    ),
    "vip_parsing": partial(
        parsing_task, num_classes=20, mirror=LIP_MIRROR, classes=CIHP_CLASSES, train_datasets=("vip_train",)
    ),
    "modanet_parsing": partial(
        parsing_task, num_classes=14, classes=MODANET_CLASSES, train_datasets=("modanet_train",)
    ),
    "atr_parsing": partial(
        parsing_task,
        num_classes=18,
        mirror=ATR_MIRROR,
        classes=ATR_CLASSES,
        train_datasets=("atr_train",),
        test_datasets=("atr_val",),
    ),
    "ccp_parsing": partial(parsing_task, num_classes=59, train_datasets=("ccp_train",), test_datasets=("ccp_val",)),
    "pa100k_attributes": partial(
        attributes_task, num_attributes=26, train_datasets=("pa100k_trainval",), test_datasets=("pa100k_test",)
    ),
    "rapv2_attributes": partial(attributes_task, num_attributes=54),
    "hardhc_attributes": partial(attributes_task, num_attributes=14),
    "uavhuman_attributes": partial(attributes_task, num_attributes=43),
    "parse27k_attributes": partial(attributes_task, num_attributes=44),
    "market1501_attributes": partial(
        attributes_task,
        num_attributes=30,
        train_datasets=("market1501_attributes_train",),
        test_datasets=("market1501_attributes_test",),
    ),
    "peta_attributes": partial(attributes_task, num_attributes=35),
    "ccp_attributes": partial(
        attributes_task,
        num_attributes=34,
        train_datasets=("ccp_as_pa100k_train",),
        test_datasets=("ccp_as_pa100k_test",),
    ),
    "general_reid": partial(
        reid_task,
        train_datasets=("market1501_train", "cuhk03_train", "msmt17_train"),
        test_datasets=("market1501_test", "cuhk03_test", "msmt17_test"),
    ),
    # Rendered people of domain b, what a model of other tasks is adapted to.
    "synth_b_pose": partial(
        pose_task,
        skeleton="synth_b",
        train_datasets=("synth_b_coco_keypoints_train",),
        test_datasets=("synth_b_coco_keypoints_val",),
    ),
    "synth_b_parsing": partial(
        parsing_task,
        num_classes=20,
        mirror=LIP_MIRROR,
        train_datasets=("synth_b_lip_train",),
        test_datasets=("synth_b_lip_val",),
    ),
    "synth_b_attributes": partial(
        attributes_task,
        num_attributes=49,
        train_datasets=("synth_b_pa100k_trainval",),
        test_datasets=("synth_b_pa100k_test",),
    ),
    "cloth_changing_reid": partial(reid_task, train_datasets=(), test_datasets=()),
    "pedestrian_detection": partial(
        detection_task, train_datasets=("crowdhuman_train",), test_datasets=("crowdhuman_val",)
    ),
}
