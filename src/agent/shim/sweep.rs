//! The end of a run: kills what is left of it until nothing is. Where the kernel can do that in one go, nobody
//! looks for processes first: among thousands that is too slow.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use nix::{sys::signal::Signal, unistd::getpid};

use super::Shim;
use crate::{
    agent::{
        lifeline::{Status, nanos},
        process_table::{TreeRule, send},
    },
    clock::boot_time,
};

/// How long a tree that is killed in one go may take to be gone before somebody looks for what is left.
const GOING: Duration = Duration::from_secs(1);
/// Longest pause between two looks: a process the kernel does not let go of must not cost a processor.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Shim {
    /// Ends what an earlier run left in this sandbox: its shim is dead, or it would hold the lock.
    pub(super) fn clear_leftovers(&mut self) {
        let leftovers = TreeRule {
            root: None,
            markers: vec![self.arguments.sandbox_marker()],
            spared: Some(self.arguments.run_marker()),
            except: getpid(),
        };
        let mut killed = self.freezing.clear_leftovers(&self.arguments);
        killed.extend(kill_until_empty(&leftovers));
        if !killed.is_empty() {
            eprintln!("archon-awo: ended {} processes of an earlier run", killed.len());
        }
    }

    /// Ends everything that is left and says so.
    pub(super) fn sweep(&mut self) {
        let swept = self.sweep_tree();
        let since = self.end_began.unwrap_or_else(boot_time);
        let ms = nanos(boot_time().saturating_sub(since)) / 1_000_000;
        let out_of_memory = self.out_of_memory;
        self.pipes.tell(&Status::TreeEmpty { ms, swept, out_of_memory });
    }

    /// Kills until no process of the run is left, and answers how many outlived the agent. That no child
    /// is left is the proof: whatever loses its parent becomes one.
    pub(super) fn sweep_tree(&mut self) -> u64 {
        self.reap();
        let (firm, began) = (self.freezing.is_firm(), boot_time());
        for news in self.freezing.kill(self.agent.filter(|_| !self.exited)) {
            self.hear(news);
        }
        // Whoever ends from now on was killed.
        let buried_before = self.buried;
        let mut pause = Duration::from_millis(1);
        while self.reap() {
            self.freezing.kill(None);
            if !firm || boot_time().saturating_sub(began) > GOING {
                for process in self.tree.find() {
                    send(process.pid, Signal::SIGKILL);
                }
            }
            sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let swept = self.buried - buried_before;
        self.out_of_memory = self.freezing.ran_out_of_memory();
        let mut pause = Duration::from_millis(1);
        while !self.freezing.remove() {
            self.freezing.kill(None);
            self.reap();
            sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        swept
    }
}

/// Kills a tree until it is empty, and returns who had to be killed.
fn kill_until_empty(tree: &TreeRule) -> BTreeSet<i32> {
    let mut killed = BTreeSet::new();
    let mut pause = Duration::from_millis(1);
    loop {
        let living = tree.find();
        if living.is_empty() {
            return killed;
        }
        for process in living {
            killed.insert(process.pid.as_raw());
            send(process.pid, Signal::SIGKILL);
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
