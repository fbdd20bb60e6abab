"""An S3 server for tests: moto's, on loopback, with a bucket."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Self

import boto3
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

BUCKET = "results"
CONNECTION_VARIABLE = "AIRFLOW_CONN_OCEAN_S3"


class S3Server:
    """A running server; ``base`` is the artifact base that leads to it through the connection ``ocean_s3``."""

    base = f"s3://ocean_s3@{BUCKET}/ocean"

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "tester's secret"}
        self.client: Any = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)
        self.client.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.stop()

    @property
    def connection(self) -> str:
        """The Airflow connection in JSON form."""
        return json.dumps(
            {
                "conn_type": "aws",
                "login": "tester",
                "password": "tester's secret",
                "extra": {"endpoint_url": self.url, "region_name": "us-east-1"},
            }
        )

    def uploads(self) -> list[str]:
        """Return the keys of uploads in parts that were begun and neither completed nor given up."""
        listed = self.client.list_multipart_uploads(Bucket=BUCKET)
        return [upload["Key"] for upload in listed.get("Uploads", [])]

    def sizes(self, folder: ObjectStoragePath) -> dict[str, int]:
        """Return name and size of each object of a folder."""
        prefix = f"{folder.key}/"
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return {item["Key"].removeprefix(prefix): item["Size"] for item in listed.get("Contents", [])}
