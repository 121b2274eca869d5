use std::net::{Ipv4Addr, TcpListener};
use std::time::Instant;

use rstest::rstest;
use tokio::net::TcpSocket;

use super::*;

/// A launch of `sh -c` that should listen on a port that stays free: a socket of this process is bound to it and never
/// listens.
fn launch(script: &str) -> Launch {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::mem::forget(socket);
    Launch {
        by: Starter::Command(Exec { text: script.to_owned(), words: ["sh", "-c", script].map(str::to_owned).to_vec() }),
        endpoints: vec![format!("ws://127.0.0.1:{port}").parse().unwrap()],
        wait: Duration::from_millis(300),
        mask: Arc::new(|line| line.replace("canary", "***")),
        log: None,
    }
}

/// Whether the process runs; a zombie does not.
fn runs(id: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn starting_a_program_that_does_not_exist_is_an_error() {
    let mut launch = launch("");
    launch.by = Starter::Command(Exec::parse("./no-such-hub --port 1").unwrap());
    let error = start(&launch, drop).await.err().unwrap();
    assert!(matches!(error, StartError::Spawn { .. }), "{error}");
    assert!(error.to_string().starts_with("`./no-such-hub` cannot be started: "), "{error}");
}

#[rstest]
#[case("echo to out; echo canary >&2; exit 3", "exit status 3")]
#[case("echo to out; echo canary >&2; kill -SEGV $$", "killed by signal 11 (SIGSEGV)")]
#[tokio::test]
async fn a_hub_that_ends_before_it_listens_is_an_error_with_its_output(#[case] script: &str, #[case] expected: &str) {
    match start(&launch(script), drop).await.err().unwrap() {
        StartError::Ended { status, log, .. } => {
            assert_eq!(status, expected);
            let mut lines = log.tail(9).lines;
            lines.sort();
            assert_eq!(lines, ["***", "to out"], "both outputs are kept, secrets are not");
        }
        error => panic!("{error}"),
    }
}

/// The shell waits for its child and ignores SIGTERM.
#[tokio::test]
async fn a_hub_that_never_listens_is_killed_with_its_children() {
    let mut launch = launch("sleep 100 & echo $!; echo $$; wait");
    let before = Instant::now();
    match start(&launch, drop).await.err().unwrap() {
        StartError::Silent { log, .. } => {
            let ids = log.tail(9).lines;
            assert_eq!(ids.len(), 2);
            assert!(ids.iter().all(|id| !runs(id)), "{ids:?}");
        }
        error => panic!("{error}"),
    }
    assert!(before.elapsed() < Duration::from_secs(4));
    launch.endpoints.clear();
    let running = start(&launch, drop).await.unwrap();
    drop(running.ended());
    let log = running.end(GRACE).await;
    assert!(log.tail(9).lines.iter().all(|id| !runs(id)), "{log:?}");
}

#[tokio::test]
async fn a_hub_that_will_not_end_is_killed() {
    let mut launch = launch("trap '' TERM; echo $$; while :; do sleep 0.05; done");
    launch.endpoints.clear();
    let running = start(&launch, drop).await.unwrap();
    // Wait for its output, the process id.
    while running.log().tail(1).lines.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = running.ended();
    let log = running.end(Duration::from_millis(50)).await;
    assert_eq!(ended.await, "killed by signal 9 (SIGKILL)");
    assert!(!runs(&log.tail(1).lines[0]));
}

#[tokio::test]
async fn a_dropped_hub_is_killed() {
    let mut launch = launch("sleep 100 & echo $!; wait");
    launch.endpoints.clear();
    let running = start(&launch, drop).await.unwrap();
    let words = running.final_log();
    while running.log().tail(1).lines.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(running);
    let log = words.await;
    assert!(!runs(&log.tail(1).lines[0]));
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let mut launch = launch("echo started >&2; sleep 100");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    launch.endpoints = vec![format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap()];
    assert!(matches!(start(&launch, drop).await, Err(StartError::Taken(_))));
}

#[tokio::test]
async fn the_log_file_gets_every_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.log");
    let mut launch = launch("echo one; echo canary; printf three");
    launch.log = Some(LogFile::new(File::create(&path).unwrap()));
    assert!(start(&launch, drop).await.is_err());
    assert!(start(&launch, drop).await.is_err());
    assert_eq!(std::fs::read_to_string(path).unwrap(), "one\n***\nthree\n".repeat(2));
}
