//! The files of orders (`AWO_WORK_ORDER_DIR/{id}`) go when the database has forgotten the order, and not
//! before they were left alone for as long as history is kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{CHUNK, Sandboxes, Sweep, SweepReport};
use crate::{
    config::SET_ASIDE,
    disk::{touch, trash},
    domain::WorkOrderId,
};

/// The folders that an order's folder is known by.
const PARTS: [&str; 3] = ["prompts", "outputs", "bundles"];

impl Sandboxes {
    pub(super) async fn sweep_order_folders(&self, sweep: &Sweep, report: &mut SweepReport) {
        let Some(days) = sweep.history_days.and_then(|days| u64::try_from(days).ok()) else {
            return;
        };
        let root = self.work_orders.clone();
        let age = Duration::from_secs(days * 24 * 60 * 60);
        let old = tokio::task::spawn_blocking(move || {
            // The clock that counts is the one that wrote the times.
            let note = root.join(".swept");
            touch(&note)?;
            old_folders(&root, fs::metadata(&note)?.modified()?, age)
        })
        .await;
        let old = match old {
            Ok(Ok(old)) => old,
            Ok(Err(error)) => {
                let place = self.work_orders.display();
                return report.problems.push(format!("cannot read {place}: {error}"));
            }
            Err(_) => return,
        };
        for chunk in old.chunks(CHUNK) {
            let asked: Vec<_> = chunk.iter().map(|order| (order.clone(), None)).collect();
            let standings = match self.store.standing(&asked).await {
                Ok(standings) => standings,
                Err(error) => return report.problems.push(error.to_string()),
            };
            // What this database never had may be another one's.
            let forgotten = standings.into_iter().filter(|row| {
                let deleted = row.deleted_seconds.is_some() || sweep.unknown;
                row.status.is_none() && !row.is_open && deleted
            });
            for order in forgotten.map(|row| row.id) {
                // As long as there is a sandbox, more of its work may come.
                let Ok(id) = order.parse::<WorkOrderId>() else { continue };
                let volume = self.git.volume();
                let places = [volume.sandbox(&id), volume.trusted(&id)];
                let (root, name) = (self.work_orders.clone(), order.clone());
                let discarded = tokio::task::spawn_blocking(move || {
                    let kept = places.iter().any(|place| place.exists());
                    if kept { Ok(false) } else { discard(&root, name.as_ref()).map(|()| true) }
                });
                match discarded.await {
                    Ok(Ok(true)) => report.order_folders.push(order),
                    Ok(Ok(false)) => {}
                    Ok(Err(error)) => {
                        report
                            .problems
                            .push(format!("cannot delete the files of {order}: {error}"));
                    }
                    Err(_) => return,
                }
            }
        }
        self.sweep_set_aside(age, report).await;
        let trash = self.work_orders.join(".trash");
        let emptied = tokio::task::spawn_blocking(move || trash::empty(&trash, |_| ())).await;
        if let Ok(Err(error)) = emptied {
            report.problems.push(format!("cannot empty the trash of the work orders: {error}"));
        }
    }

    /// Deletes what was set aside of orders whose id was used again, when history is no longer kept.
    async fn sweep_set_aside(&self, age: Duration, report: &mut SweepReport) {
        let (root, aside) = (self.work_orders.clone(), self.work_orders.join(SET_ASIDE));
        let swept = tokio::task::spawn_blocking(move || -> io::Result<Vec<String>> {
            let now = fs::metadata(root.join(".swept"))?.modified()?;
            let old = old_folders(&aside, now, age)?;
            old.iter().try_for_each(|name| discard(&root, &Path::new(SET_ASIDE).join(name)))?;
            Ok(old)
        });
        match swept.await {
            Ok(Ok(old)) => report.order_folders.extend(old),
            Ok(Err(error)) => {
                report.problems.push(format!("cannot delete what was set aside: {error}"));
            }
            Err(_) => {}
        }
    }
}

/// Folders that look like those of orders and in which nothing has changed for longer than `age`.
fn old_folders(root: &Path, now: SystemTime, age: Duration) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut old = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let is_order = !name.starts_with('.') && name.parse::<WorkOrderId>().is_ok();
        if !is_order || !entry.file_type()?.is_dir() {
            continue;
        }
        let parts: Vec<PathBuf> = PARTS.iter().map(|part| entry.path().join(part)).collect();
        let times =
            |path: &PathBuf| fs::symlink_metadata(path).and_then(|data| data.modified()).ok();
        let known = parts.iter().filter_map(times).max();
        let newest = known.into_iter().chain(times(&entry.path())).max();
        let untouched = newest.and_then(|at| now.duration_since(at).ok());
        if known.is_some() && untouched.is_some_and(|untouched| untouched >= age) {
            old.push(name);
        }
    }
    Ok(old)
}

fn discard(root: &Path, name: &Path) -> io::Result<()> {
    let trash = root.join(".trash");
    fs::create_dir_all(&trash)?;
    let place = trash.join(uuid::Uuid::new_v4().simple().to_string());
    match fs::rename(root.join(name), &place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    let deleted = trash::clear(&place)?.unwrap_or_default();
    deleted.told.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::{discard, old_folders};

    #[test]
    fn only_old_folders_that_are_those_of_orders_are_found() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["wo-1/prompts", "wo-2/bundles", "other", ".trash/outputs", "wo 3/prompts"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("wo-4"), "a file").unwrap();
        let now = fs::metadata(root.path().join("wo-4")).unwrap().modified().unwrap();
        let age = Duration::from_hours(24);
        assert!(old_folders(root.path(), now, age).unwrap().is_empty());
        let later = now + age + Duration::from_mins(1);
        let mut found = old_folders(root.path(), later, age).unwrap();
        found.sort();
        assert_eq!(found, ["wo-1", "wo-2"]);
        discard(root.path(), Path::new("wo-1")).unwrap();
        discard(root.path(), Path::new("wo-1")).unwrap();
        assert!(!root.path().join("wo-1").exists());
        assert_eq!(fs::read_dir(root.path().join(".trash")).unwrap().count(), 1, "the old outputs");
        assert!(old_folders(&root.path().join("none"), later, age).unwrap().is_empty());
    }
}
