"""Measure `tlcli serve` against `tlcli predict`, against bare decoding and computing, and its memory.

usage: python benchmarks/serve.py speed RUN IMAGES [SECONDS [ROUNDS]]      (default: 3 rounds of 20 seconds)
       python benchmarks/serve.py memory RUN IMAGES [REQUESTS]             (default: 100,000)

Each round measures, one after the other: `predict`; 64 clients; decoding and computing one image at a time without a
server; and one client. Client and server share the cores.
"""

import json
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from measure import TLCLI, machine, run

from tlcli.images.batch import stack_images
from tlcli.images.worker import DecodeOptions, decode_file
from tlcli.inference.model import open_model
from tlcli.progress import Silent
from tlcli.runs.run import load_run

CLIENTS = 64
TOKEN = "a-token-for-benchmarks"
SUFFIXES = {".jpg", ".jpeg", ".png"}


class Server:
    """A `tlcli serve` process."""

    def __init__(self, folder):
        started = time.monotonic()
        command = [*TLCLI, "serve", folder, "--port", "0", "--token", TOKEN, "--quiet"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        url = urlsplit(json.loads(self.process.stdout.readline())["url"])
        self.start_seconds = time.monotonic() - started
        self.address = url.hostname, url.port

    def memory(self):
        """Resident memory in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def stop(self):
        """Stop it, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def requests_of(images):
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n"
    return [head.format(TOKEN, len(image)).encode() + image for image in images]


class Client:
    """A connection that always has one request in progress."""

    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.received = b""

    def send(self, request):
        """Send a request."""
        self.started = time.perf_counter()
        self.socket.sendall(request)

    def receive(self):
        """Return the status once the response is complete, else None."""
        self.received += self.socket.recv(65536)
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return None
        self.received = b""
        return int(head.split()[1])


def load(server, requests, clients, seconds):
    """Keep the server busy; return seconds of each request, failures, and requests per second."""
    taken, failed, number = [], 0, 0
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = Client(server.address)
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.send(requests[number % len(requests)])
            number += 1
        started = time.perf_counter()
        while (now := time.perf_counter()) - started < seconds:
            for key, _ in selector.select(1):
                client = key.data
                status = client.receive()
                if status is not None:
                    taken.append(time.perf_counter() - client.started)
                    failed += status != 200
                    client.send(requests[number % len(requests)])
                    number += 1
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return np.array(taken), failed, len(taken) / (now - started)


def bare(loaded, images, seconds):
    """Decode and compute one image at a time; return seconds of each."""
    model = open_model(loaded, device="cpu", engine="auto", batch_size=1, report=Silent())
    options, shape, taken = DecodeOptions(preprocessing=loaded.preprocessing), loaded.preprocessing.shape, []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        image = decode_file(images[len(taken) % len(images)], options)
        model.run(stack_images([image.pixels], shape))
        taken.append(time.perf_counter() - started)
    return np.array(taken)


def in_milliseconds(taken):
    return " / ".join(f"{1000 * value:.1f}" for value in np.percentile(taken, [50, 99]))


def speed(folder, data, seconds="20", rounds="3"):
    images, loaded, seconds = read(data), load_run(Path(folder)), float(seconds)
    requests, server, total = requests_of(images), Server(folder), 0
    load(server, requests, CLIENTS, 3)
    print(f"{len(images)} images; the server listened after {server.start_seconds:.2f} s\n")
    columns = ["predict images/s", "64 clients", "ratio", "p50 / p99 ms", "bare p50 / p99 ms", "1 client p50 / p99 ms"]
    print(f"| {' | '.join([*columns, 'ratio of p50', 'failed', 'requests', 'MB'])} |\n|{' --- |' * 10}")
    for _ in range(int(rounds)):
        predicted = json.loads(run([*TLCLI, "predict", folder, data, "--json", "--quiet"])[1])["images_per_second"]
        many, failed, rate = load(server, requests, CLIENTS, seconds)
        alone = bare(loaded, images, seconds / 2)
        one, failed_alone, _ = load(server, requests, 1, seconds / 2)
        total += len(many) + len(one)
        cells = [f"{predicted:.0f}", f"{rate:.0f}", f"{rate / predicted:.2f}", in_milliseconds(many)]
        cells += [in_milliseconds(alone), in_milliseconds(one), f"{np.median(one) / np.median(alone):.2f}"]
        cells += [f"{failed + failed_alone}", f"{total:,}", f"{server.memory():.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    server.stop()


def memory(folder, data, count="100000"):
    requests, server, total, failures = requests_of(read(data)), Server(folder), 0, 0
    print("| requests | failed | MB |\n| --- | --- | --- |")
    while total < int(count):
        taken, failed, _ = load(server, requests, CLIENTS, 10)
        total, failures = total + len(taken), failures + failed
        print(f"| {total:,} | {failures} | {server.memory():.1f} |", flush=True)
    server.stop()


def read(data):
    paths = [path for path in sorted(Path(data).rglob("*")) if path.suffix.lower() in SUFFIXES]
    return [path.read_bytes() for path in paths]


print(machine(), end="\n\n")
{"speed": speed, "memory": memory}[sys.argv[1]](*sys.argv[2:])
