# What scripts may call. `dependencies` is the root that packages are installed below before.
export dependencies=/build/python/root
export PYTHONPATH="$dependencies/usr/local/lib/$python/dist-packages:/build/python/tools"
export PATH="$dependencies/usr/local/bin:/build/python/tools/bin:$PATH"
mkdir -p "$dependencies"
pip() { python3 -m pip --quiet "$@"; }
install_build_tools() {
    pip install --target /build/python/tools --find-links /build/python/build --require-hashes -r "$1"
}
install_wheels() {
    pip install --ignore-installed --root "$dependencies" --find-links /build/python/wheels \
        --require-hashes -r "$1"
}
# A folder with a package's source, installed below a root. Installed by name and not by path, it
# leaves no note of where it was built.
install_source() {
    rm -rf /build/python/built
    pip wheel --no-build-isolation --wheel-dir /build/python/built "$1"
    for wheel in /build/python/built/*.whl; do
        wheel=${wheel##*/}
        rest=${wheel#*-}
        pip install --ignore-installed --root "$2" --find-links /build/python/built \
            "${wheel%%-*}==${rest%%-*}"
    done
}
# All that the project needs, and the project, below a root; with bytecode that no time makes stale.
install_python() {
    cp -a "$dependencies/." "$1"
    install_projects "$1"
    find "$1" -name __pycache__ -prune -exec rm -rf {} +
    python3 -m compileall -q -f --invalidation-mode unchecked-hash -s "$1" -p / "$1" > /dev/null || :
}
