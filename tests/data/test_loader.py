import logging
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from unihap.data.images import BadImageError, read_image
from unihap.data.loader import TaskDataset, collate, evaluation_loader, train_loader
from unihap.data.samplers import EvaluationSampler, ShuffledBatches, SlotSampler
from unihap.data.transforms import attributes_transform, detection_transform, parsing_transform, pose_transform
from unihap.structures import (
    AttributesLabel,
    Dataset,
    DetectionLabel,
    ParsingLabel,
    PoseLabel,
    Record,
    ReIDLabel,
    Sample,
    Target,
)

# What a task would give; workers import this module, so these are module-level functions.


def encode_attributes(label, size):
    return {"probability": torch.from_numpy(label.values.astype(np.float32))}


def encode_parsing(label, size):
    assert label.label_map.shape == size
    return {"label_map": torch.from_numpy(label.label_map)}


def encode_nothing(label, size):
    return {}


def encode_boxes(label, size):
    box = torch.from_numpy(label.boxes).float()
    return {"box": torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], dim=1)}


def read_numbers(path):
    return np.load(path)


def people(folder, count=5, broken=()):
    """A dataset of ``count`` small images of noise."""
    records = []
    for number in range(count):
        path = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (20, 12, 3), dtype=np.uint8)
        assert cv2.imwrite(str(path), pixels)
        if number in broken:
            path.write_bytes(b"not an image")
        records.append(Record(f"person{number}", str(path), AttributesLabel(np.array([number, -1], np.int8))))
    return Dataset("people_train", "attributes", records, classes=("number", "unknown"))


def attributes(dataset, train=True, seed=3, **options):
    transform = attributes_transform((32, 24), train=train)
    return TaskDataset(dataset, transform, encode_attributes, seed=seed, **options)


# samples


def test_a_sample_is_the_record_in_network_input(tmp_path):
    dataset = people(tmp_path)
    sample = attributes(dataset, train=False)[2]
    assert sample.record is dataset.records[2]
    assert sample.image.shape == (3, 32, 24)
    assert sample.image.dtype == torch.uint8
    assert sample.target["probability"].tolist() == [2, -1]
    assert sample.source_size == (20, 12)
    np.testing.assert_allclose(sample.matrix, [[2, 0, 0.5], [0, 1.6, 0.3]])
    assert sample.skipped == ()


def test_augmentation_depends_on_seed_and_draw(tmp_path):
    dataset = people(tmp_path)
    samples = attributes(dataset)
    first = samples[(7, 2)]
    assert torch.equal(first.image, attributes(dataset)[(7, 2)].image)
    assert not torch.equal(first.image, samples[(8, 2)].image)
    assert not torch.equal(first.image, attributes(dataset, seed=4)[(7, 2)].image)


def parsing_samples(tmp_path, label_shape):
    dataset = people(tmp_path)
    np.save(tmp_path / "labels.npy", np.full(label_shape, 3, np.uint8))
    record = Record("a", dataset.records[0].image, ParsingLabel(str(tmp_path / "labels.npy")))
    parsing = Dataset("parsing_train", "parsing", [record], read_label_map=read_numbers)
    return TaskDataset(parsing, parsing_transform((32, 32), mirror=[], train=False), encode_parsing, seed=0)


def test_label_maps_are_read_but_do_not_stay_in_the_record(tmp_path):
    sample = parsing_samples(tmp_path, (20, 12))[0]
    assert torch.equal(sample.target["label_map"], torch.full((32, 32), 3, dtype=torch.uint8))
    assert sample.record.label.label_map is None


def test_a_label_map_of_another_size_is_refused(tmp_path):
    with pytest.raises(BadImageError, match=r"record a of parsing_train.*labels.npy is \(12, 20\) and its image"):
        parsing_samples(tmp_path, (12, 20))[0]


