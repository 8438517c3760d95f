"""Image files of all kinds -> the pixels a person sees; what is no image, or too large; the memory that one takes."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from video_thinker.data import image_reader
from video_thinker.data.image_reader import ImageReader
from video_thinker.data.images import load_image
from video_thinker.data.video import VideoSampling
from video_thinker.errors import DecodeError, MediaMemoryError

REPO = Path(__file__).parents[3]
MAX_PIXELS = 100_000
RAMP = np.linspace(0, 65535, 64).round()
RAMP_8 = (RAMP / 257).round()


def read(path: Path) -> np.ndarray:
    ((_, image_HWC),) = ImageReader(str(path), MAX_PIXELS).frames_at([0.0])
    return image_HWC


def read_gray_row(path: Path) -> np.ndarray:
    """Read the first row of an image that must be gray and the same in all its rows."""
    image_HWC = read(path)
    assert (image_HWC == image_HWC[:1, :, :1]).all()
    return image_HWC[0, :, 0]


def rows_of(values: np.ndarray, dtype: str) -> Image.Image:
    return Image.fromarray(np.tile(values.astype(dtype), (8, 1)))


def make_transparent(mode: str) -> Image.Image:
    """Left half opaque and black, then a quarter half transparent black, then a quarter fully transparent black."""
    alpha = np.repeat(np.array([255, 255, 128, 0], np.uint8), 4)[None].repeat(8, axis=0)
    image = Image.new(mode, (16, 8))
    image.putalpha(Image.fromarray(alpha))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparent_pixels_are_on_white(tmp_path, mode, suffix):
    path = tmp_path / f"image.{suffix}"
    make_transparent(mode).save(path)
    assert read_gray_row(path).tolist() == [0] * 8 + [127] * 4 + [255] * 4


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA"])
def test_rarer_transparent_modes_are_on_white_too(mode):
    if mode == "PA":
        image = Image.frombytes(
            "PA", (16, 8), bytes(byte for a in [255] * 8 + [128] * 4 + [0] * 4 for byte in (1, a)) * 8
        )
        image.putpalette([255, 0, 0, 0, 0, 0])
    else:
        image = make_transparent("LA" if mode == "La" else "RGBA").convert(mode)
    assert np.asarray(image_reader.on_white(image))[0, :, 0].tolist() == [0] * 8 + [127] * 4 + [255] * 4


@pytest.mark.parametrize(
    ("mode", "transparency"), [("P", 1), ("P", b"\xff\x00"), ("L", 1), ("RGB", (1, 1, 1)), ("1", 1)]
)
def test_a_transparent_color_is_white(tmp_path, mode, transparency):
    values = np.repeat(np.array([[0, 1]], np.uint8), 4, axis=1).repeat(4, axis=0)
    if mode == "RGB":
        image = Image.fromarray(values[..., None].repeat(3, axis=2))
    elif mode == "1":
        image = Image.fromarray(values.astype(bool))
    else:
        image = Image.frombytes(mode, (8, 4), values.tobytes())
    if mode == "P":
        image.putpalette([10, 20, 30, 0, 0, 0])
    image.save(tmp_path / "image.png", transparency=transparency)
    row = read(tmp_path / "image.png")[0].tolist()
    assert row == [[10, 20, 30] if mode == "P" else [0, 0, 0]] * 4 + [[255, 255, 255]] * 4


def test_16_bit_gray_is_divided_by_257(tmp_path):
    rows_of(RAMP, "uint16").save(tmp_path / "gray.png")
    rows_of(RAMP, "uint16").save(tmp_path / "gray.tif")
    rows_of(RAMP, "uint16").save(tmp_path / "gray.pgm")
    big = np.tile(RAMP.astype(">u2"), (8, 1))
    Image.frombytes("I;16B", (64, 8), big.tobytes()).save(tmp_path / "big_endian.tif")
    for path in sorted(tmp_path.iterdir()):
        assert read_gray_row(path).tolist() == RAMP_8.tolist(), path.name


def test_a_transparent_16_bit_gray_is_white(tmp_path):
    rows_of(np.array([0, 1000, 65535]), "uint16").save(tmp_path / "gray.png", transparency=0)
    assert read_gray_row(tmp_path / "gray.png").tolist() == [255, 4, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.arange(256), np.arange(256)),
        (RAMP, RAMP_8),
        (RAMP * 1000, RAMP_8),
        (RAMP - 32768, RAMP_8),
        (np.full(4, -7), np.zeros(4)),
    ],
    ids=["8 bit", "16 bit", "32 bit", "signed", "one value"],
)
def test_32_bit_integers(tmp_path, values, expected):
    rows_of(values, "int32").save(tmp_path / "gray.tif")
    assert read_gray_row(tmp_path / "gray.tif").tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP / 65535, RAMP_8),
        (np.array([0.2, 0.4]), np.array([51, 102])),
        (RAMP * 3, RAMP_8),
        (RAMP_8, RAMP_8),
        (RAMP / 65535 - 0.5, RAMP_8),
        (np.array([np.nan, -np.inf, -1.0, 1.0, 3.0, np.inf]), np.array([0, 0, 0, 128, 255, 255])),
        (np.array([np.nan, np.nan]), np.zeros(2)),
    ],
    ids=["0 to 1", "part of 0 to 1", "large", "0 to 255", "negative", "not finite", "nothing finite"],
)
def test_floats(tmp_path, values, expected):
    rows_of(values, "float32").save(tmp_path / "gray.tif")
    assert read_gray_row(tmp_path / "gray.tif").tolist() == expected.tolist()


def test_other_color_modes_are_converted(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    Image.new("YCbCr", (8, 8), (76, 85, 255)).save(tmp_path / "ycbcr.tif")
    for path in sorted(tmp_path.iterdir()):
        assert np.abs(read(path).astype(int) - [255, 0, 0]).max() <= 2, path.name
    Image.fromarray(np.tile(np.arange(16) % 2 == 1, (4, 1))).save(tmp_path / "bits.png")
    assert read_gray_row(tmp_path / "bits.png").tolist() == [0, 255] * 8


def test_of_an_animation_the_first_frame_is_taken_and_the_frames_are_counted(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        reader = ImageReader(str(tmp_path / name), MAX_PIXELS, count_frames=True)
        assert reader.facts["num_frames"] == 3
        assert next(reader.frames_at([0.0]))[1][4, 4].tolist() == [250, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_orientation_says(tmp_path, orientation):
    from PIL import ImageOps

    stored = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 10, 3), np.uint8))
    exif = Image.Exif()
    exif[image_reader.ORIENTATION_TAG] = orientation
    stored.save(tmp_path / "image.png", exif=exif)
    with Image.open(tmp_path / "image.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read(tmp_path / "image.png"), expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "I;16", "I", "F", "CMYK"])
def test_strips_and_a_whole_factor_change_nothing_but_the_size(tmp_path, monkeypatch, mode):
    """A smooth image, read in strips and made smaller by 3, is that of one piece, made smaller."""
    ramp = np.add.outer(np.arange(120), np.arange(90)) / 208
    if mode in ("I;16", "I", "F"):
        scale, dtype = {"I;16": (65535, "uint16"), "I": (10**6, "int32"), "F": (1.0, "float32")}[mode]
        image = Image.fromarray((ramp * scale).astype(dtype))
    else:
        image = Image.fromarray((ramp * 255).astype(np.uint8)).convert("RGB").convert(mode)
    image.save(tmp_path / "image.tif")
    whole = read(tmp_path / "image.tif")
    monkeypatch.setattr(image_reader, "STRIP_PIXELS", 90 * 7)
    assert np.array_equal(read(tmp_path / "image.tif"), whole)
    monkeypatch.setattr(image_reader, "KEPT_PIXELS", 40 * 30)
    monkeypatch.setattr(image_reader, "REDUCING_GAP", 0.01)
    smaller = read(tmp_path / "image.tif")
    assert np.array_equal(smaller, np.asarray(Image.fromarray(whole).reduce(3)))


def test_a_large_image_is_turned_and_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(image_reader, "KEPT_PIXELS", 10_000)
    monkeypatch.setattr(image_reader, "REDUCING_GAP", 0.01)
    pixels = np.zeros((300, 611, 3), np.uint8)
    pixels[:, 300:] = (200, 100, 0)
    exif = Image.Exif()
    exif[image_reader.ORIENTATION_TAG] = 6
    for name in ("a.jpg", "a.png"):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
        image = read(tmp_path / name)
        assert 10_000 <= image.shape[0] * image.shape[1] < 25_000
        assert image.shape[0] / image.shape[1] == pytest.approx(611 / 300, rel=0.05)
        assert image[:40].max() <= 3 and np.abs(image[-40:].astype(int) - [200, 100, 0]).max() <= 3


MEASURE = """
import sys
import numpy, PIL.PngImagePlugin
from video_thinker.data import image_reader
image_reader.KEPT_PIXELS = 1_000_000
def peak_mib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024
before = peak_mib()
((_, image),) = image_reader.ImageReader(sys.argv[1], 10_000).frames_at([0.0])
print(peak_mib() - before, *image.shape, image.mean())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("mode", "bytes_per_pixel"), [("RGBA", 4), ("I;16", 2), ("P", 1)])
def test_a_large_image_takes_the_memory_of_its_pixels_once(tmp_path, mode, bytes_per_pixel):
    """25 million pixels: all of them as RGB would take 100 MiB more."""
    image = Image.new(mode, (5000, 5000), (0, 0, 0, 255) if mode == "RGBA" else 1)
    if mode == "P":
        image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "large.png", compress_level=1)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "large.png")],
        env={"PYTHONPATH": str(REPO / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    peak_mib, height, width, _, mean = map(float, done.stdout.split())
    assert (height, width, mean) == (1000, 1000, 0)
    assert peak_mib < 5000**2 * bytes_per_pixel / 2**20 + 50


def write_png_header(path: Path, width: int, height: int) -> None:
    """Write the start of a gray PNG, which is all that is read of one that is too large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_an_image_of_too_many_pixels_is_refused_with_both_numbers(tmp_path, recwarn):
    write_png_header(tmp_path / "huge.png", 20_000, 20_000)
    with pytest.raises(
        DecodeError, match=r"huge\.png: .*'i1': the image has 20000 x 20000 = 400000000 pixels.*200000000"
    ):
        load_image(tmp_path / "huge.png", VideoSampling(), sample_id="i1")
    assert not recwarn.list


def test_what_is_no_whole_image_is_a_decode_error(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for suffix in ("png", "jpg", "webp", "gif", "tif"):
        Image.fromarray(pixels).save(tmp_path / f"whole.{suffix}")
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes((tmp_path / f"whole.{suffix}").read_bytes()[:1500])
        with pytest.raises(DecodeError, match=rf"cut\.{suffix}: cannot decode \(sample 'i1': "):
            load_image(cut, VideoSampling(), sample_id="i1")
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(DecodeError, match=r"no\.png: cannot decode \(sample 'i1': it is no image"):
        load_image(tmp_path / "no.png", VideoSampling(), sample_id="i1")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DecodeError, match=r"empty\.png: the file is empty \(sample 'i1'"):
        load_image(tmp_path / "empty.png", VideoSampling(), sample_id="i1")
    with pytest.raises(DecodeError, match=r"none\.png: no such file \(sample 'i1'"):
        load_image(tmp_path / "none.png", VideoSampling(), sample_id="i1")
    with pytest.raises(DecodeError, match="is a folder"):
        load_image(tmp_path, VideoSampling())
    Image.new("L", (3000, 2)).save(tmp_path / "line.png")
    with pytest.raises(DecodeError, match=r"line\.png: cannot decode.*aspect ratio"):
        load_image(tmp_path / "line.png", VideoSampling())


def test_an_image_is_resized_like_a_frame(media_root):
    image = load_image(media_root / "still.png", VideoSampling())
    assert image.shape == (3, 56, 56) and image[0].float().mean() == pytest.approx(200, abs=2)


def test_want_of_memory_is_not_a_broken_image(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(path)
    monkeypatch.setattr("video_thinker.data.images.READER", "tests.fake_readers:NoMemory")
    with pytest.raises(MediaMemoryError, match=r"image\.png: not enough memory.*'i1'"):
        load_image(path, VideoSampling(), sample_id="i1")


@pytest.mark.parametrize(("name", "mean", "deviation"), [("black_on_transparent", 191, 110), ("gray16", 127, 75)])
def test_the_images_that_were_read_wrong(shared_dir, name, mean, deviation):
    path = shared_dir / "repro" / "08_transparent_and_16bit_images" / f"{name}.png"
    if not path.exists():
        pytest.skip(f"no {path.name} there")
    image = load_image(path, VideoSampling()).float()
    assert image.mean() == pytest.approx(mean, abs=1) and image.std() == pytest.approx(deviation, abs=3)
