"""Every config key there is, with its default value and one comment; a config file holds only differences."""

from unihap.config.load import CfgNode

CN = CfgNode

_C = CfgNode()

# Folder of this run: config.yaml, metrics.jsonl, results.json, checkpoints/, visualizations/
_C.OUTPUT_DIR = "./output"
# Seed of the weights, of the sample order and of every augmentation
_C.SEED = 0

# ---------------------------------------------------------------------------------------------------- model
_C.MODEL = CN()
# Checkpoint to start from, of the same mode (finetune, prompt: of joint or finetune); "" starts from random weights
_C.MODEL.WEIGHTS = ""
# Files or checkpoints of prompts that --eval-only serves beside MODEL.WEIGHTS
_C.MODEL.PROMPTS = []
# all | private_interpreter | private_decoder (and interpreter) | by_kind: whose the decoder and interpreter are
_C.MODEL.SHARING = "all"
# decoder | linear: what reads the encoder's features; linear is a probe without a decoder, and has no boxes
_C.MODEL.READOUT = "decoder"

_C.MODEL.ENCODER = CN()
# A name of ENCODERS or any plain timm ViT
_C.MODEL.ENCODER.NAME = "vit_base_patch16"
# Encoder to start from: a pre-training checkpoint (folder or file), or what tools/convert_checkpoint.py wrote
_C.MODEL.ENCODER.WEIGHTS = ""
# (rows, columns) of the learned position table, resized to the token grid of each input (pretrain: always its grid)
_C.MODEL.ENCODER.POSITION_GRID = [84, 84]
# Stochastic depth rate of the last block; it grows linearly from 0 at the first
_C.MODEL.ENCODER.DROP_PATH = 0.2

_C.MODEL.DECODER = CN()
# Channels of a query
_C.MODEL.DECODER.WIDTH = 256
# Attention heads
_C.MODEL.DECODER.HEADS = 8
# Decoder layers
_C.MODEL.DECODER.LAYERS = 9
# Hidden channels of the feed-forward networks
_C.MODEL.DECODER.FEEDFORWARD = 2048

# Learned anchors of a detection task
_C.MODEL.NUM_ANCHORS = 300
# Patterns that meet every anchor of a detection task
_C.MODEL.NUM_PATTERNS = 3
# Queries of a ReID task, concatenated to one descriptor
_C.MODEL.NUM_FEATURE_QUERIES = 6

# ------------------------------------------------------------------------------------------------- training
_C.TRAIN = CN()
# joint | pretrain | finetune | prompt
_C.TRAIN.MODE = "joint"
# Tasks to train, in rank order
_C.TRAIN.TASKS = []
# auto (bfloat16 where the device has it, else float32) | float32 | float64
_C.TRAIN.PRECISION = "auto"
# Iterations between checkpoints
_C.TRAIN.CHECKPOINT_PERIOD = 1000
# Newest checkpoints that are kept
_C.TRAIN.KEEP_CHECKPOINTS = 2
# Iterations between lines of metrics.jsonl
_C.TRAIN.LOG_PERIOD = 10
# Whether to log the loss terms of every supervised layer and not of their sum alone
_C.TRAIN.LOG_LAYERS = False
# Whether to evaluate TEST.TASKS after the last iteration (not in pretrain)
_C.TRAIN.EVAL_AT_END = True

# ----------------------------------------------------------------------------------------------- evaluation
_C.TEST = CN()
# Tasks to evaluate; [] means TRAIN.TASKS
_C.TEST.TASKS = []
# Whether to average with the horizontally flipped image where the task allows it
_C.TEST.FLIP = True
# fixed | release: how a pose result's score is made of box score, heatmap and probability
_C.TEST.POSE_RESCORE = "fixed"
# Whether ReID re-ranks the gallery by k-reciprocal neighbours
_C.TEST.RERANK = False
# Lowest score of a reported person box
_C.TEST.DETECTION_SCORE = 0.05
# Images in each picture sheet (a spread, the best, the worst) of every evaluated dataset; 0 draws none
_C.TEST.VISUALIZE = 16
# Threads of each process on a CPU; the last digits depend on it. 0 leaves them as they are, which may be faster
_C.TEST.NUM_THREADS = 1

