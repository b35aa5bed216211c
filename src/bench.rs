//! Measurements a user can repeat: each value stands beside the barest way to do the same thing,
//! measured in the same run on the same machine.

pub mod agent;
mod agent_load;
pub mod queue;
pub mod sandbox;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;

/// Told what is done and how far it is: a phase, steps done, steps in all.
pub type Progress<'a> = &'a (dyn Fn(&'static str, usize, usize) + Sync);

/// What `archon-awo bench … --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// Where it was measured.
    pub machine: Machine,
    /// The database that was measured, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// What was measured.
    pub results: Vec<Measurement>,
}

/// The machine of a measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Type of the file system that was measured on.
    pub file_system: String,
}

/// The database server of a measurement, as it describes itself.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct Database {
    /// Its version.
    pub version: String,
    /// Whether what it wrote reaches the disk at all.
    pub fsync: String,
    /// Whether a commit waits for that.
    pub synchronous_commit: String,
    /// Its memory for pages.
    pub shared_buffers: String,
}

/// One value and its floor.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// A name that stays.
    pub name: &'static str,
    /// The median of our own rounds.
    pub value: f64,
    /// The unit of `value` and `floor`.
    pub unit: &'static str,
    /// The median of the barest way to do the same.
    pub floor: Option<f64>,
    /// `value / floor`.
    pub ratio: Option<f64>,
}

impl Measurement {
    /// A value with its floor.
    pub fn new(name: &'static str, unit: &'static str, value: f64, floor: f64) -> Self {
        let ratio = (floor > 0.0).then(|| rounded(value / floor));
        Self { name, unit, value: rounded(value), floor: Some(rounded(floor)), ratio }
    }

    /// A value for which there is no barest way.
    pub fn alone(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, unit, value: rounded(value), floor: None, ratio: None }
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// The middle value; 0 when there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.as_slice() {
        [] => 0.0,
        sorted if sorted.len() % 2 == 1 => sorted[middle],
        sorted => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value below which `share` (0 to 1) of the others lie; 0 when there is none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = sorted.len() * rank(share) / 1000;
    sorted.get(below.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// A share in whole thousandths, so that places are counted and not rounded.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
fn rank(share: f64) -> usize {
    (share.clamp(0.0, 1.0) * 1000.0).round() as usize
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn real(number: u64) -> f64 {
    number as f64
}

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn make(parent: &Path) -> anyhow::Result<Self> {
        let parent = parent.canonicalize().with_context(|| parent.display().to_string())?;
        let folder = parent.join(format!("archon-awo-bench-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Machine {
    /// This machine, with the file system of `folder`.
    pub fn here(folder: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: kib >> 10,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/self/mounts"), folder),
        }
    }
}

/// The type of the file system with the longest mount point above `folder`.
fn file_system(mounts: &str, folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Measurement, file_system, median, percentile};

    #[test]
    fn a_ratio_is_value_by_floor_and_missing_without_one() {
        let measurement = Measurement::new("x", "ms", 13.0, 10.0);
        assert_eq!(measurement.ratio, Some(1.3));
        assert_eq!(Measurement::new("x", "ms", 13.0, 0.0).ratio, None);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }

    #[test]
    fn a_percentile_leaves_its_share_below() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!((percentile(&values, 0.5) - 101.0).abs() < 1e-9);
        assert!((percentile(&values, 0.99) - 199.0).abs() < 1e-9);
        assert!((percentile(&values, 1.0) - 200.0).abs() < 1e-9);
        assert!(percentile(&[], 0.99).abs() < 1e-9);
    }

    #[test]
    fn the_closest_mount_names_the_file_system() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/dev/shm/none")), "tmpfs");
        assert_eq!(file_system(mounts, Path::new("/srv/none")), "ext4");
    }
}
