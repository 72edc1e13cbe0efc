import pickle
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

from unihap.data.crop_records import CropLabel
from unihap.data.images import BadImageError
from unihap.data.keypoint_index import make_index, write_index
from unihap.data.unlabelled import join, load_unlabelled
from unihap.pretrain.dataset import MIRROR, CropTransform, PersonCrops, collate, pretrain_batches, sanitise
from unihap.pretrain.part_masking import Masking, release_masks
from unihap.structures import Dataset, Label, Record

SIZE = (64, 32)
MASKING = Masking(grid=(4, 2))
SKELETON = np.array(
    [[16, 6], [17, 5], [15, 5], [19, 6], [13, 6], [22, 14], [10, 14], [25, 22], [7, 22], [26, 30], [6, 30],
     [20, 32], [12, 32], [20, 44], [12, 44], [20, 56], [12, 56]], np.float64
)  # fmt: skip  # in a crop of 64 x 32


def skeleton(height=64, width=32, score=0.9):
    points = (SKELETON + 0.5) * (width / 32, height / 64) - 0.5
    return np.column_stack([points, np.full(17, score)]).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Five crops of noise with keypoints, the last without."""
    names = [f"{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (40 + 4 * number, 20, 3), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / name), pixels)
    people = [skeleton(40 + 4 * number, 20) for number in range(4)]
    write_index(tmp_path / "keypoints.npz", make_index(names, [*people, None]))
    return tmp_path


def crops(folder, **options):
    dataset = load_unlabelled(str(folder), folder)
    return PersonCrops(dataset, options.pop("masking", MASKING), **{"size": SIZE, "seed": 3, **options})


def transform(size=(256, 128), **options):
    defaults = {"num_views": 1, "crop_scale": (0.8, 1.0), "crop_ratio": (0.375, 2 / 3), "flip": 0.5, "augment": True}
    return CropTransform(Masking(grid=(size[0] // 16, size[1] // 16)), size, **{**defaults, **options})


# the crop


def blob(image, point, colour):
    """Paints a round spot with its centre at a sub-pixel position."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / (2 * 2.0**2))
    image += weight[..., None] * np.array(colour)


def centre(channel):
    rows, columns = np.mgrid[: channel.shape[0], : channel.shape[1]]
    weight = np.where(channel > 20, channel, 0).astype(float)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def test_keypoints_stay_on_the_picture_and_left_and_right_change_places_when_it_is_flipped():
    keypoints = np.full((17, 3), -1.0, np.float32)
    keypoints[9], keypoints[10] = (44.25, 60, 0.5), (18, 41.75, 0.7)  # left wrist red, right wrist green
    image = np.zeros((100, 60, 3))
    blob(image, keypoints[9], (255, 0, 0))
    blob(image, keypoints[10], (0, 255, 0))
    crop = transform()
    mirrored = 0
    for number in range(30):
        result = crop(np.round(image).astype(np.uint8), CropLabel(keypoints), np.random.default_rng(number))
        flipped = result.matrix[0, 0] < 0
        red, green = (10, 9) if flipped else (9, 10)  # in a mirror the left hand is a right hand
        np.testing.assert_allclose(result.label.keypoints[red, :2], centre(result.image[..., 0]), atol=0.35)
        np.testing.assert_allclose(result.label.keypoints[green, :2], centre(result.image[..., 1]), atol=0.35)
        assert result.label.keypoints[red, 2] == np.float32(0.5)
        assert (np.delete(result.label.keypoints, [9, 10], axis=0) == -1).all()
        mirrored += flipped
    assert 5 < mirrored < 25


def test_crops_have_the_area_and_aspect_asked_for():
    crop = transform()
    image = np.zeros((400, 200, 3), np.uint8)
    areas, ratios = [], []
    for number in range(300):
        matrix = crop(image, Label(), np.random.default_rng(number)).matrix
        width, height = 128 / abs(matrix[0, 0]), 256 / matrix[1, 1]
        areas.append(width * height / (400 * 200))
        ratios.append(width / height)
    assert 0.79 < min(areas) < 0.83
    assert 0.95 < max(areas) <= 1.0
    # of 0.8 of the area of 200 x 400 a crop cannot be narrower than 0.4 or wider than 0.625
    assert 0.395 < min(ratios) < 0.43
    assert 0.59 < max(ratios) < 0.63


def test_without_augmentation_the_whole_image_is_resized(folder):
    sample = crops(folder, augment=False)[2]
    image = cv2.imread(str(folder / "2.png"))[..., ::-1]
    expected = cv2.resize(image, (32, 64), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), expected)
    np.testing.assert_allclose(sample.keypoints[:, :2], SKELETON, atol=1e-4)


def test_flip_probability_decides(folder):
    for flip in (0.0, 1.0):
        crop = transform(SIZE, flip=flip)
        image = np.zeros((64, 32, 3), np.uint8)
        mirrored = {crop(image, Label(), np.random.default_rng(n)).matrix[0, 0] < 0 for n in range(10)}
        assert mirrored == {flip == 1.0}


