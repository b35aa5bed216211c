//! Looks at the files of an agent as its user: what it closes to others is open to it.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

use super::may_change_users;

/// Does `look` with the rights over files of the user who has a sandbox, on this thread alone, where this
/// process may; else as itself. `look` must not wait for another thread.
pub fn looking_as_owner<T>(sandbox: &Path, look: impl FnOnce() -> T) -> T {
    let own = geteuid().as_raw();
    let entries = fs::read_dir(sandbox).into_iter().flatten().filter_map(Result::ok);
    let folders = entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_dir);
    let other = folders.map(|folder| (folder.uid(), folder.gid())).find(|(uid, _)| *uid != own);
    let Some((user, group)) = other.filter(|_| may_change_users()) else { return look() };
    let _back = Back { group: setfsgid(Gid::from_raw(group)), user: setfsuid(Uid::from_raw(user)) };
    look()
}

/// Whose rights come back, also when `look` panics.
struct Back {
    user: Uid,
    group: Gid,
}

impl Drop for Back {
    fn drop(&mut self) {
        setfsuid(self.user);
        setfsgid(self.group);
    }
}