# ----------------------------------------------------------------------------------------------------- data
_C.DATA = CN()
# Root of the datasets; "" means $UNIHAP_DATASETS, $DETECTRON2_DATASETS or ./datasets, the first that is set
_C.DATA.ROOT = ""
# Worker processes of a data loader
_C.DATA.NUM_WORKERS = 4
# error | skip: what to do with an image that cannot be read
_C.DATA.ON_BAD_IMAGE = "error"

# --------------------------------------------------------------------------------------------- optimization
# TRAIN.MODE pretrain reads WEIGHT_DECAY, BETA1 and CLIP_GRADIENT_NORM alone; the rest is in PRETRAIN
_C.SOLVER = CN()
# adafactor | adamw | muon
_C.SOLVER.OPTIMIZER = "adafactor"
# Learning rate after the warm-up
_C.SOLVER.BASE_LR = 1e-3
# Learning rate of the first iteration
_C.SOLVER.WARMUP_LR = 1e-5
# Iterations of linear warm-up
_C.SOLVER.WARMUP_ITERATIONS = 1500
# Iterations of the whole run
_C.SOLVER.MAX_ITERATIONS = 104816
# cosine | linear: how the rate falls to zero after the warm-up
_C.SOLVER.DECAY = "cosine"
# Decoupled weight decay
_C.SOLVER.WEIGHT_DECAY = 0.05
# Decay of the first moment
_C.SOLVER.BETA1 = 0.9
# Decay of the second moment
_C.SOLVER.BETA2 = 0.999
# Learning rate of an encoder block relative to the block above it
_C.SOLVER.LAYER_DECAY = 0.75
# corrected | release: the exponents of LAYER_DECAY
_C.SOLVER.LAYER_DECAY_RULE = "corrected"
# Largest norm of the whole gradient; 0 does not clip
_C.SOLVER.CLIP_GRADIENT_NORM = 0.0

# --------------------------------------------------------------------------------------------------- losses
_C.LOSS = CN()
_C.LOSS.REID = CN()
# Weight of the cross entropy over identities
_C.LOSS.REID.IDENTITY = 1.0
# Weight of the hard triplet loss
_C.LOSS.REID.TRIPLET = 1.0

_C.LOSS.ATTRIBUTES = CN()
# Weight of the binary cross entropy of every attribute
_C.LOSS.ATTRIBUTES.PROBABILITY = 1.0

_C.LOSS.PARSING = CN()
# Weight of the presence of every class
_C.LOSS.PARSING.PROBABILITY = 0.25
# Weight of the point-wise binary cross entropy of masks
_C.LOSS.PARSING.MASK = 5.0
# Weight of the dice loss of masks
_C.LOSS.PARSING.DICE = 5.0
# Points of a mask at which its losses are taken
_C.LOSS.PARSING.NUM_POINTS = 12544
# ignore | release: whether unlabelled pixels are left out of the mask losses or count as background
_C.LOSS.PARSING.IGNORED_PIXELS = "ignore"

_C.LOSS.POSE = CN()
# Weight of the squared error of heatmaps
_C.LOSS.POSE.HEATMAP = 1.0
# Weight of the presence of every keypoint
_C.LOSS.POSE.PROBABILITY = 0.001

_C.LOSS.DETECTION = CN()
# Weight of the focal loss
_C.LOSS.DETECTION.CLASS = 2.0
# Weight of the L1 distance of boxes
_C.LOSS.DETECTION.L1 = 5.0
# Weight of the generalised IoU loss
_C.LOSS.DETECTION.GIOU = 2.0

# ---------------------------------------------------------------------------------------------------- tasks
# One block per task, e.g. TASKS.coco_pose; every block has the keys of TASK_DEFAULTS
_C.TASKS = CN()

