//! Layers of packages, packed and compressed while scripts run: these wait for each other most of
//! the time, and what lies below configuration is known before it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use drystone_store::layer::Compression;
use drystone_store::realisation::Output;
use rayon::prelude::*;

use super::{BuildError, BuildRequest, Builder, PlatformWork, planned};
use crate::lock::{LayerMember, LockedPlatform};

/// How much less often the kernel runs these threads than scripts (`nice`).
const NICE: i32 = 10;

/// How long configuration runs before anything is made ahead.
const PATIENCE: Duration = Duration::from_millis(300);

/// Layers that can be made before configuration is done.
pub struct Ahead<'a> {
    builder: &'a Builder<'a>,
    compression: Compression,
    layers: Vec<Vec<Output>>,
}

impl<'a> Ahead<'a> {
    /// The layers that packages alone fill, as far as can be told before the image's own trees are
    /// known. A wrong guess costs time only: these layers are looked up when the image is assembled.
    pub fn new(
        builder: &'a Builder<'a>,
        request: &BuildRequest<'_>,
        locked: &LockedPlatform,
        work: &PlatformWork,
    ) -> Result<Self, BuildError> {
        let mut locked = locked.clone();
        let names: BTreeSet<&str> = locked.packages.iter().map(|key| key.name.as_str()).collect();
        let of_packages = |member: &LayerMember| match member {
            LayerMember::Package(name) => names.contains(name.as_str()),
            LayerMember::Special(name) => name == "merged-usr",
        };
        let mut layers = std::mem::take(&mut locked.layers);
        layers.retain(|layer| layer.iter().all(of_packages));
        locked.layers = layers;
        let planned = planned(request, &locked, work, &[])?;
        let layers = planned.plan.iter().map(|plan| {
            plan.members.iter().map(|&position| planned.outputs[position].clone()).collect()
        });
        Ok(Self { builder, compression: request.compression, layers: layers.collect() })
    }

    /// Makes the layers while `work` runs; what is not begun when it ends is left.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        let (ended, end) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Configuration that is looked up ends before this, and needs no help.
                if end.recv_timeout(PATIENCE).is_err_and(|it| it == RecvTimeoutError::Timeout) {
                    self.compress_all(&stop);
                }
                drop(end);
            });
            let done = work();
            stop.store(true, Ordering::Relaxed);
            drop(ended);
            done
        })
    }

    fn compress_all(&self, stop: &AtomicBool) {
        // A pool of its own: the common one's threads are for what the build waits for.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(rayon::current_num_threads())
            .start_handler(|_| {
                let thread = rustix::thread::gettid();
                // Linux keeps the priority by thread. Without it all work is merely equal.
                let _ = rustix::process::setpriority_process(Some(thread), NICE);
            })
            .build();
        let Ok(pool) = pool else { return };
        pool.install(|| {
            self.layers.par_iter().with_max_len(1).for_each(|parts| {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let parts: Vec<&Output> = parts.iter().collect();
                // What fails here fails again where the layer is needed, and is told there.
                if let Err(error) = self.builder.compress(&parts, self.compression) {
                    tracing::debug!("a layer could not be made ahead: {error}");
                }
            });
        });
    }
}
