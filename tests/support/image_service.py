# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Glance's image API, as much of it as is asked for, where an image's every byte is the test's to choose."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import urllib.parse
import uuid
from typing import Any

from accelsched import wire


class ImageService:
    """Glance's image API, as much of it as an agent asks for, on a loopback port."""

    def __init__(self) -> None:
        self.images: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.downloads: list[str] = []
        self.uploads: list[str] = []
        self.refuses_uploads = False
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                parts = path.strip("/").split("/")
                if parts == ["v2", "images"]:
                    wanted = dict(urllib.parse.parse_qsl(query))
                    records = [record for record, _ in service.images.values() if wanted.items() <= record.items()]
                    self._answer(200, json.dumps({"images": records}).encode())
                    return
                record, data = (
                    service.images.get(parts[2], (None, b"")) if parts[:2] == ["v2", "images"] else (None, b"")
                )
                body = data if parts[-1] == "file" else json.dumps(record).encode()
                if parts[-1] == "file":
                    service.downloads.append(parts[2])
                self.send_response(404 if record is None else 200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PATCH(self) -> None:
                record, _ = service.images[self.path.strip("/").split("/")[2]]
                for change in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
                    record[change["path"].strip("/")] = change["value"]
                self._answer(200, json.dumps(record).encode())

            def do_PUT(self) -> None:
                image_id = self.path.strip("/").split("/")[2]
                data = b""
                while length := int(self.rfile.readline(), 16):
                    data += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
                record, _ = service.images[image_id]
                service.uploads.append(image_id)
                if service.refuses_uploads:
                    self._answer(403, b"")
                    return
                service.images[image_id] = (record | {"status": "active", "size": len(data)}, data)
                self._answer(204, b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, data: bytes, disk_format: str, **properties: str) -> wire.ImageSpec:
        image_id = str(uuid.uuid4())
        record = {
            "id": image_id,
            "name": "test image",
            "status": "active",
            "disk_format": disk_format,
            "size": len(data),
            "os_hash_algo": "sha512",
            "os_hash_value": hashlib.sha512(data).hexdigest(),
        }
        # Glance shows properties beside what it says itself.
        self.images[image_id] = (record | {"visibility": "public"} | properties, data)
        return {
            "id": image_id,
            "name": "test image",
            "disk_format": disk_format,
            "size": len(data),
            "min_disk_gb": 0,
            "min_ram_mb": 0,
            "os_hash_algo": "sha512",
            "os_hash_value": record["os_hash_value"],
            "properties": properties,
        }

    def queued(self) -> str:
        """Make an image that is to be filled; return its id."""
        image_id = str(uuid.uuid4())
        self.images[image_id] = ({"id": image_id, "status": "queued", "disk_format": None}, b"")
        return image_id

    def spec(self, image_id: str, **properties: str) -> wire.ImageSpec:
        """Return an image that was filled as a server is made of it."""
        record, data = self.images[image_id]
        return self.add(data, record["disk_format"], **properties)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
