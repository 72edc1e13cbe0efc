import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from unihap.pretrain.block_masking import add_blocks, add_random
from unihap.pretrain.part_masking import (
    Masking,
    Selection,
    attention_mask,
    part_guided_mask,
    release_masks,
    shrinking_counts,
)
from unihap.pretrain.parts import PARTS, part_patches, part_rectangles

# 128 x 256 pixels.  In cells (row, column): head (1, 3) (1, 4), shoulders (3, 5) (3, 2), elbows (5, 6) (5, 2),
# wrists (8, 6) (8, 1), hips (8, 4) (8, 3), knees (11, 5) (11, 2), ankles (14, 5) (14, 2).
STANDING = np.array(
    [
        *[(60, 24, 0.9), (68, 20, 0.9), (56, 20, 0.9), (72, 24, 0.9), (52, 28, 0.9)],
        *[(88, 48, 0.9), (40, 50, 0.9), (96, 90, 0.9), (34, 90, 0.9), (100, 130, 0.9), (28, 130, 0.9)],
        *[(76, 132, 0.9), (56, 132, 0.9), (84, 180, 0.9), (44, 180, 0.9), (84, 235, 0.9), (44, 235, 0.9)],
    ]
)


def absent(keypoints, numbers):
    left = keypoints.copy()
    left[numbers] = -1
    return left


def random_person(rng, height, width):
    """A person of any size, place and stretch, often partly outside, missing, or collapsed; sometimes nobody."""
    kind = rng.choice(["person", "complete", "nobody", "point", "zeros", "border", "score 0", "noise"])
    if kind == "nobody":
        return None
    keypoints = STANDING.copy()
    keypoints[:, :2] = keypoints[:, :2] / (128, 256) * (width, height)
    if kind == "complete":
        keypoints[:, :2] = np.clip(keypoints[:, :2] + rng.normal(0, 9, size=(17, 2)), 0, (width - 1, height - 1))
    elif kind == "person":
        keypoints[:, :2] = keypoints[:, :2] * rng.uniform(0.3, 1.6) + rng.uniform(-90, 90, size=2)
        keypoints[rng.random(17) < rng.random()] = -1
    elif kind == "point":
        keypoints[:, :2] = rng.uniform((0, 0), (width, height))
    elif kind == "zeros":
        keypoints[:] = 0
    elif kind == "border":
        keypoints[:, :2] = rng.choice([-1e-9, 0, 15.999, 16, width - 1e-9, width, height - 1e-9], size=(17, 2))
    elif kind == "score 0":
        keypoints[rng.random(17) < 0.5, 2] = 0
    elif kind == "noise":
        keypoints[:, :2] = rng.normal(0, 1e4, size=(17, 2)) * rng.integers(0, 2, size=(17, 1)) + width / 2
    return keypoints


def cells_of(text):
    """(gh, gw) bool of a drawing with # for True."""
    return np.array([[letter == "#" for letter in line] for line in text.split()])


# parts


def test_rectangles_of_a_standing_person_as_computed_by_hand():
    found = part_rectangles(STANDING)
    assert found == {
        "head": [(1, 3, 1, 4), (1, 3, 1, 3), (1, 3, 1, 4), (1, 4, 1, 4), (1, 3, 1, 3)],
        "left_arm": [(3, 5, 5, 6), (5, 6, 8, 6)],
        "right_arm": [(3, 2, 5, 2), (5, 1, 8, 2)],
        "left_leg": [(8, 4, 11, 5), (11, 5, 14, 5)],
        "right_leg": [(8, 2, 11, 3), (11, 2, 14, 2)],
        "upper_body": [(3, 2, 8, 4), (3, 3, 8, 5)],
    }


def test_a_part_is_the_union_of_its_rectangles():
    patches = part_patches(STANDING)
    # 6 cells from shoulder to elbow, 4 from elbow to wrist, sharing the elbow's
    assert patches["left_arm"].sum() == 6 + 4 - 1
    assert [int(patches[part].sum()) for part in PARTS] == [2, 9, 10, 11, 11, 24]
    assert np.array_equal(np.argwhere(patches["head"]), [(1, 3), (1, 4)])
    assert np.array_equal(
        patches["left_leg"][7:16, 3:7],
        cells_of(".... .##. .##. .##. .##. ..#. ..#. ..#. ...."),
    )


