import io

import cv2
import numpy as np
import pytest
from PIL import Image

from unihap.data.images import BadImageError, decode_image, read_image, read_index_map

RED_OVER_BLUE = np.array([[[255, 0, 0]] * 16] * 8 + [[[0, 0, 255]] * 16] * 8, dtype=np.uint8)


def save(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return path


@pytest.fixture
def photo(tmp_path):
    """A photograph-like JPEG of 48x64 pixels."""
    grid = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return save(tmp_path / "photo.jpg", cv2.resize(grid, (64, 48)), quality=90)


def test_channels_are_red_green_blue(tmp_path):
    image = read_image(save(tmp_path / "a.png", RED_OVER_BLUE))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, RED_OVER_BLUE)


def test_jpeg_pixels_are_those_pillow_reads(photo):
    with Image.open(photo) as image:
        difference = np.abs(read_image(photo).astype(int) - np.asarray(image.convert("RGB")).astype(int))
    assert difference.max() <= 3


def test_grey_repeats_its_channel(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for suffix in ("png", "bmp"):
        image = read_image(save(tmp_path / f"a.{suffix}", grey))
        np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))
    assert read_image(save(tmp_path / "a.jpg", grey)).shape == (3, 4, 3)


def test_transparent_pixels_are_laid_over_black(tmp_path):
    rgba = np.full((1, 3, 4), (200, 100, 50, 0), dtype=np.uint8)
    rgba[0, 1, 3] = 255
    rgba[0, 2, 3] = 51  # a fifth
    image = read_image(save(tmp_path / "a.png", rgba))
    assert image.tolist() == [[[0, 0, 0], [200, 100, 50], [40, 20, 10]]]


def test_grey_with_alpha_is_laid_over_black_too(tmp_path):
    pixels = Image.merge("LA", (Image.new("L", (2, 1), 200), Image.new("L", (2, 1), 0)))
    pixels.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 0, 0], [0, 0, 0]]]


def test_palette_colours_are_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 0, 0], [0, 255, 0]]]


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    Image.fromarray(np.array([[0, 257, 65535, 128 * 257]], dtype=np.uint16)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png")[0, :, 0].tolist() == [0, 1, 255, 128]
    colour = np.array([[[65535, 0, 257 * 7]]], dtype=np.uint16)  # OpenCV writes blue first
    assert cv2.imwrite(str(tmp_path / "colour.png"), colour)
    assert read_image(tmp_path / "colour.png").tolist() == [[[7, 0, 255]]]


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")  # magenta and yellow ink: red
    red, green, blue = read_image(tmp_path / "a.jpg")[4, 4].tolist()
    assert red > 250
    assert max(green, blue) < 5


def test_exif_rotation_is_left_alone_unless_asked_for(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # orientation: turn by a quarter, clockwise
    path = save(tmp_path / "a.jpg", np.vstack([RED_OVER_BLUE, RED_OVER_BLUE[8:]]), exif=exif, quality=95)
    assert read_image(path).shape == (24, 16, 3)
    turned = read_image(path, rotate=True)
    assert turned.shape == (16, 24, 3)
    assert turned[8, 22, 0] > 200  # the red top is now on the right


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_truncated_jpeg_is_refused(photo, kept):
    data = photo.read_bytes()
    photo.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(BadImageError, match=r"photo\.jpg.*truncated.*fetch it again"):
        read_image(photo)


def test_truncated_jpeg_with_a_whole_thumbnail_is_refused_before_decoding(photo):
    data = photo.read_bytes()
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")
    segment = b"\xff\xe1" + (len(thumbnail.getvalue()) + 2).to_bytes(2, "big") + thumbnail.getvalue()
    with_thumbnail = data[:2] + segment + data[2:]
    decode_image(np.frombuffer(with_thumbnail, np.uint8), "whole.jpg")
    with pytest.raises(BadImageError, match="no JPEG end marker"):
        decode_image(np.frombuffer(with_thumbnail[:-200], np.uint8), "cut.jpg")


def test_bytes_behind_a_jpeg_do_no_harm(photo):
    whole = read_image(photo)
    photo.write_bytes(photo.read_bytes() + b"camera notes")
    np.testing.assert_array_equal(read_image(photo), whole)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_other_truncated_files_are_refused(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadImageError, match=rf"a\.{suffix}"):
        read_image(path)


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(BadImageError, match=r"no image file .*none\.jpg; fetch"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(BadImageError, match="cannot read"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(BadImageError, match=r"empty\.jpg is empty"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    with pytest.raises(BadImageError, match=r"page\.jpg .* no image"):
        read_image(tmp_path / "page.jpg")


def test_floating_point_pixels_are_refused(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.tiff"), np.zeros((2, 2, 3), np.float32))
    with pytest.raises(BadImageError, match="float32 pixels; save it with 8 bits"):
        read_image(tmp_path / "a.tiff")


LABELS = np.array([[0, 1, 2], [3, 2, 1]], dtype=np.uint8)


def test_grey_label_map_keeps_its_values(tmp_path):
    values = np.array([[0, 19, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(read_index_map(save(tmp_path / "a.png", values)), values)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_label_map_gives_indices_not_colours(tmp_path, bits):
    image = Image.fromarray(np.minimum(LABELS, 2**bits - 1), mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    image.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_index_map(tmp_path / "a.png"), np.minimum(LABELS, 2**bits - 1))


def test_grey_label_map_of_one_bit_is_zero_and_one(tmp_path):
    Image.fromarray(LABELS > 1).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_index_map(tmp_path / "a.png"), (LABELS > 1).astype(np.uint8))


def test_sixteen_bit_label_map_is_read_while_its_values_fit(tmp_path):
    Image.fromarray(np.array([[3, 255]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_index_map(tmp_path / "a.png").tolist() == [[3, 255]]
    Image.fromarray(np.array([[3, 256]], dtype=np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(BadImageError, match=r"b\.png holds the number 256"):
        read_index_map(tmp_path / "b.png")


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_label_map_is_refused_with_the_remedy(tmp_path, channels):
    path = save(tmp_path / "a.png", np.zeros((2, 2, channels), dtype=np.uint8))
    with pytest.raises(BadImageError, match=r"a\.png is a colour image.*save a single-channel PNG"):
        read_index_map(path)


def test_lossy_label_map_is_refused(tmp_path):
    with pytest.raises(BadImageError, match="not a PNG; save label maps as lossless"):
        read_index_map(save(tmp_path / "a.jpg", LABELS))


@pytest.mark.parametrize("mode", ["L", "P"])
def test_damaged_label_map_is_refused(tmp_path, mode):
    noise = np.random.default_rng(0).integers(0, 255, (50, 50), dtype=np.uint8)
    image = Image.fromarray(noise, mode="L")
    if mode == "P":
        image = Image.fromarray(noise, mode="P")
        image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    (tmp_path / "a.png").write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(BadImageError, match=r"a\.png"):
        read_index_map(tmp_path / "a.png")
