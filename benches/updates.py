"""What real updates cost clients: every update that the suite's indexes hold, in order of date, pulled by Docker and Podman.

For images of 40, 90 and 150 packages: the oldest versions that the base and security indexes hold are built, pushed and
pulled cold; then one source package after another moves to its next version, in the order in which these were made, and each
state is pulled by a client that has the one before; at last one package is added. The same images are divided into layers in
four ways: one layer, one layer a package, Nix's dockerTools (its published algorithm, written anew here), and Drystone's packs.
"""

import functools
import json
import lzma
import re
import shutil
import subprocess
import tempfile
import tomllib
import urllib.request
from dataclasses import dataclass

from peers import DockerRegistry

LAYER_LIMIT = 100
# How fast clients of registries elsewhere download; on loopback bytes cost next to nothing.
BYTES_PER_SECOND = 25e6
# The package that the last state adds.
ADDED = "tree"

# By about how many packages they have: whether with the Essential set, and what is asked for.
IMAGES = {
    40: (False, ["nginx-light", "curl"]),
    90: (True, ["nginx-light"]),
    150: (True, ["git", "nginx-light", "postgresql-client", "python3-flask"]),
}


@dataclass
class Version:
    """One version of a binary package in an index."""

    name: str
    version: str
    source: str
    path: str


def needed(layers: list, blobs: set, chains: set) -> tuple[int, int, int]:
    """Bytes by digest, bytes when all above a changed layer are downloaded again, and layers to unpack."""
    by_digest = by_chain = unpacked = 0
    chain = ""
    for digest, size in layers:
        chain += digest
        if digest not in blobs:
            by_digest += size
            blobs.add(digest)
        if chain not in chains:
            by_chain += size
            unpacked += 1
            chains.add(chain)
    return by_digest, by_chain, unpacked


def indexes(address: str) -> dict[str, list[Version]]:
    """All versions of all packages, by name, oldest first."""
    places = [
        ("debian", "bookworm"),
        ("debian", "bookworm-updates"),
        ("debian-security", "bookworm-security"),
    ]
    known: dict[str, list[Version]] = {}
    for archive, suite in places:
        url = f"{address}/{archive}/dists/{suite}/main/binary-amd64/Packages.xz"
        with urllib.request.urlopen(url) as answer:
            text = lzma.decompress(answer.read()).decode()
        for stanza in text.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
            if "Package" not in fields:
                continue
            source = fields.get("Source", fields["Package"]).split(" ")[0]
            found = Version(fields["Package"], fields["Version"], source, f"{archive}/{fields['Filename']}")
            versions = known.setdefault(found.name, [])
            if all(found.version != other.version for other in versions):
                versions.append(found)
    for versions in known.values():
        versions.sort(key=functools.cmp_to_key(compare))
    return known


def compare(one: Version, two: Version) -> int:
    """dpkg's order of versions."""
    if one.version == two.version:
        return 0
    newer = subprocess.run(["dpkg", "--compare-versions", one.version, "gt", two.version]).returncode == 0
    return 1 if newer else -1