def test_a_vertical_limb_is_one_patch_wide():
    keypoints = absent(STANDING, slice(None))
    keypoints[[11, 13, 15]] = [(40, 20, 1), (41, 60, 1), (45, 100, 1)]
    legs = part_patches(keypoints)
    assert np.array_equal(np.argwhere(legs["left_leg"]), [(row, 2) for row in range(1, 7)])
    assert sum(patches.sum() for patches in legs.values()) == 6


def test_a_pair_needs_both_keypoints():
    patches = part_patches(absent(STANDING, [13]))
    assert not patches["left_leg"].any()
    patches = part_patches(absent(STANDING, [15]))
    assert patches["left_leg"].sum() == 8
    patches = part_patches(absent(STANDING, [6]))
    assert np.array_equal(patches["upper_body"], part_patches(absent(STANDING, [11]))["upper_body"])
    assert patches["upper_body"].sum() == 18


@pytest.mark.parametrize("place", [(-0.1, 90), (128, 90), (96, -0.1), (96, 256), (1e9, 90)])
def test_a_keypoint_outside_the_picture_is_absent(place):
    keypoints = STANDING.copy()
    keypoints[7, :2] = place
    assert not part_patches(keypoints)["left_arm"].any()


@pytest.mark.parametrize("place", [(0, 0), (127.99, 255.99)])
def test_the_corners_of_the_picture_are_inside(place):
    keypoints = absent(STANDING, slice(None))
    keypoints[[5, 7]] = (*place, 1)
    cell = (int(place[1] // 16), int(place[0] // 16))
    assert np.argwhere(part_patches(keypoints)["left_arm"]).tolist() == [list(cell)]


def test_scores_decide_who_is_present():
    keypoints = STANDING.copy()
    keypoints[7, 2] = 0
    assert not part_patches(keypoints)["left_arm"].any()
    assert part_patches(keypoints, min_score=None)["left_arm"].sum() == 9
    keypoints[8, 2] = 0.4
    assert part_patches(keypoints, min_score=0.4)["right_arm"].any()
    assert not part_patches(keypoints, min_score=0.41)["right_arm"].any()


def test_nobody_has_empty_parts():
    assert not any(patches.any() for patches in part_patches(None, grid=(3, 5)).values())
    assert part_patches(None, grid=(3, 5))["head"].shape == (3, 5)


# the paper's rule


def check_order(mask, selection, num_masked):
    """The mask of a selection by its definition, patch by patch: the first part that has a patch decides its rank."""
    rank = np.full(mask.shape, len(selection.patches))
    for number, patches in reversed(list(enumerate(selection.patches))):
        rank[patches] = number
    union = rank < len(selection.patches)
    if union.sum() <= num_masked:
        assert mask[union].all()
        return "added"
    assert not mask[~union].any()
    for number in range(len(selection.patches)):
        if rank[~mask].min() == number:  # a patch of this part was given up, so all of those after it must be
            assert not mask[rank > number].any()
        if (rank <= number).sum() <= num_masked:
            assert mask[selection.patches[number]].all()
    return "deleted"


def test_masks_of_ten_thousand_random_people_keep_every_promise():
    rng = np.random.default_rng(20230)
    cases = list(itertools.product([(16, 8), (14, 14), (24, 12)], [0.3, 0.4, 0.5, 0.6, 0.75]))
    selected, happened = np.zeros(7, dtype=int), {"added": 0, "deleted": 0}
    for number in range(10_005):
        grid, ratio = cases[number % len(cases)]
        masking = Masking(grid=grid, ratio=ratio)
        keypoints = random_person(rng, grid[0] * 16, grid[1] * 16)
        selection = masking.select(keypoints, rng)
        mask = masking.mask(selection, rng)
        assert mask.shape == grid
        assert mask.dtype == bool
        assert mask.sum() == int(ratio * grid[0] * grid[1] + 1e-9)
        assert len(set(selection.names)) == len(selection.names)
        if number % 5 == 0:
            patches = part_patches(keypoints, grid)
            present = [name for name in PARTS if patches[name].any()]
            assert set(selection.names) <= set(present)
            for name, chosen in zip(selection.names, selection.patches, strict=True):
                assert np.array_equal(chosen, patches[name])
            if len(present) == 6:
                selected[len(selection.names)] += 1
        happened[check_order(mask, selection, masking.num_masked)] += 1
    assert happened["deleted"] > 200
    assert selected.sum() > 300
    assert chisquare(selected).pvalue > 0.01


def test_the_number_of_parts_and_their_order_are_uniform():
    rng = np.random.default_rng(6)
    orders = [Masking().select(STANDING, rng).names for _ in range(7000)]
    assert chisquare(np.bincount([len(names) for names in orders], minlength=7)).pvalue > 0.01
    table = [
        [sum(len(names) > place and names[place] == part for names in orders) for part in PARTS] for place in (0, 1)
    ]
    assert all(chisquare(row).pvalue > 0.01 for row in table)


def test_absent_parts_are_passed_over_and_do_not_count():
    rng = np.random.default_rng(0)
    upper = absent(STANDING, slice(11, 17))  # no legs and, without hips, no upper body
    counts = np.bincount([len(Masking().select(upper, rng).names) for _ in range(3500)], minlength=4)
    assert chisquare(counts, [500, 500, 500, 2000]).pvalue > 0.01


@pytest.mark.parametrize("nobody", [None, np.full((17, 3), -1.0), np.full((17, 3), -10_000.0), np.zeros((17, 3))])
def test_nobody_gives_a_mask_of_blocks_alone(nobody):
    rng = np.random.default_rng(1)
    assert Masking().select(nobody, rng).names == ()
    mean = np.mean([part_guided_mask(nobody, rng=rng) for _ in range(1500)], axis=0)
    assert mean[6:10, 3:5].min() > 0.7  # blocks meet the centre more often than the border
    assert mean[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.2
    assert abs(mean.mean() - 0.5) < 1e-9


def hand_selection():
    first, second = cells_of("###. ###. .... ...."), cells_of("..## ..## ..#. ..#.")
    return Selection(("first", "second"), (first, second))


def test_too_many_patches_are_given_up_from_the_last_selected_part_at_random():
    rng = np.random.default_rng(3)
    selection, masking = hand_selection(), Masking(grid=(4, 4), ratio=0.5)
    masks = np.array([masking.mask(selection, rng) for _ in range(2000)])
    assert (masks.sum(axis=(1, 2)) == 8).all()
    assert masks[:, selection.patches[0]].all()  # also the two cells that the second part shares
    own = selection.patches[1] & ~selection.patches[0]
    assert not masks[:, ~(own | selection.patches[0])].any()
    assert chisquare(masks[:, own].sum(axis=0), [1000] * 4).pvalue > 0.001


def test_a_first_part_that_is_too_large_leaves_nothing_to_the_second():
    selection = hand_selection()
    mask = Masking(grid=(4, 4), ratio=0.25).mask(selection, np.random.default_rng(0))
    assert mask.sum() == 4
    assert not mask[~selection.patches[0]].any()


def test_exactly_enough_patches_are_left_alone():
    selection = hand_selection()
    mask = Masking(grid=(4, 4), ratio=10 / 16).mask(selection, np.random.default_rng(0))
    assert np.array_equal(mask, selection.patches[0] | selection.patches[1])


def test_the_sampler_adds_to_the_parts():
    selection = hand_selection()
    rng = np.random.default_rng(0)
    for sampler in ("block", "random"):
        masks = [Masking(grid=(4, 4), ratio=0.75, sampler=sampler).mask(selection, rng) for _ in range(200)]
        union = selection.patches[0] | selection.patches[1]
        assert all(mask.sum() == 12 and mask[union].all() for mask in masks)
        assert np.array(masks)[:, ~union].any(axis=0).all()


@pytest.mark.parametrize(
    ("ratio", "count"), [(0.5, 64), (0.45, 57), (0.3, 38), (0.75, 96), (1 / 128, 1), (127.5 / 128, 127)]
)
def test_the_count_is_the_floor(ratio, count):
    assert part_guided_mask(STANDING, mask_ratio=ratio, rng=np.random.default_rng(0)).sum() == count


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 40)])
def test_the_count_is_exact_on_grids_that_hold_no_block(grid):
    for seed in range(20):
        mask = part_guided_mask(STANDING, grid=grid, mask_ratio=0.7, rng=np.random.default_rng(seed))
        assert mask.shape == grid
        assert mask.sum() == int(0.7 * grid[0] * grid[1])


