//! npm's own configuration: which registry serves a package, and who one is there.
//!
//! Later levels win: global `npmrc`, the user's, the project's, the environment. Values may name
//! variables as `${NAME}`. Credentials belong to an address (`//host/path/:_authToken`) and are sent
//! to what lies below it, to nothing else.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64;
use url::Url;

/// Reads a variable of the environment.
pub(in crate::recipe::language) type Variables<'a> = dyn Fn(&str) -> Option<String> + Sync + 'a;

/// Registries and credentials as npm would use them.
#[derive(Clone)]
pub(in crate::recipe::language) struct Settings<'a> {
    values: BTreeMap<String, String>,
    environment: &'a Variables<'a>,
}

/// Keys alone: values may be secret.
impl fmt::Debug for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl<'a> Settings<'a> {
    /// Reads the texts of `npmrc` files, the weakest first.
    pub fn read<'t>(
        files: impl IntoIterator<Item = &'t str>,
        environment: &'a Variables<'a>,
    ) -> Self {
        let mut settings = Self { values: BTreeMap::new(), environment };
        for text in files {
            settings.add_file(text);
        }
        settings
    }

    fn add_file(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#', '[']) {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.trim();
            let value = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'))
                .unwrap_or_else(|| value.split([';', '#']).next().unwrap_or_default().trim());
            let key = expand(key.trim(), self.environment);
            self.values.insert(key, expand(value, self.environment));
        }
    }

    /// A value; variables such as `NPM_CONFIG_REGISTRY` override files. An empty one is none.
    fn value(&self, key: &str) -> Option<String> {
        let variable = |prefix: &str, key: &str| (self.environment)(&format!("{prefix}{key}"));
        let value = variable("npm_config_", key)
            .or_else(|| variable("NPM_CONFIG_", &key.to_ascii_uppercase()))
            .or_else(|| variable("NPM_CONFIG_", key))
            .filter(|value| !value.is_empty())
            .or_else(|| self.values.get(key).cloned());
        value.filter(|value| !value.is_empty())
    }

    /// The registry that serves a package, if one is configured.
    pub fn registry(&self, package: &str) -> Option<Url> {
        let scope = package.split_once('/').map(|(scope, _)| format!("{scope}:registry"));
        let keys = scope.iter().map(String::as_str).chain(["registry"]);
        keys.filter_map(|key| self.value(key)).find_map(|text| address(&text))
    }

    /// The value of the header `Authorization` for an address.
    pub fn authorization(&self, url: &Url) -> Option<String> {
        let host = url.host_str()?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let mut path = url.path();
        loop {
            let (parent, _) = path.rsplit_once('/')?;
            for prefix in [format!("//{host}{port}{parent}/"), format!("//{host}{port}{parent}")] {
                if let Some(value) = self.credential(&prefix) {
                    return Some(value);
                }
            }
            path = parent;
        }
    }

    fn credential(&self, prefix: &str) -> Option<String> {
        // A variable that is not set is no secret.
        let value =
            |key: &str| self.value(&format!("{prefix}:{key}")).filter(|it| !it.contains("${"));
        if let Some(token) = value("_authToken") {
            return Some(format!("Bearer {token}"));
        }
        if let Some(both) = value("_auth") {
            return Some(format!("Basic {both}"));
        }
        let (user, password) = (value("username")?, value("_password")?);
        let password = String::from_utf8(BASE64.decode(password.as_bytes()).ok()?).ok()?;
        Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes())))
    }
}

/// An address of a registry, with a slash at its end.
pub(in crate::recipe::language) fn address(text: &str) -> Option<Url> {
    let text = format!("{}/", text.trim().trim_end_matches('/'));
    Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

/// Puts variables in the place of `${NAME}`; `${NAME?}` is empty where there is none, and what is
/// not set otherwise stays as it is written.
fn expand(text: &str, environment: &Variables<'_>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        expanded.push_str(before);
        let Some((name, later)) = after.split_once('}') else {
            expanded.push_str("${");
            rest = after;
            continue;
        };
        match (environment(name.trim_end_matches('?')), name.ends_with('?')) {
            (Some(value), _) => expanded.push_str(&value),
            (None, true) => {}
            (None, false) => expanded.push_str(&format!("${{{name}}}")),
        }
        rest = later;
    }
    expanded.push_str(rest);
    expanded
}

