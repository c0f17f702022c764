"""WebDataset shards: images and labels in tars, read without unpacking."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from tlcli.datasets import tars
from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.datasets.tars import expand_shards, resolve_tar_member
from tlcli.errors import DataError
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.storage.reading import open_image_file


@pytest.fixture
def shard(tmp_path):
    """Write a tar of files, each given by its name or a `TarInfo`."""

    def write(name, files):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member, content in files:
                info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return tmp_path / name

    return write


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def labels_of(dataset):
    return [dataset.classes[sample.label] for sample in dataset.samples]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("s-{008..010}.tar", ["s-008.tar", "s-009.tar", "s-010.tar"]),
        ("s-{8..10}.tar", ["s-8.tar", "s-9.tar", "s-10.tar"]),
        ("s-{0..10}.tar", [f"s-{number}.tar" for number in range(11)]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("s.tar", ["s.tar"]),
        ("{x}.tar", ["{x}.tar"]),
    ],
)
def test_braces_stand_for_several_shards(typed, names):
    assert expand_shards(typed) == names


@pytest.mark.parametrize("typed", ["s-{0..99999999}.tar", "{0..9999}-{0..9999}-{0..9999}.tar"])
def test_too_many_shards_are_rejected(typed):
    with pytest.raises(DataError, match="probably a typo"):
        expand_shards(typed)


def test_each_tar_is_listed_only_once(shard, monkeypatch):
    some = [shard(f"s-{number}.tar", [(f"{number}.jpg", b"x")]) for number in range(12)]
    whole, listed = tars._list_tar, []
    monkeypatch.setattr(tars, "_list_tar", lambda *given: listed.append(given[0]) or whole(*given))
    for _ in range(2):
        for number, tar in enumerate(some):
            assert resolve_tar_member(f"{tar}/{number}.jpg").size > 0
    assert sorted(listed) == sorted(map(str, some))
    monkeypatch.setattr(tars, "MAX_CACHED_FILES", 3)
    resolve_tar_member(f"{shard('other.tar', [('a.jpg', b'x')])}/a.jpg")
    assert len(tars._listings) <= 4


def test_samples_have_classes_splits_and_groups(shard):
    shard(
        "s-0.tar",
        [
            ("b/1.JPG", b"1"),
            ("b/1.cls", b" cat\n"),
            ("b/2.jpg", b"2"),
            ("b/2.json", json.dumps({"label": "dog", "split": "val", "group": 7}).encode()),
            ("b/2.txt", b"a caption"),
        ],
    )
    data = shard("s-1.tar", [("3.png", b"3"), ("3.json", b'{"cls": "cat"}'), ("4.webp", b"4"), ("4.cls", b"dog")])
    dataset = open_dataset(data.with_name("s-{0..1}.tar"))
    names = [sample.path.removeprefix(str(data.parent)) for sample in dataset.samples]
    assert names == ["/s-0.tar/b/1.JPG", "/s-0.tar/b/2.jpg", "/s-1.tar/3.png", "/s-1.tar/4.webp"]
    assert labels_of(dataset) == ["cat", "dog", "cat", "dog"]
    assert [sample.split for sample in dataset.samples] == ["train", "validation", "train", "train"]
    assert [sample.group for sample in dataset.samples] == [None, "7", None, None]
    assert dataset.skipped == {".txt": 1}
    with open_image_file(dataset.samples[2].path, 100) as (file, stamp):
        assert (file.read(), stamp.size) == (b"3", 1)


def test_unusable_files_are_skipped_and_counted(shard):
    good = [(f"{label}{number}{suffix}", content) for label in "ab" for number in range(2)
            for suffix, content in ((".jpg", b"x"), (".cls", label.encode()))]  # fmt: skip
    odd = [
        (special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (special("device.jpg", tarfile.CHRTYPE), b""),
        (special("folder", tarfile.DIRTYPE), b""),
        ("../out.jpg", b"x"),
        ("/root.jpg", b"x"),
        ("._a0.jpg", b"x"),
        ("a0.jpg", b"another"),
        ("unlabeled.jpg", b"x"),
        ("two.jpg", b"x"),
        ("two.png", b"x"),
        ("odd.jpg", b"x"),
        ("odd.json", b'{"label": [1, 2]}'),
    ]
    dataset = open_dataset(shard("s.tar", good + odd))
    assert labels_of(dataset) == ["a", "a", "b", "b"]
    assert dataset.skipped == {
        "no ordinary files": 2,
        "names that lead out of their tar": 2,
        "._*": 1,
        "names that come twice": 1,
        "images without a class": 2,
        "images that share a key": 2,
    }


def test_damaged_and_compressed_tars_are_rejected(shard, tmp_path):
    whole = shard("whole.tar", [(f"{number}.jpg", b"x" * 600) for number in range(9)]).read_bytes()
    for name, content, message in [
        ("inside.tar", whole[:700], "not a complete tar"),
        ("header.tar", whole[:1800], "not a complete tar"),
        ("between.tar", whole[: 9 * 1536], "truncated or damaged at byte"),
        ("flipped.tar", whole[:1540] + b"~" + whole[1541:], "truncated or damaged at byte"),
        ("text.tar", b"not a tar" * 99, "not a complete tar"),
        ("empty.tar", b"", "not a complete tar"),
        ("packed.tar.gz", b"\x1f\x8b", "compressed"),
        ("packed.tar", gzip.compress(whole), "compressed"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_dataset(tmp_path / name)
        with pytest.raises(DataError, match=message):
            list(PredictionInputs((str(tmp_path / name),), io.BytesIO()))


def test_a_huge_header_is_rejected(tmp_path):
    info = special("x", tarfile.XHDTYPE)
    info.size = 2**33
    (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(DataError, match="a header of"):
        open_dataset(tmp_path / "s.tar")


def test_missing_shards_are_counted(shard):
    data = shard("s-0.tar", [("1.jpg", b"x")])
    with pytest.raises(DataError, match=r"s-1.tar does not exist \(2 of 3 shards\)"):
        list(PredictionInputs((str(data.with_name("s-{0..2}.tar")),), io.BytesIO()))


def test_paths_identify_images_in_a_tar(shard, draw, tmp_path):
    names = ["plain.jpg", "deep/er.jpg", "new\nline.jpg", "\udcff.jpg", "x" * 150 + ".jpg"]
    files = [(name, draw(tmp_path / "one.jpg", seed).read_bytes()) for seed, name in enumerate(names)]
    path = str(shard("s.tar", files))
    listed = list(PredictionInputs((path,), io.BytesIO()))
    assert listed == [f"{path}/{name}" for name in names]
    digests = [read_image(image, DecodeOptions()).digest for image in listed]
    assert len(set(digests) - {None}) == len(names)
    for image, digest in zip(listed, digests, strict=True):
        (again,) = PredictionInputs((str(image),), io.BytesIO())
        assert read_image(again, DecodeOptions()).digest == digest
    (gone,) = PredictionInputs(("-",), io.BytesIO(f"{path}/gone.jpg\n".encode()))
    assert "cannot be read" in read_image(gone, DecodeOptions()).error


def test_a_table_may_name_images_in_shards(shard, tmp_path):
    shard("s.tar", [("a.jpg", b"1"), ("b.jpg", b"2")])
    (tmp_path / "table.csv").write_text("path,label\ns.tar/a.jpg,x\ns.tar/b.jpg,y\n")
    dataset = open_dataset(tmp_path / "table.csv")
    assert [read_image(sample.path, DecodeOptions()).stamp.size for sample in dataset.samples] == [1, 1]
    (tmp_path / "table.csv").write_text("path,label\ns.tar/a.jpg,x\ns.tar/c.jpg,y\n")
    with pytest.raises(DataError, match="1 of the 2 paths"):
        open_dataset(tmp_path / "table.csv")


def test_a_changed_tar_is_detected(shard, tmp_path):
    path = shard("s.tar", [("a.jpg", b"1")])
    (image,) = PredictionInputs((str(path),), io.BytesIO())
    Path(path).write_bytes(path.read_bytes())
    assert "was changed while it was read" in read_image(image, DecodeOptions()).error
