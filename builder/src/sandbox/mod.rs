//! The sandbox that maintainer scripts and builds run in.
//!
//! # Processes
//!
//! A threaded program may not `clone` without `exec`, so all work happens in copies of the program
//! that are started anew: `main` calls [`helper_main_if_requested`] before anything else, which
//! takes over in a process that was started as a helper, and returns at once in any other.
//!
//! ```text
//! program ── session        user namespace (ids 0..65535 and the caller), mount namespace
//!              │             checkout, remove, rename, scan: a thread for each request
//!              └─ supervisor one for each open root: its own mount namespace, the overlay and
//!                   │        mounts; reads and writes files, pumps output, keeps the limits
//!                   ├─ spawner   starts inits, in the control group
//!                   └─ init  a second user namespace (ids 0..65535 only), pid, mount, network,
//!                        │   ipc, uts and cgroup namespaces; the root is pivoted, the old detached
//!                        └─ command   capabilities, rlimits, seccomp, no_new_privs
//! ```
//!
//! Each process ends when the one above it is gone, and with init everything in its pid namespace,
//! so a killed program leaves no process and no mount.
//!
//! Where a host forbids all this, root may do without ([`Isolation::None`]): the same processes, but
//! no namespaces and no mounts; the root is a copy, and init enters it by chroot.
//!
//! # What a command sees
//!
//! The root, a private `/proc` (its `sys` read-only, host-wide files covered), a minimal `/dev`, an
//! empty `/sys`, empty `/tmp` and `/build` (for recipes the latter is the root's own); host name `localhost`; no network but
//! a loopback device of its own; nothing on standard input, no other descriptor, exactly the environment it was given;
//! umask 022; no address space randomisation where the kernel allows that. Mount points that
//! the trees lack come from a lowest layer of the sandbox's own, so they are in no difference.

mod cgroup;
mod disguise;
mod early;
pub mod emulation;
mod error;
mod helper;
mod identity;
mod isolation;
mod messages;
mod obstacle;
mod preflight;
mod request;
mod resources;
mod root;
mod scan;
mod session;
mod wire;

pub use disguise::{DirectoryOrder, Disguise, ShiftedClock, Shown};
pub(crate) use early::Early;
pub use error::SandboxError;
pub use helper::helper_main_if_requested;
pub use identity::{ID_COUNT, IdMap};
pub use isolation::Isolation;
pub use preflight::{Check, preflight};
pub use request::{
    Change, Command, Ending, Finished, Item, ItemKind, Profile, RootRequest, Storage, Unsupported,
    standard_environment,
};
pub use resources::{Limit, Resources};
pub use root::Root;
pub use scan::{Scan, ScanEntry};
pub use session::Session;

/// The most lower trees of one root: the kernel's limit of layers in an overlay, less the
/// sandbox's own. [`Session::merge`] makes one of several.
pub const MAX_LOWERS: usize = 499;

/// The version of what a sandboxed command can see; part of every derivation that runs one.
/// It rises whenever a change here could change what a command makes.
pub const SANDBOX_VERSION: u32 = 4;
