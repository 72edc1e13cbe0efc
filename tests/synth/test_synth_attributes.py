from dataclasses import replace

import numpy as np
import pytest
from someone import BLACK, BLUE, BROWN, RED, WHITE, camera_at, figure_of, someone

from unihap.data.attributes import PA100K_RELEASE_ORDER
from unihap.synth.attributes import (
    ADULT_FROM,
    ATTRIBUTES,
    COLOUR_CLASSES,
    OLD_FROM,
    attributes,
    colour_name,
    facing_angle,
    hair_colour_name,
    view,
)
from unihap.synth.structures import Garment, Hair, Material, Pattern


def present(figure, domain="a", degrees=0.0):
    values = attributes(figure, camera_at(degrees), domain)
    return {name for name, value in zip(ATTRIBUTES[domain], values, strict=True) if value}


def test_list_a_is_that_of_pa100k():
    assert ATTRIBUTES["a"][:7] == ("Female", "AgeOver60", "Age18-60", "AgeLess18", "Front", "Side", "Back")
    assert ATTRIBUTES["a"][-5:] == ("LongCoat", "Trousers", "Shorts", "Skirt&Dress", "boots")
    assert sorted(ATTRIBUTES["a"]) == sorted(PA100K_RELEASE_ORDER)


@pytest.mark.parametrize("domain", ["a", "b"])
def test_lists_have_at_least_twenty_names_and_no_name_twice(domain):
    assert len(ATTRIBUTES[domain]) >= 20
    assert len(set(ATTRIBUTES[domain])) == len(ATTRIBUTES[domain])


def test_lists_share_no_name():
    assert not set(ATTRIBUTES["a"]) & set(ATTRIBUTES["b"])


def test_values_are_zeros_and_ones():
    values = attributes(figure_of(someone()), camera_at(), "b")
    assert values.dtype == np.uint8
    assert values.shape == (len(ATTRIBUTES["b"]),)
    assert set(values.tolist()) == {0, 1}


def test_unknown_domain_is_refused():
    with pytest.raises(ValueError, match="unknown domain 'c'"):
        attributes(figure_of(someone()), camera_at(), "c")


def test_a_plain_man_has_these_attributes():
    assert present(figure_of(someone())) == {"Age18-60", "Front", "ShortSleeve", "Trousers"}
    assert present(figure_of(someone()), "b") == {
        "Male", "Adult", "FacingFront", "BlackHair", "TShirt", "LongTrousers", "UpperRed", "LowerBlue",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hat": Material(RED)}, {"Hat"}),
        ({"glasses": Material(BLACK)}, {"Glasses"}),
        ({"handbag": Material(RED)}, {"HandBag"}),
        ({"shoulder_bag": Material(RED)}, {"ShoulderBag"}),
        ({"backpack": Material(RED)}, {"Backpack"}),
        ({"shoes": Garment("boots", Material(BLACK))}, {"boots"}),
        ({"upper": Garment("t_shirt", Material(RED, WHITE, Pattern.STRIPES))}, {"UpperStride"}),
        ({"upper": Garment("t_shirt", Material(RED, WHITE, Pattern.LOGO))}, {"UpperLogo"}),
        ({"upper": Garment("t_shirt", Material(RED, WHITE, Pattern.PLAID))}, {"UpperPlaid"}),
        ({"upper": Garment("t_shirt", Material(RED, WHITE, Pattern.TWO_TONE))}, {"UpperSplice"}),
        ({"lower": Garment("trousers", Material(RED, WHITE, Pattern.STRIPES))}, {"LowerStripe"}),
        ({"lower": Garment("trousers", Material(RED, WHITE, Pattern.DOTS))}, {"LowerPattern"}),
    ],
)
def test_one_thing_more_is_one_attribute_more(changes, expected):
    plain = {"Age18-60", "Front", "ShortSleeve", "Trousers"}
    assert present(figure_of(someone(**changes))) == plain | expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("long_sleeve", {"LongSleeve", "Trousers"}),
        ("jacket", {"LongSleeve", "Trousers"}),
        ("coat", {"LongSleeve", "LongCoat", "Trousers"}),
    ],
)
def test_long_upper_garments_have_long_sleeves(kind, expected):
    assert present(figure_of(someone(upper=Garment(kind, Material(RED))))) == expected | {"Age18-60", "Front"}


