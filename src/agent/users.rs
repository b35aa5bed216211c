//! A user for each run of an agent: who has which, so that no two runs on a volume or a host have the same one
//! at once; and getting back what a run had that nobody ended in order.

mod end;
mod looking;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    unistd::{getegid, geteuid},
};
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};

use super::{isolation::AgentUser, shim::lock_sandbox};
use crate::{config::AgentUsers, disk::Passing};
pub use end::run_end_user;
pub use looking::looking_as_owner;

/// Where workers with different volumes on one host keep apart; only root can make it.
const OF_HOST: &str = "/run/archon-awo/agent-users";
/// What others may do in the folder of a sandbox while a run has it: its group passes through.
const PASSABLE: u32 = 0o750;
/// ... and while none has it.
const CLOSED: u32 = 0o700;

/// Whether this process may start others as another user, give files away and end them.
pub fn may_change_users() -> bool {
    let needed =
        CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN | CapabilitySet::KILL;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// What a user was given, as its note says: there until it was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    sandbox: PathBuf,
    folders: Vec<PathBuf>,
}

/// A user that nobody else has until this is given back or its process ends.
#[derive(Debug)]
pub struct HeldUser {
    pub user: AgentUser,
    note: Note,
    /// The lock of the host, where there is one.
    _host: Option<Flock<File>>,
}

/// Why a run has no user.
#[derive(Debug)]
pub enum NoUser {
    /// Others have them all.
    Taken(String),
    /// Something failed.
    Failed(String),
}

impl From<String> for NoUser {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl AgentUsers {
    /// Takes a user for a run, best the one that has the folders already, and gives it the folders. The error
    /// says why there is none.
    pub(super) fn take(&self, sandbox: &Path, folders: &[PathBuf]) -> Result<HeldUser, NoUser> {
        let failed = |error: io::Error| format!("the agent's user cannot be noted: {error}");
        fs::DirBuilder::new().recursive(true).mode(CLOSED).create(&self.notes).map_err(failed)?;
        let given = Given { sandbox: sandbox.to_owned(), folders: folders.to_owned() };
        passable(sandbox.parent())?;
        let mut why = None;
        for uid in self.order_for(sandbox) {
            let Some(mut held) = self.lock(uid).map_err(failed)? else { continue };
            if let Err(error) = held.reclaim(Some(sandbox)) {
                // Somebody is in the sandbox that this user had: another user will do.
                why.get_or_insert(error);
                continue;
            }
            held.note.write(Some(&given)).map_err(failed)?;
            held.hand_over(&given)
                .map_err(|error| format!("the sandbox cannot be given to the agent: {error}"))?;
            return Ok(held);
        }
        let why = why.map(|error| format!(" ({error})")).unwrap_or_default();
        Err(NoUser::Taken(format!(
            "all users of AWO_AGENT_USERS ({}-{}) are taken{why}: name more of them",
            self.first, self.last
        )))
    }

