//! Recipes: built from source by the real command with Debian's toolchain, rebuilt no more than need
//! be, and refused with the mend where something is wrong.
//!
//! Needs a Debian mirror in the host's apt sources. Docker needs root.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod common;

use std::fs;

use common::engines::{Docker, Engine};
use common::{Project, World, can_run, http, skip};

/// An image.toml with recipes that need no compiler, so that only the Essential set is configured.
fn image(recipes: &str) -> String {
    format!("name = \"recipes\"\n[debian]\nsuite = \"bookworm\"\n{recipes}")
}

/// Which recipes a build ran, by what it says.
fn ran(messages: &str) -> Vec<&str> {
    let mut ran: Vec<&str> = messages
        .lines()
        .filter_map(|line| line.strip_prefix("recipe ")?.strip_suffix(": build"))
        .collect();
    ran.sort_unstable();
    ran
}

const PLAIN: &[&str] = &["--progress", "plain"];

#[test]
fn a_c_service_is_built_and_answers() {
    let Some(world) = World::shared() else { return };
    let project = world.example("c-service");
    let built = world.build(&project, PLAIN);
    let root = built.root();
    let server = root.at("usr/bin/server");
    assert_eq!((server.uid, server.gid, server.mode), (0, 0, 0o755));
    root.at("usr/lib/libgreeting.so.1");
    for absent in ["usr/include/greeting.h", "usr/bin/gcc", "usr/bin/sh", "build", "out"] {
        assert!(root.get(absent).is_none(), "/{absent} has no business here");
    }
    let lock = fs::read_to_string(project.folder.join("image.lock")).unwrap();
    assert!(lock.contains("libc6 = \"greeting\""), "libc6 joins by itself: {lock}");
    assert!(
        lock.contains("\"gcc-12\"") && lock.contains("\"server gcc libc6-dev make\""),
        "{lock}"
    );
    if !http::is_free(8070) {
        skip("something already listens on port 8070");
        return;
    }
    if can_run(&["dockerd", "docker"], true)
        && let Some(docker) = Docker::start()
    {
        docker.command(&["load", "--input", built.tarball.to_str().unwrap()]);
        let container = docker.start("c-service", &[]);
        let page = http::get(8070, "/Mason");
        assert_eq!(
            (page.status, page.body.contains("Good day, Mason.")),
            (200, true),
            "{}",
            page.body
        );
        docker.remove(&container);
    }
}

/// A comment in the library rebuilds the library and nothing else; a change rebuilds what needs it.
#[test]
fn unchanged_outputs_cut_off_rebuilding() {
    let Some(world) = World::shared() else { return };
    let project = world.example("c-service");
    let source = project.folder.join("greeting/greeting.c");
    let code = fs::read_to_string(&source).unwrap();
    // The shared store may know this source: one of its own makes the first build a real one.
    let unique = format!("{:?}", world.folder.path());
    let code = code.replace("mortar", &unique.replace('"', ""));
    fs::write(&source, &code).unwrap();
    let first = world.build(&project, PLAIN);
    assert_eq!(ran(&first.messages), ["greeting", "server"], "{}", first.messages);
    fs::write(&source, format!("/* {unique} */\n{code}")).unwrap();
    let second = world.build(&project, PLAIN);
    assert_eq!(ran(&second.messages), ["greeting"], "{}", second.messages);
    assert_eq!(second.digest, first.digest, "the same trees make the same image");
    fs::write(&source, code.replace("Good day", "Good night")).unwrap();
    let third = world.build(&project, &[PLAIN, &["--locked"]].concat());
    assert_eq!(ran(&third.messages), ["greeting", "server"], "{}", third.messages);
    assert_ne!(third.digest, first.digest);
    let header = project.folder.join("greeting/greeting.h");
    let text = fs::read_to_string(&header).unwrap();
    fs::write(header, format!("{text}/* another */\n")).unwrap();
    let fourth = world.build(&project, PLAIN);
    assert_eq!(ran(&fourth.messages), ["greeting", "server"], "{}", fourth.messages);
}

