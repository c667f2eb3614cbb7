"""Container engines, a registry and measuring, for the benchmarks beside this file."""

import functools
import http.server
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


class Docker:
    """A daemon of its own, ended by its id."""

    name = "Docker"
    program = "dockerd"

    def __init__(self, folder: Path, address: str) -> None:
        number = len(list(folder.glob("docker-*")))
        self.folder = folder / f"docker-{number}"
        self.folder.mkdir()
        self.host = f"unix://{self.folder / 'socket'}"
        self.log = (self.folder / "log").open("w")
        command = [
            "dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec", "-H", self.host,
            "--iptables=false", "--bridge=none", "--insecure-registry", address, "--pidfile", self.folder / "pid",
        ]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def works(self) -> bool:
        for _ in range(300):
            if subprocess.run(["docker", "-H", self.host, "info"], capture_output=True).returncode == 0:
                return True
            time.sleep(0.1)
        print(f"skipped: dockerd does not start here, see {self.folder / 'log'}")
        self.end()
        return False

    def pull_and_keep(self, reference: str) -> float:
        return measure(["docker", "-H", self.host, "pull", "-q", reference], dict(os.environ))[0]

    def pull(self, reference: str) -> float:
        seconds = self.pull_and_keep(reference)
        measure(["docker", "-H", self.host, "rmi", "-f", reference], dict(os.environ))
        return seconds

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()


class Podman:
    """Podman with a storage of its own for each pull: removing would leave what it knows of blobs."""

    name = "Podman"
    program = "podman"

    def __init__(self, folder: Path, _: str) -> None:
        self.folder = folder / f"podman-{len(list(folder.glob('podman-*')))}"
        self.folder.mkdir()
        self.number = 0

    def works(self) -> bool:
        return True

    def pull(self, reference: str) -> float:
        self.number += 1
        return self.pull_and_keep(reference)

    def pull_and_keep(self, reference: str) -> float:
        place = self.folder / str(self.number)
        command = [
            "podman", "--root", place / "root", "--runroot", place / "run", "--tmpdir", place / "tmp",
            "pull", "-q", "--tls-verify=false", reference,
        ]
        return measure(command, dict(os.environ))[0]

    def end(self) -> None:
        pass


class DockerRegistry:
    """Debian's docker-registry on loopback, with a folder of its own."""

    def __init__(self, folder: Path, number: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.configuration = folder / f"registry-{number}.yml"
        self.configuration.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder / f'registry-{number}'}}}}}\n"
            f"http: {{addr: '{self.address}'}}\n"
        )

    def __enter__(self) -> str:
        command = ["docker-registry", "serve", self.configuration]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host, port = self.address.split(":")
        for _ in range(200):
            try:
                socket.create_connection((host, int(port))).close()
                return self.address
            except OSError:
                time.sleep(0.05)
        sys.exit("docker-registry does not answer")

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()


class FileServer:
    """A folder over HTTP on loopback."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        handler = functools.partial(QuietHandler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass


def measure(command: list, environment: dict) -> tuple[float, int]:
    """Runs a command that must succeed; wall seconds and peak memory."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command[0]} failed with {process.returncode}:\n{said}")
    return seconds, usage.ru_maxrss * 1024


def noise(path: Path, size: int) -> None:
    """A file that does not compress, of the same bytes in every run."""
    source = random.Random(7)
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(source.randbytes(1 << 20))
