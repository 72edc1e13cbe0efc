import pytest
import torch

from unihap.engine.few_shot import Method, markdown, tabulate
from unihap.engine.memory import PeakMemory
from unihap.visualize.few_shot import draw_few_shot


def result(value, *, trainable=10, seconds=1.0, memory=None, records=3):
    return {
        "metrics": {"mIoU": value, "IoU/hat": 1.0},
        "records": records,
        "trainable": trainable,
        "parameters": 1000,
        "iterations": 20,
        "seconds": seconds,
        "memory_mb": memory,
    }


def method(name, values, **more):
    results = {seed: result(value, **more) for seed, value in values.items()}
    return Method("parsing", name, f"{name}.yaml", "mIoU", {"mIoU": 2.5}, results)


@pytest.fixture
def rows():
    return tabulate(
        [
            method("finetune", {0: 40.0, 1: 44.0, 2: 48.0}, trainable=1000),
            method("prompt", {0: 45.0, 2: 49.0, 5: 99.0}, trainable=5, memory=7.0),
            method("full_data", {0: 60.0}, records=None),
        ]
    )


def test_mean_and_deviation_are_over_seeds_and_differences_over_common_ones(rows):
    finetune, prompt, full = rows
    assert finetune["metrics"] == {"mIoU": {"mean": 44.0, "std": 4.0, "num": 3}}
    assert "difference" not in finetune
    # 45 - 40 and 49 - 48; seed 5 has nothing to be compared with
    assert prompt["difference"] == {"mean": 3.0, "std": pytest.approx(8**0.5), "num": 2}
    assert full["difference"] == {"mean": 20.0, "std": None, "num": 1}
    assert [run["seed"] for run in prompt["runs"]] == [0, 2, 5]


def test_a_slow_run_does_not_decide_the_time():
    times = method("a", {0: 1.0, 1: 1.0, 2: 1.0})
    times.results[2]["seconds"] = 600.0
    assert tabulate([times])[0]["seconds"] == 1.0


def test_the_table_has_a_line_for_every_method_and_the_blind_guess(rows):
    lines = markdown(rows).splitlines()
    assert "| blind guess | | | 2.50 | | | | | | |" in lines
    assert "| finetune | 3 | 3 | 44.00 ± 4.00 | - | 1.0 | 100.00% | 20 | 1.0 | - |" in lines
    assert "| prompt | 3 | 3 | 64.33 ± 30.09 | +3.00 ± 2.83 | 0.0 | 0.50% | 20 | 1.0 | 7 |" in lines
    assert "| full_data | 1 | all | 60.00 | +20.00 | 0.0 | 1.00% | 20 | 1.0 | - |" in lines


def test_another_task_has_a_table_and_a_reference_of_its_own(rows):
    pose = Method("pose", "prompt", "p.yaml", "mIoU", {}, {0: result(1.0)})
    both = tabulate([method("finetune", {0: 4.0}), pose])
    assert "difference" not in both[1]
    assert markdown(both).count("| seeds |") == 2


def test_a_comparison_is_drawn(rows, tmp_path):
    draw_few_shot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_the_peak_is_that_of_the_run_alone():
    before = PeakMemory(torch.device("cpu"))
    if before.megabytes() is None:
        pytest.skip("this system does not measure it")
    large = torch.ones(24, 2**18)  # 24 MiB
    del large
    assert before.megabytes() > 20
    after = PeakMemory(torch.device("cpu"))
    assert after.megabytes() < 12