/// What scripts see and what becomes of what they leave.
#[test]
fn scripts_see_a_fixed_world() {
    let Some(world) = World::shared() else { return };
    let project = world.project(
        "world",
        &image(
            r#"
[recipe.probe]
source = "src"
patches = ["fix.patch"]
env = { GREETING = "hello" }
outputs = ["main", "extra"]
script = '''
{
    echo "$(id -u):$(id -g) $HOME $(pwd) $(umask) $SOURCE_DATE_EPOCH $GREETING"
    echo "$out $main $extra $(hostname) $TZ"
    getent hosts localhost | tr -s ' '; perl -MSocket -e 'print inet_ntoa(inet_aton("localhost")), "\n"'
    cat text
    env | cut -d= -f1 | sort | tr '\n' ' '; echo
    find / -xdev \( -not -user 0 -o -not -group 0 -o -perm /6000 \) -not -path '/build*' -not -path '/out*' -not -path '/tmp*' -not -path '/proc*' -not -path '/dev*' | head
    touch /usr/bin/x 2>/dev/null && echo "inputs can be written"
    ls ignored* 2>/dev/null || true
} > $out/seen
chmod 640 $out/seen
mkdir -p $extra/bin; printf '#!/bin/sh\n' > $extra/bin/tool; chmod 700 $extra/bin/tool; ln $extra/bin/tool $extra/bin/same
ln -s /bin/sh $extra/bin/shell
'''
[files]
"/opt/seen" = { recipe = "probe", path = "/seen", mode = "0600", uid = 7 }
[image]
recipes = ["probe:extra"]
"#,
        ),
    );
    project.write("src/text", "one\n").write("src/.gitignore", "ignored\n");
    project.write("src/ignored", "x");
    project.write("fix.patch", "--- a/text\n+++ b/text\n@@ -1 +1 @@\n-one\n+two\n");
    let built = world.build(&project, &[]);
    let root = built.root();
    let seen = root.at("opt/seen");
    assert_eq!((seen.uid, seen.mode), (7, 0o600));
    let expected = "1000:1000 /build /build/source 0022 315532800 hello\n\
        /out/main /out/main /out/extra localhost UTC\n\
        ::1 localhost\n127.0.0.1\ntwo\n\
        FORCE_SOURCE_DATE GREETING HOME LC_ALL PATH PWD SOURCE_DATE_EPOCH TZ USER _ extra main out \n";
    // The shell itself may set OLDPWD and the like; nothing else may be there.
    assert_eq!(
        seen.text().replace("OLDPWD ", "").replace(" _ ", " "),
        expected.replace(" _ ", " ")
    );
    let tool = root.at("usr/bin/tool");
    assert_eq!((tool.uid, tool.gid, tool.mode), (0, 0, 0o755));
    assert_eq!(root.at("usr/bin/same").text(), "#!/bin/sh\n");
}

