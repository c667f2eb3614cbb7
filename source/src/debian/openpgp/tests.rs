//! Keys and signatures are made by gpg in a directory of their own; gpgv is the oracle for what
//! both should say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use drystone_store::digest::BlobDigest;
use pgp::packet::{Packet, PacketParser, PacketTrait as _};
use tempfile::TempDir;

use super::*;

const TEXT: &str = "Origin: Test\nSuite: sid\n- a line with a dash\n-----odd-----\nDescription: blanks  \n\nEnd: 1\n";

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A GnuPG home of its own; its agent ends with it.
struct Gpg(TempDir);

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf")
            .args(["--kill", "all"])
            .env("GNUPGHOME", self.0.path())
            .stderr(Stdio::null())
            .status();
    }
}

impl Gpg {
    /// None, with a line that says so, when gpg is not installed.
    fn new() -> Option<Self> {
        if Command::new("gpg").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: gpg is not installed");
            return None;
        }
        // The agent's socket needs a short path.
        Some(Self(tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Vec<u8> {
        use std::io::Write as _;
        let mut child = Command::new("gpg")
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"])
            .args(["--passphrase", "", "--no-tty", "--no-auto-check-trustdb"])
            .args(arguments)
            .env("GNUPGHOME", self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {arguments:?}: {errors}");
        output.stdout
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        self.run_with(arguments, "")
    }

    fn key(&self, name: &str, extra: &[&str], usage: &str, expire: &str) -> String {
        let id = format!("{name} <{name}@example.com>");
        let mut arguments = extra.to_vec();
        arguments.extend(["--quick-gen-key", &id, "ed25519", usage, expire]);
        self.run(&arguments);
        let listing = self.run(&["--with-colons", "--list-keys", name]);
        let listing = String::from_utf8(listing).unwrap();
        let line = listing.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    fn clearsign(&self, key: &str, extra: &[&str]) -> Vec<u8> {
        let mut arguments = vec!["--local-user", key];
        arguments.extend(extra);
        arguments.push("--clearsign");
        self.run_with(&arguments, TEXT)
    }

    fn export(&self, names: &[&str]) -> Vec<u8> {
        let mut arguments = vec!["--export"];
        arguments.extend(names);
        self.run(&arguments)
    }

    /// What gpgv says about a message, read as apt reads it: one GOODSIG suffices (the exit status
    /// says nothing about expired and revoked keys), and SHA-1 is refused.
    fn gpgv(&self, keys: &[u8], message: &[u8]) -> bool {
        let (ring, file) = (self.path("oracle.gpg"), self.path("oracle.txt"));
        fs::write(&ring, keys).unwrap();
        fs::write(&file, message).unwrap();
        let output = Command::new("gpgv")
            .args(["--weak-digest", "SHA1", "--status-fd", "1", "--keyring"])
            .args([&ring, &file])
            .env("GNUPGHOME", self.0.path())
            .output()
            .unwrap();
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        status.lines().any(|line| line.starts_with("[GNUPG:] GOODSIG "))
    }

    /// Verifies with both, which must agree.
    fn verify(&self, keys: &[u8], message: &[u8]) -> Result<Verified, SignatureError> {
        let result = verify_clearsigned(message, &Keyring::from_bytes(keys).unwrap(), now());
        assert_eq!(self.gpgv(keys, message), result.is_ok(), "gpgv disagrees with {result:?}");
        result
    }
}

fn reason(result: Result<Verified, SignatureError>) -> Rejection {
    match result {
        Err(SignatureError::Unacceptable { mut rejected }) => rejected.remove(0).reason,
        other => panic!("expected one rejected signature, not {other:?}"),
    }
}

/// Rewrites the packets of a key file.
fn edit(keys: &[u8], mut change: impl FnMut(Packet) -> Option<Packet>) -> Vec<u8> {
    let mut out = Vec::new();
    for packet in PacketParser::new(keys).map(Result::unwrap) {
        if let Some(packet) = change(packet) {
            packet.to_writer_with_header_of_any(&mut out);
        }
    }
    out
}

trait WritePacket {
    fn to_writer_with_header_of_any(&self, out: &mut Vec<u8>);
}

impl WritePacket for Packet {
    fn to_writer_with_header_of_any(&self, out: &mut Vec<u8>) {
        match self {
            Packet::PublicKey(packet) => packet.to_writer_with_header(out),
            Packet::PublicSubkey(packet) => packet.to_writer_with_header(out),
            Packet::UserId(packet) => packet.to_writer_with_header(out),
            Packet::Signature(packet) => packet.to_writer_with_header(out),
            other => panic!("unexpected packet {other:?}"),
        }
        .unwrap();
    }
}

#[test]
fn a_good_signature_gives_the_text_and_the_signer() {
    let Some(gpg) = Gpg::new() else { return };
    let fingerprint = gpg.key("good", &[], "sign", "0");
    let message = gpg.clearsign("good", &[]);
    let verified = gpg.verify(&gpg.export(&["good"]), &message).unwrap();
    assert_eq!(verified.text, TEXT.replace("blanks  ", "blanks"));
    assert_eq!(verified.signers, std::slice::from_ref(&fingerprint));
    let armored = gpg.run(&["--armor", "--export", "good"]);
    let ring = Keyring::from_bytes(&[&b"A comment\n"[..], &armored[..], &armored[..]].concat());
    let ring = ring.unwrap();
    assert_eq!(ring.fingerprints().len(), 2);
    assert!(verify_clearsigned(&message, &ring, now()).is_ok());
    assert!(verify_clearsigned(&message, &ring.restricted_to(&[fingerprint]), now()).is_ok());
    let none = ring.restricted_to(&["00".repeat(20)]);
    assert_eq!(reason(verify_clearsigned(&message, &none, now())), Rejection::UnknownKey);
    let early = verify_clearsigned(&message, &ring, now() - 86_400);
    assert!(matches!(reason(early), Rejection::Future(_)));
}

#[test]
fn wrong_keys_changed_texts_and_weak_hashes_are_refused() {
    let Some(gpg) = Gpg::new() else { return };
    gpg.key("good", &[], "sign", "0");
    gpg.key("other", &[], "sign", "0");
    let message = gpg.clearsign("good", &[]);
    let result = gpg.verify(&gpg.export(&["other"]), &message);
    assert!(result.as_ref().unwrap_err().to_string().contains("not among the trusted keys"));
    assert_eq!(reason(result), Rejection::UnknownKey);
    let keys = gpg.export(&["good", "other"]);
    let tampered = String::from_utf8(message.clone()).unwrap().replace("Suite: sid", "Suite: six");
    assert_eq!(reason(gpg.verify(&keys, tampered.as_bytes())), Rejection::Mismatch);
    let weak = gpg.clearsign("good", &["--digest-algo", "SHA1"]);
    assert_eq!(reason(gpg.verify(&keys, &weak)), Rejection::WeakHash("SHA1".to_owned()));
    // One good signature suffices, whatever stands beside it.
    let both = gpg.clearsign("good", &["--local-user", "other"]);
    assert_eq!(gpg.verify(&gpg.export(&["other"]), &both).unwrap().signers.len(), 1);
    assert_eq!(gpg.verify(&keys, &both).unwrap().signers.len(), 2);
    gpg.run(&["--quick-gen-key", "small <small@example.com>", "rsa1024", "sign", "0"]);
    let small = gpg.clearsign("small", &[]);
    let ring = Keyring::from_bytes(&gpg.export(&["small"])).unwrap();
    assert_eq!(reason(verify_clearsigned(&small, &ring, now())), Rejection::WeakKey);
}

#[test]
fn expiry_counts_now_and_when_the_signature_was_made() {
    let Some(gpg) = Gpg::new() else { return };
    let old = ["--faked-system-time", "20200101T000000!"];
    gpg.key("old", &old, "sign", "30d");
    let message = gpg.clearsign("old", &old);
    let keys = gpg.export(&["old"]);
    assert!(matches!(reason(gpg.verify(&keys, &message)), Rejection::KeyExpired(_)));
    let ring = Keyring::from_bytes(&keys).unwrap();
    let day = 86_400;
    let made = 1_577_836_800;
    assert!(verify_clearsigned(&message, &ring, made + 29 * day).is_ok());
    assert_eq!(
        reason(verify_clearsigned(&message, &ring, made + 31 * day)),
        Rejection::KeyExpired(made + 30 * day)
    );
    gpg.key("long", &old, "sign", "0");
    let brief = [&old[..], &["--default-sig-expire", "7d"]].concat();
    let message = gpg.clearsign("long", &brief);
    let keys = gpg.export(&["long"]);
    let result = verify_clearsigned(&message, &Keyring::from_bytes(&keys).unwrap(), now());
    assert_eq!(reason(result), Rejection::SignatureExpired(made + 7 * day));
}

#[test]
fn revoked_keys_and_subkeys_are_refused() {
    let Some(gpg) = Gpg::new() else { return };
    let fingerprint = gpg.key("gone", &[], "sign", "0");
    let message = gpg.clearsign("gone", &[]);
    assert!(gpg.verify(&gpg.export(&["gone"]), &message).is_ok());
    // gpg writes a certificate of revocation for each key, made harmless by one leading colon.
    let certificate = gpg.path(&format!("openpgp-revocs.d/{fingerprint}.rev"));
    let text = fs::read_to_string(certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    let unrevoked = gpg.export(&["gone"]);
    gpg.run_with(&["--import"], &text);
    let keys = gpg.export(&["gone"]);
    assert_eq!(reason(gpg.verify(&keys, &message)), Rejection::KeyRevoked);
    let both = Keyring::from_bytes(&[unrevoked, keys].concat()).unwrap();
    assert_eq!(reason(verify_clearsigned(&message, &both, now())), Rejection::KeyRevoked);

    let primary = gpg.key("sub", &[], "cert", "0");
    gpg.run(&["--quick-add-key", &primary, "ed25519", "sign", "0"]);
    let message = gpg.clearsign("sub", &[]);
    assert!(gpg.verify(&gpg.export(&["sub"]), &message).is_ok());
    gpg.run_with(&["--command-fd", "0", "--edit-key", "sub"], "key 1\nrevkey\ny\n0\n\ny\nsave\n");
    assert_eq!(reason(gpg.verify(&gpg.export(&["sub"]), &message)), Rejection::KeyRevoked);
}

#[test]
fn subkeys_need_a_binding_the_flag_and_their_own_consent() {
    let Some(gpg) = Gpg::new() else { return };
    // Made earlier, since of two bindings made in one second neither is the newer.
    let earlier = ["--faked-system-time", "20250101T000000!"];
    let primary = gpg.key("sub", &earlier, "cert", "0");
    let add = ["--quick-add-key", &primary, "ed25519", "sign", "0"];
    gpg.run(&[&earlier[..], &add].concat());
    let message = gpg.clearsign("sub", &[]);
    let keys = gpg.export(&["sub"]);
    let verified = gpg.verify(&keys, &message).unwrap();
    assert_ne!(verified.signers, [primary], "the subkey signed");
    let without_consent = edit(&keys, |packet| match packet {
        Packet::Signature(mut signature) if signature.embedded_signature().is_some() => {
            let config = signature.config().unwrap();
            let at = config.unhashed_subpackets().position(|subpacket| {
                matches!(subpacket.data, SubpacketData::EmbeddedSignature(_))
            });
            signature.unhashed_subpacket_remove(at.unwrap()).unwrap();
            Some(Packet::Signature(signature))
        }
        other => Some(other),
    });
    assert_eq!(reason(gpg.verify(&without_consent, &message)), Rejection::Unbound);

    // Another's subkey in one's own certificate: its binding was made by somebody else.
    // A key must not be newer than what it has signed.
    gpg.key("thief", &earlier, "cert", "0");
    let mut subkey = false;
    let stolen = edit(&keys, |packet| {
        subkey |= matches!(packet, Packet::PublicSubkey(_));
        subkey.then_some(packet)
    });
    let thief = [gpg.export(&["thief"]), stolen].concat();
    assert_eq!(reason(gpg.verify(&thief, &message)), Rejection::Unbound);

    // Without any self-signature nothing says what the key is for.
    let bare = edit(&keys, |packet| {
        subkey = !matches!(packet, Packet::PublicKey(_)) && subkey;
        (!matches!(packet, Packet::Signature(_)) || subkey).then_some(packet)
    });
    let ring = Keyring::from_bytes(&bare).unwrap();
    assert_eq!(reason(verify_clearsigned(&message, &ring, now())), Rejection::Unbound);

    gpg.run_with(
        &["--command-fd", "0", "--expert", "--edit-key", "sub"],
        "key 1\nchange-usage\nS\nA\nQ\nsave\n",
    );
    let keys = gpg.export(&["sub"]);
    let result = verify_clearsigned(&message, &Keyring::from_bytes(&keys).unwrap(), now());
    assert_eq!(reason(result), Rejection::NotForSigning);
}

#[test]
fn certifications_by_others_do_no_harm() {
    let Some(gpg) = Gpg::new() else { return };
    let fingerprint = gpg.key("good", &[], "sign", "0");
    gpg.key("friend", &[], "cert,sign", "0");
    gpg.run(&["--local-user", "friend", "--quick-sign-key", &fingerprint]);
    let message = gpg.clearsign("good", &[]);
    assert!(gpg.verify(&gpg.export(&["good"]), &message).is_ok());
}

#[test]
fn no_unsigned_byte_is_used() {
    let Some(gpg) = Gpg::new() else { return };
    gpg.key("good", &[], "sign", "0");
    let message = String::from_utf8(gpg.clearsign("good", &[])).unwrap();
    let ring = Keyring::from_bytes(&gpg.export(&["good"])).unwrap();
    let verify = |text: &str| verify_clearsigned(text.as_bytes(), &ring, now());
    assert!(verify(&message).is_ok());
    assert!(verify(&message.replace('\n', "\r\n")).is_ok(), "line ends are not signed");
    assert!(verify(&format!("{message}\n \n")).is_ok(), "blanks may follow");
    for (case, text) in [
        ("text before", format!("Suite: evil\n{message}")),
        ("a blank line before", format!("\n{message}")),
        ("text after", format!("{message}Suite: evil\n")),
        ("two messages", format!("{message}{message}")),
        ("a header", message.replacen("Hash:", "Suite: evil\nHash:", 1)),
        ("no end", message.replace("-----END PGP SIGNATURE-----", "")),
        ("no signature", TEXT.to_owned()),
        ("an unescaped dash", message.replacen("- - a line", "- a line\n-x", 1)),
        ("nothing", String::new()),
    ] {
        let result = verify(&text);
        assert!(matches!(result, Err(SignatureError::Malformed { .. })), "{case}: {result:?}");
    }
    let trailing = message.replace("Suite: sid\n", "Suite: sid \t\n");
    let verified = verify(&trailing).unwrap();
    assert!(!verified.text.contains("sid "), "unsigned blanks are dropped");
}

#[test]
fn detached_signatures_are_read_armored_and_binary() {
    let Some(gpg) = Gpg::new() else { return };
    gpg.key("one", &[], "sign", "0");
    gpg.key("two", &[], "sign", "0");
    let keys = Keyring::from_bytes(&gpg.export(&["one", "two"])).unwrap();
    let sign =
        |key: &str, armor: &str| gpg.run_with(&["--local-user", key, armor, "--detach-sign"], TEXT);
    let (binary, first, second) =
        (sign("one", "--no-armor"), sign("one", "--armor"), sign("two", "--armor"));
    for (signature, count) in [(binary, 1), ([first, second].concat(), 2)] {
        let verified = verify_detached(TEXT.as_bytes(), &signature, &keys, now()).unwrap();
        assert_eq!((verified.text.as_str(), verified.signers.len()), (TEXT, count));
        let changed = TEXT.replace("sid", "six");
        assert!(verify_detached(changed.as_bytes(), &signature, &keys, now()).is_err());
    }
    let garbage = verify_detached(TEXT.as_bytes(), b"no signature", &keys, now());
    assert!(matches!(garbage, Err(SignatureError::Malformed { .. })));
}

#[test]
fn the_embedded_keys_are_what_their_page_says() {
    let page = include_str!("../keys/README.md");
    let file = include_bytes!("../keys/debian-archive.gpg");
    assert!(page.contains(&BlobDigest::of(file).to_hex()));
    let prints = Keyring::debian().fingerprints();
    assert_eq!(prints.len(), 9);
    assert!(prints.iter().all(|print| page.contains(print)), "{prints:?}");
}

/// Uses what apt has fetched on this host, if anything.
#[test]
fn debians_own_releases_verify_quickly() {
    let lists = Path::new("/var/lib/apt/lists");
    let files = fs::read_dir(lists).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut tried = 0;
    for file in files.filter(|path| path.to_string_lossy().ends_with("_InRelease")) {
        let message = fs::read(&file).unwrap();
        if !String::from_utf8_lossy(&message).contains("Origin: Debian\n") {
            continue;
        }
        tried += 1;
        Keyring::debian();
        let start = Instant::now();
        let verified = verify_clearsigned(&message, Keyring::debian(), now()).unwrap();
        println!("{} bytes, {:?}: {:?}", message.len(), verified.signers, start.elapsed());
        assert!(start.elapsed().as_millis() < 200, "even unoptimised on a busy machine");
        let broken = String::from_utf8(message).unwrap().replacen("Origin: D", "Origin: d", 1);
        assert!(verify_clearsigned(broken.as_bytes(), Keyring::debian(), now()).is_err());
    }
    if tried == 0 {
        println!("skipped: apt has no Debian lists on this host");
    }
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        body in "[-a: \\n\\r]{0,80}",
        block in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
    ) {
        let armor = data_encoding::BASE64.encode(&block);
        let message = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{body}\n\
             -----BEGIN PGP SIGNATURE-----\n\n{armor}\n-----END PGP SIGNATURE-----\n"
        );
        let _ = verify_clearsigned(message.as_bytes(), Keyring::debian(), 0);
        let _ = verify_detached(b"", &block, Keyring::debian(), 0);
        let _ = Keyring::from_bytes(&block);
    }

    #[test]
    fn damaged_key_files_never_panic(at in 0_usize..55_000, value: u8) {
        let mut keys = include_bytes!("../keys/debian-archive.gpg").to_vec();
        keys[at] = value;
        let _ = Keyring::from_bytes(&keys);
    }
}
