"""Binary caches: looking realisations up beside a plain client, and filling an empty store beside curl."""

import os
import subprocess
from pathlib import Path

from peers import DockerRegistry, measure

SITE = """name = "cached"
[debian]
suite = "bookworm"
packages = ["nginx-light"]
"""


def measure_lookups(bench, program: Path) -> None:
    """300 signed realisations looked up one by one, beside a plain client that makes the same requests."""
    with DockerRegistry(bench.folder, 2000) as registry:
        command = [program, f"{registry}/lookups", "300", str(max(bench.rounds, 5))]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
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


def shared(bench, name: str, image: str, registry: str) -> tuple[Path, str]:
    """Builds an image and shares it; its folder, and the key to trust."""
    project = bench.project(name, image)
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
