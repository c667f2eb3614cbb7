//! Keys made by the tools that people use, and texts that only look like keys.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// Runs a tool in `directory`; false when it is not installed.
fn run(directory: &Path, command: &[&str]) -> bool {
    let status = Command::new(command[0])
        .args(&command[1..])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        return true;
    }
    println!("skipped: {command:?}");
    false
}

/// Makes a file with a tool, and what is expected of it.
fn check(command: &[&str], file: &str, expected: Option<PrivateKey>, directory: &Path) {
    if run(directory, command) {
        let content = fs::read(directory.join(file)).unwrap();
        assert_eq!(detect(&content), expected, "{command:?}");
    }
}

#[test]
fn finds_what_openssl_makes() {
    use PrivateKey::{Der, Pem, Pkcs12};
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let rsa = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
    check(&[&rsa[..], &["-out", "rsa.pem"]].concat(), "rsa.pem", Some(Pem), at);
    let ed25519 = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", "ed.pem"];
    check(&ed25519, "ed.pem", Some(Pem), at);
    let ec = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ec.pem"];
    check(&ec, "ec.pem", Some(Pem), at);
    for (options, file, expected) in [
        (vec!["pkcs8", "-topk8", "-in", "rsa.pem", "-passout", "pass:x"], "enc.pem", Some(Pem)),
        (vec!["rsa", "-in", "rsa.pem", "-traditional"], "pkcs1.pem", Some(Pem)),
        (
            vec!["rsa", "-in", "rsa.pem", "-traditional", "-aes128", "-passout", "pass:x"],
            "old.pem",
            Some(Pem),
        ),
        (vec!["rsa", "-in", "rsa.pem", "-outform", "DER", "-traditional"], "pkcs1.der", Some(Der)),
        (
            vec!["pkcs8", "-topk8", "-nocrypt", "-in", "ed.pem", "-outform", "DER"],
            "ed.der",
            Some(Der),
        ),
        (
            vec!["pkcs8", "-topk8", "-in", "rsa.pem", "-passout", "pass:x", "-outform", "DER"],
            "enc.der",
            Some(Der),
        ),
        (vec!["ec", "-in", "ec.pem", "-outform", "DER"], "ec.der", Some(Der)),
        (vec!["rsa", "-in", "rsa.pem", "-pubout"], "public.pem", None),
        (vec!["rsa", "-in", "rsa.pem", "-pubout", "-outform", "DER"], "public.der", None),
        (vec!["req", "-x509", "-key", "rsa.pem", "-subj", "/CN=x", "-days", "9"], "cert.pem", None),
        (vec!["x509", "-in", "cert.pem", "-outform", "DER"], "cert.der", None),
        (vec!["dhparam", "-dsaparam", "512"], "dh.pem", None),
        (
            vec!["pkcs12", "-export", "-inkey", "rsa.pem", "-in", "cert.pem", "-passout", "pass:x"],
            "key.p12",
            Some(Pkcs12),
        ),
        (
            vec!["pkcs12", "-export", "-nokeys", "-in", "cert.pem", "-passout", "pass:x"],
            "certs.p12",
            None,
        ),
    ] {
        let command = [&["openssl"], &options[..], &["-out", file]].concat();
        check(&command, file, expected, at);
    }
    // The way that cloud services hand out keys.
    if let Ok(pem) = fs::read_to_string(at.join("rsa.pem")) {
        let json = format!("{{\"private_key\": \"{}\"}}", pem.replace('\n', "\\n"));
        assert_eq!(detect(json.as_bytes()), Some(Pem));
        let yaml =
            format!("key: |\n{}", pem.lines().map(|l| format!("    {l}\n")).collect::<String>());
        assert_eq!(detect(yaml.as_bytes()), Some(Pem));
        let dos = format!("before\r\n{}", pem.replace('\n', "\r\n"));
        assert_eq!(detect(dos.as_bytes()), Some(Pem));
        let source: String = pem.lines().map(|line| format!("  \"{line}\\n\" +\n")).collect();
        assert_eq!(detect(source.as_bytes()), Some(Pem), "{source}");
        let cut = &pem[..pem.len() / 2];
        assert_eq!(detect(cut.as_bytes()), None, "half a key");
    }
}

#[test]
fn finds_what_ssh_keygen_makes() {
    let directory = tempfile::tempdir().unwrap();
    for (kind, name) in [("ed25519", "a"), ("ecdsa", "b")] {
        for (phrase, name) in [("", name.to_owned()), ("x y z w", format!("{name}2"))] {
            let command = ["ssh-keygen", "-q", "-t", kind, "-N", phrase, "-f", &name];
            check(&command, &name, Some(PrivateKey::OpenSsh), directory.path());
            if let Ok(public) = fs::read(directory.path().join(format!("{name}.pub"))) {
                assert_eq!(detect(&public), None);
            }
        }
    }
}

#[test]
fn reads_java_keystores_by_their_entries() {
    let entry = |tag: u32| {
        let mut store = [0xfeed_feed_u32, 2, 1, tag].map(u32::to_be_bytes).concat();
        store.extend(b"\x00\x01a");
        store.extend([0; 8]);
        store.extend(b"\x00\x05X.509\x00\x00\x00\x02..");
        store.extend([0; 20]);
        store
    };
    assert_eq!(detect(&entry(1)), Some(PrivateKey::JavaKeyStore));
    assert_eq!(detect(&entry(2)), None);
    assert_eq!(detect(&entry(2)[..30]), None);
}

