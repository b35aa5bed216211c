//! What is done when a shim is gone and did not say that its tree is empty: nobody has seen it empty, and
//! nobody will. The sandbox stays locked until nothing of the run can be found any more.

use std::{fs::File, thread, time::Duration};

use nix::{fcntl::Flock, sys::signal::Signal, unistd::getpid};

use crate::{
    agent::{
        adopted,
        cgroup::{Cgroup, OwnCgroup},
        process_table::{TreeRule, send},
        request::AgentRequest,
        shim::lock_sandbox,
    },
    clock::boot_time,
};

/// How long the end of a run waits for what its dead shim left.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What may be left of a run.
pub struct LostShim {
    request: AgentRequest,
    tree: TreeRule,
    cgroup: Option<Cgroup>,
    /// Keeps the next run, and whoever saves or deletes the sandbox, out of it.
    lock: Option<Flock<File>>,
}

impl LostShim {
    /// Of this run.
    pub fn of(request: &AgentRequest) -> Self {
        let run = request.run_id.to_string();
        let markers = vec![format!("AWO_RUN_ID={run}")];
        let cgroup = OwnCgroup::find().ok().map(|own| own.of_run(&request.sandbox_root, &run));
        Self {
            request: request.clone(),
            tree: TreeRule { root: None, markers, spared: None, except: getpid() },
            cgroup,
            lock: None,
        }
    }

    /// Kills what is left; `false` when something is left after some seconds. Then the sandbox stays locked
    /// for as long as that is so. Blocks.
    pub fn clear(mut self) -> bool {
        let began = boot_time();
        if self.kill_until(|| boot_time().saturating_sub(began) > PATIENCE) {
            return true;
        }
        let run = self.request.run_id;
        let keep = move || {
            self.kill_until(|| false);
        };
        if let Err(error) = thread::Builder::new().name("quarantine".to_owned()).spawn(keep) {
            tracing::error!(run.id = %run, %error, "the sandbox cannot be kept locked");
        }
        false
    }

    /// Kills until nothing is left or `given_up`; answers whether nothing is left.
    fn kill_until(&mut self, given_up: impl Fn() -> bool) -> bool {
        let mut pause = Duration::from_millis(1);
        loop {
            if self.lock.is_none() {
                self.lock = lock_sandbox(&self.request.sandbox_root).ok().flatten();
            }
            if self.kill() {
                return true;
            }
            if given_up() {
                return false;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Kills once; answers whether there was nothing to kill.
    fn kill(&self) -> bool {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        let mut left = self.tree.find();
        left.extend(adopted::left_behind());
        for process in &left {
            send(process.pid, Signal::SIGKILL);
        }
        adopted::bury();
        left.is_empty() && self.cgroup.as_ref().is_none_or(Cgroup::remove)
    }
}
