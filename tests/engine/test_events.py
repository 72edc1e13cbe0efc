import json

import pytest
import torch

from unihap.engine.events import Events, duration

CPU = torch.device("cpu")


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(events, iteration):
    events.write(iteration, lr=0.1, images=8, device=CPU)


def test_a_line_holds_the_means_over_all_batches_since_the_last_line(tmp_path):
    events = Events(tmp_path, 0, 10)
    for loss in (1.0, 2.0, 6.0):
        events.add("pose", {"loss": loss, "loss_heatmap": loss / 2})
    events.add("reid", {"loss": 4.0})
    write(events, 1)
    events.add("pose", {"loss": 5.0, "loss_heatmap": 1.0})
    write(events, 2)
    events.close()
    first, reid, second = lines(tmp_path)
    assert (first["iteration"], first["task"], first["loss"], first["loss_heatmap"]) == (1, "pose", 3.0, 1.5)
    assert (reid["task"], reid["loss"], reid["lr"]) == ("reid", 4.0, 0.1)
    assert (second["iteration"], second["loss"], second["loss_heatmap"]) == (2, 5.0, 1.0)
    assert first["images_per_second"] > 0
    assert first["peak_memory_mb"] > 0


def test_batches_of_other_processes_count_like_own_ones(tmp_path):
    writer, other = Events(tmp_path, 0, 10), Events(None, 0, 10)
    writer.add("pose", {"loss": 1.0})
    for loss in (4.0, 7.0):
        other.add("pose", {"loss": loss})
    other.add("reid", {"loss": 9.0})
    writer.merge([other.take()])
    write(writer, 0)
    assert {line["task"]: line["loss"] for line in lines(tmp_path)} == {"pose": 4.0, "reid": 9.0}


def test_a_process_that_writes_nothing_forgets_what_it_has_handed_over(tmp_path):
    other = Events(None, 0, 10)
    other.add("pose", {"loss": 4.0})
    assert other.take() == {"pose": (1, {"loss": 4.0})}
    write(other, 0)
    assert other.take() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_drops_later_lines_and_a_cut_last_one(tmp_path):
    events = Events(tmp_path, 0, 10)
    for iteration in range(4):
        events.add("pose", {"loss": float(iteration)})
        write(events, iteration)
    events.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"iteration": 4, "task": "po')
    again = Events(tmp_path, 2, 10)
    assert [line["iteration"] for line in lines(tmp_path)] == [0, 1]
    again.add("pose", {"loss": 20.0})
    write(again, 2)
    again.close()
    assert [line["loss"] for line in lines(tmp_path)] == [0.0, 1.0, 20.0]


def test_a_line_cut_before_the_resumed_iteration_does_not_join_the_next_one(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 0, "task": "pose", "loss": 1.0}\n{"iteration": 1, "ta')
    events = Events(tmp_path, 5, 10)
    events.add("pose", {"loss": 2.0})
    write(events, 5)
    events.close()
    assert [line["iteration"] for line in lines(tmp_path)] == [0, 5]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.9, "0:00:59"), (3723, "1:02:03"), (360000, "100:00:00")]
)
def test_durations_are_hours_minutes_and_seconds(seconds, text):
    assert duration(seconds) == text
