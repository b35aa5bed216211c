//! Disks that are full in the middle of the work: each time the step ends in class `disk`, nothing is
//! damaged, and the order completes when there is room.
//!
//! The volume is a small tmpfs. A test stops the worker at a place of its choice, by a lock that it
//! holds or an agent that waits, takes the space away and lets it go on: nothing depends on time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use archon_awo::{
    domain::{RemoteRules, RepositoryUrl},
    git,
};
use nix::sys::{signal::Signal, statvfs::statvfs};
use sqlx::PgPool;

use crate::{
    harness::{Harness, until},
    small_volume::Volume,
};

/// What each test leaves free, in bytes: more than the reserve gives back, less than a test writes.
const LEFT: u64 = 1 << 20;
/// What is written then.
const MUCH: usize = 8 << 20;
const ORDER: &str = "wo-full";
const STEPS: &str = "create-branch planning execute commit create-pr";

/// A harness with `folder` of its workers on a volume of its own.
async fn harness(pool: PgPool, folder: &str, options: &str) -> Harness {
    let mut harness = Harness::new(pool);
    let volume = Volume::mount(&harness.path(folder), options).await;
    harness.volume = Some(volume.unwrap());
    harness
}

fn volume(harness: &Harness) -> &Volume {
    harness.volume.as_ref().unwrap()
}

/// A lock that the worker will want, held as another process would.
fn hold_lock(path: &Path) -> File {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    file.lock().unwrap();
    file
}

/// A repository with a large file that does not get smaller when it is packed.
fn enlarge_repository(harness: &Harness) {
    let mut random = vec![0; MUCH];
    let mut source = File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut source, &mut random).unwrap();
    fs::write(harness.path("seed/large.bin"), random).unwrap();
    publish(harness);
}

fn publish(harness: &Harness) {
    harness.git(&["-C", "seed", "add", "--all"]);
    harness.git(&["-C", "seed", "commit", "--quiet", "--message=Large"]);
    harness.git(&["-C", "seed", "push", "--quiet", "origin", "main"]);
}

/// The mirror's folder on the volume, as it is seen from out here.
fn mirror_folder(harness: &Harness) -> PathBuf {
    let rules = RemoteRules { allowed_hosts: Vec::new(), allow_local: true };
    let url = RepositoryUrl::parse(&harness.remote_url(), &rules).unwrap();
    let within = git::Volume::new(PathBuf::new()).mirror_folder(&url, git::History::Full);
    volume(harness).outside(within.to_str().unwrap())
}

/// Waits until an attempt has ended in class `disk`, and checks that the worker with the full volume
/// leaves the order alone.
async fn ends_for_want_of_space(harness: &Harness) {
    harness.until("select exists (select from awo.attempts where error_class = 'disk')").await;
    harness.until_logged("no orders are claimed").await;
    let (status, _, _, attempt) = harness.outcome(ORDER).await;
    assert_eq!((status.as_str(), attempt), ("pending", 1), "{}", harness.logs());
}

/// Gives the space back and waits for the end of the order. Nothing may be damaged.
async fn completes_with_space(harness: &Harness) {
    volume(harness).free().unwrap();
    harness.until_status(ORDER, "completed").await;
    harness.assert_sound().await;
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches.len(), pulls.len()), (1, 1));
    harness.git(&["-C", "remote.git", "fsck", "--full", "--strict"]);
}

/// What git says about the repositories on the volume, which borrow from each other by paths that
/// only those within know.
async fn check_repositories(harness: &Harness) {
    let mirror = mirror_folder(harness).join("mirror.git");
    let within = |path: &Path| {
        let root = volume(harness).outside("");
        volume(harness).folder.join(path.strip_prefix(root).unwrap())
    };
    let trusted = volume(harness).folder.join(format!(".cache/trusted/{ORDER}.git"));
    let leftovers: Vec<_> = fs::read_dir(mirror_folder(harness)).unwrap().collect();
    assert_eq!(leftovers.len(), 3, "the mirror, its lock and its last use: {leftovers:?}");
    for repository in [within(&mirror), trusted] {
        let mut git = volume(harness).command();
        git.env("PATH", crate::small_volume::PATH).arg("git");
        git.args(["-c", "safe.directory=*", "-C"]).arg(&repository).args(["fsck", "--full"]);
        let output = git.output().await.unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {words}", repository.display());
    }
}

/// The branch holds all of the agent's large file.
fn assert_whole(harness: &Harness) {
    let file = format!("{}:big.bin", harness.deliveries().0[0]);
    let size = harness.git(&["-C", "remote.git", "cat-file", "-s", &file]);
    assert_eq!(size.trim(), MUCH.to_string(), "a part of the work was taken for all of it");
}

