use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A home with files, and variables.
struct Home {
    folder: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().display().to_string();
        Self { folder, variables: [("HOME".to_owned(), home)].into() }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn set(&mut self, name: &str, path: &str) {
        let path = self.folder.path().join(path).display().to_string();
        self.variables.insert(name.to_owned(), path);
    }

    fn find(&self, repository: &str) -> Option<Credential> {
        let (host, name) = repository.split_once('/').unwrap_or((repository, ""));
        let name = RepositoryName::new(name).ok();
        Credentials::from_environment(&|name| self.variables.get(name).cloned())
            .find(&Host::new(host).unwrap(), name.as_ref())
    }

    fn store(&self) -> CredentialStore {
        CredentialStore::from_environment(&|name| self.variables.get(name).cloned()).unwrap()
    }
}

fn password(user: &str, password: &str) -> Option<Credential> {
    Some(Credential::Password { user: user.into(), password: password.into() })
}

/// base64 of `ann:one`, `bob:two` and `<token>:three`.
const FILE: &str = r#"{
    "auths": {
        "registry.example.com": {"auth": "YW5uOm9uZQ=="},
        "registry.example.com/team/app": {"auth": "Ym9iOnR3bw=="},
        "https://index.docker.io/v1/": {"auth": "PHRva2VuPjp0aHJlZQ=="},
        "https://old.example.com/v2/": {"username": "cem", "password": "four"},
        "identity.example.com": {"auth": "YW5uOg==", "identitytoken": "five"},
        "broken.example.com": {"auth": "no base64!"},
        "empty.example.com": {}
    },
    "HttpHeaders": {"x": "y"}
}"#;

#[test]
fn the_longest_key_wins_and_old_keys_are_known() {
    let home = Home::new();
    assert_eq!(home.find("registry.example.com/x"), None);
    home.write(".docker/config.json", FILE);
    assert_eq!(home.find("registry.example.com/x"), password("ann", "one"));
    assert_eq!(home.find("registry.example.com"), password("ann", "one"));
    assert_eq!(home.find("registry.example.com/team/app"), password("bob", "two"));
    assert_eq!(home.find("registry.example.com/team/app/part"), password("bob", "two"));
    assert_eq!(home.find("registry.example.com/team/apple"), password("ann", "one"));
    assert_eq!(home.find("old.example.com/x"), password("cem", "four"));
    let token = |text: &str| Some(Credential::IdentityToken(text.to_owned()));
    assert_eq!(home.find("docker.io/library/x"), token("three"));
    assert_eq!(home.find("identity.example.com/x"), token("five"));
    for none in ["broken.example.com/x", "empty.example.com/x", "example.com/x"] {
        assert_eq!(home.find(none), None, "{none}");
    }
    assert_eq!(home.find("registry.example.com:5000/x"), None, "another port is another registry");
}

#[test]
fn files_are_asked_in_order() {
    let mut home = Home::new();
    let entry = |user: &str| {
        let auth = data_encoding::BASE64.encode(format!("{user}:x").as_bytes());
        format!(r#"{{"auths":{{"h.example.com":{{"auth":"{auth}"}}}}}}"#)
    };
    home.write(".config/containers/auth.json", &entry("config"));
    assert_eq!(home.find("h.example.com/x"), password("config", "x"));
    home.write("run/containers/auth.json", &entry("runtime"));
    home.set("XDG_RUNTIME_DIR", "run");
    assert_eq!(home.find("h.example.com/x"), password("runtime", "x"));
    home.write("docker/config.json", &entry("docker"));
    home.set("DOCKER_CONFIG", "docker");
    assert_eq!(home.find("h.example.com/x"), password("docker", "x"));
    home.write("mine.json", &entry("mine"));
    home.set("REGISTRY_AUTH_FILE", "mine.json");
    assert_eq!(home.find("h.example.com/x"), password("mine", "x"));
    home.write("mine.json", "not JSON: hunter2");
    assert_eq!(home.find("h.example.com/x"), password("docker", "x"), "a broken file is passed");
}

#[test]
fn no_message_holds_a_secret() {
    let home = Home::new();
    home.write(".docker/config.json", r#"{"auths":{"a":{"auth":["hunter2"]}}}"#);
    let error = file::AuthFile::read(&home.folder.path().join(".docker/config.json"));
    let error = error.err().unwrap();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    for credential in
        [Credential::new("ann", "hunter2"), Credential::RegistryToken("hunter2".into())]
    {
        let fixed = Credentials::fixed(Host::new("h").unwrap(), credential.clone());
        assert!(!format!("{credential:?} {fixed:?}").contains("hunter2"));
    }
}

#[test]
fn login_and_logout_change_one_entry_of_the_file() {
    let home = Home::new();
    let path = home.folder.path().join(".docker/config.json");
    let host = Host::new("new.example.com").unwrap();
    assert!(!home.store().logout(&host).unwrap());
    home.store().login(&host, "ann", "hunter2").unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(home.find("new.example.com/x"), password("ann", "hunter2"));

    home.write(".docker/config.json", FILE);
    home.store().login(&host, "ann", "hunter2").unwrap();
    let hub = Host::new("docker.io").unwrap();
    home.store().login(&hub, "ann", "three").unwrap();
    assert_eq!(home.find("docker.io/library/x"), password("ann", "three"));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("HttpHeaders") && text.contains("https://index.docker.io/v1/"), "{text}");
    assert!(home.store().logout(&hub).unwrap());
    assert_eq!(home.find("docker.io/library/x"), None);
    assert_eq!(home.find("registry.example.com/x"), password("ann", "one"));
    home.write(".docker/config.json", "[]");
    home.store().login(&host, "ann", "x").unwrap_err();
    assert_eq!(fs::read_to_string(&path).unwrap(), "[]", "what cannot be read is left alone");
}