def test_a_seed_decides_the_mask_and_keypoints_stay_as_they_were():
    before = STANDING.copy()
    a, b = (part_guided_mask(STANDING, rng=np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, part_guided_mask(STANDING, rng=np.random.default_rng(6)))
    assert np.array_equal(a, Masking().draw(STANDING.astype(np.float32), np.random.default_rng(5)))
    assert np.array_equal(STANDING, before)


# the ablations


@pytest.mark.parametrize(("parts", "counts"), [((3, 3), {3}), ((6, 6), {6}), ((0, 3), {0, 1, 2, 3}), ((0, 0), {0})])
def test_the_range_of_parts_is_kept(parts, counts):
    rng = np.random.default_rng(0)
    assert {len(Masking(parts=parts).select(STANDING, rng).names) for _ in range(60)} == counts


def test_keypoint_guidance_masks_the_cells_of_chosen_keypoints():
    rng = np.random.default_rng(0)
    masking = Masking(guidance="keypoint", ratio=0.05)  # 6 patches: fewer than there are keypoints
    numbers = []
    for _ in range(1800):
        selection = masking.select(absent(STANDING, [0, 16]), rng)
        numbers.append(len(selection.names))
        for name, patches in zip(selection.names, selection.patches, strict=True):
            x, y, _ = STANDING[int(name)]
            assert np.argwhere(patches).tolist() == [[y // 16, x // 16]]
        assert {"0", "16"}.isdisjoint(selection.names)
        check_order(masking.mask(selection, rng), selection, 6)
    assert chisquare(np.bincount(numbers), [*[100] * 15, 300]).pvalue > 0.01  # 0 ... 17, of which 15 are present


@pytest.mark.parametrize("guidance", ["none", "attention"])
def test_no_guidance_from_keypoints(guidance):
    with_person, without = (Masking(guidance=guidance).draw(k, np.random.default_rng(2)) for k in (STANDING, None))
    assert np.array_equal(with_person, without)
    assert with_person.sum() == 64


def test_the_random_sampler_prefers_no_cell():
    rng = np.random.default_rng(0)
    mean = np.mean([Masking(guidance="none", sampler="random").draw(None, rng) for _ in range(2000)], axis=0)
    assert abs(mean - 0.5).max() < 0.05


def test_a_fraction_of_each_part_is_preferred():
    rng = np.random.default_rng(0)
    masking = Masking(parts=(6, 6), part_fraction=(0.5, 0.5))
    seen = np.zeros((16, 8))
    for _ in range(200):
        selection = masking.select(STANDING, rng)
        sizes = {name: int(patches.sum()) for name, patches in zip(selection.names, selection.patches, strict=True)}
        assert sizes == {"head": 1, "left_arm": 4, "right_arm": 5, "left_leg": 5, "right_leg": 5, "upper_body": 12}
        seen += selection.patches[selection.names.index("upper_body")]
        assert check_order(masking.mask(selection, rng), selection, 64) == "added"
    inside = seen[part_patches(STANDING)["upper_body"]]
    assert inside.sum() == seen.sum()
    assert inside.min() > 60


def test_low_scores_are_absent_only_when_asked():
    keypoints = STANDING.copy()
    keypoints[:, 2] = 0.2
    rng = np.random.default_rng(0)
    assert len(Masking(parts=(6, 6)).select(keypoints, rng).names) == 6
    assert Masking(parts=(6, 6), min_score=0.3).select(keypoints, rng).names == ()


# blocks


def test_blocks_add_no_more_than_wanted_and_only_new_cells():
    rng = np.random.default_rng(0)
    for _ in range(500):
        mask = rng.random((16, 8)) < 0.2
        before = mask.copy()
        wanted = int(rng.integers(0, 60))
        added = add_blocks(mask, wanted, rng)
        assert 0 <= added <= wanted
        assert mask.sum() == before.sum() + added
        assert mask[before].all()


def test_blocks_rarely_leave_cells_to_be_drawn_singly():
    rng = np.random.default_rng(0)
    added = np.array([add_blocks(np.zeros((16, 8), dtype=bool), 64, rng) for _ in range(1000)])
    assert (added == 64).mean() > 0.98


def test_single_cells_are_drawn_among_the_unmasked_ones_given():
    rng = np.random.default_rng(0)
    mask, among = cells_of("##.. ...."), cells_of(".### ....")
    add_random(mask, 1, rng, among)
    assert mask[0, :2].all()
    assert mask.sum() == 3
    assert mask[0, 2:].sum() == 1
    add_random(mask, 5, rng)
    assert mask.all()


# the release

# Row means of 2000 masks of the released code, standing person, block + parts, from top to bottom.
RELEASE_ROWS = [
    *[0.20, 0.34, 0.43, 0.54, 0.60, 0.63, 0.65, 0.65],
    *[0.67, 0.64, 0.61, 0.54, 0.51, 0.45, 0.36, 0.18],
]


def release_masks_of(keypoints, num, **settings):
    rng = np.random.default_rng(0)
    masks = np.array([Masking(compat="release", **settings).draw(keypoints, rng) for _ in range(num)])
    assert (masks.sum(axis=(1, 2)) == 64).all()
    return masks


# The released code's masks of blocks alone differ from those with parts by at most 0.03.
@pytest.mark.parametrize(("keypoints", "tolerance"), [(STANDING, 0.04), (None, 0.04 + 0.03)])
def test_release_masks_rows_as_often_as_the_released_code(keypoints, tolerance):
    rows = release_masks_of(keypoints, 2000).mean(axis=(0, 2))
    assert abs(rows - RELEASE_ROWS).max() < tolerance


def test_release_with_random_ties_treats_up_and_down_alike():
    rows = release_masks_of(None, 3000, release_ties="random").mean(axis=(0, 2))
    assert abs(rows - rows[::-1]).max() < 0.03
    assert abs(rows - RELEASE_ROWS).max() < 0.06  # the released code's unstable sort prefers the upper rows


def test_release_with_random_ties_takes_equal_patches_equally_often():
    # three patches of equal priority for one place: each is taken as often
    selection = Selection(("part",), (cells_of("###. ...."),))
    masking = Masking(grid=(2, 4), ratio=0.125, compat="release", release_ties="random")
    rng = np.random.default_rng(0)
    masks = np.array([masking.mask(selection, rng) for _ in range(1500)])
    assert (masks.sum(axis=(1, 2)) == 1).all()
    assert chisquare(masks[:, 0, :3].sum(axis=0)).pvalue > 0.01


def test_release_blocks_miss_their_count_as_often_as_the_released_code():
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(4000):
        mask = np.zeros((16, 8), dtype=bool)
        counts.append(add_blocks(mask, 64, rng, release=True))
        assert mask.sum() == counts[-1]
    shares = [np.mean(np.sign(np.array(counts) - 64) == sign) for sign in (-1, 0, 1)]
    assert shares == pytest.approx([0.33, 0.35, 0.32], abs=0.02)
    assert max(counts) <= 75


def num_used(selection):
    return sum(bool(patches.any()) for patches in selection.patches)


def test_release_uses_as_many_parts_as_the_released_code():
    # Arms of 5 patches and a head of 2, of which int(2 * 0.3) = 0 are preferred; counts of the released code.
    keypoints = absent(STANDING, slice(11, 17))
    keypoints[[5, 6, 7, 8, 9, 10], :2] = [(88, 48), (40, 48), (88, 80), (40, 80), (88, 115), (40, 115)]
    assert part_patches(keypoints)["left_arm"].sum() == part_patches(keypoints)["right_arm"].sum() == 5
    rng = np.random.default_rng(0)
    used = np.bincount([num_used(Masking(compat="release").select(keypoints, rng)) for _ in range(2000)])
    assert chi2_contingency([used, [1183, 689, 128]]).pvalue > 0.01


def test_release_prefers_at_most_three_tenths_of_a_part():
    rng = np.random.default_rng(0)
    sizes = {part: set() for part in PARTS}
    for _ in range(400):
        selection = Masking(compat="release", parts=(6, 6)).select(STANDING, rng)
        for name, patches in zip(selection.names, selection.patches, strict=True):
            sizes[name].add(int(patches.sum()))
    assert [sizes[part] for part in PARTS] == [{0}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3}, set(range(8))]


def test_release_batches_ask_for_fewer_and_fewer_parts():
    rng = np.random.default_rng(0)
    counts = np.array([shrinking_counts(64, 6, rng) for _ in range(3000)])
    assert (np.diff(counts, axis=1) <= 0).all()
    assert counts.mean(axis=0)[:5] == pytest.approx([3, 1.5, 0.75, 0.375, 0.1875], abs=0.12)
    assert (counts > 0).sum(axis=1).mean() == pytest.approx(sum(1 / n for n in range(1, 7)), abs=0.12)  # 2.45
    used = [[num_used(Masking(compat="release").select(STANDING, rng, n)) for n in row[:6]] for row in counts[:600]]
    # the released code's, with another standing person
    assert np.mean(used, axis=0) == pytest.approx([1.79, 0.93, 0.53, 0.24, 0.15, 0.09], abs=0.2)


def test_release_masks_of_a_batch():
    rng = np.random.default_rng(0)
    masks = release_masks([STANDING, None, STANDING], Masking(compat="release"), rng)
    assert masks.shape == (3, 16, 8)
    assert (masks.sum(axis=(1, 2)) == 64).all()
    assert release_masks([], Masking(compat="release"), rng).shape == (0, 16, 8)
    for masking in (Masking(), Masking(compat="release", parts=(3, 3))):
        with pytest.raises(ValueError, match="only with compat 'release' and parts"):
            release_masks([None], masking, rng)


@pytest.mark.parametrize("sampler", ["block", "random"])
def test_release_gives_a_shared_patch_the_priority_of_its_last_part(sampler):
    # 8 of 10 cells of the parts: the first part's four own cells, then four of the second's six
    selection, rng = hand_selection(), np.random.default_rng(0)
    masking = Masking(grid=(4, 4), ratio=0.5, compat="release", sampler=sampler)
    first, second = selection.patches
    for _ in range(50):
        mask = masking.mask(selection, rng)
        assert mask[first & ~second].all()
        assert mask[second].sum() == 4


def test_release_rounds_the_number_of_masked_patches_up_and_reads_no_score():
    assert Masking(ratio=0.45).num_masked == 57
    assert Masking(ratio=0.45, compat="release").num_masked == 58
    unscored = STANDING * (1, 1, 0)
    rng = np.random.default_rng(0)
    assert len(Masking(compat="release", parts=(6, 6)).select(unscored, rng).names) == 6
    assert Masking(parts=(6, 6)).select(unscored, rng).names == ()


# attention


def test_attention_masks_the_patches_it_is_highest_on():
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]])
    mask = attention_mask(attention, 2)
    assert mask[0].tolist() == [False, True, False, True]
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [2, 2]  # ties too
    assert mask[1, 0]
    assert not attention_mask(attention, 0).any()


