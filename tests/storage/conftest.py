"""An S3 service on loopback, and images in it."""

from __future__ import annotations

import pytest
from s3_server import Faults, Server


@pytest.fixture(scope="session")
def service():
    """The server, and the environment in which it is everybody's S3."""
    with pytest.MonkeyPatch.context() as patch:
        server = Server()
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-somebody")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_MAX_ATTEMPTS"):
            patch.delenv(name, raising=False)
        yield server
        server.stop()


@pytest.fixture
def faults(service):
    """What goes wrong during this test; nothing at first."""
    service.faults = Faults()
    yield service.faults
    service.faults = Faults()


@pytest.fixture(scope="session")
def s3(service):
    """An S3 file system to prepare buckets with, by a client that has nothing to do with tlcli's."""
    import s3fs

    system = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    system.mkdir("bucket")
    return system


@pytest.fixture(scope="session")
def remote_photos(s3, photos):
    """The images of `photos` at a URL."""
    s3.put(str(photos), "bucket/photos", recursive=True)
    return "s3://bucket/photos"
