"""Measure the search of similar: milliseconds per query, recall against brute force in float64, and resident memory.

usage: python benchmarks/similar.py FOLDER [COUNT] [FEATURES.parquet]      (default: 1000000)
Makes a feature cache of COUNT vectors of 1,280 values in FOLDER (5 GB for a million), which is used again: normally
distributed or, with FEATURES.parquet (`tlcli cache-features DATA --export FEATURES.parquet`), its features mixed in
pairs. Queries are new vectors of the same kind. Memory is that of this process, with torch.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from measure import machine, table

from tlcli.features.nearest import QUERIES, NearestImages
from tlcli.features.store import FeatureStore

WIDTH, TOP, SINGLE = 1280, 10, 40
"""Values of a vector, neighbors, and queries that are answered one by one."""


def draw(generator, count, real):
    """Return float32 [count, WIDTH]: normal, or two of `real` mixed, with noise where they are not zero."""
    if real is None:
        return generator.standard_normal((count, WIDTH), dtype=np.float32)
    one, other = (real[generator.integers(0, len(real), count)] for _ in range(2))
    share = generator.uniform(0.5, 1, (count, 1)).astype(np.float32)
    noise = generator.uniform(0.8, 1.2, (count, WIDTH)).astype(np.float32)
    return (share * one + (1 - share) * other) * noise


def key(number):
    return number.to_bytes(32, "big")


def open_store(folder, count, real):
    """Return the store, filled if it is new."""
    kind = "normal" if real is None else f"mixed from {len(real)}"
    store = FeatureStore(folder, {"format": 1, "backbone": "benchmark", "count": count, "kind": kind}, (WIDTH,))
    if len(store) < count:
        generator = np.random.default_rng(0)
        with store.writing():
            for start in range(0, count, 4096):
                for number, vector in enumerate(draw(generator, min(4096, count - start), real), start):
                    store.add(key(number), 0, vector)
    return store


def resident():
    """Return the resident memory and its maximum so far in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in lines if line.endswith("kB")}
    return found["VmRSS"], found["VmHWM"]


def brute_force(read, count, queries):
    """Return the nearest images of each query by cosines in float64, read block by block: int [Q, TOP]."""
    cosines, others = np.empty((len(queries), count)), queries.astype(np.float64)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    for start in range(0, count, 4096):
        features = read(np.arange(start, min(start + 4096, count))).astype(np.float64)
        cosines[:, start : start + len(features)] = others @ features.T / np.linalg.norm(features, axis=1)
    return np.argsort(-cosines.round(12), axis=1, kind="stable")[:, :TOP]


folder = Path(sys.argv[1])
count = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
real = None
if len(sys.argv) > 3:
    column = pq.read_table(sys.argv[3], columns=["feature"])["feature"].combine_chunks()
    real = column.flatten().to_numpy().astype(np.float32).reshape(-1, WIDTH)
started = time.monotonic()
store = open_store(folder, count, real)
store.release()
opened = time.monotonic() - started
places = store.places((key(number), 0) for number in range(count))
compared = []


def read(rows):
    compared.append(len(rows))
    return store.read(places[rows])


started = time.monotonic()
index = NearestImages(read, count, release=store.release, folder=folder)
built = time.monotonic() - started
queries = draw(np.random.default_rng(1), SINGLE + 4 * QUERIES, real)
index.search(queries[:1], TOP)
compared.clear()
walls, cpus, found = [], [], []
for query in queries[:SINGLE]:
    wall, cpu = time.perf_counter(), time.process_time()
    found += index.search(query[None], TOP)
    walls.append(1e3 * (time.perf_counter() - wall))
    cpus.append(1e3 * (time.process_time() - cpu))
exactly = sum(compared) / SINGLE
wall, cpu = time.perf_counter(), time.process_time()
index.search(queries[SINGLE:], TOP)
together = [1e3 * value / (len(queries) - SINGLE) for value in (time.perf_counter() - wall, time.process_time() - cpu)]
now, most = resident()
expected = brute_force(read, count, queries[:10])
right = np.mean([list(one.images) == list(other) for one, other in zip(found, expected, strict=False)])
recall = np.mean([len(set(one.images) & set(other)) / TOP for one, other in zip(found, expected, strict=False)])
print(machine(), "\n")
rows = [
    ["vectors", f"{count:,} x {WIDTH:,}, {'normal' if real is None else 'mixed features'}"],
    ["open, with checksums", f"{opened:.1f} s"],
    ["index", f"{built:.1f} s"],
    [
        "one query: median, p90, best",
        f"{statistics.median(walls):.0f}, {np.quantile(walls, 0.9):.0f}, {min(walls):.0f} ms",
    ],
    ["one query: processor time, median", f"{statistics.median(cpus):.0f} ms"],
    [f"{QUERIES} queries together, each", f"{together[0]:.0f} ms, processor time {together[1]:.0f} ms"],
    ["vectors compared exactly, per query", f"{exactly:,.0f}"],
    ["recall of 10, same order", f"{recall:.4f}, {right:.4f} of 10 queries"],
    ["resident memory, maximum", f"{now:,.0f} MB, {most:,.0f} MB"],
]
print(table(["", "result"], rows))
