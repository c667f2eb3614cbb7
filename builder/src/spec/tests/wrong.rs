//! Wrong files and what is said about them, word for word.

use super::parse;
use crate::document::Style;

/// A valid head, so that a case shows only its own problem.
const HEAD: &str = "name = \"a\"\n[debian]\nsuite = \"bookworm\"\npackages = [\"redis-tools\"]\n";

#[track_caller]
fn wrong(name: &str, text: &str) {
    match parse(text) {
        Ok(_) => panic!("{name} is accepted"),
        Err(problems) => insta::assert_snapshot!(name, problems.render(Style::Plain)),
    }
}

fn with_head(name: &str, text: &str) {
    wrong(name, &format!("{HEAD}{text}"));
}

#[test]
fn documents() {
    wrong("empty_file", "");
    wrong("broken_toml", "name = \"a\n[debian\nsuite = bookworm\n");
    wrong("duplicate_key", "name = \"a\"\nname = \"b\"\n");
    wrong(
        "mode_with_leading_zero",
        "name = \"a\"\n[files]\n\"/x\" = { text = \"x\", mode = 0644 }\n",
    );
    wrong("newer_schema", "schema = 2\nname = 7\nwhatever = true\n");
    wrong("nothing_in_it", "name = \"a\"\n[config]\ncmd = [\"x\"]\n");
    wrong(
        "many_problems_at_once",
        "nmae = \"x\"\ntag = \"bad tag\"\nplatforms = [\"amd64\", \"linux/arm64\", \"linux/arm64/v8\"]\n[debian]\nsuite = 12\npackages = [\"Nginx\", \"a=1\", 3]\n[config]\nports = [0, \"80:80\"]\n",
    );
}

#[test]
fn keys() {
    with_head("unknown_key_near_a_known_one", "package = [\"x\"]\n");
    with_head("unknown_key_near_nothing", "colour = \"red\"\n");
    with_head("key_in_the_wrong_table", "tag = \"1\"\nentrypoint = [\"x\"]\n");
    with_head("key_of_several_tables", "[image]\nname = \"web\"\n");
    with_head("reserved_key", "[services.web]\nport = 80\n[nix]\n");
    with_head("hostile_key", "\"\\u001b[31mred\\u0007\" = 1\n");
}

#[test]
fn names() {
    wrong("image_name_with_tag", "name = \"Team/App:1\"\n[files]\n\"/a\" = \"a\"\n");
    wrong(
        "wrong_types",
        "name = [\"a\"]\ntag = 1.4\nplatforms = \"linux/amd64\"\n[debian]\nsuite = true\npackages = \"nginx\"\nessential = \"yes\"\n",
    );
    with_head(
        "reference_to_nothing",
        "[files]\n\"/a\" = { recipe = \"ap\", path = \"/x\" }\n\"/b\" = { recipe = \"app:dev\" }\n[recipe.app]\nscript = \"true\"\n",
    );
}

#[test]
fn packages() {
    wrong(
        "packages_twice_and_from_nowhere",
        "name = \"a\"\n[debian]\nsuite = \"stable\"\nexclude = [\"tzdata\"]\npackages = [\"tzdata\", \"vim\", { name = \"vim\", version = \">= 2\" }, { name = \"nodejs\", from = \"nod\" }, { version = \"1\" }]\n[debian.repository.node]\nurl = \"ftp://example.com\"\nsuite = \"./\"\n",
    );
    with_head("secret_in_an_address", "mirror = \"https://me:hunter2@example.com/debian\"\n");
    with_head(
        "repository_with_a_reserved_name",
        "[debian.repository.debian]\nurl = \"https://example.com/x\"\nsuite = \"x\"\nkey = \"k\"\narchitectures = [\"arm64\"]\n",
    );
    with_head(
        "debconf_line",
        "debconf = [\"tzdata select Europe\"]\nremove-state = [{ path = \"/**\" }]\n",
    );
}

#[test]
fn files() {
    with_head(
        "decimal_mode",
        "[files]\n\"/a\" = { text = \"\", mode = 644 }\n\"/b\" = { text = \"\", mode = 999 }\n",
    );
    with_head(
        "file_paths",
        "[files]\n\"etc/a\" = \"a\"\n\"/b/../c\" = \"b\"\n\"/d\" = \"/etc/passwd\"\n\"/e/\" = \"e\"\n\"/e\" = \"f\"\n\"/\" = { text = \"x\" }\n\"/.wh.x\" = \"x\"\n",
    );
    with_head(
        "file_kinds",
        "[files]\n\"/a\" = { mode = \"0644\" }\n\"/b\" = { text = \"x\", symlink = \"y\" }\n\"/c\" = { source = \"c\", sha256 = \"12\" }\n\"/d\" = { url = \"https://example.com/d\" }\n\"/e\" = { directory = false }\n\"/f\" = { symlink = \"x\", mode = \"0777\", uid = \"app\" }\n\"/g\" = 7\n",
    );
}

#[test]
fn accounts() {
    with_head(
        "users",
        "[users.app]\n[users.App]\nuid = 1\n[users.www-data]\nuid = 10001\n[users.boss]\nuid = 0\n[users.one]\nuid = 7000\n[users.two]\nuid = 7000\n[users.big]\nuid = 4294967295\n[groups.one]\ngid = 65535\n[groups.two]\ngid = 7001\n",
    );
    wrong(
        "user_that_nothing_makes",
        "name = \"a\"\n[files]\n\"/a\" = \"a\"\n[users.app]\nuid = 10001\ngroups = [\"media\"]\n[config]\nuser = \"ap\"\n",
    );
}

#[test]
fn config() {
    with_head("shell_commands", "[config]\nentrypoint = \"nginx -g x\"\ncmd = \"a && b\"\n");
    with_head(
        "config_values",
        "[config]\nenv = [\"A=B\"]\nlabels = { a = 1, b = true }\nworkdir = \"srv\"\nstop-signal = \"SIGNOPE\"\nuser = \"a:b:c\"\nhealthcheck = { interval = 30 }\nvolumes = [\"data\"]\n",
    );
    with_head(
        "healthcheck_times",
        "[config.healthcheck]\ncmd = [\"x\"]\ninterval = \"30\"\ntimeout = \"5 s\"\nretries = 0\n",
    );
    with_head(
        "created_annotation",
        "[annotations]\n\"org.opencontainers.image.created\" = \"now\"\n",
    );
}

#[test]
fn options() {
    with_head(
        "image_options",
        "[image]\nlayers = \"many\"\ncompression = \"xz\"\nrecipes = [\"app\"]\n",
    );
    with_head("too_many_layers", "[image]\nlayers = 500\n");
    with_head(
        "caches",
        "[cache]\nread = [\"http://cache.example.com/x\", \"me:pw@cache.example.com/x\", \"cache\"]\n",
    );
    wrong(
        "finish_without_debian",
        "name = \"a\"\nfrom = \"base:1\"\n[finish]\nscript = \"true\"\n[files]\n\"/a\" = \"a\"\n",
    );
    with_head(
        "recipe_sources",
        "[recipe.a]\nbuilder = \"make\"\nsource = { path = \".\", url = \"https://example.com\" }\n[recipe.b]\n[recipe.c]\nscript = \"x\"\nsource = { git = \"https://example.com/x.git\", revision = \"main\", include = [\"../x\"] }\n",
    );
}
