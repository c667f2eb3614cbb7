//! Whole-document tests of image.toml.

mod hostile;
mod reference;
mod wrong;

use std::path::Path;

use super::*;
use crate::document::Diagnostics;

fn parse(text: &str) -> Result<Image, Diagnostics> {
    Image::parse(Path::new("image.toml"), text)
}

/// The example of the design, and those that the contract with users promises.
const EXAMPLES: [(&str, &str); 4] = [
    ("hello-web", HELLO_WEB),
    ("orders-api", ORDERS_API),
    ("storefront", STOREFRONT),
    ("billing", BILLING),
];

const HELLO_WEB: &str = r#"
name = "hello-web"

[debian]
suite    = "bookworm"
packages = ["nginx-light"]

[recipe.app]                       # from source, hermetically
source = "app/"
debian = ["gcc", "libc6-dev", "make"]
script = "make && make install DESTDIR=$out PREFIX=/usr/local"

[files]
"/etc/nginx/sites-enabled/default" = "site.conf"     # replaces the symlink that the package made; plan says so
"/srv/www"                         = "public/"

[config]
cmd   = ["nginx", "-g", "daemon off;"]
ports = [80]
"#;

const ORDERS_API: &str = r#"
name = "orders-api"
platforms = ["linux/amd64", "linux/arm64"]

[debian]
suite    = "bookworm"
packages = ["python3", "ca-certificates", "tzdata"]

[recipe.app]
builder = "python"                     # the project's lockfile is the list of inputs
source  = "."

[users.app]
uid = 10001

[files]
"/usr/local/share/ca-certificates/acme.crt" = "deploy/acme-ca.crt"
"/var/lib/orders" = { directory = true, uid = 10001, gid = 10001, mode = "0750" }
"/etc/localtime"  = { symlink = "/usr/share/zoneinfo/Europe/Berlin" }

[finish]
script = "update-ca-certificates"

[config]
entrypoint = ["python3", "-m", "orders"]
user       = "app"
ports      = [8080]
"#;

const STOREFRONT: &str = r#"
name = "storefront"
[debian]
suite    = "bookworm"
packages = [{ name = "nodejs", version = "22.*", from = "node" }, "ca-certificates"]
[debian.repository.node]
url = "https://apt.example.com/node_22.x"
suite = "nodistro"
components = ["main"]
key = "keys/node.asc"
[recipe.assets]
builder = "npm"
source  = "web/"
script  = "npm run build && mkdir -p $out/dist && cp -r build/. $out/dist"
[files]
"/srv/www" = { recipe = "assets", path = "/dist" }
"/app"     = "server/"
[users.node]
uid = 10001
[config]
entrypoint  = ["node", "/app/main.js"]
user        = "node"
healthcheck = { cmd = ["node", "/app/health.js"], interval = "30s" }
"#;

const BILLING: &str = r#"
name = "billing"
lock = "../images.lock"                # one lock for a repository of images
[debian]
suite    = "bookworm"
packages = ["ca-certificates"]         # libssl joins by runtime closure
[recipe.billing]
builder = "cargo"
source  = { path = "..", include = ["Cargo.toml", "Cargo.lock", "crates/**"] }
debian  = ["libssl-dev", "pkgconf"]
script  = "cargo build --release --locked -p billing && install -D target/release/billing $out/usr/bin/billing"
[users.billing]
uid = 10001
[config]
entrypoint = ["billing"]
user       = "billing"
"#;