def test_left_and_right_of_coco():
    assert MIRROR.tolist() == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


def test_keypoints_outside_the_image_or_the_crop_are_absent():
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[:9, :2] = [(0, 0), (9.99, 19.99), (10, 5), (5, 20), (-0.01, 5), (5, -3), (np.nan, 5), (np.inf, 5), (5, 5)]
    inside = (sanitise(keypoints, (20, 10))[:9, 0] >= 0).tolist()
    assert inside == [True, True, False, False, False, False, False, False, True]
    clean = sanitise(np.array([[-10000.0, 3, 0.9]] * 17), (20, 10))
    assert (clean == -1).all()


def test_an_absent_keypoint_stays_absent_wherever_the_crop_is():
    """A sentinel, flipped, would otherwise come back from the other side."""
    keypoints = np.tile(np.float32([-1, -1, 0]), (17, 1))
    keypoints[0] = (2, 2, 1)  # in a corner, which most crops cut off
    crop = transform(SIZE)
    seen = 0
    for number in range(60):
        label = crop(np.zeros((128, 64, 3), np.uint8), CropLabel(keypoints), np.random.default_rng(number)).label
        assert (label.keypoints[1:] == -1).all()
        seen += label.keypoints[0, 0] >= 0
        assert ((label.keypoints[0] == -1).all()) != (label.keypoints[0, 0] >= 0)
    assert 0 < seen < 60


# samples


def test_a_sample_has_its_crop_its_masks_and_its_keypoints(folder):
    sample = crops(folder)[(0, 1)]
    assert (sample.image.shape, sample.image.dtype) == ((3, 64, 32), torch.uint8)
    assert (sample.masks.shape, sample.masks.dtype) == ((2, 4, 2), torch.bool)
    assert sample.masks.sum(dim=(1, 2)).tolist() == [4, 4]
    assert (sample.keypoints.shape, sample.keypoints.dtype) == ((17, 3), torch.float32)
    assert (sample.path, sample.draw, sample.skipped) == (str(folder / "1.png"), 0, ())


def test_a_crop_without_keypoints_is_masked_all_the_same(folder):
    sample = crops(folder, num_views=1)[4]
    assert (sample.keypoints == -1).all()
    assert sample.masks.sum() == 4


def test_masks_follow_the_keypoints_of_the_crop(folder):
    """The head is in the upper row, so that guidance by keypoints of the head alone masks there."""
    masking = Masking(grid=(4, 2), ratio=0.25, guidance="keypoint", keypoints=(17, 17), sampler="random")
    keypoints = skeleton()
    keypoints[5:] = -1
    crop = CropTransform(
        masking, SIZE, num_views=1, crop_scale=(0.99, 1.0), crop_ratio=(0.49, 0.51), flip=0.0, augment=True
    )
    for number in range(10):
        label = crop(np.zeros((64, 32, 3), np.uint8), CropLabel(keypoints), np.random.default_rng(number)).label
        assert label.masks[0, 0].all()


def test_a_sample_depends_on_seed_and_draw_alone(folder):
    samples = crops(folder)
    first = samples[(7, 2)]
    again = crops(folder)[(7, 2)]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.masks, again.masks)
    assert torch.equal(first.keypoints, again.keypoints)
    others = [samples[(draw, 2)] for draw in range(8, 12)] + [crops(folder, seed=4)[(7, 2)]]
    assert not any(torch.equal(first.image, other.image) for other in others)
    assert any(not torch.equal(first.masks, other.masks) for other in others)


def test_views_are_masked_independently(folder):
    masks = torch.stack([crops(folder)[(draw, 0)].masks for draw in range(20)])
    assert (masks[:, 0] != masks[:, 1]).any(dim=(1, 2)).sum() > 10


def test_an_unreadable_crop_is_an_error_or_the_next_one_takes_its_place(folder):
    (folder / "1.png").write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"record 1\.png of .*, image .*1\.png"):
        crops(folder)[(0, 1)]
    samples = crops(folder, on_bad_image="skip")
    sample = samples[(5, 1)]
    assert sample.path == str(folder / "2.png")
    assert sample.skipped == ("1.png",)
    assert torch.equal(sample.image, samples[(5, 2)].image)
    assert samples.collate([sample, samples[(6, 0)]]).skipped == ("1.png",)


def test_labelled_crops_are_crops_too(folder):
    labelled = Dataset("labelled_train", "reid", [Record("a", str(folder / "0.png"), Label())])
    joined = join([load_unlabelled(str(folder), folder, fraction=0.4), labelled])
    samples = PersonCrops(joined, MASKING, size=SIZE, seed=0)
    assert len(samples) == 3
    assert samples[2].path == str(folder / "0.png")
    assert (samples[2].keypoints == -1).all()
    assert (samples[0].keypoints >= 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 48)}, r"64 x 48 pixels is not the grid \(4, 2\) of patches of 16"),
        ({"crop_scale": (0.0, 1.0)}, "crop scale must be two rising numbers above 0 and at most 1"),
        ({"crop_scale": (0.8, 1.1)}, "at most 1, got"),
        ({"crop_ratio": (0.7, 0.4)}, "crop ratio must be two rising numbers"),
        ({"flip": 1.5}, "a flip must be from 0 to 1, got 1.5"),
        ({"num_views": 0}, "at least one mask, got 0"),
        ({"on_bad_image": "ignore"}, "error or skip, not 'ignore'"),
    ],
)
def test_impossible_choices_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        crops(folder, **options)


