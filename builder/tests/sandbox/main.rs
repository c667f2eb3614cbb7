//! The sandbox against a real kernel, as root and (when a test user exists) as an ordinary user.
//!
//! The harness is not the usual one, since `main` must offer itself as the sandbox's helper first.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod bare;
mod changes;
mod checkout;
mod contained;
mod disguise;
mod isolation;
mod limits;
mod probe;
mod rootless;
mod speed;
mod world;

use drystone_builder::sandbox::Profile;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    drystone_builder::sandbox::helper_main_if_requested();
    contained::raised_if_requested();
    probe::main_if_requested();
    limits::victim_if_requested();
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    let mut add = |name: &str, run: fn()| {
        trials.push(Trial::test(name, move || {
            run();
            Ok::<(), Failed>(())
        }));
    };
    for (name, run) in checkout::TESTS
        .iter()
        .chain(changes::TESTS)
        .chain(isolation::TESTS)
        .chain(limits::TESTS)
        .chain(disguise::TESTS)
        .chain(speed::TESTS)
        .chain(bare::TESTS)
        .chain(rootless::TESTS)
    {
        add(name, *run);
    }
    for profile in [Profile::Configure, Profile::Recipe] {
        let kind = format!("{profile:?}").to_lowercase();
        for (name, _) in contained::PROBES {
            trials.push(Trial::test(format!("contained::{kind}::{name}"), move || {
                contained::check(profile, name);
                Ok(())
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    world::clean_up();
    conclusion.exit();
}