def test_a_dress_has_short_sleeves_and_its_pattern_is_also_below_the_waist():
    striped = someone({"gender": 1.0}, upper=Garment("dress", Material(RED, WHITE, Pattern.STRIPES)), lower=None)
    expected = {"Female", "Age18-60", "Front", "ShortSleeve", "Skirt&Dress", "UpperStride", "LowerStripe"}
    assert present(figure_of(striped)) == expected
    halved = someone({"gender": 1.0}, upper=Garment("dress", Material(RED, BLUE, Pattern.TWO_TONE)), lower=None)
    assert {"Dress", "UpperRed", "LowerBlue"} <= present(figure_of(halved), "b")


def test_skirt_and_shorts_are_told_apart():
    assert "Skirt&Dress" in present(figure_of(someone(lower=Garment("skirt", Material(RED)))))
    assert "Shorts" in present(figure_of(someone(lower=Garment("shorts", Material(RED)))))


@pytest.mark.parametrize(
    ("age", "in_a", "in_b"),
    [
        (ADULT_FROM - 0.01, "AgeLess18", "Child"),
        (ADULT_FROM + 0.01, "Age18-60", "Adult"),
        (OLD_FROM - 0.01, "Age18-60", "Adult"),
        (OLD_FROM + 0.01, "AgeOver60", "Senior"),
    ],
)
def test_ages_change_at_their_bounds(age, in_a, in_b):
    figure = figure_of(someone({"age": age}))
    assert present(figure) & {"AgeLess18", "Age18-60", "AgeOver60"} == {in_a}
    assert present(figure, "b") & {"Child", "Adult", "Senior"} == {in_b}


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        (0, "Front"),
        (44, "Front"),
        (-44, "Front"),
        (46, "Side"),
        (-90, "Side"),
        (134, "Side"),
        (136, "Back"),
        (180, "Back"),
    ],
)
@pytest.mark.parametrize("yaw", [0.0, 2.0])
def test_orientation_is_the_angle_between_chest_and_camera(degrees, expected, yaw):
    figure, camera = figure_of(someone(), yaw=yaw), camera_at(degrees + np.degrees(yaw))
    assert facing_angle(figure, camera) == pytest.approx(np.radians(abs(degrees)), abs=1e-6)
    values = dict(zip(ATTRIBUTES["a"], attributes(figure, camera, "a"), strict=True))
    assert [name for name in ("Front", "Side", "Back") if values[name]] == [expected]


def test_turned_shoulders_turn_the_chest_by_half():
    figure = figure_of(someone(), twist=np.radians(60))
    assert facing_angle(figure, camera_at(30)) == pytest.approx(0, abs=1e-6)
    assert view(figure, camera_at(-20)) == "side"


def test_a_hat_hides_a_bald_head():
    assert "BaldHead" in present(figure_of(someone(hair="bald")), "b")
    assert "BaldHead" not in present(figure_of(someone(hair="bald", hat=Material(RED))), "b")
    assert "BlackHair" not in present(figure_of(someone(hair="bald")), "b")


def test_what_somebody_does_and_carries_counts():
    box = Material(BROWN)
    assert "HoldObjectsInFront" in present(figure_of(someone(), "carry", carried=box))
    assert {"CarryingAnything"} == present(figure_of(someone(), "carry", carried=box), "b") & {
        "CarryingAnything", "AnyBag",
    }  # fmt: skip
    assert {"Running", "Moving"} <= present(figure_of(someone(), "run"), "b")
    assert present(figure_of(someone(), "walk"), "b") & {"Running", "Moving"} == {"Moving"}
    assert "Sitting" in present(figure_of(someone(), "sit"), "b")


@pytest.mark.parametrize(
    ("colour", "expected"),
    [(RED, "red"), (BLUE, "blue"), (WHITE, "white"), (BLACK, "black"), (BROWN, "brown"), ((0.2,) * 3, "gray")],
)
def test_colours_have_the_names_that_people_give_them(colour, expected):
    assert colour_name(colour) == expected


def test_every_cloth_has_one_colour_class_above_and_one_below():
    rng = np.random.default_rng(0)
    for _ in range(50):
        upper, lower = (Material(tuple(rng.random(3))) for _ in range(2))
        found = present(figure_of(someone(upper=Garment("coat", upper), lower=Garment("skirt", lower))), "b")
        for where in ("Upper", "Lower"):
            assert len(found & {f"{where}{name}" for name in COLOUR_CLASSES}) == 1


def test_hair_has_names_of_its_own():
    assert hair_colour_name((0.62, 0.42, 0.16)) == "blond"
    blond = replace(someone(), hair=Hair("ponytail", (0.62, 0.42, 0.16)))
    assert present(figure_of(blond), "b") & {"LongHair", "BlackHair"} == {"LongHair"}