def made(address: str, version: Version) -> str:
    """When a package was made: the date of the files in its control archive, which is its changelog's."""
    with urllib.request.urlopen(f"{address}/{version.path}") as answer:
        package = answer.read()
    with tempfile.NamedTemporaryFile(suffix=".deb") as scratch:
        scratch.write(package)
        scratch.flush()
        control = subprocess.run(["dpkg-deb", "--ctrl-tarfile", scratch.name], capture_output=True, check=True)
    listing = subprocess.run(
        ["tar", "--utc", "--full-time", "-tvf", "-"], input=control.stdout, capture_output=True, check=True
    )
    return max(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", listing.stdout.decode()))


def popularity(packages: dict[str, list[str]]) -> list[list[str]]:
    """Nix's dockerTools as published: how often each path occurs when every dependency is followed; the most popular
    have layers of their own, the rest share the last. Debian's graph has cycles: an edge that closes one does not count."""
    known: dict[str, dict[str, int]] = {}

    def below(name: str, path: frozenset) -> dict[str, int]:
        if name in known:
            return known[name]
        counts: dict[str, int] = {}
        for need in packages[name]:
            if need in path or need not in packages:
                continue
            counts[need] = counts.get(need, 0) + 1
            for further, count in below(need, path | {need}).items():
                counts[further] = counts.get(further, 0) + count + 1
        known[name] = counts
        return counts

    total: dict[str, int] = {}
    for root in packages:
        total[root] = total.get(root, 0) + 1
        for name, count in below(root, frozenset([root])).items():
            total[name] = total.get(name, 0) + count + 1
    order = sorted(packages, key=lambda name: (-total[name], name))
    alone = LAYER_LIMIT - 2
    rest = [order[alone:]] if order[alone:] else []
    return [[name] for name in order[:alone]] + rest


class Updates:
    """One image: its states, built and pushed in each division into layers."""

    def __init__(self, bench, registry: str, size: int, most: int) -> None:
        self.bench, self.registry, self.size, self.most = bench, registry, size, most
        self.is_essential, self.asked = IMAGES[size]
        self.project = bench.project(f"updates-{size}", self.text({}, []))
        self.lock = self.project / "image.lock"

    def text(self, versions: dict[str, str], more: list[str]) -> str:
        asked = [json.dumps(name) for name in self.asked + more if name not in versions]
        asked += [f'{{ name = "{name}", version = "{version}" }}' for name, version in sorted(versions.items())]
        essential = "essential = true\n" if self.is_essential else ""
        return f'name = "bench"\n[debian]\nsuite = "bookworm"\n{essential}packages = [{", ".join(asked)}]\n'

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.bench.drystone(f"store-updates-{self.size}", *arguments, "-f", str(self.project / "image.toml"))

    def states(self, known: dict[str, list[Version]]) -> list[tuple[str, dict[str, str], list[str]]]:
        """What each state is called, the versions that it pins and the packages that it adds."""
        self.command("lock")
        names = [name.split(" ")[0] for name in self.locked()["packages"]]
        moving = {name: known[name] for name in names if len(known.get(name, [])) > 1}
        steps: dict[tuple[str, str], str] = {}
        for versions in moving.values():
            for version in versions[1:]:
                key = (version.source, version.version)
                steps[key] = steps.get(key) or made(self.bench.address, version)
        pins = {name: versions[0].version for name, versions in moving.items()}
        states = [("first", dict(pins), [])]
        for source, number in sorted(steps, key=lambda step: steps[step])[: self.most]:
            for name, versions in moving.items():
                if any((version.source, version.version) == (source, number) for version in versions):
                    pins[name] = number
            states.append((f"{source} {number}", dict(pins), []))
        states.append((f"with {ADDED}", dict(pins), [ADDED]))
        return states

    def locked(self) -> dict:
        lock = tomllib.loads(self.lock.read_text())
        return lock["image"]["bench"]["platform"]["linux/amd64"]

    def push(self, number: int, versions: dict[str, str], more: list[str]) -> dict[str, tuple[str, list]]:
        """Builds a state and pushes it in each division; for each its reference, and its layers' digests and sizes."""
        (self.project / "image.toml").write_text(self.text(versions, more))
        # The first state is older than what was locked to learn the names.
        if number == 0:
            self.lock.unlink()
        self.command("update")
        pushed = {"packs": self.push_as("packs", number)}
        kept = self.lock.read_text()
        tree = json.loads(self.command("tree", "--json").stdout)
        needs = {node["name"]: [need["package"] for need in node["needs"]] for node in tree["packages"]}
        layers = self.locked()["layers"]
        members = [member for layer in layers for member in layer]
        packages = [name for name in members if not name.startswith("@")]
        own = [[name] for name in members if name.startswith("@")]
        graph = {name: needs.get(name.split(" ")[0], []) for name in packages}
        divisions = {
            "one": [members],
            "each": [[name] for name in packages[: LAYER_LIMIT - len(own) - 1]]
            + [packages[LAYER_LIMIT - len(own) - 1 :]] * (len(packages) >= LAYER_LIMIT - len(own))
            + own,
            "dockerTools": popularity(graph) + own,
        }
        for name, division in divisions.items():
            # A lock's own plan is followed while it has the image's members.
            replaced, count = re.subn(
                r"^layers = \[\n.*?^\]\n", lambda _: f"layers = {json.dumps(division)}\n", kept, flags=re.MULTILINE | re.DOTALL
            )
            assert count == 1, "the lock has one plan of layers"
            self.lock.write_text(replaced)
            pushed[name] = self.push_as(name, number)
        self.lock.write_text(kept)
        return pushed

    def push_as(self, division: str, number: int) -> tuple[str, list]:
        reference = f"{self.registry}/updates-{self.size}-{division.lower()}:{number}"
        answer = json.loads(self.command("build", "--json", "--push", reference).stdout)
        layers = answer["platforms"][0]["layers"]
        return reference, [(layer["digest"], layer["size"]) for layer in layers]

    def run(self, known: dict[str, list[Version]]) -> list[str]:
        """Rows of the table: sums over all updates, and the last state by itself."""
        states = self.states(known)
        pushed = [self.push(number, versions, more) for number, (_, versions, more) in enumerate(states)]
        print(f"{self.size}: {len(self.locked()['packages'])} packages, {len(states) - 2} updates: "
              + "; ".join(name for name, _, _ in states[1:-1]), flush=True)
        rows = []
        for division in pushed[0]:
            blobs, chains = set(), set()
            costs = [needed(state[division][1], blobs, chains) for state in pushed]
            times = {}
            for engine in self.bench.engines(self.registry):
                times[engine.name] = [engine.pull_and_keep(state[division][0]) for state in pushed]
                engine.end()
            rows.append(row(self.size, division, len(pushed[0][division][1]), costs, times))
            print(rows[-1], flush=True)
        return rows


def row(size: int, division: str, layers: int, costs: list, times: dict[str, list[float]]) -> str:
    """One line of the table: seconds are measured on loopback, `+` is what the bytes take at 25 MB/s."""
    first, updates, added = costs[0], costs[1:-1], costs[-1]
    cells = [str(size), division, str(layers)]
    cells.append(f"{first[0] / 1e6:.1f}")
    cells.append(f"{sum(cost[0] for cost in updates) / 1e6:.1f} / {sum(cost[1] for cost in updates) / 1e6:.1f}")
    cells.append(str(sum(cost[2] for cost in updates)))
    cells.append(f"{added[0] / 1e6:.1f} / {added[1] / 1e6:.1f}, {added[2]}")
    for name, (at, seconds) in ((name, (1 if name == "Docker" else 0, taken)) for name, taken in times.items()):
        wire = [cost[at] / BYTES_PER_SECOND for cost in costs]
        cells.append(
            f"{seconds[0]:.1f} + {wire[0]:.1f}; {sum(seconds[1:-1]):.1f} + {sum(wire[1:-1]):.1f}; "
            f"{seconds[-1]:.1f} + {wire[-1]:.1f}"
        )
    return "| " + " | ".join(cells) + " |"


def measure_updates(bench, most: int) -> None:
    """Prints the table of docs/performance.md."""
    if not shutil.which("docker-registry"):
        print("skipped: docker-registry is not installed")
        return
    known = indexes(bench.address)
    rows = []
    for size in IMAGES:
        with DockerRegistry(bench.folder, 1000 + size) as registry:
            rows += Updates(bench, registry, size, most).run(known)
    print("\n| packages | layers by | layers | first MB | updates MB by digest / by chain | unpacked | one added | "
          "Docker s: first; updates; added | Podman |\n" + "|---" * 9 + "|")
    print("\n".join(rows), flush=True)
