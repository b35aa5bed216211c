//! Three replicas clean one volume at once, beside running orders; one of them is killed. `make
//! retention-load` does it at full size and measures it against `rm -rf`.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests, and the clock of the wall"
)]

mod command;
#[path = "support/git_place.rs"]
mod git_place;
#[path = "support/rows.rs"]
mod rows;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use archon_awo::{
    domain::{JobState, Redactor},
    git::{Git, GitSettings, Sandbox},
    process,
};
use command::Program;
use git_place::{Place, branch};
use rows::run;
use sqlx::PgPool;

/// How much there is.
struct Size {
    /// Sandboxes that are to go; one in ten has work that nobody has.
    old: usize,
    /// Files in each.
    files: usize,
    /// Sandboxes of running orders.
    running: usize,
}

/// A volume full of sandboxes.
struct Load {
    pool: PgPool,
    place: Place,
    old: Vec<Sandbox>,
    running: Vec<(Sandbox, fs::File)>,
    young: Vec<Sandbox>,
}

impl Load {
    async fn new(pool: PgPool, size: &Size) -> Self {
        let place = Place::new();
        for number in 0..size.files {
            let folder = place.path("seed").join(format!("part{:03}", number / 50));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("{number}.txt")), format!("{number}\n").repeat(60))
                .unwrap();
        }
        place.seed_commit("Many files");
        place.publish();
        let mut load =
            Self { pool, place, old: Vec::new(), running: Vec::new(), young: Vec::new() };
        for number in 0..size.old {
            let state = [JobState::Succeeded, JobState::Failed, JobState::Cancelled][number % 3];
            let sandbox = load.sandbox(&load.place.git, &format!("old-{number}"), state).await;
            if number % 10 == 0 {
                fs::write(sandbox.checkout.join("work.txt"), format!("work {number}\n")).unwrap();
            }
            load.old.push(sandbox);
        }
        run(
            &load.pool,
            "UPDATE awo.jobs SET created_at = created_at - interval '9 days',
             finished_at = finished_at - interval '9 days' WHERE finished_at IS NOT NULL",
        )
        .await
        .unwrap();
        for number in 0..size.running {
            let id = format!("running-{number}");
            let sandbox = load.sandbox(&load.place.git, &id, JobState::Running).await;
            fs::write(sandbox.checkout.join("work.txt"), "in the making\n").unwrap();
            let lock = fs::File::create(sandbox.root.join(".lock")).unwrap();
            lock.lock().unwrap();
            load.running.push((sandbox, lock));
            let id = format!("young-{number}");
            let young = load.sandbox(&load.place.git, &id, JobState::Failed).await;
            load.young.push(young);
        }
        load
    }

    async fn sandbox(&self, git: &Git, id: &str, state: JobState) -> Sandbox {
        let insert = format!(
            "INSERT INTO agent_work_orders (agent_work_order_id, repository_url, user_request)
             VALUES ('{id}', 'https://github.com/acme/{id}', 'x') ON CONFLICT DO NOTHING"
        );
        run(&self.pool, &insert).await.unwrap();
        let job =
            format!("SELECT awo_job_id FROM agent_work_orders WHERE agent_work_order_id = '{id}'");
        let job = rows::count(&self.pool, &job).await;
        if rows::state(&self.pool, job).await == JobState::Queued {
            if matches!(state, JobState::Failed | JobState::Cancelled) {
                rows::set_state(&self.pool, job, state).await.unwrap();
            } else {
                rows::claim(&self.pool, job).await.unwrap().unwrap();
                if state != JobState::Running {
                    rows::settle(&self.pool, job, state).await.unwrap();
                }
            }
        }
        let mirror = git.refresh_mirror(&self.place.remote()).await.unwrap();
        let name = branch(&format!("feat/{id}"));
        git.open_sandbox(&mirror, &id.parse().unwrap(), &name, None).await.unwrap()
    }

    /// The same sandboxes once more, on a volume of their own beside the first.
    async fn twins(&self) -> Vec<PathBuf> {
        let askpass = PathBuf::from(env!("CARGO_BIN_EXE_archon-awo"));
        let settings = GitSettings::new(self.place.path("git-home"), askpass);
        let git = Git::new(settings, self.place.path("twin"), Redactor::default());
        let mut folders = Vec::new();
        for sandbox in &self.old {
            let id = sandbox.order.to_string();
            let twin = self.sandbox(&git, &id, JobState::Failed).await;
            folders.extend([twin.root, git.volume().trusted(&sandbox.order)]);
        }
        folders
    }

    fn program(&self) -> Program {
        let path = |name: &str| self.place.path(name).to_str().unwrap().to_owned();
        Program::on(&self.pool)
            .with("AWO_REPOSITORY_DIR", &path("volume"))
            .with("AWO_WORK_ORDER_DIR", &path("work-orders"))
            .with("AWO_ALLOW_LOCAL_REMOTES", "true")
    }

    /// What lies on the volume, by the order it belongs to.
    fn left(&self) -> BTreeSet<String> {
        let volume = self.place.path("volume");
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect::<Vec<_>>()
        };
        let sandboxes = names(&volume).into_iter().filter(|name| !name.starts_with('.'));
        let trusted = names(&volume.join(".cache/trusted")).into_iter();
        let trusted = trusted.map(|name| name.strip_suffix(".git").unwrap().to_owned());
        sandboxes.chain(trusted).collect()
    }

    /// Only what should go has gone, nothing active was touched, all work was saved once.
    fn assert_clean(&self, size: &Size) {
        let stay = self.running.iter().map(|(sandbox, _)| sandbox).chain(&self.young);
        let stay: BTreeSet<String> = stay.map(|sandbox| sandbox.order.to_string()).collect();
        assert_eq!(self.left(), stay);
        assert_eq!(fs::read_dir(self.place.path("volume/.trash")).unwrap().count(), 0);
        for (sandbox, _) in &self.running {
            assert_eq!(files(&sandbox.checkout), size.files + 4, "{}", sandbox.order);
            let work = fs::read_to_string(sandbox.checkout.join("work.txt")).unwrap();
            assert_eq!(work, "in the making\n");
        }
        for sandbox in &self.young {
            assert_eq!(files(&sandbox.checkout), size.files + 3, "{}", sandbox.order);
        }
    }

    /// Every work that nobody had is in a bundle, and known to the database.
    async fn assert_saved(&self) {
        let rows = "SELECT count(*) FROM agent_work_order_artifacts WHERE artifact_type = 'bundle'";
        let expected = self.old.len().div_ceil(10);
        assert_eq!(rows::count(&self.pool, rows).await, i64::try_from(expected).unwrap());
        for sandbox in self.old.iter().step_by(10) {
            let folder =
                self.place.path("work-orders").join(sandbox.order.as_str()).join("bundles");
            let bundles = fs::read_dir(&folder).unwrap();
            let kinds = bundles.map(|entry| entry.unwrap().path().extension().unwrap().to_owned());
            assert_eq!(kinds.filter(|kind| kind == "bundle").count(), 1);
        }
    }
}

