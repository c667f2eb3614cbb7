//! `init`: an image.toml to start from. Nothing that exists is touched.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use drystone_builder::spec::{ImageName, Platform, Suite, starter};

use crate::answer;
use crate::arguments::InitArguments;
use crate::diagnostics::Failure;
use crate::wiring::{Wiring, absolute};

/// Writes the file and prints its path.
pub fn run(wiring: &Wiring, arguments: &InitArguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let name = match &arguments.name {
        Some(name) => {
            ImageName::new(name).map_err(|error| Failure::usage(format!("--name: {error}")))?
        }
        None => folder_name(directory)?,
    };
    let suite = Suite::new(&arguments.suite)
        .map_err(|error| Failure::usage(format!("--suite: {error}")))?;
    let platform = Platform::host().unwrap_or_else(Platform::default_platform);
    let text = starter(&name, platform, &suite);
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure::path("create", directory, error))?;
    let path = directory.join("image.toml");
    let mut file = match File::create_new(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::usage(format!("{} is there already", path.display()))
                .hint("`drystone init` overwrites nothing; name another folder"));
        }
        Err(error) => return Err(Failure::path("create", &path, error)),
    };
    file.write_all(text.as_bytes()).map_err(|error| Failure::path("write", &path, error))?;
    wiring.display.note("next: edit it, then run `drystone build`");
    answer::line(&path.display().to_string())
}

/// A name that image.toml takes, made from the folder's.
fn folder_name(directory: &Path) -> Result<ImageName, Failure> {
    let directory = absolute(directory)?;
    let folder = directory.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let words: Vec<&str> = folder.split(|c| !legal(c)).filter(|word| !word.is_empty()).collect();
    let name = if words.is_empty() { "image".to_owned() } else { words.join("-") };
    ImageName::new(&name).map_err(|error| {
        Failure::usage(format!("no name can be made of the folder's: {error}"))
            .hint("say one with `--name`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_any_name_give_a_name() {
        for (folder, name) in [
            ("/srv/Hello Web", "hello-web"),
            ("/x/api_v2", "api-v2"),
            ("/x/äö", "image"),
            ("/", "image"),
        ] {
            assert_eq!(folder_name(Path::new(folder)).unwrap().as_str(), name);
        }
    }
}
