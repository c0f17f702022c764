"""Decoder processes: order of results, crashes, hangs, and cleanup."""

import hashlib
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcli.images.augment import make_view
from tlcli.images.decode import decode
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import fit_image
from tlcli.images.worker import DecodedImage, DecodeOptions, read_image
from tlcli.settings.augmentation import PRESETS
from tlcli.storage.stored import Stamp

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def processes():
    """Return the parent of each running process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def children(parent=None):
    """Return the running processes that `parent` (default: this process) started."""
    return {process for process, its_parent in processes().items() if its_parent == (parent or os.getpid())}


def all_end(some):
    """Return whether these processes end within some seconds."""
    for _ in range(500):
        if not some & processes().keys():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def numbered(tmp_path):
    """Paths of 60 images, each of its own color; every seventh is large and therefore slow."""
    paths = []
    for number in range(60):
        size = (1500, 1200) if number % 7 == 3 else (20, 16)
        Image.new("RGB", size, (number, 255 - number, 0)).save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    return paths


def wait_for_decoding():
    """Wait until a decoder has started with the largest image, which takes it seconds."""
    time.sleep(0.3)


def number_of(image):
    """Return which of the `numbered` images this is."""
    pixels = np.frombuffer(image.pixels, np.uint8).reshape(16, 16, 3)
    assert (pixels == pixels[0, 0]).all()
    return int(pixels[0, 0, 0])


@pytest.mark.parametrize("workers", [1, 3])
def test_slow_fast_and_broken_images_keep_their_order(tmp_path, numbered, small, workers):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    broken = [str(tmp_path / name) for name in ("text.jpg", "empty.jpg", "missing.jpg")] + [str(tmp_path)]
    paths = numbered + broken * 3
    random.Random(workers).shuffle(paths)
    with ImageLoader(DecodeOptions(preprocessing=small), workers=workers) as loader:
        images = list(loader.load(paths))
    assert len(images) == len(paths)
    for path, image in zip(paths, images, strict=True):
        if path in broken:
            assert image.pixels is None
            assert image.error
        else:
            assert image.error is None
            assert number_of(image) == int(Path(path).stem)
            assert image.digest == hashlib.sha256(Path(path).read_bytes()).digest()
            assert image.stamp == Stamp.of(Path(path).stat())


def test_the_loader_returns_what_read_image_returns(numbered, small):
    options = DecodeOptions(preprocessing=small)
    with ImageLoader(options, workers=2) as loader:
        found = [image._replace(read=0) for image in loader.load(numbered[:5])]
    assert found == [read_image(path, options)._replace(read=0) for path in numbered[:5]]


def test_known_images_have_no_pixels(numbered, small):
    known = hashlib.sha256(Path(numbered[1]).read_bytes()).digest()
    with ImageLoader(DecodeOptions(preprocessing=small, known=frozenset([(known, 0)])), workers=1) as loader:
        images = list(loader.load(numbered[:3]))
    assert [image.pixels is None for image in images] == [False, True, False]
    assert images[1].digest == known
    assert images[1].error is None


@pytest.mark.slow
def test_only_known_views_have_no_pixels(numbered, small):
    known = hashlib.sha256(Path(numbered[1]).read_bytes()).digest()
    options = DecodeOptions(preprocessing=small, augmentation=PRESETS["light"], known=frozenset([(known, 2)]))
    requests = [(numbered[1], 0), (numbered[1], 2), (numbered[1], 1), (numbered[2], 2)]
    with ImageLoader(options, workers=1) as loader:
        assert [image.pixels is None for image in loader.load_views(requests)] == [False, True, False, False]


@pytest.mark.slow
def test_views_do_not_depend_on_the_number_of_processes(draw, tmp_path, small):
    """They also equal views made in this process: augmentation of the upright image, followed by preprocessing."""
    paths = [str(draw(tmp_path / f"{number}.jpg", number, size=(90, 70))) for number in range(6)]
    requests = [(path, number) for number in (0, 1, 2) for path in paths]
    options = DecodeOptions(preprocessing=small, augmentation=PRESETS["strong"], seed=5)
    with ImageLoader(options, workers=1) as loader:
        alone = [image.pixels for image in loader.load_views(requests)]
        plain = [image.pixels for image in loader.load(paths)]
    with ImageLoader(options, workers=3, ahead=500) as loader:
        together = [image.pixels for image in loader.load_views(reversed(requests))]
    assert alone == together[::-1]
    assert len(set(alone)) == len(requests), "different views differ"
    assert alone[: len(paths)] == plain
    for (path, number), found in zip(requests, alone, strict=True):
        data = Path(path).read_bytes()
        digest = hashlib.sha256(data).digest()
        made = make_view(decode(data, 3), PRESETS["strong"], seed=5, view=number, digest=digest)
        assert found == fit_image(made, small).tobytes()


def test_views_for_a_gray_network_are_augmented_in_color(draw, tmp_path, small):
    path = draw(tmp_path / "one.png", size=(90, 70))
    options = DecodeOptions(preprocessing=replace(small, channels=1), augmentation=PRESETS["strong"])
    made = make_view(
        decode(path.read_bytes(), 3),
        PRESETS["strong"],
        seed=0,
        view=1,
        digest=hashlib.sha256(path.read_bytes()).digest(),
    )
    found = read_image(str(path), options, 1).pixels
    assert found == fit_image(made.convert("L"), small).tobytes()
    assert read_image(str(path), options).pixels == fit_image(decode(path.read_bytes(), 1), small).tobytes()


def test_png_views_contain_every_pixel_and_no_metadata(draw, tmp_path):
    path = draw(tmp_path / "one.jpg", size=(90, 70), comment="a comment", icc_profile=b"no profile", dpi=(300, 300))
    data = path.read_bytes()
    image = read_image(str(path), DecodeOptions(png=True, augmentation=PRESETS["strong"]), 1)
    made = make_view(decode(data, 3), PRESETS["strong"], seed=0, view=1, digest=image.digest)
    with Image.open(io.BytesIO(image.pixels)) as written:
        assert written.info == {}
        assert (np.asarray(written) == np.asarray(made)).all()


def test_png_option_only_checks_unchanged_images(draw, tmp_path):
    options = DecodeOptions(png=True, augmentation=PRESETS["strong"])
    plain = read_image(str(draw(tmp_path / "one.jpg")), options)
    assert (plain.pixels, plain.error) == (None, None)
    (tmp_path / "text.jpg").write_text("no image")
    assert read_image(str(tmp_path / "text.jpg"), options).error
    assert read_image(str(tmp_path / "text.jpg"), options, 1).error


def test_without_preprocessing_images_are_only_hashed(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with ImageLoader(DecodeOptions(), workers=1) as loader:
        [image] = loader.load([str(tmp_path / "text.jpg")])
    assert image.digest == hashlib.sha256(b"no image").digest()
    assert (image.pixels, image.error) == (None, None)


def test_a_file_name_that_is_not_utf8(tmp_path, numbered, small):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff \n'\".png")
    Path(odd).write_bytes(Path(numbered[9]).read_bytes())
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        assert [number_of(image) for image in loader.load([odd])] == [9]


def test_an_impossible_file_name(numbered, small):
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        impossible, after = loader.load(["a\0b.png", numbered[4]])
    assert impossible.error
    assert number_of(after) == 4


def test_a_file_without_permission(public_path, unprivileged, draw, small):
    path = draw(public_path / "closed.png")
    path.chmod(0)
    with unprivileged():
        assert read_image(str(path), DecodeOptions(preprocessing=small)) == DecodedImage(
            error="cannot be read: Permission denied"
        )


def test_paths_are_consumed_only_as_far_as_needed(numbered, small):
    asked = itertools.count()
    endless = (numbered[next(asked) % 3] for _ in itertools.repeat(None))
    with ImageLoader(DecodeOptions(preprocessing=small), workers=2) as loader:
        assert [number_of(image) for image in itertools.islice(loader.load(endless), 7)] == [0, 1, 2, 0, 1, 2, 0]
    assert next(asked) < 200


def test_a_decoder_that_hangs_is_replaced(numbered, largest, small):
    paths = [*numbered[:3], str(largest), *numbered[3:6]]
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1, time_limit=0.7) as loader:
        images = list(loader.load(paths))
    assert "longer than 0.7 s" in images[3].error
    assert [number_of(image) for image in images[:3] + images[4:]] == [0, 1, 2, 3, 4, 5]


@LINUX
def test_a_killed_decoder_loses_one_image(numbered, largest, small):
    paths = [*numbered[:3], str(largest), *numbered[3:40]]
    before = children()
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1, time_limit=30) as loader:
        images = loader.load(paths)
        first = [next(images) for _ in range(3)]
        wait_for_decoding()
        [decoder] = children() - before
        os.kill(decoder, signal.SIGKILL)
        killed, *rest = images
    assert "the decoder process crashed" in killed.error
    assert "signal 9" in killed.error
    assert [number_of(image) for image in first + rest] == list(range(40))


@pytest.mark.slow
@LINUX
def test_decoders_killed_at_random_lose_at_most_one_image_each(numbered, small):
    draw, before, killed = random.Random(0), children(), 0
    images = []
    with ImageLoader(DecodeOptions(preprocessing=small), workers=3) as loader:
        for number, image in enumerate(loader.load(numbered * 5)):
            images.append(image)
            if number % 50 == 20 and (living := sorted(children() - before)):
                os.kill(draw.choice(living), signal.SIGKILL)
                killed += 1
    assert killed >= 4
    assert len(images) == 300
    failed = [image for image in images if image.error is not None]
    assert len(failed) <= killed
    assert all("signal 9" in image.error for image in failed)
    assert all(p.error is not None or number_of(p) == index % 60 for index, p in enumerate(images))


@LINUX
def test_a_decoder_killed_while_it_starts_is_replaced(numbered, small):
    before = children()

    def kill_the_first():
        while not (started := children() - before):
            pass
        os.kill(started.pop(), signal.SIGKILL)

    with ThreadPoolExecutor(1) as thread, ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        killing = thread.submit(kill_the_first)
        images = list(loader.load(numbered[:10]))
        killing.result()
    assert len(images) == 10
    assert sum(image.error is not None for image in images) <= 1
    assert all(image.error or number_of(image) == index for index, image in enumerate(images))


@LINUX
@pytest.mark.parametrize("taken", [0, 1, 40])
def test_a_loader_leaves_no_processes(numbered, small, taken):
    before = children()
    with ImageLoader(DecodeOptions(preprocessing=small), workers=3) as loader:
        list(itertools.islice(loader.load(numbered), taken))
    assert children() == before


@LINUX
def test_an_exception_while_decoders_start_leaves_no_processes(numbered, small):
    before = children()
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt), ImageLoader(DecodeOptions(preprocessing=small), workers=4) as loader:
            next(loader.load(itertools.chain(numbered, interrupting())))
        assert children() == before


def interrupting():
    raise KeyboardInterrupt
    yield


@LINUX
def test_leaving_a_loader_does_not_wait_for_a_decoder_that_hangs(numbered, largest, small):
    before = children()
    # With this time limit, waiting for the decoder would block the tests.
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1, time_limit=3600) as loader:
        assert number_of(next(loader.load([numbered[0], str(largest)] * 10))) == 0
        wait_for_decoding()
    assert children() == before


PARENT = """
import sys
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import Preprocessing
from tlcli.images.worker import DecodeOptions