    /// Takes back what users of dead runs had: of one sandbox, or of all. Answers how many there were; the
    /// error tells the first that could not be had. Blocks.
    pub fn reclaim(&self, sandbox: Option<&Path>) -> Result<usize, String> {
        let (mut taken, mut first) = (0, None);
        let entries = fs::read_dir(&self.notes).into_iter().flatten().filter_map(Result::ok);
        for entry in entries {
            let uid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let written = entry.metadata().is_ok_and(|facts| facts.len() > 0);
            let Some(uid) = uid.filter(|_| written) else { continue };
            let held = match self.lock(uid) {
                Ok(Some(held)) => held,
                // A shim lives that has it.
                Ok(None) => continue,
                Err(error) => {
                    first.get_or_insert(error.to_string());
                    continue;
                }
            };
            let wanted = |given: Given| sandbox.is_none_or(|only| only == given.sandbox);
            if !held.note.read().is_some_and(wanted) {
                continue;
            }
            match { held }.reclaim(None) {
                Ok(()) => taken += 1,
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or(Ok(taken), Err)
    }

    /// All users, each sandbox with another one to begin with, so that a run mostly gets the user whose files
    /// are there, and shims that start at once do not queue up.
    fn order_for(&self, sandbox: &Path) -> impl Iterator<Item = u32> {
        let count = u64::from(self.last - self.first) + 1;
        let name = sandbox.as_os_str().as_encoded_bytes();
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        let first = self.first;
        (0..count).filter_map(move |number| {
            first.checked_add(u32::try_from((hash % count + number) % count).ok()?)
        })
    }

    /// The user, unless somebody has it.
    fn lock(&self, uid: u32) -> io::Result<Option<HeldUser>> {
        let host = Path::new(OF_HOST);
        let made = fs::DirBuilder::new().recursive(true).mode(CLOSED).create(host);
        // A container's `/run` is its own, and mostly cannot be written.
        let host = match made.and_then(|()| lock_file(&host.join(uid.to_string()))) {
            Ok(None) => return Ok(None),
            Ok(held) => held,
            Err(_) => None,
        };
        let file = lock_file(&self.notes.join(uid.to_string()))?;
        let user = AgentUser { uid, gid: uid };
        Ok(file.map(|file| HeldUser { user, note: Note { file }, _host: host }))
    }
}

fn lock_file(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

/// The file of a user, which is locked by who has it and says what the user was given.
#[derive(Debug)]
struct Note {
    file: Flock<File>,
}

impl Note {
    fn read(&self) -> Option<Given> {
        let (mut file, mut text) = (&*self.file, Vec::new());
        file.rewind().ok()?;
        file.read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(&self, given: Option<&Given>) -> io::Result<()> {
        let text = given.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let mut file = &*self.file;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&text)
    }
}

impl HeldUser {
    fn hand_over(&self, given: &Given) -> io::Result<()> {
        let AgentUser { uid, gid } = self.user;
        let pass = Passing { from: geteuid().as_raw(), to: uid, group: gid };
        for folder in &given.folders {
            pass.give(folder)?;
        }
        let_through(self.user, &given.sandbox)
    }

    /// Takes everything back; no process of the user is left.
    pub fn give_back(self) -> Result<(), String> {
        let Some(given) = self.note.read() else { return Ok(()) };
        self.take_back(&given)
    }

    fn take_back(&self, given: &Given) -> Result<(), String> {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let pass = Passing { from: self.user.uid, to: user, group };
        let failed = |path: &Path, error: io::Error| {
            format!("{} cannot be taken back from user {}: {error}", path.display(), self.user.uid)
        };
        close(&given.sandbox, self.user.gid, group)
            .map_err(|error| failed(&given.sandbox, error))?;
        for folder in &given.folders {
            match pass.take(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(folder, error));
                }
                _ => {}
            }
        }
        self.note.write(None).map_err(|error| failed(&given.sandbox, error))
    }

    /// Ends what is left of the run that had this user and takes back what it was given. `own` is a sandbox
    /// whose lock the caller holds.
    fn reclaim(&mut self, own: Option<&Path>) -> Result<(), String> {
        let Some(given) = self.note.read() else { return Ok(()) };
        end::end_all(self.user.uid)?;
        let taken = own == Some(&*given.sandbox) || !given.sandbox.exists();
        let lock = if taken { None } else { lock_sandbox(&given.sandbox)? };
        if !taken && lock.is_none() {
            let sandbox = given.sandbox.display();
            return Err(format!("{sandbox}, which user {} had, is in use", self.user.uid));
        }
        self.take_back(&given)
    }
}

/// Sees to it that users without a name for it pass through the volume to their sandboxes.
fn passable(volume: Option<&Path>) -> Result<(), String> {
    let Some(volume) = volume else { return Ok(()) };
    let failed = |error: io::Error| format!("{}: {error}", volume.display());
    let facts = fs::metadata(volume).map_err(failed)?;
    if facts.mode() & 0o001 != 0 {
        return Ok(());
    }
    let mode = fs::Permissions::from_mode(facts.mode() & 0o7777 | 0o001);
    fs::set_permissions(volume, mode).map_err(|error| {
        let volume = volume.display();
        format!("users of agents cannot pass through {volume} ({error}): run chmod o+x {volume} as its owner")
    })
}

/// Lets a user through the folder of its sandbox, and nobody else.
pub fn let_through(user: AgentUser, sandbox: &Path) -> io::Result<()> {
    std::os::unix::fs::lchown(sandbox, None, Some(user.gid))?;
    fs::set_permissions(sandbox, fs::Permissions::from_mode(PASSABLE))
}

/// Closes it again.
fn close(sandbox: &Path, from: u32, group: u32) -> io::Result<()> {
    match fs::symlink_metadata(sandbox) {
        Ok(facts) if facts.is_dir() && facts.gid() == from => {
            fs::set_permissions(sandbox, fs::Permissions::from_mode(CLOSED))?;
            std::os::unix::fs::lchown(sandbox, None, Some(group))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
