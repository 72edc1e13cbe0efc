import re
from dataclasses import replace

import numpy as np
import pytest
from someone import BLACK, BLUE, BROWN, RED, WHITE, camera_at, figure_of, someone

from unihap.synth.captions import ACTIONS, captions
from unihap.synth.poses import ACTIVITIES
from unihap.synth.structures import Garment, Hair, Material, Pattern

ORANGE = (0.84, 0.19, 0.014)


def both(figure, degrees=0.0, seeds=12):
    """Every sentence that some seeds give."""
    return [text for seed in range(seeds) for text in captions(figure, camera_at(degrees), np.random.default_rng(seed))]


def test_two_sentences_differ_and_depend_on_the_seed_alone():
    figure = figure_of(someone(hat=Material(RED)), "walk")
    texts = [captions(figure, camera_at(), np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    assert all(first != second for first, second in texts)


def test_sentences_tell_who_hair_garments_colours_action_and_view():
    for text in both(figure_of(someone(), "walk")):
        for words in (
            "man",
            "short black hair",
            "red t-shirt",
            "blue trousers",
            "black shoes",
            "walking",
            "facing the camera",
        ):
            assert words in text
        assert text[0].isupper()
        assert text.endswith(".")
        assert not re.search(r"  | ,|\{|None|, ,|,\.", text)


@pytest.mark.parametrize(
    ("gender", "age", "who"),
    [
        (0, 0.33, "a boy"), (1, 0.45, "a girl"), (0, 0.6, "a man"), (1, 0.6, "a woman"), (0, 0.95, "an elderly man"),
        (1, 0.95, "an elderly woman"),
    ],
)  # fmt: skip
def test_people_are_called_by_sex_and_age(gender, age, who):
    for text in both(figure_of(someone({"gender": gender, "age": age}))):
        assert re.search(rf"\b{who}\b", text, re.IGNORECASE)
        assert re.search(r"; (he|she) ", text) is None or f"; {'she' if gender else 'he'} " in text


@pytest.mark.parametrize(
    ("hair", "words"),
    [("bald", "with a bald head"), ("long", "long black hair"), ("ponytail", "in a ponytail"), ("bun", "in a bun")],
)
def test_hair_styles_have_words(hair, words):
    assert all(words in text for text in both(figure_of(someone(hair=hair))))


def test_a_hat_hides_all_but_long_hair():
    for text in both(figure_of(someone(hat=Material(BLUE)))):
        assert "hair" not in text
        assert "a blue hat" in text
    assert all("long black hair" in text for text in both(figure_of(someone(hair="long", hat=Material(BLUE)))))
    assert not any("bald" in text for text in both(figure_of(someone(hair="bald", hat=Material(BLUE)))))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (Pattern.PLAIN, "a red coat"),
        (Pattern.STRIPES, "a red and white striped t-shirt"),
        (Pattern.PLAID, "a red and white plaid t-shirt"),
        (Pattern.LOGO, "a red t-shirt with a white logo"),
        (Pattern.TWO_TONE, "a red and white two-tone t-shirt"),
        (Pattern.DOTS, "a red t-shirt with white dots"),
    ],
)
def test_patterns_name_both_colours(pattern, words):
    figure = figure_of(someone(upper=Garment("t_shirt", Material(RED, WHITE, pattern))))
    assert all(words.replace("coat", "t-shirt") in text for text in both(figure))


def test_two_shades_of_a_colour_are_named_once():
    figure = figure_of(someone(upper=Garment("t_shirt", Material(RED, (0.5, 0.01, 0.02), Pattern.STRIPES))))
    assert all("a striped red t-shirt" in text for text in both(figure))


def test_the_article_suits_the_next_word():
    orange = someone(upper=Garment("t_shirt", Material(RED, ORANGE, Pattern.LOGO)), hat=Material(ORANGE))
    for text in both(figure_of(orange)):
        assert "an orange hat" in text
        assert "with an orange logo" in text
        assert " a orange" not in text


