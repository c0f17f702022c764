"""`--cluster`: a local cluster of two workers gives the same result as one process, even if a worker dies."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import shutil
import signal
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tlcli.cluster.part_folder import INDEX, part_path
from tlcli.cluster.ray_cluster import ClusterRequest, ray_cluster
from tlcli.cluster.streaming import _portable, stream
from tlcli.commands.cache_features import cache_features
from tlcli.commands.predict import predict
from tlcli.errors import ArtifactError, DataError, MachineError, UsageError
from tlcli.progress import Silent
from tlcli.settings import (
    CacheFeaturesSettings,
    CacheSettings,
    ClusterSettings,
    NetworkSettings,
    PredictSettings,
)

# Ray Data copies its own settings, deprecated ones too.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.data\.context")

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 in /proc/net/tcp, and in tcp6."""
LISTENING = "0A"


@pytest.fixture(scope="module")
def cluster():
    """Two workers with one core each, for all tests of this module."""
    if importlib.util.find_spec("ray") is None:  # without importing it, which would configure its logging
        pytest.skip("needs ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr("tlcli.cluster.ray_cluster.cores", lambda: 2)
        with ray_cluster(ClusterRequest(address="auto", cores=1, device="cpu"), Silent()) as found:
            assert (found.workers, found.cores, found.gpus) == (2, 1, 0)
            yield found


@pytest.fixture
def inbox(photos, tmp_path, monkeypatch):
    """Twenty-three images, one of them damaged, relative to the working directory."""
    for path in sorted(photos.rglob("*.jpg"))[::2]:
        target = tmp_path / "inbox" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "inbox" / "disc" / "00.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return "inbox"


def predict_on_cluster(trained, inbox, report=None, out="parts", size=4, **changes):
    settings = ClusterSettings(cores=1, part_size=size)
    return predict(PredictSettings(run=trained.run, inputs=(inbox,), out=out, cluster=settings, **changes), report)


def processes_below(ancestor):
    """Return the command line of each descendant process by process ID."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")

    def is_below(process):
        while process in parents:
            process = parents[process]
            if process == ancestor:
                return True
        return False

    return {process: names[process] for process in parents if is_below(process)}


class WorkerKiller(Silent):
    """A reporter that kills a worker when the first part is done."""

    def __init__(self):
        self.killed = None

    @contextlib.contextmanager
    def task(self, name, total, unit="images"):
        def advance(more):
            if more and self.killed is None:
                found = processes_below(os.getpid())
                self.killed = next(process for process, name in found.items() if name.startswith("ray::MapWorker"))
                os.kill(self.killed, signal.SIGKILL)

        yield advance


@pytest.mark.slow
def test_rows_equal_those_of_one_process_although_a_worker_dies(cluster, trained, inbox, capfd):
    del cluster
    whole = predict(PredictSettings(run=trained.run, inputs=(inbox,), out="whole.parquet", min_confidence=0.9))
    report = WorkerKiller()
    result = predict_on_cluster(trained, inbox, report, min_confidence=0.9)
    assert report.killed
    assert sorted(path.name for path in Path("parts").iterdir()) == [
        INDEX,
        *(f"part-{number:05d}.parquet" for number in range(6)),
    ]
    expected = pq.read_table("whole.parquet")
    assert pq.read_table("parts").equals(expected), "readers of a folder read the parts in order, and no other files"
    assert [pq.read_metadata(part_path(Path("parts"), number)).num_rows for number in range(6)] == [4] * 5 + [3]
    for field in ("images", "labels", "review", "unknown", "failed", "failures"):
        assert getattr(result, field) == getattr(whole, field)
    assert capfd.readouterr() == ("", ""), "Ray prints nothing"


@pytest.mark.slow
def test_resume_computes_only_missing_and_damaged_parts(cluster, trained, inbox, report):
    del cluster
    first = predict_on_cluster(trained, inbox)
    parts = [part_path(Path("parts"), number) for number in range(6)]
    before = [pq.read_table(part) for part in parts]
    times = [part.stat().st_mtime_ns for part in parts]
    parts[1].unlink()
    damaged = bytearray(parts[4].read_bytes())
    damaged[damaged.index(b"inbox")] ^= 1
    parts[4].write_bytes(damaged)
    (parts[2].with_name(".part-00002.parquet.killed.tmp")).touch()

    with pytest.raises(UsageError, match="is not empty"):
        predict_on_cluster(trained, inbox)
    with pytest.raises(ArtifactError, match="top"):
        predict_on_cluster(trained, inbox, top=2, resume=True)
    with pytest.raises(ArtifactError, match="part_size"):
        predict_on_cluster(trained, inbox, size=5, resume=True)
    again = predict_on_cluster(trained, inbox, report, resume=True)
    assert (again.images, again.labels, again.failed) == (first.images, first.labels, first.failed)
    assert [pq.read_table(part) for part in parts] == before
    assert [part.stat().st_mtime_ns == time for part, time in zip(parts, times, strict=True)] == [
        number not in {1, 4} for number in range(6)
    ]
    assert any("part-00004.parquet is damaged" in text for text in report.warnings)

    assert predict_on_cluster(trained, inbox, resume=True).was_finished
    Path("inbox/disc/00.jpg").unlink()
    with pytest.raises(ArtifactError, match="inputs"):
        predict_on_cluster(trained, inbox, resume=True)
    assert predict_on_cluster(trained, inbox, overwrite=True).images == first.images - 1


@pytest.mark.slow
def test_features_equal_those_of_one_process(cluster, photos, tmp_path):
    del cluster
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    shutil.copy(data / "disc" / "00.jpg", data / "disc" / "copy.jpg")
    (data / "stripes" / "broken.jpg").write_bytes(b"no image")

    def features(name, **changes):
        return cache_features(
            CacheFeaturesSettings(
                data=data,
                network=NetworkSettings(size=64),
                cache=CacheSettings(directory=tmp_path / name),
                export=tmp_path / f"{name}.parquet",
                overwrite=True,
                **changes,
            )
        )

    one = features("one")
    settings = ClusterSettings(cores=1, part_size=12)
    many = features("many", cluster=settings)
    for key in ("images", "computed", "reused", "failed", "failures", "feature_shape"):
        assert many[key] == one[key], key
    assert (many["computed"], many["reused"], many["failed"]) == (45, 1, 1)
    assert pq.read_table(tmp_path / "many.parquet").equals(pq.read_table(tmp_path / "one.parquet"))
    (data / "stripes" / "broken.jpg").unlink()
    again = features("many", cluster=settings)
    assert (again["computed"], again["reused"], again["failed"]) == (0, 46, 0)


class PickyError(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_errors_that_cannot_be_pickled_arrive_as_text():
    error = PickyError("this", "that")
    error.add_note("where it was")
    sent = pickle.loads(pickle.dumps(_portable(error)))
    assert str(sent) == "PickyError: this and that"
    assert sent.__notes__ == ["where it was"]


@pytest.mark.slow
def test_errors_of_workers_are_raised(cluster):
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def worker():
        def answer(task):
            raise DataError("the disk of this machine is upside down.", path=task)

        return answer

    with pytest.raises(DataError, match="upside down") as caught:
        list(stream(cluster, worker, ["/somewhere"]))
    assert caught.value.path == "/somewhere"


def test_local_cluster_listens_only_on_the_loopback_address(cluster):
    del cluster
    ours = {
        str(link.readlink())
        for process in [os.getpid(), *processes_below(os.getpid())]
        for link in Path(f"/proc/{process}/fd").glob("*")
        if os.path.lexists(link)
    }
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    listening = [row[1].split(":")[0] for row in rows if row[3] == LISTENING and f"socket:[{row[9]}]" in ours]
    assert listening
    assert set(listening) <= LOOPBACK


def test_without_ray_the_error_names_the_package_to_install(trained, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MachineError, match=r"pip install 'tlcli\[ray\]'"):
        predict_on_cluster(trained, str(photos), out=str(tmp_path / "parts"))


@pytest.mark.parametrize(("out", "message"), [("rows.csv", "expected a folder"), ("no/parts", "does not exist")])
def test_invalid_output_folder_is_refused_first(trained, photos, tmp_path, out, message):
    with pytest.raises(UsageError, match=message):
        predict_on_cluster(trained, str(photos), out=str(tmp_path / out))
