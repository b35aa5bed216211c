//! What only the agent wrote, as one can keep it elsewhere: its checkout with everything git ignores, and its
//! home with its conversations.

use std::{fs, path::PathBuf};

use super::{Claim, GitError, Sandbox, blocking, removal::delete};

/// Where files are unpacked before they take their place.
const STAGING: &str = ".returning";
const CHECKOUT: &str = "checkout";
const HOME: &str = "home";

impl Claim {
    /// The folders of the agent, each with the name it is kept under; none when there is no sandbox.
    pub async fn agent_folders(&self) -> Result<Vec<(&'static str, PathBuf)>, GitError> {
        let (git, order) = (self.git().clone(), self.order().clone());
        blocking(move || {
            let found = git.recorded(&order);
            Ok(found.map_or_else(Vec::new, |(sandbox, _)| {
                vec![(CHECKOUT, sandbox.checkout), (HOME, sandbox.home)]
            }))
        })
        .await
    }
}

impl Sandbox {
    /// An empty folder on the sandbox's own volume, for files that come back.
    pub async fn returning_folder(&self) -> Result<PathBuf, GitError> {
        let folder = self.root.join(STAGING);
        blocking(move || {
            delete(&folder)?;
            fs::create_dir(&folder).map_err(GitError::file("make the folder", &folder))?;
            Ok(folder)
        })
        .await
    }

    /// Puts the files that came back in the place of those the sandbox was made with. What lies there is the
    /// agent's, as it was before: nothing of it is executed, and git reads it as a tree of files only.
    pub async fn adopt_agent_files(&self) -> Result<(), GitError> {
        let (sandbox, lock) = (self.clone(), self.git.lock_order(&self.order).await?);
        blocking(move || {
            let folder = sandbox.root.join(STAGING);
            let old = folder.join("old");
            fs::create_dir(&old).map_err(GitError::file("make the folder", &old))?;
            for (name, place) in [(HOME, &sandbox.home), (CHECKOUT, &sandbox.checkout)] {
                let came_back = folder.join(name);
                if !fs::symlink_metadata(&came_back).is_ok_and(|about| about.is_dir()) {
                    continue;
                }
                fs::rename(place, old.join(name)).map_err(GitError::file("move", place))?;
                fs::rename(&came_back, place).map_err(GitError::file("put back", place))?;
            }
            let deleted = delete(&folder);
            drop(lock);
            deleted
        })
        .await
    }
}
