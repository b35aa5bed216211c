//! What a worker does on a host that cannot shut agents in, and agents that reach a proxy alone.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    thread::JoinHandle,
};

use sqlx::PgPool;

use crate::harness::Harness;

const STEPS: &str = "create-branch planning execute commit create-pr";

/// Becomes the program that it is told, on a kernel that knows no Landlock: for it and all below,
/// `landlock_create_ruleset` answers ENOSYS.
const WITHOUT_LANDLOCK: &str = r#"#!/usr/bin/python3
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = b"".join(struct.pack("HBBI", *line) for line in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)])
lines = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(lines)))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv("PROGRAM", ["PROGRAM"] + sys.argv[1:])
"#;

/// How far the agent of a step was shut in.
async fn isolation(harness: &Harness, order: &str) -> String {
    sqlx::query_scalar(
        "select isolation from agent_work_order_steps
         where agent_work_order_id = $1 and step_name = 'execute' order by id desc limit 1",
    )
    .bind(order)
    .fetch_one(&harness.pool)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_that_must_shut_agents_in_and_cannot_does_not_start(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let wrapper = harness.path("without-landlock");
    let program = harness.program.to_str().unwrap();
    fs::write(&wrapper, WITHOUT_LANDLOCK.replace("PROGRAM", program)).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    harness.program = wrapper;
    let refused = harness.start_worker_with(&[("AWO_ISOLATION", "required")]);
    let code = harness.ended(refused).await;
    let words = harness.logs();
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {words}");
    assert!(words.contains("AWO_ISOLATION") && words.contains("Landlock"), "{words}");
    assert!(harness.agent_runs().is_empty());

    // Where it is not required, the same host works, and says so.
    harness.start_worker_with(&[("AWO_ISOLATION", "auto")]);
    harness.order_named("wo-open", "Write a file", STEPS).await;
    harness.until_status("wo-open", "completed").await;
    let reached = isolation(&harness, "wo-open").await;
    assert!(reached.starts_with("none") && reached.contains("without Landlock"), "{reached}");
    let levels: Vec<String> = sqlx::query_scalar(
        "select convert_from(data, 'UTF8')::json ->> 'level' from awo.log_chunks
         where stream = 'event' and position('agent_isolation' in convert_from(data, 'UTF8')) > 0",
    )
    .fetch_all(&harness.pool)
    .await
    .unwrap();
    assert!(!levels.is_empty() && levels.iter().all(|level| level == "warning"), "{levels:?}");
    harness.assert_sound().await;
}

/// Asks for a page as programs do that know of a proxy, and then past it.
const NETWORK: &str = r#"
import os, socket, urllib.request
def page():
    return urllib.request.urlopen("http://somewhere.example/page", timeout=10).read().decode()
def direct():
    socket.create_connection(("127.0.0.1", int(os.environ["OTHER"])), timeout=10).close()
    return "connected"
for name, attempt in [("page", page), ("direct", direct)]:
    try:
        outcome = attempt()
    except OSError as error:
        outcome = str(error)
    print(name, outcome)
"#;

/// Answers one request as a proxy would; what was asked for is the answer of the thread.
fn proxy() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        let (mut peer, _): (TcpStream, _) = listener.accept().unwrap();
        let (mut asked, mut byte) = (Vec::new(), [0]);
        while !asked.ends_with(b"\r\n\r\n") && peer.read(&mut byte).unwrap() == 1 {
            asked.push(byte[0]);
        }
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nproxied")
            .unwrap();
        String::from_utf8(asked).unwrap()
    };
    (port, std::thread::spawn(serve))
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_agent_reaches_its_proxy_and_no_other_port(pool: PgPool) {
    let mut harness = Harness::new(pool);
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    harness.tell_agent("network.py", NETWORK);
    let script = "[ $AWO_STEP = execute ] || return 0\n\
                  OTHER=PORT python3 \"$folder/network.py\" > \"$folder/$AWO_WORK_ORDER_ID\"";
    harness.tell_agent("extra", &script.replace("PORT", &port.to_string()));
    for (order, network) in [("wo-open", "open"), ("wo-proxy", "proxy")] {
        let (proxy_port, asked) = proxy();
        let address = format!("http://127.0.0.1:{proxy_port}");
        let settings = [("AWO_AGENT_PROXY", address.as_str()), ("AWO_AGENT_NETWORK", network)];
        let worker = harness.start_worker_with(&settings);
        harness.order_named(order, "Write a file", STEPS).await;
        harness.until_status(order, "completed").await;
        harness.signal(worker, nix::sys::signal::Signal::SIGTERM);
        harness.ended(worker).await;
        let told = fs::read_to_string(harness.path("agent").join(order)).unwrap();
        assert!(told.starts_with("page proxied\n"), "{told}");
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("GET http://somewhere.example/page "), "{asked}");
        let reached = isolation(&harness, order).await;
        if network == "open" {
            assert_eq!(told, "page proxied\ndirect connected\n", "{reached}");
        } else {
            assert!(
                reached.contains("proxy only"),
                "this needs Linux 6.7 with Landlock: {reached}"
            );
            assert!(told.contains("direct [Errno 13]"), "{told}");
        }
    }
    harness.assert_sound().await;
}