with ImageLoader(DecodeOptions(png=True), workers=2, time_limit=3600) as loader:
    images = loader.load([sys.argv[1]] * 2 + [sys.argv[2]] * 60)
    print(next(images).digest is not None, flush=True)
    list(images)
"""


@LINUX
def test_decoders_end_when_their_parent_is_killed(numbered, largest):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, numbered[0], str(largest)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout.readline() == "True\n"
        decoders = children(parent.pid)
        parent.kill()
    assert decoders
    assert all_end(decoders)


INTERRUPTED = """
import os, signal, sys, threading, time
from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions

received = []
signal.signal(signal.SIGINT, lambda *_: received.append(1))
over = threading.Event()

def press():
    while not over.wait(0.02):
        os.killpg(0, signal.SIGINT)

threading.Thread(target=press, daemon=True).start()
with ImageLoader(DecodeOptions(png=True), workers=4) as loader:
    read = [image.digest is not None for image in loader.load([sys.argv[1]] * 8)]
over.set()
print(all(read), len(received) > 5)
"""


def test_decoders_ignore_ctrl_c_even_while_they_start(numbered):
    asked = [sys.executable, "-c", INTERRUPTED, numbered[0]]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, start_new_session=True)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_decoder_modules_do_not_import_torch():
    code = "import sys, tlcli.images.worker; sys.exit(bool({'torch', 'numpy', 'pyarrow', 'timm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@LINUX
def test_a_decoder_process_does_not_load_torch(numbered, small):
    before = children()
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        list(loader.load(numbered[:1]))
        [decoder] = children() - before
        assert "torch" not in Path(f"/proc/{decoder}/maps").read_text()


@pytest.mark.slow
@LINUX
def test_a_decoder_that_augments_has_low_priority(numbered, small):
    before = children()
    with ImageLoader(DecodeOptions(preprocessing=small, augmentation=PRESETS["light"]), workers=1) as loader:
        list(loader.load(numbered[:1]))
        [decoder] = children() - before
        assert os.getpriority(os.PRIO_PROCESS, decoder) == os.getpriority(os.PRIO_PROCESS, 0) + 10


def test_decoders_write_nothing_to_the_terminal(tmp_path, numbered, small, capfd):
    tiff = tmp_path / "odd.tif"
    Image.new("RGB", (40, 40)).save(tiff, compression="tiff_lzw")
    data = bytearray(tiff.read_bytes())
    data[8:60] = bytes(52)
    tiff.write_bytes(data)
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        odd, good = loader.load([str(tiff), numbered[0]])
    assert odd.error
    assert number_of(good) == 0
    assert capfd.readouterr() == ("", "")


@LINUX
def test_start_starts_the_processes_that_decode(numbered, small):
    before = children()
    with ImageLoader(DecodeOptions(preprocessing=small), workers=3) as loader:
        loader.start()
        started = children() - before
        assert len(started) == 3
        loader.start()
        assert all(image.pixels for image in loader.load(numbered))
        assert children() - before == started
    assert all_end(started)


def test_measuring_sizes_reads_only_headers(tmp_path, draw):
    """Truncated images have a size; files without a header have a reason."""
    cut = draw(tmp_path / "cut.jpg", size=(300, 200))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    good = draw(tmp_path / "good.png", size=(31, 47))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no header")
    with ImageLoader(DecodeOptions(measure="size"), workers=1) as loader:
        found = list(loader.load([str(cut), str(good), str(bad), str(tmp_path / "none.png")]))
    assert [image.dimensions for image in found] == [(300, 200), (31, 47), None, None]
    assert found[2].error == "not an image of a known format"
    assert "cannot be read" in found[3].error
    assert all(image.pixels is None for image in found)
