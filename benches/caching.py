"""Binary caches: looking realisations up beside a plain client, filling an empty store beside curl, and
fetching a large tree beside `nix copy`."""

import os
import random
import subprocess
from pathlib import Path

from peers import DockerRegistry, FileServer, measure

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


TREE = """name = "tree"
[debian]
suite = "bookworm"
[recipe.tree]
source = "public/"
script = "mkdir -p $out/srv && cp -r . $out/srv/tree"
[image]
recipes = ["tree"]
compression = "zstd"
"""


def measure_tree(bench) -> None:
    """A tree of 10,000 files and 202 MB fetched from a cache over HTTP, beside `nix copy` with zstd: both
    have it in their store then, verified."""
    with DockerRegistry(bench.folder, 2002) as registry, FileServer(bench.folder / "nix-cache") as files:
        small, small_trust = shared(bench, "small", TREE.replace("tree", "small"), registry)
        project, trust = shared(bench, "tree", TREE, registry, write_tree)
        path = share_with_nix(bench, project / "public")
        ours, theirs = [], []
        for number in range(bench.rounds):
            # What the tree was built with is there before, as Nix's side needs none of it.
            store = f"store-tree-{number}"
            pull(bench, small, store, registry, "small", small_trust)
            ours.append(pull(bench, project, store, registry, "tree", trust))
            theirs.append(nix(bench, f"http://{files}", store_of_nix(bench, number), path))
        bench.row("fetching 202 MB in 10,000 files", bench.median(ours), "nix copy, zstd", bench.median(theirs))


def write_tree(folder: Path) -> None:
    """Text of made-up words, few of them frequent, as in sources and documents; the same each time."""
    noise = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(noise.choices(letters, k=noise.randint(2, 11))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    for directory in range(100):
        (folder / f"{directory:02}").mkdir()
        for file in range(100):
            text = " ".join(noise.choices(words, weights, k=4_000))[:20_200]
            (folder / f"{directory:02}/{file:02}.txt").write_text(text.ljust(20_200, "\n"))


def share_with_nix(bench, tree: Path) -> str:
    """Puts a tree into Nix's store and from there into a binary cache; its store path."""
    source = store_of_nix(bench, "source")
    command = ["nix", *NIX, "store", "add-path", "--store", source, tree]
    added = subprocess.run(command, env=nix_environment(bench), check=True, stdout=subprocess.PIPE, text=True)
    path = added.stdout.strip()
    cache = f"file://{bench.folder}/nix-cache?compression=zstd"
    nix(bench, source, cache, path)
    return path


NIX = ["--extra-experimental-features", "nix-command"]


def nix(bench, source: str, target: str, path: str) -> float:
    command = ["nix", *NIX, "copy", "--no-check-sigs", "--from", source, "--to", target, path]
    return measure(command, nix_environment(bench))[0]


def store_of_nix(bench, name: object) -> str:
    return f"local?root={bench.folder}/nix-{name}"


def nix_environment(bench) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(bench.folder)}


def shared(bench, name: str, image: str, registry: str, fill=None) -> tuple[Path, str]:
    """Builds an image and shares it; its folder, and the key to trust. `fill` writes more files."""
    project = bench.project(name, image)
    if fill:
        fill(project / "public")
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
