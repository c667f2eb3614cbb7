//! One HTTP attempt: request, resume, checks of what the server announces, streaming.

use drystone_http::retry::{is_transient, retry_after};
use futures_util::StreamExt as _;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::download::{Job, Settings};
use super::retry::Failure;
use super::sink::Sink;
use super::{FetchError, shown};

/// What proves that a later answer continues an earlier one.
pub(super) type Validator = Option<HeaderValue>;

/// Makes the client.
pub(super) fn client(settings: &Settings) -> Result<Client, FetchError> {
    let options = drystone_http::Options {
        connect_timeout: settings.connect_timeout,
        read_timeout: Some(settings.idle_timeout),
        proxies: settings.proxies,
    };
    drystone_http::client(options).map_err(|source| FetchError::Client { source })
}

/// Fetches `url` into the sink, continuing what the sink holds if the server agrees.
///
/// The outer error is that the sink itself was lost.
pub(super) async fn attempt(
    client: &Client,
    job: &Job<'_>,
    url: &Url,
    mut sink: Sink,
    validator: &mut Validator,
) -> Result<(Sink, Result<(), Failure>), FetchError> {
    let response = match request(client, job, url, sink.written(), validator.as_ref()).await {
        Ok(response) => response,
        Err(failure) => return Ok((sink, Err(failure))),
    };
    if let Err(failure) = accept(job, url, &response, &mut sink) {
        return Ok((sink, Err(failure)));
    }
    *validator = validator_of(response.headers());
    stream(job, url, response, sink).await
}

async fn request(
    client: &Client,
    job: &Job<'_>,
    url: &Url,
    offset: u64,
    validator: Option<&HeaderValue>,
) -> Result<Response, Failure> {
    // Bytes are hashed as they are stored: no coding may come between.
    let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
    if let Some(accept) = job.headers.accept {
        request = request.header(ACCEPT, accept);
    }
    if let Some(authorization) = &job.headers.authorization {
        // A value that no header can hold is no secret of any server.
        let mut value = HeaderValue::from_str(authorization)
            .unwrap_or_else(|_| HeaderValue::from_static("invalid"));
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    } else if url.username().is_empty()
        && let Some((login, password)) = job.credentials.find(url)
    {
        request = request.basic_auth(login, Some(password));
    }
    if offset > 0 {
        request = request.header(RANGE, format!("bytes={offset}-"));
        if let Some(validator) = validator {
            request = request.header(IF_RANGE, validator);
        }
    }
    request.send().await.map_err(|error| {
        let hopeless = error.is_redirect() || error.is_builder();
        let error = FetchError::Transport { url: shown(url), source: error.without_url() };
        if hopeless { Failure::Next(error) } else { Failure::Again { error, wait: None } }
    })
}

/// Judges status, range and announced size; empties the sink if the answer starts anew.
fn accept(job: &Job<'_>, url: &Url, response: &Response, sink: &mut Sink) -> Result<(), Failure> {
    let status = response.status();
    let error = FetchError::Status { url: shown(url), status: status.as_u16() };
    match status {
        StatusCode::OK => job.restart(sink).map_err(Failure::Final)?,
        StatusCode::PARTIAL_CONTENT if range_start(response.headers()) == Some(sink.written()) => {}
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            job.restart(sink).map_err(Failure::Final)?;
            return Err(Failure::Again { error, wait: None });
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            return Err(Failure::Next(FetchError::NotFound { url: shown(url) }));
        }
        _ if is_transient(status.as_u16()) => {
            return Err(Failure::Again { error, wait: retry_after(response.headers()) });
        }
        _ => return Err(Failure::Next(error)),
    }
    let Some(length) = response.content_length() else { return Ok(()) };
    job.check_size(url, sink.written().saturating_add(length), true).map_err(Failure::Next)
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// A strong entity tag, else the date: weak tags may not be used in If-Range.
fn validator_of(headers: &HeaderMap) -> Validator {
    let strong = |tag: &&HeaderValue| !tag.as_bytes().starts_with(b"W/");
    headers.get(ETAG).filter(strong).or_else(|| headers.get(LAST_MODIFIED)).cloned()
}

async fn stream(
    job: &Job<'_>,
    url: &Url,
    response: Response,
    sink: Sink,
) -> Result<(Sink, Result<(), Failure>), FetchError> {
    let mut total = sink.written();
    let mut outcome = Ok(());
    let pump = sink.start();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                let source = error.without_url();
                let error = FetchError::Transport { url: shown(url), source };
                outcome = Err(Failure::Again { error, wait: None });
                break;
            }
        };
        total += chunk.len() as u64;
        if let Err(error) = job.check_size(url, total, false) {
            outcome = Err(Failure::Next(error));
            break;
        }
        job.observer.advanced(job.name, chunk.len() as u64);
        if !pump.send(chunk).await {
            break;
        }
    }
    let (sink, written) = pump.finish().await?;
    Ok((sink, written.map_err(Failure::Final).and(outcome)))
}
