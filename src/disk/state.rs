//! How the volumes of a worker stand, for all who must know: the claim, the health checks, people.

use std::path::PathBuf;

use super::{DiskMarks, DiskSpace, Level, Space, look_at_volume, size_text};

/// One volume.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct VolumeState {
    /// What is on it: `repositories` or `work-orders`.
    pub name: &'static str,
    /// Where it is.
    pub folder: PathBuf,
    /// Its space; `None` when the file system did not say.
    #[serde(flatten)]
    pub space: Option<Space>,
    /// How it stands.
    pub level: Level,
    /// What it lacks, in words.
    #[serde(skip)]
    pub lacks: Option<String>,
}

/// All volumes of a worker, as they were when it last looked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DiskState {
    /// The volumes.
    pub volumes: Vec<VolumeState>,
}

impl VolumeState {
    /// Asks a file system and judges the answer.
    pub fn look(
        name: &'static str,
        folder: PathBuf,
        disk: &dyn DiskSpace,
        marks: &DiskMarks,
    ) -> Self {
        if let Some(lacks) = look_at_volume(&folder).still {
            return Self { name, folder, space: None, level: Level::Closed, lacks: Some(lacks) };
        }
        match disk.space(&folder) {
            Ok(space) => {
                let (level, lacks) = marks.judge(&space);
                Self { name, folder, space: Some(space), level, lacks }
            }
            Err(error) => {
                let lacks = Some(format!("its free space is not known: {error}"));
                Self { name, folder, space: None, level: Level::Ample, lacks }
            }
        }
    }

    /// What is free of what there is.
    pub fn describe(&self) -> String {
        let Some(space) = &self.space else {
            return self.lacks.clone().unwrap_or_default();
        };
        let (free, total) = (size_text(space.free_bytes), size_text(space.total_bytes));
        let mut text = format!("{free} of {total} free");
        if space.total_inodes > 0 {
            let (free, total) = (space.free_inodes, space.total_inodes);
            text = format!("{text}, {free} of {total} inodes");
        }
        text
    }

    /// What it lacks as a sentence for people.
    pub fn problem(&self) -> Option<String> {
        let lacks = self.lacks.as_ref()?;
        let (name, folder) = (self.name, self.folder.display());
        Some(format!("on the volume of the {name} ({folder}) {lacks}"))
    }
}

impl DiskState {
    /// How the worst volume stands.
    pub fn level(&self) -> Level {
        self.volumes.iter().map(|volume| volume.level).max().unwrap_or_default()
    }

    /// What is lacking, a sentence for each volume.
    pub fn problems(&self) -> Vec<String> {
        self.volumes.iter().filter_map(VolumeState::problem).collect()
    }
}