TASK_DEFAULTS = CfgNode()
# Datasets to train on; [] means the task's own
TASK_DEFAULTS.TRAIN = []
# Datasets to evaluate on; [] means the task's own
TASK_DEFAULTS.TEST = []
# A detector's boxes for each of TEST (pose): files in COCO's results format, "" for labelled boxes; [] labelled for all
TASK_DEFAULTS.BOXES = []
# Processes that train this task when there is one process per GPU
TASK_DEFAULTS.GPUS = 1
# Samples per process and forward pass
TASK_DEFAULTS.BATCH_SIZE = 1
# Forward passes per iteration
TASK_DEFAULTS.ACCUMULATE = 1
# UniHCP's lambda in the weight rule lambda * B; 0 means the kind's value
TASK_DEFAULTS.LAMBDA = 0.0
# Weight of this task in the objective; 0 means the normalised rule lambda * B
TASK_DEFAULTS.WEIGHT = 0.0
# (height, width) of the network input in pixels; [] means the task's own
TASK_DEFAULTS.INPUT_SIZE = []
# Records taken from every dataset, the first ones; 0 takes all
TASK_DEFAULTS.MAX_RECORDS = 0
# Training records drawn for every class, out of those that show it (see datasets/README.md); 0 takes all
TASK_DEFAULTS.SHOTS = 0
# Seed of that draw
TASK_DEFAULTS.SHOT_SEED = 0
# Images of one person in a batch (ReID)
TASK_DEFAULTS.IMAGES_PER_PERSON = 4
# Training identities (ReID); 0 counts them
TASK_DEFAULTS.NUM_IDENTITIES = 0
# Share of positive labels per attribute; [] computes it from the training set
TASK_DEFAULTS.POSITIVE_RATIO = []
# Whether to recompute the encoder's activations in the backward pass, which saves memory
TASK_DEFAULTS.CHECKPOINT_ACTIVATIONS = False
# full | flip | none: how to augment the training samples
TASK_DEFAULTS.AUGMENT = "full"
# finetune, prompt: task of MODEL.WEIGHTS whose queries are copied by class name; "" takes the task's own or random ones
TASK_DEFAULTS.QUERIES_FROM = ""

# ----------------------------------------------------------------------------------------------- adaptation
# TRAIN.MODE finetune: tasks are trained on from MODEL.WEIGHTS
_C.FINETUNE = CN()
# Parts that train: encoder, decoder, interpreter, private (queries and losses)
_C.FINETUNE.PARTS = ["encoder", "decoder", "interpreter", "private"]
# Iterations before which the shared parts are frozen
_C.FINETUNE.FREEZE_ITERATIONS = 0

_C.FINETUNE.LR_SCALE = CN()
# Learning rate of the encoder relative to BASE_LR, on top of LAYER_DECAY
_C.FINETUNE.LR_SCALE.ENCODER = 1.0
# Learning rate of the decoder relative to BASE_LR
_C.FINETUNE.LR_SCALE.DECODER = 1.0
# Learning rate of the interpreter relative to BASE_LR
_C.FINETUNE.LR_SCALE.INTERPRETER = 1.0
# Learning rate of private weights relative to BASE_LR
_C.FINETUNE.LR_SCALE.PRIVATE = 1.0

# TRAIN.MODE prompt: one task's queries and prompts are trained, the shared weights of MODEL.WEIGHTS stay as they are
_C.PROMPT = CN()
# Learned keys and values that every attention of the decoder gets; 0 trains the queries and their positions alone
_C.PROMPT.DECODER_LENGTH = 0
# Learned keys and values that every attention of the encoder gets
_C.PROMPT.ENCODER_LENGTH = 0

# --------------------------------------------------------------------------------------------- pre-training
# TRAIN.MODE pretrain: HAP (Yuan et al. 2023, arXiv:2310.20695) on person crops without labels; AdamW by default
_C.PRETRAIN = CN()
# mae (pixels are reconstructed) | cae (a tokenizer's codes and the latents of masked patches are predicted)
_C.PRETRAIN.FRAMEWORK = "mae"
# Names of datasets of crops, folders of images, or lists of them (.txt, .pkl)
_C.PRETRAIN.DATASETS = []
# File of keypoints for each of DATASETS; [] means keypoints.npz in their folders
_C.PRETRAIN.KEYPOINTS = []
# Share taken of every dataset, its first images: one number for all or one for each
_C.PRETRAIN.FRACTION = [1.0]
# Images taken of every dataset, the first ones; 0 takes FRACTION
_C.PRETRAIN.NUM_SAMPLES = 0
# (height, width) of a crop in pixels, multiples of the patch
_C.PRETRAIN.INPUT_SIZE = [256, 128]
# Smallest and largest area of a random crop, as a share of the image (the paper's 80 % is the smallest)
_C.PRETRAIN.CROP_SCALE = [0.8, 1.0]
# Probability of a horizontal flip
_C.PRETRAIN.FLIP = 0.5
# Samples per process and forward pass; InfoNCE compares a sample with those of all processes of one pass
_C.PRETRAIN.BATCH_SIZE = 256
# Forward passes per iteration
_C.PRETRAIN.ACCUMULATE = 1
# Times that every image is seen
_C.PRETRAIN.EPOCHS = 400.0
# Epochs of linear warm-up from 0; after it half a cosine goes down to 0
_C.PRETRAIN.WARMUP_EPOCHS = 40.0
# Learning rate for 256 samples; the rate is BLR * samples per iteration / 256
_C.PRETRAIN.BLR = 1.5e-4
# Learning rate; 0 follows the rule of BLR
_C.PRETRAIN.LR = 0.0
# adamw | muon (for short runs of small models)
_C.PRETRAIN.OPTIMIZER = "adamw"
# Decay of AdamW's second moment
_C.PRETRAIN.BETA2 = 0.95