def test_a_label_that_the_transform_refuses_is_named(tmp_path):
    image = people(tmp_path).records[0].image
    record = Record("p7", image, PoseLabel(np.zeros((17, 3)), np.array([5, 5, 5, 9.0]), 1))
    transform = pose_transform((32, 24), mirror=(), upper_body=(), train=False)
    samples = TaskDataset(Dataset("pose_train", "pose", [record]), transform, encode_nothing, seed=0)
    with pytest.raises(ValueError, match=r"record p7 of pose_train: person box \(5, 5, 5, 9\) has no area"):
        samples[0]


# images that cannot be read


def test_an_unreadable_image_is_an_error_that_names_record_and_file(tmp_path):
    samples = attributes(people(tmp_path, broken=[1]))
    for key in (1, (0, 1)):
        with pytest.raises(BadImageError, match=r"record person1 of people_train, image .*1\.png"):
            samples[key]


def test_training_goes_on_with_the_next_readable_record(tmp_path, caplog):
    dataset = people(tmp_path, broken=[3, 4])
    samples = attributes(dataset, on_bad_image="skip")
    with caplog.at_level(logging.WARNING):
        sample = samples[(0, 3)]
        assert samples[(9, 3)].record.id == "person0"
    assert sample.record.id == "person0"  # the one after the last
    assert sample.skipped == ("person3", "person4")
    assert torch.equal(sample.image, attributes(dataset)[(0, 0)].image)
    assert len(caplog.records) == 2  # every record once
    batch = collate("a", [samples[(0, 3)], samples[(1, 1)]])
    assert batch.skipped == ("person3", "person4")


def test_evaluation_reports_a_missing_record_and_puts_none_in_its_place(tmp_path):
    samples = attributes(people(tmp_path, broken=[1]), train=False, on_bad_image="skip")
    batch = collate("a", [samples[index] for index in range(3)])
    assert [record.id for record in batch.records] == ["person0", "person2"]
    assert len(batch.images) == len(batch.matrices) == len(batch.source_sizes) == len(batch) == 2
    assert batch.skipped == ("person1",)


def test_a_batch_of_nothing_but_missing_records_is_empty(tmp_path):
    samples = attributes(people(tmp_path, count=1, broken=[0]), train=False, on_bad_image="skip")
    batch = collate("a", [samples[0]])
    assert len(batch) == 0
    assert batch.matrices.shape == (0, 2, 3)
    assert batch.skipped == ("person0",)


def test_a_dataset_without_a_readable_image_is_an_error(tmp_path):
    samples = attributes(people(tmp_path, count=3, broken=[0, 1, 2]), on_bad_image="skip")
    with pytest.raises(BadImageError, match="3 records in a row cannot be read"):
        samples[(0, 1)]


def test_unknown_ways_with_bad_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="error or skip, not 'ignore'"):
        attributes(people(tmp_path), on_bad_image="ignore")


# batches


def sample_of(height, width, **target):
    record = Record("r", "r.png", ReIDLabel(1, 1, "train"))
    image = torch.full((3, height, width), 9, dtype=torch.uint8)
    return Sample(record, image, target, np.eye(3)[:2], (height, width))


def test_equal_images_are_stacked_without_padding():
    batch = collate("reid", [sample_of(4, 6, identity=torch.tensor(i)) for i in (5, 7)])
    assert batch.task == "reid"
    assert batch.images.shape == (2, 3, 4, 6)
    assert batch.sizes is None
    assert batch.target.identity.tolist() == [5, 7]
    assert batch.matrices.shape == (2, 2, 3)
    assert batch.source_sizes == [(4, 6), (4, 6)]


def test_different_images_are_padded_right_and_bottom():
    labels = [torch.ones(4, 6, dtype=torch.uint8), torch.ones(5, 3, dtype=torch.uint8)]
    batch = collate("p", [sample_of(4, 6, label_map=labels[0]), sample_of(5, 3, label_map=labels[1])])
    assert batch.images.shape == (2, 3, 5, 6)
    assert batch.sizes.tolist() == [[4, 6], [5, 3]]
    assert (batch.images[0, :, :4] == 9).all()
    assert (batch.images[0, :, 4:] == 0).all()
    assert (batch.images[1, :, :, :3] == 9).all()
    assert (batch.images[1, :, :, 3:] == 0).all()
    assert (batch.target.label_map[1, :, 3:] == 255).all()
    assert (batch.target.label_map[1, :, :3] == 1).all()