#[test]
#[ignore = "starts Java, which takes seconds"]
fn finds_what_keytool_makes() {
    let directory = tempfile::tempdir().unwrap();
    for (kind, expected) in [
        ("JKS", PrivateKey::JavaKeyStore),
        ("JCEKS", PrivateKey::JavaKeyStore),
        ("PKCS12", PrivateKey::Pkcs12),
    ] {
        let command = [
            "keytool",
            "-genkeypair",
            "-keyalg",
            "EC",
            "-alias",
            "a",
            "-dname",
            "CN=x",
            "-storepass",
            "changeit",
            "-keypass",
            "changeit",
            "-storetype",
            kind,
            "-keystore",
            kind,
        ];
        check(&command, kind, Some(expected), directory.path());
    }
}

#[test]
fn finds_dropbear_and_gnupg_keys() {
    let string = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let public = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
    assert_eq!(detect(&public), None);
    let private = [string(b"ssh-ed25519"), string(&[7; 64])].concat();
    assert_eq!(detect(&private), Some(PrivateKey::Dropbear));
    let named = b"Created: 20260101T000000\nKey: (private-key (ecc (curve Ed25519)))\n";
    assert_eq!(detect(named), Some(PrivateKey::GnuPgAgent));
}

#[test]
fn finds_what_gnupg_makes() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let home = at.join("home");
    fs::DirBuilder::new().mode(0o700).create(&home).unwrap();
    let home = home.to_str().unwrap();
    let gpg = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback"];
    let gpg = [&gpg[..], &["--passphrase", ""]].concat();
    for algorithm in ["rsa1024", "dsa1024", "ed25519", "nistp256"] {
        let user = format!("{algorithm}@example.org");
        let generate = ["--quick-generate-key", &user, algorithm, "default", "0"];
        let made = run(at, &[&gpg[..], &generate].concat());
        let export = ["--yes", "--output", "key", "--export-secret-keys", &user];
        if made && run(at, &[&gpg[..], &export].concat()) {
            let key = fs::read(at.join("key")).unwrap();
            assert_eq!(detect(&key), Some(PrivateKey::OpenPgp), "{algorithm}");
            assert_eq!(detect(&key[..40]), None, "{algorithm}: cut short");
        }
    }
    // The agent would outlive the directory.
    run(at, &["gpgconf", "--homedir", home, "--kill", "all"]);
    // Version 6: an Ed25519 key with its secret half in the clear.
    let header = [0xc5, 75, 6, 0x63, 0x87, 0x7f, 0xe3, 27, 0, 0, 0, 32];
    let modern = [&header[..], &[9; 32], &[0], &[8; 32]].concat();
    assert_eq!(detect(&modern), Some(PrivateKey::OpenPgp));
    assert_eq!(detect(&modern[..76]), None, "cut short");
}

/// Files that start as a secret key does, and are noise behind it.
#[test]
fn noise_is_no_key() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut file = [0; 256];
    for first in [0x94, 0x95, 0x96, 0x97, 0xc5].repeat(20_000) {
        // Xorshift, by Marsaglia.
        for part in file.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            part.copy_from_slice(&state.to_le_bytes());
        }
        file[0] = first;
        assert_eq!(detect(&file), None, "{file:02x?}");
    }
}

#[test]
fn talk_about_keys_is_no_key() {
    for text in [
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA<snip>\n-----END RSA PRIVATE KEY-----\n",
        "grep -q 'BEGIN PRIVATE KEY' \"$1\"",
        "if (strstr(line, \"-----BEGIN PRIVATE KEY-----\")) return 1;",
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        // Valid base64, but of text.
        "-----BEGIN PRIVATE KEY-----\n\
         dGhpcyBpcyBqdXN0IGEgbG9uZ2VyIHRleHQgZm9yIHRoZSByZWFkZXIgdG8gbG9vayBhdC4=\n\
         -----END PRIVATE KEY-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "-----BEGIN ",
        "",
    ] {
        assert_eq!(detect(text.as_bytes()), None, "{text}");
    }
    assert!(is_public("usr/share/doc/openssl/key.pem"));
    assert!(is_public("usr/lib/python3/dist-packages/x/__pycache__/test_key.cpython-311.pyc"));
    assert!(is_public("srv/app/node_modules/tls/test/key.pem"));
    assert!(!is_public("etc/ssl/private/snakeoil.key"));
    assert!(!is_public("srv/gems"), "a file of that name is none of a library");
}

proptest! {
    #[test]
    fn any_content_is_judged(content in proptest::collection::vec(any::<u8>(), 0..300), start in 0_usize..9) {
        let starts: [&[u8]; 9] = [
            b"", b"\x30\x82", b"\xfe\xed\xfe\xed\0\0\0\x02\0\0\0\x09", b"\0\0\0\x07ssh-rsa",
            b"-----BEGIN PRIVATE KEY-----", b"\xc5", b"\x95", b"\x30\x80\x02\x01\x03\x30",
            b"-----BEGIN PGP PRIVATE KEY BLOCK-----",
        ];
        let _ = detect(&[starts[start], &content].concat());
    }
}

/// Every file of the roots that the environment names: packages without key makers have no key.
#[test]
fn finds_nothing_in_given_roots() {
    let roots = std::env::var_os("DRYSTONE_TEST_ROOTS").unwrap_or_default();
    let roots: Vec<_> = std::env::split_paths(&roots).filter(|path| path.is_dir()).collect();
    if roots.is_empty() {
        println!("skipped: DRYSTONE_TEST_ROOTS names no root");
    }
    for root in roots {
        for entry in walkdir::WalkDir::new(&root) {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            if entry.file_type().is_file() && !is_public(&path) {
                let found = detect(&fs::read(entry.path()).unwrap());
                assert_eq!(found, None, "{path}");
            }
        }
    }
}
