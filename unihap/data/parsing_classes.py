"""Classes of the parsing datasets in query order (UniHCP's release).

``left_`` and ``right_`` are the person's own sides; a horizontal flip exchanges such pairs.
"""

LIP_CLASSES = (
    "background", "hat", "hair", "glove", "sunglasses", "upper_clothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "left_arm", "right_arm", "left_leg", "right_leg", "left_shoe", "right_shoe",
)  # fmt: skip

CIHP_CLASSES = tuple("torso_skin" if name == "jumpsuits" else name for name in LIP_CLASSES)  # also VIP

ATR_CLASSES = (
    "background", "hat", "hair", "sunglasses", "upper_clothes", "skirt", "pants", "dress", "belt", "left_shoe",
    "right_shoe", "face", "left_leg", "right_leg", "left_arm", "right_arm", "bag", "scarf",
)  # fmt: skip

# the categories of the annotation files, 1-13, behind the background
DEEPFASHION2_CLASSES = (
    "background", "short_sleeve_top", "long_sleeve_top", "short_sleeve_outwear", "long_sleeve_outwear", "vest",
    "sling", "shorts", "trousers", "skirt", "short_sleeve_dress", "long_sleeve_dress", "vest_dress", "sling_dress",
)  # fmt: skip

MODANET_CLASSES = (
    "background", "bag", "belt", "boots", "footwear", "outer", "dress", "sunglasses", "pants", "top", "shorts",
    "skirt", "headwear", "scarf_and_tie",
)  # fmt: skip

# CCP's 59 classes as LIP's, one rule a line.  What a line of no class names is ignored: whatever a model says there is
# neither right nor wrong.
NO_CLASS = "ignored"
_CCP_RULES = (
    ("background", "null"),
    ("background", "bag purse wallet"),  # carried, not worn: LIP draws what somebody holds as background
    ("hat", "hat"),
    ("hair", "hair"),
    ("glove", "gloves"),
    ("sunglasses", "sunglasses"),
    ("upper_clothes", "blouse jumper shirt sweater sweatshirt t-shirt top"),
    ("dress", "dress"),
    ("coat", "blazer cape cardigan coat jacket"),  # what is worn over other clothes, short or long
    ("coat", "suit"),  # CCP draws the jacket alone
    ("socks", "socks"),
    ("pants", "jeans pants shorts"),
    ("jumpsuits", "romper"),
    ("scarf", "scarf"),
    ("skirt", "skirt"),
    (NO_CLASS, "skin"),  # face, arms and legs in one
    (NO_CLASS, "boots clogs flats heels loafers pumps sandals shoes sneakers wedges"),  # left and right in one
    (NO_CLASS, "leggings stockings"),  # CCP calls the same ones either; for LIP socks, pants or legs
    (NO_CLASS, "glasses"),  # clear ones, which LIP's annotators draw as face, and dark ones
    (NO_CLASS, "accessories bodysuit hoodie tights vest"),  # CCP's use is mixed: a vest is a tank top or a coat
    (NO_CLASS, "bra intimate panties swimwear"),  # LIP has no class between upper clothes, pants and skin
    (NO_CLASS, "belt bracelet earrings necklace ring tie watch"),  # worn on clothes or skin that LIP draws through them
)
CCP_TO_LIP = {name: part for part, names in _CCP_RULES for name in names.split()}
assert len(CCP_TO_LIP) == sum(len(names.split()) for _, names in _CCP_RULES)  # one rule each

H36M_PARTS = {
    0: "background", 1: "right_hip", 2: "right_knee", 3: "right_foot", 6: "left_hip", 7: "left_knee", 8: "left_foot",
    17: "left_shoulder", 18: "left_elbow", 19: "left_hand", 25: "right_shoulder", 26: "right_elbow", 27: "right_hand",
    32: "crotch", 33: "right_thigh", 34: "right_calf", 38: "left_thigh", 39: "left_calf", 43: "lower_spine",
    44: "upper_spine", 46: "head", 49: "left_arm", 50: "left_forearm", 56: "right_arm", 58: "right_forearm",
}  # fmt: skip
H36M_CLASSES = tuple(H36M_PARTS.values())
H36M_VALUES = tuple(H36M_PARTS)  # the numbers in the files
