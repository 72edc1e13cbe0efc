from collections import Counter

import pytest

from unihap.data.samplers import EvaluationSampler, IdentityBatches, ShuffledBatches, SlotSampler


def test_every_epoch_holds_every_record_once():
    batches = ShuffledBatches(num_records=10, batch_size=4, seed=0)
    stream = [index for number in range(15) for index in batches.batch(number)]  # 60 records: 6 epochs
    for epoch in range(6):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert stream[:10] != stream[10:20]


def test_a_batch_may_be_larger_than_the_dataset():
    assert Counter(ShuffledBatches(num_records=3, batch_size=8, seed=0).batch(0)) in (
        {0: 3, 1: 3, 2: 2},
        {0: 3, 1: 2, 2: 3},
        {0: 2, 1: 3, 2: 3},
    )


@pytest.mark.parametrize(
    "make",
    [lambda seed: ShuffledBatches(10, 4, seed), lambda seed: IdentityBatches([0, 0, 1, 1, 2, 2, 3] * 2, 2, 2, seed)],
)
def test_batches_are_a_function_of_seed_and_number(make):
    forwards = make(5)
    expected = [forwards.batch(number) for number in range(12)]
    backwards = make(5)
    assert [backwards.batch(number) for number in reversed(range(12))] == expected[::-1]
    assert [make(6).batch(number) for number in range(12)] != expected


@pytest.mark.parametrize(("num_records", "batch_size"), [(0, 4), (4, 0)])
def test_nothing_to_draw_is_refused(num_records, batch_size):
    with pytest.raises(ValueError, match="must be positive"):
        ShuffledBatches(num_records, batch_size, seed=0)


def test_identity_batches_hold_k_different_images_of_p_people():
    identities = [person for person in range(7) for _ in range(5)]
    batches = IdentityBatches(identities, num_people=3, images_per_person=4, seed=0)
    for number in range(20):
        indices = batches.batch(number)
        assert len(indices) == len(set(indices)) == 12
        assert list(Counter(identities[i] for i in indices).values()) == [4, 4, 4]
        assert [identities[i] for i in indices[:4]] == [identities[indices[0]]] * 4


def test_people_do_not_come_back_within_an_epoch():
    identities = [person for person in range(7) for _ in range(2)]
    batches = IdentityBatches(identities, num_people=3, images_per_person=2, seed=0)
    left_out = set()
    for epoch in range(20):  # two batches of three people, one person waits
        people = {identities[i] for number in (2 * epoch, 2 * epoch + 1) for i in batches.batch(number)}
        assert len(people) == 6
        left_out |= set(range(7)) - people
    assert left_out == set(range(7))


def test_people_with_few_images_repeat_them():
    indices = IdentityBatches([4, 9, 9], num_people=2, images_per_person=4, seed=0).batch(0)
    assert indices.count(0) == 4
    assert indices.count(1) + indices.count(2) == 4


def test_all_images_of_a_person_are_used():
    batches = IdentityBatches([0] * 9 + [1] * 9, num_people=2, images_per_person=3, seed=0)
    assert {index for number in range(30) for index in batches.batch(number)} == set(range(18))


def test_too_few_people_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"needs 4 people but the dataset has 2; lower BATCH_SIZE to at most 6"):
        IdentityBatches([0, 0, 1], num_people=4, images_per_person=3, seed=0)


def test_slots_share_the_batches_without_gap_or_overlap():
    batches = ShuffledBatches(num_records=100, batch_size=2, seed=0)
    # four slots a step, dealt to two processes
    first = list(SlotSampler(batches, slots=[0, 2], num_slots=4, first_step=0, last_step=3))
    second = list(SlotSampler(batches, slots=[1, 3], num_slots=4, first_step=0, last_step=3))
    drawn = sorted(key for batch in first + second for key in batch)
    assert [draw for draw, _ in drawn] == list(range(24))
    assert [index for _, index in drawn] == [index for number in range(12) for index in batches.batch(number)]


def test_slots_come_step_by_step():
    batches = ShuffledBatches(num_records=100, batch_size=2, seed=0)
    keys = list(SlotSampler(batches, slots=[1, 3], num_slots=4, first_step=2, last_step=4))
    assert [batch[0][0] for batch in keys] == [2 * 9, 2 * 11, 2 * 13, 2 * 15]


def test_a_resumed_run_goes_on_where_it_stopped():
    def run(first, last):
        batches = IdentityBatches([i // 3 for i in range(30)], 3, 2, seed=1)
        sampler = SlotSampler(batches, slots=[0, 1], num_slots=2, first_step=first, last_step=last)
        assert len(sampler) == 2 * (last - first)
        return list(sampler)

    assert run(0, 4) + run(4, 9) == run(0, 9)


@pytest.mark.parametrize(
    ("slots", "first", "last", "message"),
    [([2], 0, 1, "from 0 to 1"), ([], 0, 1, "slots"), ([0], 5, 4, "from step 5 to step 4"), ([0], -1, 4, "step -1")],
)
def test_impossible_slots_and_steps_are_refused(slots, first, last, message):
    with pytest.raises(ValueError, match=message):
        SlotSampler(ShuffledBatches(4, 2, 0), slots, 2, first, last)


@pytest.mark.parametrize(("num_records", "world_size"), [(10, 1), (10, 3), (2, 4), (0, 2)])
def test_evaluation_shares_hold_every_record_once_in_order(num_records, world_size):
    samplers = [EvaluationSampler(num_records, 3, rank, world_size) for rank in range(world_size)]
    shares = [[index for batch in sampler for index in batch] for sampler in samplers]
    assert [index for share in shares for index in share] == list(range(num_records))
    assert max(map(len, samplers)) - min(map(len, samplers)) <= 1
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_evaluation_batches_are_those_of_one_process_whatever_their_number(world_size):
    dealt = [batch for rank in range(world_size) for batch in EvaluationSampler(11, 2, rank, world_size)]
    assert dealt == list(EvaluationSampler(11, 2))


def test_evaluation_batches_are_full_but_the_last():
    assert [len(batch) for batch in EvaluationSampler(10, 4)] == [4, 4, 2]


@pytest.mark.parametrize(("batch_size", "rank"), [(0, 0), (4, 2), (4, -1)])
def test_impossible_evaluation_shares_are_refused(batch_size, rank):
    with pytest.raises(ValueError, match="of 2 batches"):
        EvaluationSampler(10, batch_size, rank, world_size=2)
