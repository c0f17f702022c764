"""Decoder processes: crashes, hangs, interruptions, and cleanup."""

import itertools
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from decoder_processes import LINUX, all_end, children, number_of, wait_for_decoding
from PIL import Image

from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodeOptions
from tlcli.settings.augmentation import PRESETS


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
