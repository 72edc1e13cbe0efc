import numpy as np
import pytest

from unihap.data.few_shot import absent_classes, select_shots


def test_every_class_gets_as_many_records_as_asked_for_out_of_those_that_show_it():
    presence = [[0], [1], [0], [1], [0], [1]]
    for seed in range(20):
        chosen = select_shots(presence, 2, 2, seed)
        assert chosen == sorted(set(chosen))
        assert [sum(c in presence[r] for r in chosen) for c in (0, 1)] == [2, 2]


def test_one_record_may_serve_several_classes_and_is_taken_once():
    assert select_shots([[0, 1, 2]], 3, 1, seed=0) == [0]
    assert select_shots([[], [2, 0, 1], []], 3, 1, seed=5) == [1]
    counts = {len(select_shots([[0, 1]] * 3, 2, 1, seed)) for seed in range(40)}
    assert counts == {1, 2}  # classes draw independently of each other


def test_a_class_with_fewer_records_takes_all_of_them_and_an_absent_one_none():
    presence = [{0}, {0}, {0}, {0}, {2}]
    for seed in range(10):
        chosen = select_shots(presence, 4, 3, seed)
        assert len(chosen) == 4
        assert 4 in chosen
    assert absent_classes(presence, 4) == [1, 3]
    assert absent_classes([[0, 1]], 2) == []
    assert absent_classes([], 2) == [0, 1]


def test_a_seed_draws_the_same_and_others_draw_every_record_as_often():
    presence = [[0]] * 5
    assert select_shots(presence, 1, 2, seed=3) == select_shots(presence, 1, 2, seed=3)
    drawn = np.bincount([r for seed in range(500) for r in select_shots(presence, 1, 2, seed)], minlength=5)
    assert drawn.sum() == 1000
    assert np.abs(drawn - 200).max() < 50  # a standard deviation is 11


def test_what_a_class_draws_does_not_depend_on_other_classes():
    holders = [3, 8, 11, 40]
    alone = [[1] if r in holders else [] for r in range(50)]
    crowded = [[*classes, 0] if r % 7 == 0 and classes == [] else classes for r, classes in enumerate(alone)]
    for seed in range(10):
        mine = select_shots(alone, 2, 2, seed)
        assert [r for r in select_shots(crowded, 2, 2, seed) if r in holders] == mine


def test_classes_that_the_task_does_not_have_and_repeated_ones_are_overlooked():
    assert select_shots([[7, -1], [1, 1, 1], [0]], 2, 1, seed=0) == [1, 2]
    counted = [len(select_shots([[0, 0, 0], [0]], 1, 1, seed)) for seed in range(5)]
    assert counted == [1] * 5


def test_an_impossible_draw_is_refused():
    with pytest.raises(ValueError, match="at least one record per class, got 0"):
        select_shots([[0]], 1, 0, seed=0)
    with pytest.raises(ValueError, match="none of the 2 records shows any of the 3 classes"):
        select_shots([[], [5]], 3, 1, seed=0)