/// Files of a checkout, without git's own.
fn files(checkout: &Path) -> usize {
    let (mut count, mut pending) = (0, vec![checkout.to_owned()]);
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                count += 1;
            } else if entry.file_name() != ".git" {
                pending.push(entry.path());
            }
        }
    }
    count
}

fn rm(folders: &[PathBuf]) -> Duration {
    let start = Instant::now();
    let status = process::blocking_command("/bin/rm").arg("-rf").arg("--").args(folders).status();
    assert!(status.unwrap().success());
    start.elapsed()
}

/// Three replicas at once; each hands back what it printed.
fn clean(load: &Load) -> Duration {
    let start = Instant::now();
    let replicas: Vec<_> = (0..3).map(|_| load.program().spawn(&["gc", "--json"])).collect();
    for replica in replicas {
        let ran = replica.wait_with_output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    start.elapsed()
}

/// Three replicas, one of which is killed when a quarter of the work is done; then one more.
fn clean_with_a_kill(load: &Load) {
    let before = load.left().len();
    let mut replicas: Vec<_> = (0..3).map(|_| load.program().spawn(&["gc", "--json"])).collect();
    let deadline = Instant::now() + Duration::from_secs(100);
    while load.left().len() > before - load.old.len() / 4 {
        assert!(Instant::now() < deadline, "nothing is cleaned up");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut victim = replicas.remove(0);
    victim.kill().unwrap();
    let end = victim.wait().unwrap();
    assert!(!end.success(), "it ended before it could be killed: {end:?}");
    for replica in replicas {
        let ran = replica.wait_with_output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    assert_eq!(load.program().run(&["gc", "--json"]).code, 0);
}

const SMALL: Size = Size { old: 24, files: 150, running: 3 };
const FULL: Size = Size { old: 200, files: 3000, running: 10 };

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn three_replicas_of_which_one_is_killed_clean_a_volume_beside_running_orders(pool: PgPool) {
    let load = Load::new(pool, &SMALL).await;
    clean_with_a_kill(&load);
    load.assert_clean(&SMALL);
    load.assert_saved().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
#[ignore = "needs 6 GB and minutes: make retention-load"]
async fn full_size_in_at_most_four_fifths_of_the_time_of_rm(pool: PgPool) {
    let load = Load::new(pool, &FULL).await;
    let twins = load.twins().await;
    nix::unistd::sync();
    // One half of the floor before and one after, so that neither profits from the other.
    let (first, second) = twins.split_at(twins.len() / 2);
    let before = rm(first);
    let ours = clean(&load);
    let floor = before + rm(second);
    load.assert_clean(&FULL);
    load.assert_saved().await;
    let ratio = ours.as_secs_f64() / floor.as_secs_f64();
    println!(
        "{} sandboxes of {} files: three replicas {:.2} s, rm -rf {:.2} s, ratio {ratio:.2}",
        FULL.old,
        FULL.files,
        ours.as_secs_f64(),
        floor.as_secs_f64()
    );
    assert!(ratio <= 0.8, "ratio {ratio:.2}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
#[ignore = "needs 3 GB and minutes: make retention-load"]
async fn full_size_with_one_replica_killed(pool: PgPool) {
    let load = Load::new(pool, &FULL).await;
    clean_with_a_kill(&load);
    load.assert_clean(&FULL);
    load.assert_saved().await;
    println!("{} sandboxes, one of three replicas killed: the same outcome", FULL.old);
}