/// Each thing that can be wrong, the exit code, and what is said.
#[test]
fn what_is_wrong_is_told_with_its_mend() {
    let Some(world) = World::shared() else { return };
    let script = |script: &str| image(&format!("[recipe.app]\nscript = '''{script}'''\n"));
    let cases: &[(&str, String, i32, &[&str])] = &[
        (
            "fails",
            script("echo the last words; exit 7"),
            1,
            &["recipe app: the script exited with status 7", "the last words", "/logs/"],
        ),
        (
            "program",
            script("gcc -c x.c"),
            1,
            &["`gcc` comes with Debian's package gcc", "`debian`"],
        ),
        (
            "header",
            image(
                "[recipe.app]\ndebian = [\"gcc\", \"libc6-dev\"]\n\
                 script = \"echo '#include <zlib.h>' | gcc -E -\"\n",
            ),
            1,
            &["`zlib.h` comes with Debian's package zlib1g-dev", "`debian`"],
        ),
        (
            "hangs",
            image("[recipe.app]\nscript = \"sleep 60\"\ntime-limit = \"1s\"\n"),
            1,
            &["ran longer than its time limit", "`time-limit`"],
        ),
        (
            "silent",
            image("[recipe.app]\nscript = \"sleep 60\"\nsilence-limit = \"1s\"\n"),
            1,
            &["was silent for longer than its silence limit", "`silence-limit`"],
        ),
        (
            "memory",
            image(
                "[recipe.app]\nscript = \"head -c 200000000 /dev/zero > /tmp/x; sleep 60\"\n\
                 memory-limit = \"64M\"\n",
            ),
            1,
            &["used more memory than its memory limit of 64 MiB", "--memory-limit"],
        ),
        (
            "disk",
            image(
                "[recipe.app]\nscript = \"head -c 100000000 /dev/zero > $out/x; sleep 60\"\n\
                 disk-limit = \"16M\"\n",
            ),
            1,
            &["wrote more than its disk limit of 16 MiB", "`disk-limit`"],
        ),
        (
            "forks",
            image(
                "[recipe.app]\nscript = \"for i in $(seq 60); do sleep 60 & done; wait\"\n\
                 process-limit = 30\n",
            ),
            1,
            &["recipe app: the script", "`process-limit`"],
        ),
        (
            "spins",
            image("[recipe.app]\nscript = \"while :; do :; done\"\ncpu-time-limit = \"500ms\"\n"),
            1,
            &["used more processor time than its limit of 500ms", "--cpu-time-limit"],
        ),
        (
            "outside",
            script("echo x > /etc/passwd"),
            1,
            &["status 2", "Permission denied", "/etc/passwd belongs to the inputs"],
        ),
        ("empty", script("true"), 1, &["output `out` is empty", "$out"]),
        ("fifo", script("mkfifo $out/pipe"), 1, &["holds a fifo: /pipe"]),
        (
            "setuid",
            script("cp /bin/true $out/x; chmod u+s $out/x"),
            1,
            &["setuid or setgid bit: /x", "chmod u-s"],
        ),
        (
            "escape",
            script("ln -s ../../etc/passwd $out/x"),
            1,
            &["the link /x -> ../../etc/passwd leads out of the output"],
        ),
        ("inside", script("ln -s /build/source/x $out/x"), 1, &["leads into the build"]),
        (
            "network",
            script(
                "exec 3<>/dev/tcp/127.0.0.1/80 || perl -e 'use IO::Socket; IO::Socket::INET->new(\"127.0.0.1:80\") or die \"no network: $!\\n\"'",
            ),
            1,
            &["recipe app: the script"],
        ),
        (
            "cycle",
            image(
                "[recipe.a]\nscript = \"true\"\nrecipes = [\"b\"]\n[recipe.b]\nscript = \"true\"\nrecipes = [\"a\"]\n",
            ),
            2,
            &["recipes need each other in a circle: a -> b -> a"],
        ),
        (
            "unknown",
            image("[recipe.app]\nscript = \"true\"\ndebian = [\"gccc\"]\n"),
            5,
            &["package `gccc` is not in suite `bookworm`", "did you mean"],
        ),
        (
            "missing",
            image("[recipe.app]\nscript = \"true\"\nsource = \"nowhere\"\n"),
            2,
            &["nowhere does not exist"],
        ),
        (
            "path",
            image(
                "[recipe.app]\nscript = \"touch $out/x\"\n[files]\n\"/y\" = { recipe = \"app\", path = \"/z\" }\n",
            ),
            1,
            &["[files] takes /z of recipe app"],
        ),
        (
            "clash",
            image(
                "[recipe.a]\nscript = \"echo a > $out/x\"\n[recipe.b]\nscript = \"echo b > $out/x\"\n",
            ),
            1,
            &["recipe:a and recipe:b have different files at /x"],
        ),
        (
            "without",
            "name = \"x\"\n[recipe.a]\nscript = \"true\"\n".to_owned(),
            2,
            &["recipe `a` needs [debian] to build with"],
        ),
    ];
    for (name, image, code, said) in cases {
        println!("{name}");
        world.fails(&world.project(name, image), *code, said);
    }
}