def test_sides_are_rounded_up_and_boxes_are_fractions_of_the_padded_size():
    box = torch.tensor([[8.0, 4.0, 16.0, 8.0]])
    none = torch.zeros(0, 4)
    batch = collate("d", [sample_of(20, 30, box=box, ignore_box=none), sample_of(8, 8, box=none, ignore_box=box)], 16)
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.sizes.tolist() == [[20, 30], [8, 8]]
    assert batch.target.box[0].tolist() == [[0.25, 0.125, 0.5, 0.25]]
    assert batch.target.box[1].shape == (0, 4)
    assert batch.target.ignore_box[1].tolist() == [[0.25, 0.125, 0.5, 0.25]]


def test_one_image_of_whole_multiples_is_not_padded():
    batch = collate("d", [sample_of(16, 32)], pad_multiple=16)
    assert batch.sizes is None
    assert batch.target == Target()


# loaders


def training(samples, num_workers, first=0, last=3):
    sampler = SlotSampler(ShuffledBatches(len(samples), 2, seed=1), [0, 1], 2, first, last)
    return train_loader(samples, sampler, partial(collate, "people"), num_workers)


def assert_equal(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert [record.id for record in batch.records] == [record.id for record in other.records]
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.target.probability, other.target.probability)
        np.testing.assert_array_equal(batch.matrices, other.matrices)
        assert (batch.task, batch.source_sizes, batch.skipped) == (other.task, other.source_sizes, other.skipped)


@pytest.mark.dist
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores are meant
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path):
    samples = attributes(people(tmp_path, broken=[2]), on_bad_image="skip")
    expected = list(training(samples, 0))
    assert any(batch.skipped for batch in expected)
    for num_workers in (1, 3):
        assert_equal(list(training(samples, num_workers)), expected)


def test_a_resumed_loader_goes_on_with_the_same_batches(tmp_path):
    samples = attributes(people(tmp_path))
    assert_equal(list(training(samples, 0))[2:], list(training(samples, 0, first=1)))


def test_evaluation_loads_every_record_of_the_share_once(tmp_path):
    samples = attributes(people(tmp_path), train=False)
    ids = []
    for rank in range(2):
        for batch in evaluation_loader(samples, EvaluationSampler(5, 2, rank, 2), partial(collate, "people"), 0):
            ids += [record.id for record in batch.records]
    assert ids == [f"person{number}" for number in range(5)]


def test_real_photographs_become_batches(dev_data):
    paths = sorted((dev_data / "coco").rglob("*.jpg"))[:3]
    assert len(paths) == 3
    records = [
        Record(path.stem, str(path), DetectionLabel(np.array([[0, 0, 9999, 9999.0]]), np.zeros((0, 4))))
        for path in paths
    ]
    samples = TaskDataset(
        Dataset("photographs", "detection", records),
        detection_transform(short=96, long=160, train=False),
        encode_boxes,
        seed=0,
    )
    (batch,) = evaluation_loader(samples, EvaluationSampler(3, 3), partial(collate, "people", pad_multiple=32), 0)
    assert batch.images.shape[-2] % 32 == batch.images.shape[-1] % 32 == 0
    for path, size, source_size, box in zip(paths, batch.sizes, batch.source_sizes, batch.target.box, strict=True):
        assert source_size == read_image(path).shape[:2]
        assert min(size) == 96 or max(size) == 160
        # the box was clipped to the image, which fills the upper left of the padded input
        height, width = (size / torch.tensor(batch.images.shape[-2:])).tolist()
        torch.testing.assert_close(box, torch.tensor([[width / 2, height / 2, width, height]]))