#[test]
fn the_promised_examples_parse() {
    for (name, text) in EXAMPLES {
        let image = parse(text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(image.name.as_str(), name);
        assert!(image.unsupported().is_none(), "{name}");
    }
    let orders = parse(ORDERS_API).unwrap();
    assert_eq!(orders.platforms.len(), 2);
    assert_eq!(orders.files[2].mode, Some(0o750));
    assert_eq!(orders.lock_path, Path::new("image.lock"));
    assert_eq!(orders.entering_recipes()[0].to_string(), "app");
    let storefront = parse(STOREFRONT).unwrap();
    assert!(storefront.entering_recipes().is_empty(), "[files] uses the only recipe");
    assert_eq!(storefront.debian.unwrap().packages[1].from.as_ref().unwrap().as_str(), "node");
    let billing = Image::parse(Path::new("billing/image.toml"), BILLING).unwrap();
    assert_eq!(billing.lock_path, Path::new("billing/../images.lock"));
}

#[test]
fn the_starter_parses_and_needs_nothing_else() {
    for (name, platform) in [("app", "linux/amd64"), ("team/app", "linux/arm/v7")] {
        let name = ImageName::new(name).unwrap();
        let platform = Platform::new(platform).unwrap();
        let text = starter(&name, platform, &Suite::new("bookworm").unwrap());
        let image = parse(&text).unwrap();
        assert_eq!((&image.name, &image.platforms), (&name, &vec![platform]));
        assert!(image.unsupported().is_none());
        // What is commented out must be right too: people only remove the `# `.
        let active: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.starts_with('[') || rest.contains(" = ") => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let image = parse(&active).unwrap_or_else(|problems| panic!("{problems}\n{active}"));
        assert!(image.debian.unwrap().essential);
        assert_eq!(image.files.len(), 3);
        assert!(image.config.user.is_some());
    }
}

#[test]
fn normalised_content_ignores_what_changes_no_byte() {
    let plain = parse(ORDERS_API).unwrap().normalised();
    let other = ORDERS_API
        .replace("\"orders-api\"", "\"other\"\ntag = \"9\"\nlock = \"x.lock\"")
        .replace(
            r#""python3", "ca-certificates", "tzdata""#,
            r#""tzdata", "python3", "ca-certificates""#,
        )
        .replace(
            "suite    = \"bookworm\"",
            "mirror = \"http://127.0.0.1/d\"\nsuite='bookworm' # so",
        )
        .replace("[finish]", "[image]\nlayers = 3\ncompression = \"zstd\"\n[finish]");
    assert_eq!(parse(&other).unwrap().normalised(), plain);
    for (from, to) in [
        ("\"tzdata\"", "\"tzdata-legacy\""),
        ("0750", "0755"),
        ("[8080]", "[8081]"),
        ("uid = 10001\n\n", "uid = 10002\n\n"),
        ("update-ca-certificates", "true"),
        ("\"orders\"]", "\"orders\", \"-v\"]"),
    ] {
        assert!(ORDERS_API.contains(from), "{from}");
        assert_ne!(parse(&ORDERS_API.replace(from, to)).unwrap().normalised(), plain, "{from}");
    }
    insta::assert_snapshot!("normalised_orders_api", serde_json::to_string_pretty(&plain).unwrap());
}

#[test]
fn a_recipe_may_stand_in_a_file_of_its_own() {
    let image = "name = \"x\"\n[debian]\nsuite = \"bookworm\"\n[recipe.app]\nfile = \"../shared/app.toml\"\n";
    let parse = |image: &str, file: &str| {
        let read = |path: &Path| match path == Path::new("a/../shared/app.toml") {
            true => Ok(file.to_owned()),
            false => Err(std::io::Error::other("another file")),
        };
        Image::parse_with(Path::new("a/image.toml"), image, &read)
    };
    let parsed = parse(image, "source = \"src\"\nscript = \"true\"\npatches = [\"p\"]\n").unwrap();
    let recipe = parsed.recipes.values().next().unwrap();
    assert_eq!(recipe.patches[0].as_str(), "../shared/p");
    let Some(RecipeSource::Folder { path, .. }) = &recipe.source else { panic!() };
    assert_eq!(path.as_str(), "../shared/src");
    for (text, file, expected) in [
        (image.to_owned(), "scrpt = \"x\"", "unknown key `scrpt`"),
        (image.to_owned(), "script = \"x\"\nrecipes = [\"lib\"]", "there is no recipe `lib`"),
        (image.to_owned(), "file = \"x\"", "names no other one"),
        (format!("{image}script = \"x\"\n"), "script = \"x\"", "`script` does not go with `file`"),
        (image.replace("shared", "other"), "", "cannot be read: another file"),
    ] {
        let problems = parse(&text, file).unwrap_err().to_string();
        assert!(problems.contains(expected), "{problems}");
    }
}