@pytest.mark.parametrize(("shape", "num"), [((4,), 2), ((2, 4), 5), ((2, 3, 4), 2), ((2, 4), -1)])
def test_attention_of_another_shape_is_refused(shape, num):
    with pytest.raises(ValueError, match="attention must be"):
        attention_mask(torch.zeros(shape), num)


# refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (0, 8)}, "grid must be two positive"),
        ({"grid": (16, 8.0)}, "grid must be two positive"),
        ({"grid": (16,)}, "grid must be two positive"),
        ({"grid": 16}, "grid must be two positive"),
        ({"patch": 0}, "patch must be a positive"),
        ({"ratio": 0.0}, "ratio must lie between 0 and 1, got 0.0"),
        ({"ratio": 1.0}, "ratio must lie between 0 and 1"),
        ({"ratio": float("nan")}, "ratio must lie between 0 and 1"),
        ({"sampler": "blocks"}, "unknown sampler 'blocks'; did you mean block"),
        ({"guidance": "pose"}, "unknown guidance 'pose'"),
        ({"compat": "relase"}, "did you mean release"),
        ({"release_ties": "stable"}, "unknown release_ties 'stable'"),
        ({"parts": (0, 7)}, "parts must be two whole numbers"),
        ({"parts": (4, 2)}, "parts must be two whole numbers"),
        ({"parts": (0.5, 2)}, "parts must be two whole numbers"),
        ({"keypoints": (0, 18)}, "keypoints must be two whole numbers"),
        ({"part_fraction": (0, 1.5)}, "part_fraction must be two numbers"),
        ({"part_fraction": (1,)}, "part_fraction must be two numbers"),
        ({"min_score": float("nan")}, "min_score must be finite"),
        ({"min_score": 0.3, "compat": "release"}, "min_score 0.3 has no effect"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Masking(**change)


@pytest.mark.parametrize("bad", [np.zeros((16, 3)), np.zeros((17, 2)), np.zeros((1, 17, 3)), np.zeros(51)])
def test_keypoints_of_another_shape_are_refused(bad):
    with pytest.raises(ValueError, match=r"shape \(17, 3\)"):
        part_guided_mask(bad)
    with pytest.raises(ValueError, match=r"shape \(17, 3\)"):
        part_patches(bad)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_keypoints_that_are_not_finite_are_refused(value):
    keypoints = STANDING.copy()
    keypoints[3, 1] = value
    with pytest.raises(ValueError, match="must be finite"):
        part_guided_mask(keypoints)


def test_the_contract_refuses_what_the_settings_refuse():
    with pytest.raises(ValueError, match="grid"):
        part_guided_mask(None, grid=(0, 8))
    with pytest.raises(ValueError, match="ratio"):
        part_guided_mask(None, mask_ratio=1.5)
    with pytest.raises(ValueError, match="compat"):
        part_guided_mask(None, compat="papre")
