//! All keys of image.toml, as data. `docs/image-toml.md` describes each; a test compares the two.

use crate::document::{Key, Schema};

const fn key(name: &'static str, expects: &'static str, example: &'static str) -> Key {
    Key { name, expects, example }
}

const fn table(title: &'static str, keys: &'static [Key]) -> Schema {
    Schema { title, keys, reserved: &[], family: all }
}

/// Every schema of image.toml, in the order of the reference.
pub fn all() -> &'static [&'static Schema] {
    static ALL: [&Schema; 15] = [
        &TOP,
        &DEBIAN,
        &PACKAGE,
        &REMOVE_STATE,
        &REPOSITORY,
        &RECIPE,
        &RECIPE_SOURCE,
        &FILE,
        &USER,
        &GROUP,
        &FINISH,
        &CONFIG,
        &HEALTHCHECK,
        &IMAGE,
        &CACHE,
    ];
    &ALL
}

pub(super) static TOP: Schema = Schema {
    title: "",
    keys: &[
        key("schema", "the number of the file format", "schema = 1"),
        key("name", "the image's name, a string", r#"name = "hello-web""#),
        key("tag", "the image's tag, a string", r#"tag = "1.4""#),
        key("platforms", "a list of platforms", r#"platforms = ["linux/amd64", "linux/arm64"]"#),
        key("lock", "the path of the lock file, a string", r#"lock = "../images.lock""#),
        key(
            "from",
            "the reference of a base image, a string",
            r#"from = "registry.example.com/base:1""#,
        ),
        key("debian", "a table", "[debian]"),
        key("recipe", "a table of recipes", "[recipe.app]"),
        key("files", "a table of paths in the image", r#"[files]"#),
        key("users", "a table of users", "[users.app]"),
        key("groups", "a table of groups", "[groups.media]"),
        key("finish", "a table", "[finish]"),
        key("config", "a table", "[config]"),
        key(
            "annotations",
            "a table of strings",
            r#"annotations = { "org.opencontainers.image.vendor" = "Example" }"#,
        ),
        key("image", "a table", "[image]"),
        key("cache", "a table", "[cache]"),
    ],
    reserved: &[
        "service", "services", "state", "deploy", "monitor", "extends", "variant", "nix", "alpine",
    ],
    family: all,
};

pub(super) static DEBIAN: Schema = table(
    "[debian]",
    &[
        key("suite", "a suite, a string", r#"suite = "bookworm""#),
        key("components", "a list of strings", r#"components = ["main"]"#),
        key(
            "packages",
            "a list of package names, or of tables with a name",
            r#"packages = ["nginx-light", { name = "nodejs", version = "22.*", from = "node" }]"#,
        ),
        key("essential", "true or false", "essential = true"),
        key("recommends", "true or false", "recommends = true"),
        key("exclude", "a list of package names", r#"exclude = ["fonts-dejavu-core"]"#),
        key(
            "debconf",
            "a list of preseed lines",
            r#"debconf = ["tzdata tzdata/Areas select Europe"]"#,
        ),
        key("mirror", "an address, a string", r#"mirror = "https://packages.example.com/debian""#),
        key(
            "security-mirror",
            "an address, a string",
            r#"security-mirror = "https://packages.example.com/debian-security""#,
        ),
        key("keyring", "the path of a keyring, a string", r#"keyring = "keys/archive.gpg""#),
        key("check-valid-until", "true or false", "check-valid-until = false"),
        key(
            "remove-state",
            "a list of tables with a path and a reason",
            r#"remove-state = [{ path = "/var/lib/thing/id", reason = "made anew at start" }]"#,
        ),
        key("repository", "a table of repositories", "[debian.repository.node]"),
    ],
);

pub(super) static PACKAGE: Schema = table(
    "an entry of `packages`",
    &[
        key("name", "a package name, a string", r#"name = "nodejs""#),
        key("version", "a version pattern, a string", r#"version = "22.*""#),
        key("from", "a repository's name, a string", r#"from = "node""#),
    ],
);

pub(super) static REMOVE_STATE: Schema = table(
    "an entry of `remove-state`",
    &[
        key("path", "an absolute path, with * for any name", r#"path = "/etc/thing/*.key""#),
        key("reason", "a sentence, a string", r#"reason = "each host makes its own""#),
    ],
);

pub(super) static REPOSITORY: Schema = table(
    "[debian.repository.NAME]",
    &[
        key("url", "an address, a string", r#"url = "https://packages.example.com/node""#),
        key("suite", "a suite, a string", r#"suite = "nodistro""#),
        key("components", "a list of strings", r#"components = ["main"]"#),
        key("key", "the path of a key, a string", r#"key = "keys/node.asc""#),
        key("architectures", "a list of Debian architectures", r#"architectures = ["amd64"]"#),
    ],
);

pub(super) static RECIPE: Schema = table(
    "[recipe.NAME]",
    &[
        key("file", "a local path, a string", r#"file = "../recipes/app.toml""#),
        key("builder", "one of \"script\", \"cargo\", \"npm\", \"python\"", r#"builder = "cargo""#),
        key("toolchain", "an output of a recipe, a string", r#"toolchain = "rust""#),
        key("source", "a folder, a string, or a table", r#"source = "app/""#),
        key("patches", "a list of local paths", r#"patches = ["patches/fix.patch"]"#),
        key("debian", "a list of package names", r#"debian = ["gcc", "libc6-dev", "make"]"#),
        key("recipes", "a list of recipes", r#"recipes = ["lib:dev"]"#),
        key("runtime", "a list of package names", r#"runtime = ["libssl3"]"#),
        key("script", "a shell script, a string", r#"script = "make install DESTDIR=$out""#),
        key("env", "a table of strings", r#"env = { CFLAGS = "-O2" }"#),
        key("outputs", "a list of names", r#"outputs = ["out", "dev"]"#),
        key("time-limit", "a span of time, a string", r#"time-limit = "2h""#),
        key("silence-limit", "a span of time, a string", r#"silence-limit = "10m""#),
        key("memory-limit", "a size, a string", r#"memory-limit = "4G""#),
        key("disk-limit", "a size, a string", r#"disk-limit = "20G""#),
        key("process-limit", "a number of processes", "process-limit = 500"),
        key("cpu-limit", "a number of processors", "cpu-limit = 2"),
        key("cpu-time-limit", "a span of time, a string", r#"cpu-time-limit = "1h""#),
        key("platforms", "a list of platforms", r#"platforms = ["linux/amd64"]"#),
    ],
);

pub(super) static RECIPE_SOURCE: Schema = table(
    "a recipe's `source`",
    &[
        key("path", "a local path, a string", r#"path = "..""#),
        key("include", "a list of patterns", r#"include = ["Cargo.toml", "crates/**"]"#),
        key("exclude", "a list of patterns", r#"exclude = ["**/*.md"]"#),
        key("url", "an address, a string", r#"url = "https://example.com/thing-1.0.tar.gz""#),
        key("sha256", "64 hexadecimal digits", "sha256 = \"…\""),
        key("unpack", "true or false", "unpack = false"),
        key("git", "a repository's address, a string", r#"git = "https://example.com/thing.git""#),
        key("revision", "a full commit id, a string", "revision = \"…\""),
        key("crate", "the name of a published crate, a string", r#"crate = "ripgrep""#),
        key("npm", "the name of a published npm package, a string", r#"npm = "esbuild""#),
        key("python", "the name of a published Python package, a string", r#"python = "flask""#),
        key("integrity", "a hash, a string", r#"integrity = "sha512-…""#),
        key("version", "its exact version, a string", r#"version = "1.2.3""#),
    ],
);

pub(super) static FILE: Schema = table(
    "an entry of [files]",
    &[
        key("source", "a local path, a string", r#"source = "site.conf""#),
        key("text", "the file's content, a string", r#"text = "hello\n""#),
        key("recipe", "a recipe's name, a string", r#"recipe = "assets""#),
        key("path", "an absolute path in the recipe's output", r#"path = "/dist""#),
        key("url", "an address, a string", r#"url = "https://example.com/data.bin""#),
        key("sha256", "64 hexadecimal digits", "sha256 = \"…\""),
        key("symlink", "the link's target, a string", r#"symlink = "/usr/share/zoneinfo/UTC""#),
        key("directory", "true", "directory = true"),
        key("mode", "a string of octal digits", r#"mode = "0644""#),
        key("uid", "a numeric user id", "uid = 10001"),
        key("gid", "a numeric group id", "gid = 10001"),
    ],
);

pub(super) static USER: Schema = table(
    "[users.NAME]",
    &[
        key("uid", "a numeric user id", "uid = 10001"),
        key("gid", "a numeric group id", "gid = 10001"),
        key("groups", "a list of group names", r#"groups = ["media"]"#),
        key("home", "an absolute path, a string", r#"home = "/var/lib/app""#),
        key("shell", "an absolute path, a string", r#"shell = "/bin/sh""#),
        key("comment", "a string", r#"comment = "The application""#),
    ],
);

pub(super) static GROUP: Schema =
    table("[groups.NAME]", &[key("gid", "a numeric group id", "gid = 10002")]);

pub(super) static FINISH: Schema = table(
    "[finish]",
    &[key("script", "a shell script, a string", r#"script = "update-ca-certificates""#)],
);

pub(super) static CONFIG: Schema = table(
    "[config]",
    &[
        key("entrypoint", "a list of strings", r#"entrypoint = ["python3", "-m", "orders"]"#),
        key("cmd", "a list of strings", r#"cmd = ["nginx", "-g", "daemon off;"]"#),
        key("env", "a table of strings", r#"env = { LANG = "C.UTF-8" }"#),
        key("workdir", "an absolute path, a string", r#"workdir = "/srv""#),
        key("user", "a user's name or number", r#"user = "app""#),
        key("ports", "a list of ports", r#"ports = [80, "5353/udp"]"#),
        key("volumes", "a list of absolute paths", r#"volumes = ["/var/lib/orders"]"#),
        key("labels", "a table of strings", r#"labels = { team = "web" }"#),
        key("stop-signal", "a signal, a string", r#"stop-signal = "SIGQUIT""#),
        key("healthcheck", "a table", r#"healthcheck = { cmd = ["health"], interval = "30s" }"#),
    ],
);

pub(super) static HEALTHCHECK: Schema = table(
    "`healthcheck`",
    &[
        key("cmd", "a list of strings", r#"cmd = ["node", "/app/health.js"]"#),
        key("interval", "a span of time, a string", r#"interval = "30s""#),
        key("timeout", "a span of time, a string", r#"timeout = "5s""#),
        key("start-period", "a span of time, a string", r#"start-period = "1m""#),
        key("start-interval", "a span of time, a string", r#"start-interval = "1s""#),
        key("retries", "a number", "retries = 3"),
    ],
);

pub(super) static IMAGE: Schema = table(
    "[image]",
    &[
        key("recipes", "a list of recipes", r#"recipes = ["app", "lib:bin"]"#),
        key("layers", "\"packed\", \"each\" or a number of layers", r#"layers = "packed""#),
        key("compression", "\"gzip\" or \"zstd\"", r#"compression = "zstd""#),
    ],
);

pub(super) static CACHE: Schema = table(
    "[cache]",
    &[key("read", "a list of addresses", r#"read = ["registry.example.com/team/cache"]"#)],
);
