use std::net::{Ipv4Addr, TcpListener};
use std::time::Instant;

use rstest::rstest;
use tokio::net::TcpSocket;

use super::*;

/// A launch of `sh -c` that should listen on a port that stays free: a socket of this process is bound to it and never
/// listens.
fn launch_of_script(script: &str) -> HubLaunch {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::mem::forget(socket);
    HubLaunch {
        by: LaunchMethod::Command(ExecCommand {
            text: script.to_owned(),
            words: ["sh", "-c", script].map(str::to_owned).to_vec(),
        }),
        endpoints: vec![format!("ws://127.0.0.1:{port}").parse().unwrap()],
        wait: Duration::from_millis(300),
        mask: Arc::new(|line| line.replace("canary", "***")),
        log: None,
    }
}

/// Whether the process runs; a zombie does not.
fn is_running(id: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn starting_a_program_that_does_not_exist_is_an_error() {
    let mut launch = launch_of_script("");
    launch.by = LaunchMethod::Command(ExecCommand::parse("./no-such-hub --port 1").unwrap());
    let error = start_hub(&launch, drop).await.err().unwrap();
    assert!(matches!(error, HubStartError::Spawn { .. }), "{error}");
    assert!(error.to_string().starts_with("`./no-such-hub` cannot be started: "), "{error}");
}

#[rstest]
#[case("echo to out; echo canary >&2; exit 3", "exit status 3")]
#[case("echo to out; echo canary >&2; kill -SEGV $$", "killed by signal 11 (SIGSEGV)")]
#[tokio::test]
async fn a_hub_that_exits_before_listening_is_reported_with_its_output(#[case] script: &str, #[case] expected: &str) {
    match start_hub(&launch_of_script(script), drop).await.err().unwrap() {
        HubStartError::Ended { status, log, .. } => {
            assert_eq!(status, expected);
            let mut lines = log.last_lines(9).lines;
            lines.sort();
            assert_eq!(lines, ["***", "to out"], "both outputs are kept, secrets are not");
        }
        error => panic!("{error}"),
    }
}

/// The shell waits for its child, and SIGTERM ends both.
#[tokio::test]
async fn a_hub_that_never_listens_is_killed_with_its_children() {
    let mut launch = launch_of_script("sleep 100 & echo $!; echo $$; wait");
    let before = Instant::now();
    match start_hub(&launch, drop).await.err().unwrap() {
        HubStartError::Silent { log, .. } => {
            let ids = log.last_lines(9).lines;
            assert_eq!(ids.len(), 2);
            assert!(ids.iter().all(|id| !is_running(id)), "{ids:?}");
        }
        error => panic!("{error}"),
    }
    assert!(before.elapsed() < Duration::from_secs(4));
    launch.endpoints.clear();
    let running = start_hub(&launch, drop).await.unwrap();
    drop(running.wait_for_end());
    let log = running.terminate(TERMINATION_GRACE).await;
    assert!(log.last_lines(9).lines.iter().all(|id| !is_running(id)), "{log:?}");
}

#[tokio::test]
async fn a_hub_that_does_not_exit_is_killed() {
    let mut launch = launch_of_script("trap '' TERM; echo $$; while :; do sleep 0.05; done");
    launch.endpoints.clear();
    let running = start_hub(&launch, drop).await.unwrap();
    // Wait for its output, the process id.
    while log_snapshot(&running.log).last_lines(1).lines.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = running.wait_for_end();
    let log = running.terminate(Duration::from_millis(50)).await;
    assert_eq!(ended.await, "killed by signal 9 (SIGKILL)");
    assert!(!is_running(&log.last_lines(1).lines[0]));
}

#[tokio::test]
async fn a_dropped_hub_is_killed() {
    let mut launch = launch_of_script("sleep 100 & echo $!; wait");
    launch.endpoints.clear();
    let running = start_hub(&launch, drop).await.unwrap();
    let words = running.wait_for_log();
    while log_snapshot(&running.log).last_lines(1).lines.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(running);
    let log = words.await;
    assert!(!is_running(&log.last_lines(1).lines[0]));
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let mut launch = launch_of_script("echo started >&2; sleep 100");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    launch.endpoints = vec![format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap()];
    assert!(matches!(start_hub(&launch, drop).await, Err(HubStartError::Taken(_))));
}

#[tokio::test]
async fn every_output_line_is_written_to_the_log_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.log");
    let mut launch = launch_of_script("echo one; echo canary; printf three");
    launch.log = Some(LogFile::new(File::create(&path).unwrap()));
    assert!(start_hub(&launch, drop).await.is_err());
    assert!(start_hub(&launch, drop).await.is_err());
    assert_eq!(std::fs::read_to_string(path).unwrap(), "one\n***\nthree\n".repeat(2));
}
