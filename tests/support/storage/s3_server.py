"""S3 servers of this host, as processes.

moto starts within a second and keeps objects in memory. SeaweedFS is what clusters use, with all
of its services in one process; `make lab` installs it. rclone ignores conditions of writes.

def test_it(s3_server: S3Server, s3_environment: None) -> None:     # fixtures of conftest.py
    store = ObjectStore(s3_server.bucket("runs") + "/prefix")

run_in_a_process(..., env=os.environ | s3_server.environment)
"""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Self

import boto3
import obstore.store
import pytest

from foundation.free_ports import free_port

KEY_ID, SECRET_KEY = "AKIAMOTOCANARY000001", "m0t0-CANARY-secret-0123456789abcdef"
# Tests with SeaweedFS are part of `make lab`.
USES_SEAWEEDFS = os.environ.get("TRANSLOOM_TEST_S3") == "seaweedfs"
only_moto = pytest.mark.skipif(USES_SEAWEEDFS, reason="the test depends on how moto answers")
LISTED_AT_ONCE = 10  # objects per page of a list; moto then lists in several pages, as S3 does


def environment_of(url: str) -> dict[str, str]:
    """Return the environment that makes clients use a server: its address and a key."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class S3Server:
    """A server with one process, which ends with the context.

    Attributes:
        url: its address, http://127.0.0.1:PORT.
        environment: variables for processes that use it.
    """

    def __init__(self, *command: str, ready: str) -> None:
        """ready: a pattern that matches the server's output when it is ready; group 1 is its
        address or port."""
        environment = os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": str(LISTED_AT_ONCE)}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if found := re.search(ready, line):
                break
        else:
            self._process.wait()
            raise AssertionError(f"{command} has ended: {''.join(lines)}")
        # If no process reads the log, the pipe fills and the server blocks.
        self._log = subprocess.Popen(["cat"], stdin=self._process.stdout, stdout=subprocess.DEVNULL)
        self._process.stdout.close()
        address = found[1].rstrip("/")
        self.url = f"http://127.0.0.1:{address}" if address.isdecimal() else address
        self.environment = environment_of(self.url)
        self._numbers = itertools.count(1)

    @classmethod
    def moto(cls) -> Self:
        program = str(Path(__file__).with_name("moto_program.py"))
        address = ("-H", "127.0.0.1", "-p", "0")
        return cls(sys.executable, program, *address, ready=r"Running on (http://\S+)")

    @classmethod
    def seaweedfs(cls, folder: Path) -> Self:
        """Server that keeps its objects in `folder`."""
        key = {"accessKey": KEY_ID, "secretKey": SECRET_KEY}
        owner = {"name": "owner", "credentials": [key], "actions": ["Admin"]}
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [owner]}))
        services = ("master", "volume", "filer", "s3")
        ports = [
            f"-{service}.port{kind}={free_port()}" for service in services for kind in ("", ".grpc")
        ]
        return cls(
            *(str(Path(sys.executable).with_name("weed")), "-logtostderr", "server"),
            *(f"-dir={folder}", "-ip=127.0.0.1", "-master.telemetry=false", "-volume.max=100000"),
            *("-s3", "-s3.autoCreateBucket=false", f"-s3.config={config}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", *ports),
            ready=r"Start Seaweed S3 API Server .* at http port (\d+)",
        )

    @classmethod
    def rclone(cls, folder: Path) -> Self:
        """Server that keeps its buckets as folders in `folder`."""
        rclone = str(Path(sys.executable).with_name("rclone"))
        return cls(
            *(rclone, "serve", "s3", str(folder), "--addr", "127.0.0.1:0"),
            *("--auth-key", f"{KEY_ID},{SECRET_KEY}", "--config", "/nonexistent"),
            ready=r"(http://127\.0\.0\.1:[1-9]\d*)",
        )

    def bucket(self, name: str) -> str:
        """Create a bucket whose name has this beginning, and return its URL."""
        bucket = f"{name}-{next(self._numbers)}"
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        return f"s3://{bucket}"

    def client(self, bucket_url: str) -> obstore.store.S3Store:
        """Return a second client, with which tests add and inspect objects."""
        return obstore.store.S3Store(
            bucket_url.removeprefix("s3://"),
            endpoint=self.url,
            access_key_id=KEY_ID,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.wait()
