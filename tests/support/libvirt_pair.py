# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Two libvirtds that take each other for another machine's: each with a host name, a host UUID, files and logs of its
own, in namespaces of its own. libvirt does not migrate to the machine that it is on, and with these it does."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libvirt
import patience
from stack import http

# libvirtd hides a /dev/kvm that is only a name, see stack.hypervisor.
_START = """\
set -e
hostname "$NAME"
for pair in lib:/var/lib/libvirt run:/run/libvirt log:/var/log/libvirt cache:/var/cache/libvirt etc:/etc/libvirt; do
  mkdir -p "$BASE/${pair%%:*}" "${pair#*:}"
  [ "$pair" != etc:/etc/libvirt ] || cp -a /etc/libvirt/*.conf "$BASE/etc/"  # nobody's domains
  mount --bind "$BASE/${pair%%:*}" "${pair#*:}"
done
mkdir -p /var/lib/libvirt/qemu /run/libvirt/qemu
printf '%s\\n' 'listen_tls = 0' 'listen_tcp = 1' "tcp_port = \\"$PORT\\"" "listen_addr = \\"$ADDRESS\\"" \\
  'auth_tcp = "none"' "host_uuid = \\"$UUID\\"" > /etc/libvirt/libvirtd.conf
if [ -e /dev/kvm ]; then
  [ -c /run/accelsched-no-kvm ] || mknod -m 000 /run/accelsched-no-kvm c 1 3
  mount --bind /run/accelsched-no-kvm /dev/kvm
fi
virtlogd -p "$BASE/virtlogd.pid" &
exec libvirtd --listen -p "$BASE/libvirtd.pid"
"""


@dataclass(frozen=True)
class Node:
    """One of the two."""

    name: str
    address: str
    uri: str


@contextlib.contextmanager
def running() -> Iterator[tuple[tuple[Node, Node], str]]:
    """Start both; yield them, and the URI of either with %s for its address."""
    base = Path(tempfile.mkdtemp(prefix="accelsched-libvirts-", dir="/var/tmp"))
    base.chmod(0o755)
    port = str(http.free_port())
    uri = f"qemu+tcp://%s:{port}/system"
    pair = [(f"node{number}", f"127.0.0.{number + 1}") for number in (1, 2)]
    nodes = [Node(name, address, uri.replace("%s", address)) for name, address in pair]
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        for node in nodes:
            stack.enter_context(_libvirtd(base / node.name, node, port))
        for node in nodes:
            patience.wait(lambda node=node: _answers(node.uri))
        first, second = nodes
        yield (first, second), uri


@contextlib.contextmanager
def _libvirtd(base: Path, node: Node, port: str) -> Iterator[None]:
    base.mkdir()
    environment = {
        **{"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "BASE": str(base), "NAME": node.name, "PORT": port},
        **{"ADDRESS": node.address, "UUID": str(uuid.uuid4())},
    }
    command = ["unshare", "--mount", "--uts", "--propagation", "slave", "bash", "-c", _START]
    with (base / "libvirtd.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        with contextlib.suppress(FileNotFoundError, ValueError):
            subprocess.run(["kill", (base / "virtlogd.pid").read_text().strip()], check=False)


def _answers(uri: str) -> bool:
    try:
        libvirt.open(uri).close()
    except libvirt.libvirtError:
        return False
    return True
