//! `login` and `logout`: docker's file of credentials, or the helper that it names.

use std::io::Read as _;

use drystone_cache::credentials::{Credential, CredentialStore, Credentials, Stored};
use drystone_cache::reference::Host;
use drystone_cache::registry::{self, Registries};

use crate::arguments::{LoginArguments, LogoutArguments};
use crate::diagnostics::Failure;
use crate::interrupt;
use crate::wiring::{Wiring, environment, runtime};

/// The most bytes of a password: identity tokens are long.
const MOST_BYTES: u64 = 1 << 20;

/// Checks credentials with the registry, and keeps them if they are good.
pub fn login(wiring: &Wiring, arguments: &LoginArguments) -> Result<(), Failure> {
    let host = host(&arguments.registry)?;
    let mut password = String::new();
    std::io::stdin()
        .take(MOST_BYTES)
        .read_to_string(&mut password)
        .map_err(|error| Failure::io("read the password from standard input", error))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::usage("standard input holds no password")
            .hint("for example `printf %s \"$PASSWORD\" | drystone login … --password-stdin`"));
    }
    let credential = Credential::new(&arguments.username, password);
    let registries = Registries::new(registry::Settings {
        insecure: arguments.insecure.then(|| host.clone()).into_iter().collect(),
        credentials: Credentials::fixed(host.clone(), credential),
        ..registry::Settings::default()
    });
    let checked = interrupt::or_cancelled(registries.check(&host));
    runtime()?.block_on(checked).map_err(Failure::of)?.map_err(Failure::of)?;
    let store = CredentialStore::from_environment(&environment).map_err(Failure::of)?;
    let stored = store.login(&host, &arguments.username, password).map_err(Failure::of)?;
    wiring.display.note(match stored {
        Stored::File(path) => {
            format!("{host}: kept, readable by its owner alone, in {}", path.display())
        }
        Stored::Helper(helper) => format!("{host}: kept by docker-credential-{helper}"),
    });
    Ok(())
}

/// Forgets credentials.
pub fn logout(wiring: &Wiring, arguments: &LogoutArguments) -> Result<(), Failure> {
    let host = host(&arguments.registry)?;
    let store = CredentialStore::from_environment(&environment).map_err(Failure::of)?;
    wiring.display.note(match store.logout(&host).map_err(Failure::of)? {
        true => format!("{host}: forgotten"),
        false => format!("{host}: nothing was kept"),
    });
    Ok(())
}

fn host(text: &str) -> Result<Host, Failure> {
    Host::new(text).map_err(|error| {
        Failure::of(error).hint("a registry is named as HOST or HOST:PORT, without a path")
    })
}
