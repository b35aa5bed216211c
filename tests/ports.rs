//! Ranges of ports: never two holders, whatever they are and however they end.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

#[path = "support/ports_alone.rs"]
mod ports_alone;

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use archon_awo::{
    ports::{PortError, PortPool, PortRange},
    process::blocking_command,
};
use ports_alone::ports_alone;

const TASK: &str = "AWO_TEST_PORTS";

/// A process of its own that takes `orders` ranges out of `pool`, says which, and holds them until
/// its standard input ends.
struct Holder {
    child: Child,
    taken: Vec<u16>,
}

impl Holder {
    fn start(name: &str, pool: &str, orders: usize) -> Child {
        let command = blocking_command(std::env::current_exe().unwrap());
        Self::spawn(command, name, pool, orders)
    }

    /// ... in namespaces of its own. Without root a user namespace makes them possible.
    fn start_in(namespaces: &[&str], name: &str, pool: &str, orders: usize) -> Child {
        let mut command = blocking_command("unshare");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(namespaces);
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg("--").arg(std::env::current_exe().unwrap());
        Self::spawn(command, &name.replace(' ', "-"), pool, orders)
    }

    fn spawn(mut command: Command, name: &str, pool: &str, orders: usize) -> Child {
        // The program of this very test: the one below does the work.
        command.args(["--exact", "held_by_another_process", "--ignored", "--nocapture"]);
        command.env(TASK, format!("{name} {pool} {orders}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn wait(mut child: Child) -> Self {
        let output = BufReader::new(child.stdout.as_mut().unwrap());
        let line = output.lines().map(Result::unwrap).find(|line| line.contains("taken:")).unwrap();
        let (_, taken) = line.split_once("taken:").unwrap();
        let taken = taken.split_whitespace().map(|port| port.parse().unwrap()).collect();
        Self { child, taken }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "started by the other tests, in processes of their own"]
fn held_by_another_process() {
    let task = std::env::var(TASK).expect("set by the test that starts this");
    let words: Vec<&str> = task.split(' ').collect();
    let (low, high) = words[1].split_once('-').unwrap();
    let pool = PortPool::new(low.parse().unwrap()..=high.parse().unwrap(), 10);
    let orders: usize = words[2].parse().unwrap();
    let ranges: Vec<PortRange> = thread::scope(|scope| {
        let take = |order| {
            let (name, pool) = (format!("{}-{order}", words[0]), &pool);
            scope.spawn(move || pool.take(&name, None).unwrap())
        };
        let all: Vec<_> = (0..orders).map(take).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let firsts: Vec<String> = ranges.iter().map(|range| range.first().to_string()).collect();
    println!("taken: {}", firsts.join(" "));
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn fifty_orders_of_five_processes_that_start_at_once_share_no_port() {
    let _turn = ports_alone();
    // Room for exactly fifty: nobody may fail while there is some.
    let start = |at: usize| Holder::start(&format!("worker-{at}"), "17000-17499", 10);
    let children: Vec<Child> = (0..5).map(start).collect();
    let holders: Vec<Holder> = children.into_iter().map(Holder::wait).collect();
    let all: Vec<u16> = holders.iter().flat_map(|holder| holder.taken.clone()).collect();
    let different: HashSet<u16> = all.iter().copied().collect();
    assert_eq!((all.len(), different.len()), (50, 50), "{all:?}");
    let spent = PortPool::new(17_000..=17_499, 10).take("one more", None).unwrap_err();
    assert!(matches!(spent, PortError::Exhausted { ranges: 50, .. }), "{spent}");
}

#[test]
fn the_ranges_of_a_killed_process_are_free_again() {
    let _turn = ports_alone();
    let mut holder = Holder::wait(Holder::start("killed", "17500-17519", 2));
    let pool = PortPool::new(17_500..=17_519, 10);
    assert!(pool.take("other", None).is_err());
    holder.child.kill().unwrap();
    holder.child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let range = loop {
        match pool.take("other", Some(holder.taken[0])) {
            Ok(range) => break range,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(range.first(), holder.taken[0]);
}

#[test]
fn another_network_namespace_has_ports_of_its_own_and_another_mount_namespace_has_not() {
    let _turn = ports_alone();
    let pool = PortPool::new(17_700..=17_709, 10);
    let _ours = pool.take("ours", None).unwrap();
    // What containers of one pod share and what those of two do not.
    let own_files = Holder::start_in(&["--mount"], "other files", "17700-17709", 1);
    let refused = own_files.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("Exhausted { ranges: 1"), "{words}");
    let own_network = Holder::wait(Holder::start_in(&["--net"], "other", "17700-17709", 1));
    assert_eq!(own_network.taken, [17_700]);
}

#[test]
fn a_range_in_which_a_stranger_listens_is_passed_over() {
    let _turn = ports_alone();
    for address in ["127.0.0.1:17525", "0.0.0.0:17525"] {
        let stranger = TcpListener::bind(address).unwrap();
        let range = PortPool::new(17_520..=17_539, 10).take("wo", Some(17_520)).unwrap();
        assert_eq!(range.first(), 17_530, "{address}");
        drop((stranger, range));
    }
    let stranger = std::net::UdpSocket::bind("127.0.0.1:17529").unwrap();
    let refused = PortPool::new(17_520..=17_529, 10).take("wo", None).unwrap_err();
    assert!(refused.to_string().contains("widen AWO_PORT_RANGE"), "{refused}");
    drop(stranger);
    PortPool::new(17_520..=17_529, 10).take("wo", None).unwrap();
}

#[test]
fn an_order_finds_the_range_again_that_it_had() {
    let _turn = ports_alone();
    let pool = PortPool::new(17_540..=17_639, 10);
    let first = pool.take("wo-resumed", None).unwrap().first();
    // By its name alone, and by what was noted although its name leads elsewhere.
    assert_eq!(pool.take("wo-resumed", None).unwrap().first(), first);
    let other = if first == 17_540 { 17_630 } else { 17_540 };
    assert_eq!(pool.take("wo-resumed", Some(other)).unwrap().first(), other);
    // A note that no longer fits the settings is no reason to fail.
    assert_eq!(pool.take("wo-resumed", Some(9)).unwrap().first(), first);
}

#[test]
fn a_range_is_what_the_agent_is_told() {
    let _turn = ports_alone();
    let range = PortPool::new(18_000..=18_019, 3).take("wo-1", Some(18_010)).unwrap();
    assert_eq!(range.ports(), 18_010..=18_012);
    let told = "PORT=18010\nPORT_RANGE_START=18010\nPORT_RANGE_END=18012\nPORT_RANGE_SIZE=3\n\
                PORT_0=18010\nPORT_1=18011\nPORT_2=18012\n";
    assert!(range.file().ends_with(told), "{}", range.file());
}

#[test]
fn a_pool_that_is_spent_says_so_and_has_room_again_when_a_range_is_dropped() {
    let _turn = ports_alone();
    let pool = PortPool::new(18_100..=18_119, 10);
    let first = pool.take("a", None).unwrap();
    let second = pool.take("a", None).unwrap();
    assert_ne!(first.first(), second.first());
    // Another size meets the same locks.
    let spent = PortPool::new(18_105..=18_119, 5).take("b", None).unwrap_err();
    assert!(matches!(spent, PortError::Exhausted { ranges: 1, .. }), "{spent}");
    let place = first.first();
    drop(first);
    assert_eq!(pool.take("c", None).unwrap().first(), place);
}
