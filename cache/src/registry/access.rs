//! Access: what the registry wants to see, and the tokens that it was given.
//!
//! The first answer 401 tells how (RFC 9110; distribution's "Token Authentication Specification").
//! Tokens are kept for each set of rights, and renewed a little before they expire, so a long push
//! does not stumble over its own token.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use drystone_http::retry::{is_transient, retry_after};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::challenge;
use super::session::{Attempt, Session, explain, is_passing, stalled, transport};
use super::shown;
use crate::credentials::{Credential, Credentials};
use crate::error::RegistryError;
use crate::reference::{Host, RepositoryName};
use crate::traffic::Kind;

/// The most bytes of a token server's answer.
const MOST_TOKEN_BYTES: u64 = 1 << 20;
/// How long a token is good that does not say so (the specification's words).
const DEFAULT_LIFE: u64 = 60;
/// The longest life that is believed.
const LONGEST_LIFE: u64 = 24 * 60 * 60;
const CLIENT: &str = "drystone";

/// The rights that a request needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scope {
    rights: Vec<String>,
    name: Option<RepositoryName>,
}

impl Scope {
    pub(super) fn pull(name: &RepositoryName) -> Self {
        Self::of(name, "pull")
    }

    pub(super) fn push(name: &RepositoryName) -> Self {
        Self::of(name, "pull,push")
    }

    pub(super) fn delete(name: &RepositoryName) -> Self {
        Self::of(name, "pull,push,delete")
    }

    /// With the right to read another repository, which mounting needs.
    pub(super) fn reading(mut self, other: &RepositoryName) -> Self {
        self.rights.push(format!("repository:{other}:pull"));
        self
    }

    fn of(name: &RepositoryName, actions: &str) -> Self {
        Self { rights: vec![format!("repository:{name}:{actions}")], name: Some(name.clone()) }
    }
}

/// How the registry wants to be asked.
#[derive(Clone, Default)]
enum Way {
    /// It has not said.
    #[default]
    Unknown,
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
    },
}

struct Token {
    header: HeaderValue,
    until: Instant,
}

/// What is known about access to one registry.
pub(super) struct Access {
    host: Host,
    credentials: Credentials,
    way: Mutex<Way>,
    found: tokio::sync::Mutex<BTreeMap<Option<RepositoryName>, Option<Credential>>>,
    /// Held while a token is fetched, so that many requests ask for it once.
    tokens: tokio::sync::Mutex<BTreeMap<Scope, Token>>,
}

impl Access {
    pub(super) fn new(host: Host, credentials: Credentials) -> Self {
        Self {
            host,
            credentials,
            way: Mutex::default(),
            found: tokio::sync::Mutex::default(),
            tokens: tokio::sync::Mutex::default(),
        }
    }

    /// The header for a request, if one is known to be wanted.
    pub(super) async fn authorization(
        &self,
        session: &Session,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        match self.way() {
            Way::Unknown => Ok(None),
            Way::Basic => Ok(match self.credential(scope).await {
                Some(Credential::Password { user, password }) => basic(&user, &password),
                Some(Credential::RegistryToken(token)) => bearer(&token),
                Some(Credential::IdentityToken(token)) => basic("<token>", &token),
                None => None,
            }),
            Way::Bearer { realm, service } => {
                self.token(session, scope, &realm, service.as_deref()).await.map(Some)
            }
        }
    }

    /// Learns from an answer 401; whether another attempt may go better.
    pub(super) async fn renew(
        &self,
        session: &Session,
        scope: &Scope,
        headers: &HeaderMap,
    ) -> Result<bool, RegistryError> {
        let known = !matches!(self.way(), Way::Unknown);
        self.learn(headers, StatusCode::UNAUTHORIZED);
        match self.way() {
            Way::Unknown => Ok(false),
            Way::Basic => Ok(!known && self.credential(scope).await.is_some()),
            Way::Bearer { realm, service } => {
                // The token that was sent, if one was, is no good any more.
                self.tokens.lock().await.remove(scope);
                self.token(session, scope, &realm, service.as_deref()).await?;
                Ok(true)
            }
        }
    }