def test_what_is_hidden_is_not_told():
    person = someone(upper=Garment("t_shirt", Material(RED, WHITE, Pattern.LOGO)), glasses=Material(BLACK))
    for text in both(figure_of(person), 0):
        assert "glasses" in text
        assert "logo" in text
    for text in both(figure_of(person), 180):
        assert "seen from behind" in text
        assert not re.search("glasses|logo", text)
    coat = someone(upper=Garment("coat", Material(RED)), lower=Garment("shorts", Material(BLUE)), inner=Material(WHITE))
    assert all("a long red coat over a white shirt" in text for text in both(figure_of(coat)))
    assert not any(re.search("shorts|white", text) for text in both(figure_of(coat), 180))


def test_socks_are_told_only_with_bare_legs_and_shoes():
    shorts, socks = Garment("shorts", Material(BLUE)), Material(WHITE)
    assert all("white socks" in text for text in both(figure_of(someone(lower=shorts, socks=socks))))
    boots = Garment("boots", Material(BLACK))
    for person in (someone(socks=socks), someone(lower=shorts, socks=socks, shoes=boots)):
        assert not any("socks" in text for text in both(figure_of(person)))


def test_things_carried_are_told():
    person = someone(
        backpack=Material(BLUE), handbag=Material(RED), shoulder_bag=Material(WHITE), glasses=Material(BLACK)
    )
    for text in both(figure_of(person, "carry", carried=Material(BROWN))):
        assert "with glasses, a blue backpack, a red handbag and a white shoulder bag" in text
        assert "holding a brown box in front with both hands" in text


def test_a_dress_has_nothing_below_it():
    woman = someone({"gender": 1.0}, upper=Garment("dress", Material(RED)), lower=None)
    for text in both(figure_of(woman)):
        assert "a red dress and black shoes" in text


def test_every_activity_has_words():
    assert set(ACTIONS) == set(ACTIVITIES)


def test_sideways_people_are_seen_from_the_side_whichever_side():
    for degrees in (90, -90):
        for text in both(figure_of(someone()), degrees):
            assert "seen from the side" in text
            assert not re.search(r"\b(left|right)\b", text)


def test_a_garment_without_words_is_refused():
    toga = figure_of(someone(upper=Garment("toga", Material(RED))))
    with pytest.raises(ValueError, match="unknown garment 'toga'"):
        captions(toga, camera_at(), np.random.default_rng(0))
    wig = figure_of(replace(someone(), hair=Hair("wig", BLACK)))
    with pytest.raises(ValueError, match="unknown hair style 'wig'"):
        captions(wig, camera_at(), np.random.default_rng(0))


def test_the_vocabulary_is_small():
    rng = np.random.default_rng(0)
    words = set()
    for _ in range(200):
        cloths = [Material(tuple(rng.random(3)), tuple(rng.random(3)), rng.choice(list(Pattern))) for _ in range(8)]
        person = someone(
            {"gender": rng.random(), "age": rng.uniform(0.3, 1)},
            str(rng.choice(["bald", "short", "medium", "long", "ponytail", "bun"])),
            upper=Garment(str(rng.choice(["t_shirt", "long_sleeve", "jacket", "coat"])), cloths[0]),
            lower=Garment(str(rng.choice(["trousers", "shorts", "skirt"])), cloths[1]),
            shoes=Garment(str(rng.choice(["shoes", "boots"])), cloths[2]),
            backpack=cloths[3], handbag=cloths[4], hat=cloths[5] if rng.random() < 0.3 else None,
            inner=cloths[6], socks=cloths[7],
        )  # fmt: skip
        figure = figure_of(person, str(rng.choice(list(ACTIVITIES))))
        for text in captions(figure, camera_at(rng.uniform(0, 360)), rng):
            words |= set(re.findall(r"[a-z-]+", text.lower()))
    assert 60 < len(words) < 130