_C.PRETRAIN.MASK = CN()
# Share of patches that are masked
_C.PRETRAIN.MASK.RATIO = 0.5
# block | random: how patches are drawn that guidance does not decide
_C.PRETRAIN.MASK.SAMPLER = "block"
# part | keypoint | attention | none: what is masked first (attention: what the encoder itself looks at most)
_C.PRETRAIN.MASK.GUIDANCE = "part"
# Fewest and most body parts per image and view, uniform
_C.PRETRAIN.MASK.PARTS = [0, 6]
# The same for the keypoints of GUIDANCE keypoint (not given in the paper)
_C.PRETRAIN.MASK.KEYPOINTS = [0, 17]
# Smallest and largest share of a part's patches that are masked, uniform; [] means COMPAT's: [1, 1] or [0, 0.3]
_C.PRETRAIN.MASK.PART_FRACTION = []
# Keypoints of a lower score are left out
_C.PRETRAIN.MASK.MIN_SCORE = 0.0
# paper | release: the release, by mistake, guides few masks of a batch and few patches of each
_C.PRETRAIN.MASK.COMPAT = "paper"

_C.PRETRAIN.ALIGN = CN()
# infonce | simsiam
_C.PRETRAIN.ALIGN.LOSS = "infonce"
# Weight of the alignment of two views' class tokens; 0 leaves the loss away and keeps the views
_C.PRETRAIN.ALIGN.WEIGHT = 0.05
# Temperature of InfoNCE
_C.PRETRAIN.ALIGN.TEMPERATURE = 0.2
# masked_masked (both reconstructed) | masked_global | masked_visible | none (one view)
_C.PRETRAIN.ALIGN.VIEWS = "masked_masked"

_C.PRETRAIN.DECODER = CN()
# Channels of MAE's decoder
_C.PRETRAIN.DECODER.WIDTH = 512
# Blocks of MAE's decoder
_C.PRETRAIN.DECODER.LAYERS = 8
# Attention heads of MAE's decoder
_C.PRETRAIN.DECODER.HEADS = 16
# Whether MAE reconstructs patches normalised by their own mean and deviation
_C.PRETRAIN.NORMALIZE_TARGET = True

_C.PRETRAIN.CAE = CN()
# Cross-attention blocks that predict the latents of masked patches
_C.PRETRAIN.CAE.REGRESSOR_LAYERS = 4
# Blocks that predict codes from these latents
_C.PRETRAIN.CAE.DECODER_LAYERS = 4
# random (frozen projection and codes) | kmeans (prototypes of patches) | dvae (DALL-E's encoder)
_C.PRETRAIN.CAE.TOKENIZER = "random"
# File of the dvae or of the kmeans prototypes; "" fits kmeans to images of DATASETS
_C.PRETRAIN.CAE.TOKENIZER_WEIGHTS = ""
# Codes of the random and of the kmeans tokenizer
_C.PRETRAIN.CAE.VOCABULARY = 8192
# Weight of the squared error of latents
_C.PRETRAIN.CAE.LATENT_WEIGHT = 2.0

# Nodes whose keys a user may invent, and the defaults of what is in them
OPEN_NODES = {"TASKS": TASK_DEFAULTS}
_C.declare_open(OPEN_NODES)


def get_cfg() -> CfgNode:
    """A fresh copy of all defaults."""
    return _C.clone()