/// `--keep-going` builds what can be built; without it the first failure ends the build.
#[test]
fn keep_going_builds_the_rest() {
    let Some(world) = World::shared() else { return };
    let unique = world.folder.path().display().to_string();
    let project = world.project(
        "going",
        &image(&format!(
            "[recipe.bad]\nscript = \"false\"\n[recipe.needs]\nscript = \"true\"\nrecipes = [\"bad\"]\n\
             [recipe.well]\nscript = \"echo {unique} > $out/x\"\n"
        )),
    );
    let output = world.try_build(&project, &["--keep-going", "--progress", "plain", "--jobs", "1"]);
    let said = common::expect_failure(
        &output,
        1,
        &["2 recipes were not built: bad, needs", "recipe bad: the script exited with status 1"],
    );
    assert_eq!(ran(&said), ["bad", "well"], "{said}");
}

/// A folder that holds image.toml as a source does not see what builds write there.
#[test]
fn what_a_build_writes_is_no_source() {
    let Some(world) = World::shared() else { return };
    let project: Project = world
        .project("own", &image("[recipe.app]\nsource = \".\"\nscript = \"ls -A > $out/list\"\n"));
    project.write("code.c", "x").write("sub/image.lock", "kept");
    let first = world.build(&project, &[]);
    assert_eq!(first.root().at("list").text(), "code.c\nsub\n");
    let second = world.build(&project, &["--locked", "--offline", "--progress", "plain"]);
    assert_eq!(second.digest, first.digest);
    assert!(ran(&second.messages).is_empty(), "{}", second.messages);
}

/// What an output needs when it runs joins the image and the lock, and leaves with the need.
#[test]
fn what_outputs_need_joins_the_image() {
    let Some(world) = World::shared() else { return };
    let toml = |line: &str| {
        let script = format!(
            "mkdir -p $out/bin; printf '#!{line}\\n' > $out/bin/app; chmod +x $out/bin/app; \
             ln -s /usr/bin/sed $out/bin/editor"
        );
        image(&format!("[recipe.app]\nscript = '''{script}'''\n"))
    };
    let project = world.project("runtime", &toml("/usr/bin/env perl"));
    let built = world.build(&project, &[]);
    let root = built.root();
    for path in ["usr/bin/perl", "usr/bin/env", "usr/bin/sed", "usr/bin/app"] {
        root.at(path);
    }
    let lock = fs::read_to_string(project.folder.join("image.lock")).unwrap();
    let found = "found-by]\ncoreutils = \"app\"\nperl-base = \"app\"\nsed = \"app\"\n";
    assert!(lock.contains(found), "{lock}");
    let again = world.build(&project, &["--locked"]);
    assert_eq!(again.digest, built.digest);
    // A recipe's paths have their reason too, wherever merged /usr has put them.
    let file = project.folder.join("image.toml").display().to_string();
    for (path, reason) in
        [("/usr/bin/app", "recipe app (file)\n"), ("/bin/editor", "recipe app (symbolic link)\n")]
    {
        assert_eq!(common::succeed(&mut world.drystone(&["why", path, "-f", &file])), reason);
    }
    let absent = world.drystone(&["why", "/usr/bin/absent", "-f", &file]).output().unwrap();
    common::expect_failure(
        &absent,
        2,
        &["sets /usr/bin/absent", "the last build had no such path"],
    );
    project.write("image.toml", &toml("/bin/sh"));
    let output = world.try_build(&project, &["--locked"]);
    common::expect_failure(&output, 3, &["recipes need other packages at run time", "perl-base"]);
    let less = world.build(&project, &[]);
    assert!(less.root().get("usr/bin/perl").is_none(), "nothing needs it any more");
    less.root().at("usr/bin/dash");
    project.write("image.toml", &toml("/opt/none"));
    let missing = world.build(&project, &[]);
    let warning = "/usr/bin/app is run by /opt/none, which is nowhere";
    assert!(missing.messages.contains(warning), "{}", missing.messages);
}

