# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Images over real HTTP into the cache, and disks made of them by the real qemu-img."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accelsched import errors
from accelsched.agent.images import Image, ImageClient
from accelsched.agent.virt.base import BuildError, InterruptedBuildError
from accelsched.agent.virt.libvirt import storage, unused


class Glance:
    """An image service that can be slow, break off, and lie."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.delay_s = 0.0
        self.breaks = 0  # downloads that end in the middle
        self.refuses = 0  # requests that are answered 503
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        time.sleep(self.delay_s)
        data = self.data.get(handler.path.split("/")[3])
        if self.refuses > 0:
            self.refuses -= 1
            handler.send_error(503)
        elif data is None:
            handler.send_error(404)
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            if self.breaks > 0:
                self.breaks -= 1
                data = data[: len(data) // 2]
            handler.wfile.write(data)

    def add(self, data: bytes, disk_format: str = "raw", **changes: Any) -> Image:
        image_id = str(uuid.uuid4())
        self.data[image_id] = data
        fields = {"size": len(data), "hash_algorithm": "sha512", "hash_value": hashlib.sha512(data).hexdigest()}
        return Image(**{"id": image_id, "disk_format": disk_format, **fields, **changes})


@pytest.fixture
def glance() -> Iterator[Glance]:
    service = Glance()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def client(glance: Glance, tmp_path: Path, options_for: Callable[..., Any]) -> ImageClient:
    conf = options_for(tmp_path)
    conf.set_override("endpoint_override", f"http://127.0.0.1:{glance.server.server_port}", group="glance")
    return ImageClient(conf)


@pytest.fixture
def cache(client: ImageClient, tmp_path: Path) -> storage.ImageCache:
    return storage.ImageCache(tmp_path / "_base", client, max_bytes=1 << 22)


@pytest.fixture
def qcow2(tmp_path: Path) -> bytes:
    return make(tmp_path, "-f", "qcow2", size="8M")


def make(directory: Path, *options: str, size: str = "1M") -> bytes:
    path = directory / "made"
    subprocess.run(["qemu-img", "create", "-q", *options, str(path), size], check=True)
    data = path.read_bytes()
    path.unlink()
    return data


def go_on() -> None:
    """Nothing asks to stop."""


def left(cache_directory: Path) -> list[str]:
    """Return the files of images."""
    return sorted(path.name for path in cache_directory.glob("*") if path.suffix != ".used")


def test_an_image_is_downloaded_once_however_many_servers_want_it_at_once(
    glance: Glance, cache: storage.ImageCache
) -> None:
    glance.delay_s = 0.1
    image = glance.add(b"x" * 3_000_000)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(cache.fetch(image, go_on))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(glance.requests) == 1
    assert len(paths) == 8
    assert {path.read_bytes() for path in paths} == {b"x" * 3_000_000}
    assert left(paths[0].parent) == [image.id]


def test_contents_that_are_not_what_the_checksum_says_are_refused(glance: Glance, cache: Any, tmp_path: Path) -> None:
    image = glance.add(b"x" * 100, hash_value=hashlib.sha512(b"y").hexdigest())
    with pytest.raises(BuildError, match="sha512"):
        cache.fetch(image, go_on)
    assert left(tmp_path / "_base") == []


def test_an_unknown_kind_of_checksum_is_refused(glance: Glance, cache: Any) -> None:
    with pytest.raises(BuildError, match="crc7"):
        cache.fetch(glance.add(b"x", hash_algorithm="crc7"), go_on)


def test_more_bytes_than_announced_or_allowed_are_refused(glance: Glance, cache: Any, tmp_path: Path) -> None:
    for image in (
        glance.add(b"x" * 100, size=99),
        glance.add(b"x", size=1 << 30),
        glance.add(b"x" * (5 << 20), size=0),
    ):
        with pytest.raises(BuildError, match="bytes"):
            cache.fetch(image, go_on)
    assert left(tmp_path / "_base") == []


def test_a_download_that_broke_off_is_tried_again_a_few_times(glance: Glance, cache: Any, tmp_path: Path) -> None:
    glance.breaks = 2
    assert cache.fetch(glance.add(b"x" * 1000), go_on).read_bytes() == b"x" * 1000
    glance.breaks = 99
    with pytest.raises(BuildError, match="could not be downloaded") as caught:
        cache.fetch(glance.add(b"x" * 1000), go_on)
    assert isinstance(caught.value.__cause__, errors.UnavailableError)
    assert len(left(tmp_path / "_base")) == 1


def test_an_image_that_is_not_there_is_not_asked_for_again(glance: Glance, cache: Any) -> None:
    missing = glance.add(b"x")
    glance.data.clear()
    with pytest.raises(errors.NotFoundError):
        cache.fetch(missing, go_on)
    assert len(glance.requests) == 1


def test_a_service_that_is_away_for_a_moment_is_asked_again(glance: Glance, cache: Any) -> None:
    glance.refuses = 1
    assert cache.fetch(glance.add(b"x"), go_on).exists()


def test_without_any_image_service_the_build_says_so(options_for: Any, tmp_path: Path) -> None:
    cache = storage.ImageCache(tmp_path / "_base", ImageClient(options_for(tmp_path)), 1 << 20)
    with pytest.raises(BuildError, match="looked up"):
        cache.fetch_by_id(str(uuid.uuid4()), go_on)


def test_a_download_ends_when_the_server_is_not_wanted_any_more(glance: Glance, cache: Any, tmp_path: Path) -> None:
    checks = iter([None, InterruptedBuildError()])

    def check() -> None:
        outcome = next(checks)
        if outcome is not None:
            raise outcome

    with pytest.raises(InterruptedBuildError):
        cache.fetch(glance.add(b"x" * 3_000_000), check)
    assert left(tmp_path / "_base") == []


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "", "a" * 65])
def test_an_image_id_never_leads_out_of_the_cache(cache: Any, image_id: str) -> None:
    with pytest.raises(BuildError, match="image id"):
        cache.fetch_by_id(image_id, go_on)


def test_an_image_that_refers_to_another_file_of_the_host_is_refused(
    glance: Glance, cache: Any, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * (1 << 20))
    backed = make(tmp_path, "-f", "qcow2", "-b", str(tmp_path / "secret"), "-F", "raw")
    data_file = make(tmp_path, "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}")
    for data in (backed, data_file):
        with pytest.raises(BuildError, match="not safe"):
            cache.fetch(glance.add(data, "qcow2"), go_on)


def test_an_image_is_what_it_was_uploaded_as(glance: Glance, cache: Any, qcow2: bytes, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="contents are qcow2"):
        cache.fetch(glance.add(qcow2, "raw"), go_on)
    with pytest.raises(BuildError, match="contents are raw"):
        cache.fetch(glance.add(b"\0" * 4096, "qcow2"), go_on)
    with pytest.raises(BuildError, match="not supported"):
        cache.fetch(glance.add(make(tmp_path, "-f", "vmdk"), "vmdk"), go_on)


def test_a_disk_is_an_overlay_of_its_image_as_large_as_the_flavor_says(
    glance: Glance, cache: Any, qcow2: bytes, tmp_path: Path
) -> None:
    base = cache.fetch(glance.add(qcow2, "qcow2"), go_on)
    for size_gb, expected in ((0, 8 << 20), (2, 2 << 30)):
        disk = tmp_path / f"disk{size_gb}"
        storage.create_disk(disk, base, "qcow2", size_gb)
        info = storage.image_info(disk, "qcow2")
        assert info["virtual-size"] == expected
        assert info["backing-filename"] == str(base)
        assert info["backing-filename-format"] == "qcow2"


def test_a_disk_that_is_there_is_never_made_anew(glance: Glance, cache: Any, qcow2: bytes, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"precious")
    storage.create_disk(disk, None, "", 1)
    assert disk.read_bytes() == b"precious"


def test_an_image_that_nobody_used_for_long_is_removed_and_one_that_a_disk_stands_on_never(
    glance: Glance, cache: Any, qcow2: bytes, tmp_path: Path, assignment_for: Any
) -> None:
    kept, wanted, kernel, young, old = (glance.add(qcow2, "qcow2") for _ in range(5))
    day = 24 * 3600
    for image in (kept, wanted, kernel, old):
        cache.fetch(image, go_on)
        os.utime(cache.directory / f"{image.id}.used", (time.time() - 2 * day,) * 2)
    cache.fetch(young, go_on)
    instances = tmp_path / "instances"
    (instances / "gone-from-the-books").mkdir(parents=True)
    disk = instances / "gone-from-the-books" / "disk"
    storage.create_disk(disk, cache.directory / kept.id, "qcow2", 1)
    (instances / "gone-from-the-books" / "console.log").write_text("hello")
    server = assignment_for("node1", image={"id": wanted.id, "properties": {"kernel_id": kernel.id}})
    used = unused.images_in_use(instances, cache.directory, [server, assignment_for("node1")])
    assert used == {kept.id, wanted.id, kernel.id}
    assert cache.remove_unused(used, day) == [old.id]
    assert left(cache.directory) == sorted([kept.id, wanted.id, kernel.id, young.id])
    disk.unlink()
    used = unused.images_in_use(instances, cache.directory, [])
    assert (used, cache.remove_unused(used, day)) == (set(), [])  # they were in use a moment ago
    os.utime(cache.directory / f"{kept.id}.used", (time.time() - 2 * day,) * 2)
    assert cache.remove_unused(used, day) == [kept.id]


def test_an_image_that_libvirt_made_qemus_is_used_again_and_not_written_to(
    glance: Glance, cache: Any, qcow2: bytes
) -> None:
    image = glance.add(qcow2, "qcow2")
    path = cache.fetch(image, go_on)
    os.utime(path, (0, 0))  # which only its owner could do again
    assert cache.fetch(image, go_on) == cache.fetch_by_id(image.id, go_on) == path
    assert cache.remove_unused({image.id}, 60.0) == cache.remove_unused(set(), 60.0) == []
    assert path.stat().st_mtime == 0


def test_an_image_larger_than_the_flavors_disk_is_refused(glance: Glance, cache: Any, tmp_path: Path) -> None:
    base = cache.fetch(glance.add(make(tmp_path, "-f", "qcow2", size="2G"), "qcow2"), go_on)
    with pytest.raises(BuildError, match="flavor"):
        storage.create_disk(tmp_path / "disk", base, "qcow2", 1)
    assert not (tmp_path / "disk").exists()
