//! `file:` addresses: mirrors on a disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use url::Url;

use super::download::Job;
use super::retry::Failure;
use super::sink::{Sink, joined};
use super::{FetchError, shown};

/// Copies a local file into the sink.
pub(super) async fn attempt(
    job: &Job<'_>,
    url: &Url,
    mut sink: Sink,
) -> Result<(Sink, Result<(), Failure>), FetchError> {
    let Ok(path) = url.to_file_path() else {
        let scheme = FetchError::Scheme { url: shown(url) };
        return Ok((sink, Err(Failure::Next(scheme))));
    };
    let (shown, limit) = (shown(url), job.largest());
    let (sink, result) = joined(
        tokio::task::spawn_blocking(move || {
            let result = copy(&path, &shown, limit, &mut sink);
            (sink, result)
        })
        .await,
    )?;
    job.observer.advanced(job.name, sink.written());
    Ok((sink, result))
}

fn copy(path: &PathBuf, url: &str, limit: u64, sink: &mut Sink) -> Result<(), Failure> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Failure::Next(FetchError::NotFound { url: url.to_owned() }),
        _ => Failure::Next(FetchError::File { action: "read", path: path.clone(), source }),
    };
    sink.reset().map_err(Failure::Final)?;
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        if sink.written() + count as u64 > limit {
            return Err(Failure::Next(FetchError::TooLarge { url: url.to_owned(), limit }));
        }
        sink.write(&buffer[..count]).map_err(Failure::Final)?;
    }
}
