//! What every HTTP client of Drystone keeps to, whether it asks mirrors or registries: whom it
//! trusts, where it lets itself be sent, what it shows of addresses, and when it tries again.

pub mod retry;

use std::time::Duration;

use reqwest::Client;
use url::Url;

/// How a client behaves.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest silence of a server, where the client itself is to watch it.
    pub read_timeout: Option<Duration>,
    /// Whether proxies are taken from the environment.
    pub proxies: bool,
}

/// Makes a client. Its TLS uses ring, and the host's certificates (`SSL_CERT_FILE` and
/// `SSL_CERT_DIR` included); proxies come from the usual variables.
///
/// # Errors
/// The library's, when it cannot be set up at all.
pub fn client(options: Options) -> Result<Client, reqwest::Error> {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let mut builder = Client::builder()
            .user_agent(concat!("drystone/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            // A Referer would tell one server about another.
            .referer(false)
            .redirect(redirects());
        if let Some(timeout) = options.read_timeout {
            builder = builder.read_timeout(timeout);
        }
        if options.proxies { builder } else { builder.no_proxy() }
    };
    builder().build().or_else(|error| {
        // A host without certificates still reaches plain mirrors, whose content is signed, and
        // registries of its own.
        tracing::warn!(%error, "no certificates found: https addresses will not be reachable");
        builder().tls_certs_only([]).build()
    })
}

/// Follows redirects, but never from https to http. That credentials do not follow to another host
/// or port is the client's own rule, and tested where there are credentials.
fn redirects() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let secure = |url: &Url| url.scheme() == "https";
        let downgrade = attempt.previous().last().is_some_and(secure) && !secure(attempt.url());
        if downgrade {
            attempt.error("redirected from https to an insecure address")
        } else if attempt.previous().len() > 10 {
            attempt.error("redirected too often")
        } else {
            attempt.follow()
        }
    })
}

/// An address as messages may show it: without user name, password, query and fragment, any of
/// which may be secret.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot hold credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}