/// One recipe alone, its log, and a command in its build environment.
#[test]
fn recipes_can_be_worked_with_alone() {
    let Some(world) = World::shared() else { return };
    let unique = world.folder.path().display().to_string();
    let project = world.project(
        "alone",
        &image(&format!(
            "[recipe.lib]\nscript = \"echo said {unique}; echo lib > $out/lib-made\"\n\
             [recipe.app]\nscript = \"exit 9\"\nrecipes = [\"lib\"]\nsource = \"src\"\n"
        )),
    );
    project.write("src/code", "here\n");
    let output = world.try_build(&project, &["--recipe", "lib"]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && answer.starts_with("lib:out "), "{answer}{complaint}");
    assert!(!project.folder.join("recipes.tar").exists(), "no image is written");
    let file = project.folder.join("image.toml").display().to_string();
    let said = common::succeed(&mut world.drystone(&["log", "lib", "-f", &file]));
    assert_eq!(said, format!("said {unique}\n"));
    let command = ["shell", "app", "-f", &file, "-c", "cat code /lib-made; echo $out; id -u"];
    let said = common::succeed(&mut world.drystone(&command));
    assert_eq!(said, "here\nlib\n/out/out\n1000\n");
    let output = world.drystone(&["shell", "app", "-f", &file, "-c", "exit 3"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "the command's own status");
    let output = world.drystone(&["shell", "app", "-f", &file]).output().unwrap();
    common::expect_failure(&output, 2, &["no terminal", "-c COMMAND"]);
    let output = world.try_build(&project, &["--recipe", "libb"]);
    common::expect_failure(&output, 2, &["there is no recipe `libb`", "app, lib"]);
    let output = world.try_build(&project, &["--keep-failed"]);
    let said = common::expect_failure(&output, 1, &["drystone shell app --kept "]);
    let kept = said.split("--kept ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let command = ["shell", "app", "-f", &file, "--kept", &kept, "-c", "cat code"];
    assert_eq!(common::succeed(&mut world.drystone(&command)), "here\n");
}

/// A shell at a terminal: jobs, sizes, the build's variables, and the shell's own exit status.
#[test]
fn a_shell_is_opened_at_a_terminal() {
    use std::io::{Read as _, Write as _};
    let Some(world) = World::shared() else { return };
    let project = world.project(
        "person",
        &image("[recipe.app]\nscript = \"echo made > $out/made\"\nsource = \"src\"\n"),
    );
    project.write("src/code", "here\n");
    let file = project.folder.join("image.toml").display().to_string();
    let drystone = world.drystone(&["shell", "app", "-f", &file]);
    let line: Vec<String> = std::iter::once(drystone.get_program())
        .chain(drystone.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line.join(" "), "/dev/null"]).env("TERM", "xterm");
    for (name, value) in drystone.get_envs() {
        if let Some(value) = value {
            script.env(name, value);
        }
    }
    let mut child = script
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut said = String::new();
    let mut until = |wanted: &str, said: &mut String| {
        let mut bytes = [0; 4096];
        while !said.contains(wanted) {
            let count = output.read(&mut bytes).unwrap();
            assert!(count > 0, "it ended without {wanted}: {said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    until("(drystone: app) /build/source $ ", &mut said);
    let commands = "test -t 0 && echo terminal-$((1+1)); cat code; stty size; tty\n\
                    sleep 100 &\njobs; kill %1\n\
                    sh -e /build/script; cat $out/made; id -u; echo end-$((3+4))\n";
    input.write_all(commands.as_bytes()).unwrap();
    until("end-7", &mut said);
    // The interrupt key reaches what runs, and neither the shell nor drystone.
    input.write_all(b"sleep 100\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    input.write_all(b"\x03").unwrap();
    input.write_all(b"echo status-$?; exit 5\n").unwrap();
    until("status-130", &mut said);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(5), "{said}");
    for wanted in ["terminal-2", "here", "24 80", "/dev/pts/0", "Running", "made", "1000"] {
        assert!(said.contains(wanted), "{wanted} is missing: {said}");
    }
}

/// A log is followed while another process builds.
#[test]
fn a_log_is_followed_while_it_grows() {
    use std::io::{BufRead as _, Read as _};
    let Some(world) = World::shared() else { return };
    let unique = world.folder.path().display().to_string();
    let project = world.project(
        "followed",
        &image(&format!(
            "[recipe.app]\nscript = \"echo first {unique}; sleep 5; echo second; echo x > $out/x\"\n"
        )),
    );
    let file = project.folder.join("image.toml").display().to_string();
    let mut build = world
        .drystone(&["build", &file, "--recipe", "app"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    loop {
        let said = world.drystone(&["log", "app", "-f", &file]).output().unwrap();
        if String::from_utf8_lossy(&said.stdout).contains("first") {
            break;
        }
        assert!(build.try_wait().unwrap().is_none(), "the build ended without a log");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let mut follower = world
        .drystone(&["log", "app", "--follow", "-f", &file])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, format!("first {unique}\n"));
    assert!(build.try_wait().unwrap().is_none(), "it is told while the script runs");
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "second\n");
    assert!(follower.wait().unwrap().success());
    assert!(build.wait().unwrap().success());
}

/// Archives are fetched by digest, unpacked in the sandbox, and kept for builds without network.
#[test]
fn sources_are_fetched_by_their_digest() {
    let Some(world) = World::shared() else { return };
    let folder = world.path("sources");
    fs::create_dir_all(folder.join("thing-1.0/sub")).unwrap();
    fs::write(folder.join("thing-1.0/code"), world.folder.path().display().to_string()).unwrap();
    fs::write(folder.join("thing-1.0/sub/more"), "more").unwrap();
    let archive = folder.join("thing.tar.gz");
    common::run(
        "tar",
        &["-czf", archive.to_str().unwrap(), "-C", folder.to_str().unwrap(), "thing-1.0"],
    );
    let digest = common::run("sha256sum", &[archive.to_str().unwrap()]);
    let digest = digest.split(' ').next().unwrap().to_owned();
    let (address, server) = serve_once(fs::read(&archive).unwrap());
    let toml = |digest: &str| {
        image(&format!(
            "[recipe.app]\nsource = {{ url = \"{address}/thing.tar.gz\", sha256 = \"{digest}\" }}\n\
             script = \"find . -type f | sort > $out/list\"\n"
        ))
    };
    let project = world.project("fetched", &toml(&digest));
    let built = world.build(&project, &[]);
    assert_eq!(built.root().at("list").text(), "./code\n./sub/more\n");
    server.join().unwrap();
    fs::remove_file(&built.tarball).unwrap();
    let again = world.build(&project, &["--offline", "--locked"]);
    assert_eq!(again.digest, built.digest);
    // Another digest than the server's bytes have: both are told, and nothing is kept.
    let (address, server) = serve_once(b"other bytes".to_vec());
    let wrong = "0".repeat(64);
    let text = toml(&wrong);
    let from = text.split("url = \"").nth(1).unwrap().split("/thing").next().unwrap();
    project.write("image.toml", &text.replace(from, &address));
    world.fails(&project, 7, &["the source of recipe app", &wrong]);
    server.join().unwrap();
}

/// A server on loopback that gives one body to whoever asks first.
fn serve_once(body: Vec<u8>) -> (String, std::thread::JoinHandle<()>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = client.read(&mut request).unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(&body).unwrap();
    });
    (address, server)
}
