import pytest

from unihap.engine.groups import TaskPlan, TaskShare, describe, make_plan, ranks_of_process

# Three of UniHCP's tasks: lambda * B is 2000 * 286, 1 * 120 and 2 * 212.
RELEASE = [
    TaskShare("coco_pose", 1, 286, 1, 2000.0),
    TaskShare("h36m_parsing", 3, 40, 1, 1.0),
    TaskShare("pedestrian_detection", 53, 1, 4, 2.0),
]


def test_weights_follow_lambda_times_batch_normalised():
    total = 572000 + 120 + 424
    weights = [plan.weight for plan in make_plan(RELEASE)]
    assert weights == pytest.approx([572000 / total, 120 / total, 424 / total])


def test_an_explicit_weight_stands_and_the_others_share_the_rule():
    shares = [TaskShare("a", 1, 2, 1, 1.0, weight=5.0), TaskShare("b", 1, 3, 1, 1.0), TaskShare("c", 1, 1, 1, 1.0)]
    assert [plan.weight for plan in make_plan(shares)] == pytest.approx([5.0, 0.75, 0.25])


def test_ranks_are_dealt_in_the_order_of_the_tasks():
    plans = make_plan(RELEASE)
    assert [(plan.ranks[0], plan.ranks[-1]) for plan in plans] == [(0, 0), (1, 3), (4, 56)]
    assert [plan.num_slots for plan in plans] == [1, 3, 212]


def test_every_slot_is_played_once_however_ranks_are_grouped():
    plans = [TaskPlan("a", (0, 1), 1, 2, 1.0), TaskPlan("b", (2,), 1, 1, 1.0), TaskPlan("c", (3, 4), 1, 3, 1.0)]
    for num_processes in range(1, 6):
        for plan in plans:
            played = [
                slot for p in range(num_processes) for slot in plan.slots_of(ranks_of_process(5, p, num_processes))
            ]
            assert sorted(played) == list(range(plan.num_slots))


def test_processes_play_neighbouring_ranks():
    assert [list(ranks_of_process(5, p, 2)) for p in range(2)] == [[0, 1], [2, 3, 4]]
    assert list(ranks_of_process(5, 0, 1)) == [0, 1, 2, 3, 4]


def test_more_processes_than_ranks_are_refused():
    with pytest.raises(ValueError, match=r"the plan has 2 ranks .* but 3 processes were started; start at most 2"):
        ranks_of_process(2, 0, 3)


@pytest.mark.parametrize(("field", "position"), [("GPUS", 1), ("BATCH_SIZE", 2), ("ACCUMULATE", 3)])
def test_numbers_below_one_are_refused(field, position):
    values = ["a", 1, 1, 1, 1.0]
    values[position] = 0
    with pytest.raises(ValueError, match=rf"TASKS\.a\.{field} must be at least 1, got 0"):
        make_plan([TaskShare(*values)])


def test_a_plan_without_tasks_is_refused():
    with pytest.raises(ValueError, match=r"TRAIN\.TASKS is empty"):
        make_plan([])


def test_the_table_says_which_processes_train_a_task():
    lines = describe([TaskPlan("a", (0, 1), 4, 1, 0.5), TaskPlan("b", (2,), 1, 2, 0.5)], 2).splitlines()
    assert lines[1].split() == ["a", "0-1", "4", "2", "8", "0.5", "0,", "1"]
    assert lines[2].split() == ["b", "2", "1", "2", "2", "0.5", "1"]
