"""Count requests and predictions, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from tlcli.web.security import App, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper limits of the histogram of latency, in seconds."""
RECENT = 1000
"""Images over which the share of unknown ones is computed."""
MEASURED = "/v1/predict"
OTHER = "other"


class Metrics:
    """Counts of one server. Belongs to one event loop."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._latencies = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._statuses: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests[path if path in self._paths else OTHER, status] += 1
        if path == MEASURED:
            self._latencies[next((at for at, limit in enumerate(BUCKETS) if seconds <= limit), len(BUCKETS))] += 1
            self._seconds += seconds

    def count_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count rows of predictions."""
        for row in rows:
            self._statuses[row["status"]] += 1
            if row["label"] is not None:
                self._labels[row["label"]] += 1
                self._recent.append(row["status"] == "unknown")

    def text(self, *, in_progress: int, run: str, digest: str) -> str:
        """Return all metrics.

        Args:
            in_progress: Images that are waiting or computed.
            run: The name of the run.
            digest: Its SHA-256.
        """
        return "".join(f"{line}\n" for line in self._lines(in_progress, run, digest))

    def _lines(self, in_progress: int, run: str, digest: str) -> Iterator[str]:
        yield from _head("tlcli_run_info", "gauge", "The run that is served.")
        yield _sample("tlcli_run_info", 1, run=run, sha256=digest)
        yield from _head("tlcli_requests_total", "counter", "Requests by path and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield _sample("tlcli_requests_total", count, path=path, status=str(status))
        yield from _head("tlcli_request_seconds", "histogram", f"Time to answer a request to {MEASURED}.")
        total = 0
        for limit, count in zip((*map(str, BUCKETS), "+Inf"), self._latencies, strict=True):
            total += count
            yield _sample("tlcli_request_seconds_bucket", total, le=limit)
        yield _sample("tlcli_request_seconds_sum", round(self._seconds, 6))
        yield _sample("tlcli_request_seconds_count", total)
        yield from _head("tlcli_images_in_progress", "gauge", "Images that are waiting or computed.")
        yield _sample("tlcli_images_in_progress", in_progress)
        yield from _head("tlcli_images_total", "counter", "Images by the status of their row.")
        for kind, count in sorted(self._statuses.items()):
            yield _sample("tlcli_images_total", count, status=kind)
        yield from _head("tlcli_labels_total", "counter", "Images by predicted class, whatever their status.")
        for label, count in sorted(self._labels.items()):
            yield _sample("tlcli_labels_total", count, label=label)
        yield from _head("tlcli_unknown_ratio", "gauge", f"Share of unknown images among the last {RECENT:,} readable.")
        share = sum(self._recent) / len(self._recent) if self._recent else 0.0
        yield _sample("tlcli_unknown_ratio", round(share, 6))


class Measured:
    """ASGI middleware that counts requests, those that are refused included."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        started = time.perf_counter()
        status = 500

        async def counting_send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, counting_send)
        finally:
            if scope["type"] == "http":
                self._metrics.count_request(scope["path"], status, time.perf_counter() - started)


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, value: float, **labels: str) -> str:
    named = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{named}}} {value}" if named else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
