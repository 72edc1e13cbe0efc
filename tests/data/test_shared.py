import multiprocessing

import numpy as np
import pytest

from unihap.data.shared import SharedRecords
from unihap.structures import AttributesLabel, Record, ReIDLabel

RECORDS = [Record(f"r{i}", f"{i}.png", ReIDLabel(i, 1, "train")) for i in range(5)]


def test_shared_records_are_the_records():
    shared = SharedRecords(RECORDS)
    assert len(shared) == 5
    assert list(shared) == RECORDS
    assert shared[-1] == RECORDS[-1]
    assert shared[1:4:2] == RECORDS[1:4:2]


def test_arrays_in_labels_survive():
    shared = SharedRecords([Record("a", "a.png", AttributesLabel(np.array([1, 0, -1], np.int8)))])
    assert shared[0].label.values.tolist() == [1, 0, -1]


def test_no_records_are_no_records():
    assert list(SharedRecords([])) == []


@pytest.mark.parametrize("index", [5, -6])
def test_a_record_out_of_range_is_refused(index):
    with pytest.raises(IndexError):
        SharedRecords(RECORDS)[index]


def send_back(shared, queue):
    queue.put((len(shared), shared[3].id, shared._bytes.is_shared()))


@pytest.mark.dist
def test_another_process_reads_the_same_memory():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=send_back, args=(SharedRecords(RECORDS), queue))
    process.start()
    assert queue.get() == (5, "r3", True)
    process.join()