/// A project's `npmrc` as builds see it: what says where packages are had from, and who one is
/// there, stays out of sources.
pub(super) fn without_registries(text: &str) -> String {
    let is_kept = |line: &&str| {
        let key = line.split('=').next().unwrap_or_default().trim();
        let name = key.rsplit(':').next().unwrap_or_default().to_ascii_lowercase();
        let secret =
            ["_auth", "_authtoken", "_password", "username", "email", "certfile", "keyfile"];
        !(key.starts_with("//") || name == "registry" || secret.contains(&name.as_str()))
    };
    text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn later_levels_win_and_scopes_have_their_own() {
        let global = "registry=https://global.example.com\n; comment\n[section]\n";
        let project = "registry = \"https://project.example.com/npm/\"\n\
                       @acme:registry=https://acme.example.com # ours\n";
        let settings = Settings::read([global, project], &nothing);
        assert_eq!(settings.registry("a").unwrap().as_str(), "https://project.example.com/npm/");
        assert_eq!(settings.registry("@acme/a").unwrap().as_str(), "https://acme.example.com/");
        assert_eq!(
            settings.registry("@other/a").unwrap().as_str(),
            "https://project.example.com/npm/"
        );
        for name in ["NPM_CONFIG_REGISTRY", "npm_config_registry"] {
            let variables = |it: &str| (it == name).then(|| "http://127.0.0.1:4873".to_owned());
            let settings = Settings::read([global, project], &variables);
            assert_eq!(settings.registry("a").unwrap().as_str(), "http://127.0.0.1:4873/");
        }
        assert!(Settings::read(["registry=nonsense"], &nothing).registry("a").is_none());
    }

    #[test]
    fn credentials_go_to_their_address_alone() {
        let text = "//acme.example.com/npm/:_authToken=${TOKEN}\n\
                    //plain.example.com/:username=ann\n//plain.example.com/:_password=c2VjcmV0\n\
                    //basic.example.com:8443/:_auth=YW5uOnNlY3JldA==\n\
                    //unset.example.com/:_authToken=${NONE}\n//empty.example.com/:_authToken=${NONE?}\n";
        let variables = |name: &str| (name == "TOKEN").then(|| "abc".to_owned());
        let settings = Settings::read([text], &variables);
        let sent = |address: &str| settings.authorization(&url(address));
        let bearer = Some("Bearer abc".to_owned());
        assert_eq!(sent("https://acme.example.com/npm/a/-/a-1.0.0.tgz"), bearer);
        assert_eq!(sent("https://acme.example.com/npm/a"), bearer);
        assert_eq!(sent("https://acme.example.com/other/a"), None);
        assert_eq!(sent("https://acme.example.com/npm-other/a"), None);
        assert_eq!(sent("https://acme.example.com:8443/npm/a"), None);
        assert_eq!(sent("https://acme.example.com.evil.example.com/npm/a"), None);
        let basic = Some("Basic YW5uOnNlY3JldA==".to_owned());
        assert_eq!(sent("https://plain.example.com/a"), basic);
        assert_eq!(sent("https://basic.example.com:8443/a"), basic);
        assert_eq!(sent("https://unset.example.com/a"), None);
        assert_eq!(sent("https://empty.example.com/a"), None);
        assert!(!format!("{settings:?}").contains("abc"));
    }

    #[test]
    fn sources_hold_neither_registries_nor_secrets() {
        let text = "legacy-peer-deps=true\nregistry=https://a.example.com\n\
                    @acme:registry=https://b.example.com\n//b.example.com/:_authToken=abc\n\
                    _auth = abc\nsave-exact=true\n";
        assert_eq!(without_registries(text), "legacy-peer-deps=true\nsave-exact=true\n");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "([a-z$}{=@:/#;\"\\n?]|\\$\\{|é){0,60}") {
            let settings = Settings::read([text.as_str()], &nothing);
            let _ = settings.registry(&text);
            let _ = settings.authorization(&url("https://a.example.com/b/c"));
            let _ = without_registries(&text);
        }
    }
}