# batches


def test_a_batch_stacks_samples_and_moves_together(folder):
    samples = crops(folder)
    batch = collate([samples[(0, 0)], samples[(1, 4)]])
    assert batch.images.shape == (2, 3, 64, 32)
    assert batch.masks.shape == (2, 2, 4, 2)
    assert batch.keypoints.shape == (2, 17, 3)
    assert batch.paths == (str(folder / "0.png"), str(folder / "4.png"))
    assert len(batch) == 2
    assert batch.num_without_keypoints == 1
    moved = batch.to("meta")
    assert {t.device.type for t in (moved.images, moved.masks, moved.keypoints)} == {"meta"}
    assert moved.paths == batch.paths


def first(samples, count, **options):
    return list(islice(pretrain_batches(samples, batch_size=2, **options), count))


def assert_equal(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.paths == other.paths
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.masks, other.masks)
        assert torch.equal(batch.keypoints, other.keypoints)


def test_batches_never_end_and_every_epoch_holds_each_crop_once(folder):
    paths = [path for batch in first(crops(folder), 10) for path in batch.paths]
    epochs = [sorted(paths[start : start + 5]) for start in range(0, 20, 5)]
    assert epochs == [[str(folder / f"{number}.png") for number in range(5)]] * 4
    assert paths[:5] != paths[5:10] or paths[5:10] != paths[10:15]


def test_a_run_that_goes_on_meets_the_batches_that_would_have_come(folder):
    samples = crops(folder)
    assert_equal(first(samples, 7)[4:], first(samples, 3, first_iteration=4))
    assert len(list(pretrain_batches(samples, batch_size=2, first_iteration=4, last_iteration=6))) == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_share_the_batches_of_an_iteration(folder, accumulate):
    samples = crops(folder)
    alone = first(samples, 12)
    options = {"world_size": 3, "accumulate": accumulate, "last_iteration": 12 // (3 * accumulate)}
    parts = [list(pretrain_batches(samples, batch_size=2, rank=rank, **options)) for rank in range(3)]
    together = []
    for step in range(options["last_iteration"]):
        for part in parts:
            together += part[step * accumulate : (step + 1) * accumulate]
    assert_equal(together, alone)


@pytest.mark.dist
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores are meant
def test_batches_do_not_depend_on_the_number_of_workers(folder):
    samples = crops(folder, masking=replace(MASKING, compat="release"))
    expected = first(samples, 4)
    loader = pretrain_batches(samples, batch_size=2, last_iteration=4, num_workers=2)
    assert_equal(list(loader), expected)


def test_samples_travel_to_worker_processes(folder):
    samples = crops(folder)
    sent = pickle.loads(pickle.dumps(samples))
    assert torch.equal(sent[(3, 1)].image, samples[(3, 1)].image)
    assert samples.share().samples.dataset.records is samples.samples.dataset.records


@pytest.mark.parametrize(("rank", "world_size", "accumulate"), [(2, 2, 1), (-1, 2, 1), (0, 1, 0)])
def test_impossible_processes_are_refused(folder, rank, world_size, accumulate):
    with pytest.raises(ValueError, match=f"process {rank} of {world_size} cannot take {accumulate}"):
        pretrain_batches(crops(folder), batch_size=2, rank=rank, world_size=world_size, accumulate=accumulate)


def test_the_release_draws_the_masks_of_a_whole_batch(folder):
    """Its number of parts shrinks along the batch, so a sample alone cannot know its masks."""
    masking = replace(MASKING, compat="release", part_fraction=(1.0, 1.0))
    samples = crops(folder, masking=masking)
    parts = [samples[(40 + number, number)] for number in range(5)]
    rng = np.random.default_rng([3, 3, 40, 1])
    people = [part.keypoints.numpy() for part in parts]
    expected = np.stack([release_masks(people, masking, rng) for _ in range(2)], axis=1)
    np.testing.assert_array_equal(samples.collate(parts).masks.numpy(), expected)
    assert not np.array_equal(expected, torch.stack([part.masks for part in parts]).numpy())


@pytest.mark.parametrize("change", [{"compat": "paper"}, {"guidance": "none"}, {"parts": (3, 3)}])
def test_other_masks_are_those_of_the_samples(folder, change):
    samples = crops(folder, masking=replace(MASKING, **{"compat": "release", **change}))
    parts = [samples[(number, number)] for number in range(3)]
    assert torch.equal(samples.collate(parts).masks, torch.stack([part.masks for part in parts]))
