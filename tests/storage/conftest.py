"""An S3 server on the loopback address, with images."""

from __future__ import annotations

import pytest
from s3_server import Faults, Server


@pytest.fixture(scope="session")
def service():
    """A server, and environment variables that make it the S3 endpoint."""
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
    """Faults of the server during this test; none at first."""
    service.faults = Faults()
    yield service.faults
    service.faults = Faults()


@pytest.fixture(scope="session")
def s3(service):
    """An S3 file system for preparing buckets, independent of tlcli's client."""
    import s3fs

    system = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    system.mkdir("bucket")
    return system


@pytest.fixture(scope="session")
def remote_photos(s3, photos):
    """The images of `photos` at a URL."""
    s3.put(str(photos), "bucket/photos", recursive=True)
    return "s3://bucket/photos"
