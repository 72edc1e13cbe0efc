"""How every dataset is on disk.  The order is part of the seeds: new layouts go to the end."""

from unihap.synth.layouts.base import Layout
from unihap.synth.layouts.crops import LIP_LAYOUT, PA100K
from unihap.synth.layouts.reid import CUHKPEDES, LUPERSON, MARKET1501, PRCC
from unihap.synth.layouts.scenes import COCO_KEYPOINTS, CROWDHUMAN
from unihap.synth.layouts.threedpw import THREEDPW

LAYOUTS: dict[str, Layout] = {
    "market1501": MARKET1501,
    "pa100k": PA100K,
    "lip": LIP_LAYOUT,
    "coco_keypoints": COCO_KEYPOINTS,
    "crowdhuman": CROWDHUMAN,
    "prcc": PRCC,
    "luperson": LUPERSON,
    "cuhkpedes": CUHKPEDES,
    "threedpw": THREEDPW,
}
