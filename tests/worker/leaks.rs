//! Looks for secrets wherever a run could leave them: files, rows, and processes while they live.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sqlx::{AssertSqlSafe, PgPool};

/// The forms in which a secret could appear.
pub fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), STANDARD.encode(format!("x-access-token:{secret}"))];
    // Base64 of it inside something longer: whatever its place, the middle stays the same.
    for before in ["", " ", "  "] {
        let encoded = STANDARD.encode(format!("{before}{secret}"));
        forms.push(encoded[4..encoded.len() - 4].to_owned());
    }
    forms
}

/// Eight bytes of a secret as `od`, `xxd` and `hexdump` print them at the beginning of a line, and in UTF-16.
pub fn pieces_of_dumps(secret: &str) -> Vec<String> {
    let bytes = &secret.as_bytes()[..8];
    let each = |write: &dyn Fn(&[u8]) -> String, width| -> Vec<String> {
        bytes.chunks(width).map(write).collect()
    };
    let pair = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    vec![
        each(&|byte| format!("{:02x}", byte[0]), 1).join(" "),
        each(&|two| format!("{:02x}{:02x}", two[0], two[1]), 2).join(" "),
        each(&|two| format!("{:04x}", pair(two)), 2).join(" "),
        each(&|two| format!("{:06o}", pair(two)), 2).join(" "),
        each(&|byte| char::from(byte[0]).into(), 1).join("   "),
        each(&|byte| format!("\u{1b}[31m{}", char::from(byte[0])), 1).join("\u{1b}[0m"),
        STANDARD.encode(secret)[..20].to_owned(),
    ]
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

fn any(bytes: &[u8], forms: &[String]) -> bool {
    forms.iter().any(|form| contains(bytes, form))
}

/// The files below `folder` that hold a form of the secret; links are not followed.
pub fn in_files(folder: &Path, secret: &str) -> Vec<PathBuf> {
    forms_in_files(folder, &forms(secret))
}

/// The files below `folder` that hold one of these texts; links are not followed.
pub fn forms_in_files(folder: &Path, forms: &[String]) -> Vec<PathBuf> {
    let (mut found, mut seen, mut pending) = (Vec::new(), 0, vec![folder.to_owned()]);
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if any(path.as_os_str().as_encoded_bytes(), forms) {
                found.push(path.clone());
            }
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                seen += 1;
                if any(&fs::read(&path).unwrap(), forms) {
                    found.push(path);
                }
            }
        }
    }
    assert!(seen > 0, "no file was looked at");
    found
}

/// The tables with a row that holds a form of the secret, in text or in bytes.
pub async fn in_rows(pool: &PgPool, secret: &str) -> Vec<String> {
    forms_in_rows(pool, forms(secret)).await
}

/// The tables with a row that holds one of these texts, in text or in bytes.
pub async fn forms_in_rows(pool: &PgPool, forms: Vec<String>) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables
         where schemaname in ('public', 'awo')",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for needed in ["awo.log_chunks", "public.agent_work_order_artifacts", "awo.side_effects"] {
        assert!(tables.iter().any(|table| table == needed), "{needed} is not among {tables:?}");
    }
    let mut found = Vec::new();
    for table in tables {
        // A bytea is shown in hex.
        let statement = format!(
            "select count(*) from {table} t where exists (select from unnest($1::text[]) form
             where strpos(t::text, form) > 0
                or strpos(t::text, encode(convert_to(form, 'UTF8'), 'hex')) > 0)"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(&forms);
        let rows: i64 = query.fetch_one(pool).await.unwrap();
        if rows > 0 {
            found.push(format!("{table}: {rows} rows"));
        }
    }
    found
}

/// Looks at every process of a worker again and again.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sightings>,
}

/// What was seen.
#[derive(Default)]
pub struct Sightings {
    /// Where the secret was, each named once.
    pub leaks: Vec<String>,
    /// The programs that were looked at, each named once.
    pub programs: Vec<String>,
}

impl Watch {
    /// Watches what `worker` starts and what names `folder`, but not the worker itself. With
    /// `environments` also what is in them.
    pub fn start(worker: u32, folder: &Path, secret: &str, environments: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (folder, forms) = (folder.display().to_string(), forms(secret));
        let thread = std::thread::spawn(move || {
            let mut sightings = Sightings::default();
            while !stopped.load(Ordering::Relaxed) {
                sightings.look(worker, &folder, &forms, environments);
                std::thread::sleep(Duration::from_millis(20));
            }
            sightings
        });
        Self { stop, thread }
    }

    pub fn end(self) -> Sightings {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Sightings {
    fn look(&mut self, worker: u32, folder: &str, forms: &[String], environments: bool) {
        let own = fs::read(format!("/proc/{worker}/cmdline")).unwrap_or_default();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids.filter(|pid| *pid != worker && *pid != std::process::id()) {
            let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let (arguments, environment) = (read("cmdline"), read("environ"));
            // A child that is not yet another program is the worker's own memory.
            let ours = descends(pid, worker)
                || contains(&arguments, folder)
                || contains(&environment, folder);
            if !ours || arguments.is_empty() || arguments == own {
                continue;
            }
            let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
            note(&mut self.programs, line.clone());
            if any(&arguments, forms) {
                note(&mut self.leaks, format!("arguments of {line}"));
            }
            if environments && any(&environment, forms) {
                note(&mut self.leaks, format!("environment of {line}"));
            }
        }
    }

    pub fn saw(&self, words: &str) -> bool {
        self.programs.iter().any(|program| program.contains(words))
    }
}

fn note(list: &mut Vec<String>, text: String) {
    if !list.contains(&text) {
        list.push(text);
    }
}

fn descends(mut pid: u32, ancestor: u32) -> bool {
    // Bounded, as parents may change while we look.
    for _ in 0..32 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2)?.parse().ok());
        match parent {
            Some(parent) if parent == ancestor => return true,
            Some(parent) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    false
}
