//! The image.toml that `drystone init` writes.

use super::names::{ImageName, Suite};
use super::platform::Platform;

/// A commented image.toml for a new project. It builds as it stands, and a test parses it.
pub fn starter(name: &ImageName, platform: Platform, suite: &Suite) -> String {
    format!(
        r#"# What this image is made of. `drystone build` makes {file}.tar and image.lock from it.
# Every key is described in docs/image-toml.md.

name = "{name}"
platforms = ["{platform}"]

[debian]
suite    = "{suite}"
packages = ["ca-certificates"]          # and all that they need, nothing else
# essential = true                      # the whole base system: a shell, dpkg, coreutils

# Files of this project. Owner 0:0; 0644, or 0755 for directories and executables.
# [files]
# "/srv/www"            = "public/"                 # a folder's contents
# "/etc/motd"           = {{ text = "Hello.\n" }}
# "/var/lib/app"        = {{ directory = true, uid = 10001, gid = 10001, mode = "0750" }}

# An account to run as; its number is yours to choose, and never changes.
# [users.app]
# uid = 10001

# A last script over the whole image, without network.
# [finish]
# script = "update-ca-certificates"

[config]
# entrypoint = ["/usr/bin/app"]
# cmd        = ["--help"]
# env        = {{ LANG = "C.UTF-8" }}
# user       = "app"
# ports      = [8080]
"#,
        file = name.as_str().rsplit('/').next().unwrap_or("image"),
    )
}