fn times(steps: &[String], wanted: &str) -> usize {
    steps.iter().filter(|step| *step == wanted).count()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn full_in_the_middle_of_a_clone(pool: PgPool) {
    let mut harness = harness(pool, "repositories", "size=64m").await;
    enlarge_repository(&harness);
    let lock = hold_lock(&mirror_folder(&harness).join("lock"));
    harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    harness.until("select exists (select from awo.steps where step_name = 'create-branch')").await;
    volume(&harness).fill(LEFT).unwrap();
    drop(lock);
    ends_for_want_of_space(&harness).await;
    assert!(!mirror_folder(&harness).join("mirror.git").exists(), "half a mirror");
    completes_with_space(&harness).await;
    let steps = harness.steps(ORDER).await;
    assert_eq!(steps[..2], ["create-branch 1 failed disk", "create-branch 2 ok"], "{steps:?}");
    check_repositories(&harness).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn full_in_the_middle_of_a_checkout(pool: PgPool) {
    let mut harness = harness(pool, "repositories", "size=64m").await;
    enlarge_repository(&harness);
    let lock = hold_lock(&volume(&harness).outside(&format!(".cache/locks/{ORDER}")));
    harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    let mirror = mirror_folder(&harness).join("mirror.git");
    until("the mirror", || mirror.exists()).await;
    volume(&harness).fill(LEFT).unwrap();
    drop(lock);
    ends_for_want_of_space(&harness).await;
    assert!(mirror.exists(), "the mirror was thrown away");
    completes_with_space(&harness).await;
    let steps = harness.steps(ORDER).await;
    assert_eq!(steps[..2], ["create-branch 1 failed disk", "create-branch 2 ok"], "{steps:?}");
    check_repositories(&harness).await;
}

/// An agent that runs `script` in a step while there is no space.
async fn full_in_the_middle_of_an_agent(pool: PgPool, step: &str, script: &str) -> Vec<String> {
    let mut harness = harness(pool, "repositories", "size=64m").await;
    harness.tell_agent("extra", &format!("[ $AWO_STEP = {step} ] || return 0\n{script}"));
    harness.hold(step);
    harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    harness.until_agent_in(step).await;
    volume(&harness).fill(LEFT).unwrap();
    harness.let_go(step);
    ends_for_want_of_space(&harness).await;
    completes_with_space(&harness).await;
    assert_whole(&harness);
    check_repositories(&harness).await;
    harness.steps(ORDER).await
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn full_in_the_middle_of_an_agents_run(pool: PgPool) {
    let script = format!("head -c {MUCH} /dev/zero > big.bin || exit 1");
    let steps = full_in_the_middle_of_an_agent(pool, "execute", &script).await;
    assert_eq!(steps[2..4], ["execute 1 failed disk", "execute 2 ok"], "{steps:?}");
    assert_eq!(times(&steps, "planning 1 ok"), 1, "{steps:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn full_in_the_middle_of_the_run_of_an_agent_that_does_not_care(pool: PgPool) {
    // Nothing but the volume itself says that a part is missing.
    let script = format!("head -c {MUCH} /dev/zero > big.bin 2>/dev/null; echo 'Done.'; exit 0");
    let steps = full_in_the_middle_of_an_agent(pool, "execute", &script).await;
    assert_eq!(steps[2..4], ["execute 1 failed disk", "execute 2 ok"], "{steps:?}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn full_in_the_middle_of_a_commit(pool: PgPool) {
    let mut harness = harness(pool, "repositories", "size=64m").await;
    // The agent changes a file while it is asked for the message: the commit has to store that too.
    let script = format!(
        "[ $AWO_STEP = commit ] || return 0\nhead -c {MUCH} /dev/urandom > big.bin || exit 1\n\
         touch \"$folder/written\"\nwhile [ -e \"$folder/hold-after\" ]; do sleep 0.05; done"
    );
    harness.tell_agent("extra", &script);
    harness.hold("after");
    harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    until("the agent's file", || harness.path("agent/written").exists()).await;
    volume(&harness).fill(LEFT).unwrap();
    harness.let_go("after");
    ends_for_want_of_space(&harness).await;
    completes_with_space(&harness).await;
    let steps = harness.steps(ORDER).await;
    assert_eq!(steps[2..5], ["execute 1 ok", "commit 1 failed disk", "commit 2 ok"], "{steps:?}");
    assert_whole(&harness);
    check_repositories(&harness).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn full_while_the_work_of_an_agent_is_looked_at(pool: PgPool) {
    let mut harness = harness(pool, "repositories", "size=64m").await;
    let script = format!(
        "[ $AWO_STEP = execute ] || return 0\nhead -c {MUCH} /dev/urandom > big.bin || exit 1\n\
         touch \"$folder/written\"\nwhile [ -e \"$folder/hold-after\" ]; do sleep 0.05; done"
    );
    harness.tell_agent("extra", &script);
    harness.hold("after");
    harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    until("the agent's file", || harness.path("agent/written").exists()).await;
    volume(&harness).fill(LEFT).unwrap();
    harness.let_go("after");
    ends_for_want_of_space(&harness).await;
    completes_with_space(&harness).await;
    let steps = harness.steps(ORDER).await;
    assert_eq!(steps[2..4], ["execute 1 failed disk", "execute 2 ok"], "{steps:?}");
    assert_whole(&harness);
    check_repositories(&harness).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn full_in_the_middle_of_the_log(pool: PgPool) {
    let mut harness = harness(pool, "work-orders", "size=64m").await;
    harness.tell_agent("megabytes", "8");
    harness.hold("execute");
    harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    harness.until_agent_in("execute").await;
    volume(&harness).fill(LEFT).unwrap();
    harness.let_go("execute");
    ends_for_want_of_space(&harness).await;
    completes_with_space(&harness).await;
    let steps = harness.steps(ORDER).await;
    assert_eq!(steps[2..4], ["execute 1 failed disk", "execute 2 ok"], "{steps:?}");
    // The log of the run that counts is whole.
    let lines: i64 = sqlx::query_scalar(
        "select coalesce(sum(line_count), 0)::bigint from awo.log_chunks
         where stream = 'stdout' and step_name = 'execute'
           and run_id = (select run_id from awo.log_chunks where stream = 'stdout'
                         and step_name = 'execute' order by seq desc limit 1)",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert!(lines > 8_000_000 / 40, "{lines}");
    let parts = fs::read_dir(volume(&harness).outside(&format!("{ORDER}/outputs"))).unwrap();
    let mut names = parts.map(|part| part.unwrap().path());
    assert!(names.all(|name| name.extension().is_none_or(|extension| extension != "part")));
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn without_inodes_in_the_middle_of_a_checkout(pool: PgPool) {
    let mut harness = harness(pool, "repositories", "size=64m,nr_inodes=3000").await;
    for number in 0..400 {
        fs::write(harness.path(&format!("seed/file-{number}")), "x").unwrap();
    }
    publish(&harness);
    let lock = hold_lock(&volume(&harness).outside(&format!(".cache/locks/{ORDER}")));
    harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    let mirror = mirror_folder(&harness).join("mirror.git");
    until("the mirror", || mirror.exists()).await;
    let ballast = volume(&harness).outside("ballast-of-files");
    fs::create_dir(&ballast).unwrap();
    for number in 0..3000 {
        // More than the reserve gives back, fewer than the checkout needs.
        if statvfs(&ballast).unwrap().files_available() <= 100 {
            break;
        }
        File::create(ballast.join(number.to_string())).unwrap();
    }
    volume(&harness).fill(32 << 20).unwrap();
    drop(lock);
    harness.until("select exists (select from awo.attempts where error_class = 'disk')").await;
    fs::remove_dir_all(&ballast).unwrap();
    completes_with_space(&harness).await;
    let steps = harness.steps(ORDER).await;
    assert_eq!(times(&steps, "create-branch 1 failed disk"), 1, "{steps:?}");
    check_repositories(&harness).await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_with_room_takes_over_from_one_without(pool: PgPool) {
    let mut harness = harness(pool, "repositories", "size=64m").await;
    let script = format!("head -c {MUCH} /dev/zero > big.bin || exit 1");
    harness.tell_agent("extra", &format!("[ $AWO_STEP = execute ] || return 0\n{script}"));
    harness.hold("execute");
    harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    harness.until_agent_in("execute").await;
    volume(&harness).fill(LEFT).unwrap();
    harness.let_go("execute");
    ends_for_want_of_space(&harness).await;
    let elsewhere = harness.path("elsewhere");
    harness.start_worker_with(&[("AWO_REPOSITORY_DIR", elsewhere.to_str().unwrap())]);
    harness.until_status(ORDER, "completed").await;
    let steps = harness.steps(ORDER).await;
    assert_eq!(times(&steps, "planning 1 ok"), 1, "{steps:?}");
    assert_whole(&harness);
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_worker_ends_in_order_on_a_full_volume(pool: PgPool) {
    let mut harness = harness(pool, "work-orders", "size=64m").await;
    harness.hold("execute");
    let worker = harness.start_worker();
    harness.order_named(ORDER, "Write a file", STEPS).await;
    harness.until_agent_in("execute").await;
    volume(&harness).fill(0).unwrap();
    harness.signal(worker, Signal::SIGTERM);
    assert_eq!(harness.ended(worker).await, Some(0), "{}", harness.logs());
    let (status, class, _, attempt) = harness.outcome(ORDER).await;
    assert_eq!((status.as_str(), class, attempt), ("pending", None, 0));
    harness.let_go("execute");
    // A worker that finds the volume full starts, and waits for room.
    harness.start_worker();
    harness.until_logged("no orders are claimed").await;
    completes_with_space(&harness).await;
}