    /// Takes the way to authenticate from an answer.
    pub(super) fn learn(&self, headers: &HeaderMap, status: StatusCode) {
        if status != StatusCode::UNAUTHORIZED {
            return;
        }
        let lines = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok());
        let challenges: Vec<_> = lines.flat_map(challenge::parse).collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let bearer = of("bearer").and_then(|challenge| {
            let realm = Url::parse(challenge.parameters.get("realm")?).ok()?;
            Some(Way::Bearer { realm, service: challenge.parameters.get("service").cloned() })
        });
        if let Some(way) = bearer.or_else(|| of("basic").map(|_| Way::Basic)) {
            *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
        }
    }

    /// Fails unless there are credentials and the registry took them: for `login`.
    pub(super) async fn prove(&self, session: &Session) -> Result<(), RegistryError> {
        // A registry that asked for nothing accepts everything.
        self.authorization(session, &Scope::default()).await.map(drop)
    }

    fn way(&self) -> Way {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The credential for a scope. Files are read and helpers asked once for each repository.
    async fn credential(&self, scope: &Scope) -> Option<Credential> {
        let mut found = self.found.lock().await;
        if let Some(known) = found.get(&scope.name) {
            return known.clone();
        }
        let (credentials, host) = (self.credentials.clone(), self.host.clone());
        let name = scope.name.clone();
        let look = tokio::task::spawn_blocking(move || credentials.find(&host, name.as_ref()));
        let credential = look.await.ok().flatten();
        found.insert(scope.name.clone(), credential.clone());
        credential
    }

    async fn token(
        &self,
        session: &Session,
        scope: &Scope,
        realm: &Url,
        service: Option<&str>,
    ) -> Result<HeaderValue, RegistryError> {
        let mut tokens = self.tokens.lock().await;
        if let Some(token) = tokens.get(scope).filter(|token| token.until > Instant::now()) {
            return Ok(token.header.clone());
        }
        let credential = self.credential(scope).await;
        if let Some(Credential::RegistryToken(token)) = &credential {
            let header = bearer(token);
            return header.ok_or_else(|| malformed(realm, "the registry token is no header"));
        }
        self.check_realm(session, realm)?;
        let mut vain = 0;
        let token = loop {
            match self.fetch(session, scope, realm, service, credential.as_ref()).await {
                Ok(token) => break token,
                Err(failed) => {
                    vain += 1;
                    session.pause(failed, vain).await?;
                }
            }
        };
        let header = token.header.clone();
        tokens.insert(scope.clone(), token);
        Ok(header)
    }

    /// A password must not go over plain HTTP unless the registry itself may be asked so.
    fn check_realm(&self, session: &Session, realm: &Url) -> Result<(), RegistryError> {
        match realm.scheme() {
            "https" => Ok(()),
            "http" if session.may_be_plain() => Ok(()),
            _ => Err(RegistryError::Misled {
                place: self.host.to_string(),
                address: shown(realm),
                reason: "a token server must be asked over https",
            }),
        }
    }

    async fn fetch(
        &self,
        session: &Session,
        scope: &Scope,
        realm: &Url,
        service: Option<&str>,
        credential: Option<&Credential>,
    ) -> Result<Token, Attempt> {
        let client =
            session.client().map_err(|error| Attempt { error, again: false, wait: None })?;
        let mut parameters: Vec<(&str, &str)> = Vec::new();
        parameters.extend(service.map(|service| ("service", service)));
        let joined = scope.rights.join(" ");
        let request = match credential {
            Some(Credential::IdentityToken(token)) => {
                if !joined.is_empty() {
                    parameters.push(("scope", &joined));
                }
                parameters.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT),
                    ("refresh_token", token),
                ]);
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                let form = form.extend_pairs(&parameters).finish();
                let request = client.request(Method::POST, realm.clone()).body(form);
                request.header("content-type", "application/x-www-form-urlencoded")
            }
            credential => {
                parameters.extend(scope.rights.iter().map(|right| ("scope", right.as_str())));
                let mut url = realm.clone();
                if let Some(Credential::Password { user, .. }) = credential {
                    parameters.push(("account", user));
                }
                url.query_pairs_mut().extend_pairs(&parameters);
                let mut request = client.get(url);
                if let Some(Credential::Password { user, password }) = credential {
                    request = request.basic_auth(user, Some(password));
                }
                request
            }
        };
        session.traffic.request(Kind::Authentication);
        let asked = Instant::now();
        let idle = session.settings.idle_timeout;
        let response = match tokio::time::timeout(idle, request.send()).await {
            Ok(sent) => sent.map_err(|error| transport(realm, error))?,
            Err(_) => return Err(stalled(realm, idle)),
        };
        let status = response.status().as_u16();
        let wait = retry_after(response.headers());
        let body = session.read(response, MOST_TOKEN_BYTES, Kind::Authentication).await;
        let body = body.map_err(|error| {
            let again = is_passing(&error);
            Attempt { error, again, wait: None }
        })?;
        let refused = |error| Attempt { error, again: is_transient(status), wait };
        match status {
            200 => read_token(realm, &body, asked).map_err(|error| Attempt {
                error,
                again: false,
                wait: None,
            }),
            400 | 401 | 403 => Err(refused(RegistryError::Denied {
                place: shown(realm),
                status,
                message: explain(&body),
            })),
            _ => Err(refused(RegistryError::Status {
                place: shown(realm),
                status,
                message: explain(&body),
            })),
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Reads a token. No message quotes the answer.
fn read_token(realm: &Url, body: &[u8], asked: Instant) -> Result<Token, RegistryError> {
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|_| malformed(realm, "it is no token"))?;
    let text = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let text = text.ok_or_else(|| malformed(realm, "it holds no token"))?;
    let header = bearer(&text).ok_or_else(|| malformed(realm, "the token is no header"))?;
    let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
    // A tenth earlier: the request that carries it takes time as well.
    let life = Duration::from_secs(life).mul_f64(0.9);
    Ok(Token { header, until: asked + life })
}

fn malformed(realm: &Url, reason: &str) -> RegistryError {
    RegistryError::Malformed { place: shown(realm), reason: reason.to_owned() }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    secret(format!("Bearer {token}"))
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    secret(format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes())))
}

/// A header that is never shown.
fn secret(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
