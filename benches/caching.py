"""Binary caches: looking realisations up, filling an empty store beside curl, and one large tree beside `nix copy`."""

import http.server
import os
import random
import shutil
import socketserver
import subprocess
import threading
from pathlib import Path

from peers import DockerRegistry, measure

SITE = """name = "cached"
[debian]
suite = "bookworm"
packages = ["nginx-light"]
"""
# A tree of 202 MB in 10,000 files, half of which compresses.
FILES, SIZE = 10_000, 20_200


def measure_lookups(bench, program: Path) -> None:
    """300 signed realisations looked up one by one, beside a plain client that makes the same requests."""
    with DockerRegistry(bench.folder, 2000) as registry:
        command = [program, f"{registry}/lookups", "300", str(max(bench.rounds, 5))]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rounds = [tuple(map(float, line.split())) for line in lines]
    ours, theirs = (bench.median([row[at] for row in rounds]) for at in (0, 1))
    bench.row("300 look-ups", ours, "a plain client", theirs, "ms")


def measure_filling(bench) -> None:
    """An empty store filled from a cache, beside curl that downloads the same blobs."""
    with DockerRegistry(bench.folder, 2001) as registry:
        project, trust = shared(bench, "filling", SITE, registry)
        ours, theirs = [], []
        for number in range(max(bench.rounds, 5)):
            store = f"store-filled-{number}"
            ours.append(pull(bench, project, store, registry, "filling", trust))
            blobs = sorted(path.name for path in (bench.folder / store / "blobs/sha256").iterdir())
            theirs.append(curl(bench, registry, "filling", blobs, number))
        bench.row("filling a store with the nginx image", bench.median(ours), "curl, the same bytes", bench.median(theirs))


def measure_tree(bench) -> None:
    """One tree of 10,000 files from a cache, beside `nix copy` from one with zstd."""
    if not shutil.which("nix"):
        print("skipped: nix is not installed")
        return
    image = 'name = "tree"\n[files]\n"/srv/tree" = "tree/"\n'
    with DockerRegistry(bench.folder, 2002) as registry:
        project, trust = shared(bench, "tree", image, registry, plant)
        ours, theirs = [], []
        nix = Nix(bench.folder, project / "tree")
        with nix:
            for number in range(max(bench.rounds, 3)):
                ours.append(pull(bench, project, f"store-tree-{number}", registry, "tree", trust))
                theirs.append(nix.copy(number))
        bench.row("a tree of 202 MB in 10,000 files", bench.median(ours), "nix copy", bench.median(theirs))


def plant(project: Path) -> None:
    source = random.Random(7)
    for number in range(FILES):
        folder = project / "tree" / f"{number % 100}"
        folder.mkdir(parents=True, exist_ok=True)
        half = source.randbytes(SIZE // 2)
        (folder / str(number)).write_bytes(half + b"text that compresses\n" * (SIZE // 42))


def shared(bench, name: str, image: str, registry: str, fill=None) -> tuple[Path, str]:
    """Builds an image and shares it; its folder, and the key to trust."""
    project = bench.project(name, image)
    if fill:
        fill(project)
    key = bench.folder / f"{name}.key"
    store = f"store-{name}-shared"
    trust = bench.drystone(store, "key", "generate", "bench", "--output", str(key)).stdout.strip()
    bench.build(project, store, "--cache", f"{registry}/{name}", "--signing-key", str(key))
    return project, trust


def pull(bench, project: Path, store: str, registry: str, name: str, trust: str) -> float:
    command = [
        bench.command, "cache", "pull", "-q", "--layers", project / "image.toml",
        "--cache", f"{registry}/{name}", "--trusted-key", trust,
    ]
    return measure(command, bench.environment(store))[0]


def curl(bench, registry: str, name: str, blobs: list[str], number: int) -> float:
    """Downloads blobs with one curl, as many at once as Drystone does."""
    folder = bench.folder / f"curl-{name}-{number}"
    folder.mkdir()
    listed = folder / "list"
    listed.write_text(
        "".join(f'url = "http://{registry}/v2/{name}/blobs/sha256:{blob}"\noutput = "{folder / blob}"\n' for blob in blobs)
    )
    command = ["curl", "--silent", "--show-error", "--fail", "--parallel", "--parallel-max", "8", "--config", listed]
    return measure(command, dict(os.environ))[0]


class Nix:
    """A binary cache of nix over HTTP, with zstd, and stores that are filled from it."""

    def __init__(self, folder: Path, tree: Path) -> None:
        self.folder = folder / "nix"
        self.folder.mkdir()
        store = self.folder / "from"
        self.path = self.nix(store, "store", "add-path", "--name", "tree", str(tree))
        cache = f"file://{self.folder / 'cache'}?compression=zstd"
        self.nix(store, "copy", "--to", cache, self.path)

    def command(self, store: Path, *arguments: str) -> list[str]:
        settings = ["--extra-experimental-features", "nix-command", "--option", "substituters", ""]
        settings += ["--option", "build-users-group", "", "--option", "require-sigs", "false"]
        return ["nix", *settings, *arguments, "--store", str(store)]

    def nix(self, store: Path, *arguments: str) -> str:
        run = subprocess.run(self.command(store, *arguments), check=True, capture_output=True, text=True)
        return run.stdout.strip()

    def __enter__(self) -> None:
        folder = str(self.folder / "cache")

        class Quiet(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *more) -> None:
                super().__init__(*more, directory=folder)

            def log_message(self, *_) -> None:
                pass

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Quiet)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()

    def copy(self, number: int) -> float:
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        command = self.command(self.folder / f"to-{number}", "copy", "--no-check-sigs", "--from", address, self.path)
        return measure(command, dict(os.environ))[0]
