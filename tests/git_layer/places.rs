//! Files of an agent are read by one module alone: nothing else in the program opens them by path.

use std::{fs, path::Path};

use regex::Regex;

/// Who may open files by path, and whose files these are. An entry that ends with a slash is a folder.
const OWN: &[(&str, &str)] = &[
    ("src/agent/cgroup.rs", "cgroups"),
    ("src/agent/cgroup_limits.rs", "cgroups"),
    ("src/agent/command.rs", "programs"),
    ("src/agent/confine.rs", "its own descriptors"),
    ("src/agent/freezer.rs", "/proc, and the lock beside a checkout"),
    ("src/agent/home.rs", "moves and makes a home, which stands in a folder of ours"),
    ("src/agent/isolation/", "programs of the system, named by an administrator"),
    ("src/agent/launch.rs", "makes a home, which stands in a folder of ours"),
    ("src/agent/presets/sessions.rs", "beside the output of a run"),
    ("src/agent/process_table.rs", "/proc"),
    ("src/agent/shim/", "/proc, the lock beside a checkout"),
    ("src/agent/spool.rs", "the output of a run"),
    ("src/agent/stop.rs", "/proc"),
    ("src/agent/supervisor.rs", "programs, /proc"),
    ("src/agent/supervisor/", "the output of a run"),
    ("src/agent/usage.rs", "the output of a run"),
    ("src/agent/users.rs", "notes of ours, and the volume"),
    ("src/agent/users/", "/proc, and the folder of a sandbox"),
    ("src/archive.rs", "what came back, before it is unpacked"),
    ("src/archive/pack.rs", "unpacks into a folder that no agent has seen"),
    ("src/bench.rs", "its own"),
    ("src/bench/", "its own"),
    ("src/cli/", "what its caller names"),
    ("src/config/", "settings"),
    ("src/demo.rs", "its own"),
    ("src/demo/", "its own"),
    ("src/disk.rs", "marks of our own"),
    ("src/disk/", "folders of ours, and what is below them by descriptor"),
    ("src/forge/local.rs", "a folder that stands for a forge"),
    ("src/git.rs", "the volume"),
    ("src/git/agent_files.rs", "moves whole folders that stand in one of ours"),
    ("src/git/askpass.rs", "its own descriptors"),
    ("src/git/bundle.rs", "bundles"),
    ("src/git/cache.rs", "caches"),
    ("src/git/checkout_settings.rs", "the trusted repository, and writes below a descriptor"),
    ("src/git/commit.rs", "the trusted repository"),
    ("src/git/follow.rs", "the trusted repository"),
    ("src/git/index_entry.rs", "nothing: reckons a number"),
    ("src/git/lfs.rs", "a checkout that no agent has seen"),
    ("src/git/lfs_content.rs", "the store of the trusted repository"),
    ("src/git/lock.rs", "locks"),
    ("src/git/mirror.rs", "caches"),
    ("src/git/new_sandbox.rs", "a checkout that no agent has seen"),
    ("src/git/objects.rs", "repositories that no agent has seen"),
    ("src/git/placing.rs", "moves files of ours below a descriptor"),
    ("src/git/removal.rs", "the folder of a sandbox"),
    ("src/git/restore.rs", "a checkout that no agent has seen"),
    ("src/git/retire.rs", "the folder of a sandbox"),
    ("src/git/rewrite.rs", "files of ours before they get their places"),
    ("src/git/sandbox.rs", "the trusted repository"),
    ("src/git/secrets.rs", "the store of the trusted repository"),
    ("src/git/set_aside.rs", "what was saved"),
    ("src/git/submodule_changes.rs", "the record in the trusted repository"),
    ("src/git/submodules.rs", "a checkout that no agent has seen"),
    ("src/git/tidy.rs", "caches"),
    ("src/git/undo.rs", "the trusted repository"),
    ("src/git/volume.rs", "the volume"),
    ("src/git/worktree.rs", "the trusted repository"),
    ("src/http/connections.rs", "/dev/null"),
    ("src/store/entrances.rs", "the folder of the database's socket"),
    ("src/local_remotes.rs", "where a folder that an order names leads"),
    ("src/maintenance/", "folders of ours"),
    ("src/workflow/dossier.rs", "the folder of an order"),
    ("src/workflow/prompts.rs", "command files of an administrator"),
    ("src/workflow/recover.rs", "bundles"),
    ("src/workflow/set_aside.rs", "the folder of an order"),
    ("src/workflow/trial.rs", "its own"),
];

/// Lines that name a checkout or a home and are right: nothing of an agent is there yet, or nothing is opened.
const RIGHT: &[&str] = &[
    // Makes the home itself.
    "fs::create_dir(home)?;",
    "if !request.checkout.is_dir() {",
    // A checkout in the making.
    "let repository = Repository::open(checkout)?;",
    "let mut index = Repository::open(checkout)?.index()?;",
    "let index = Repository::open(checkout)?.index()?;",
    "let own = Repository::open(&self.checkout)?;",
    // Whether it is there at all.
    "is_folder(&sandbox.checkout) && !git.volume().restoring(&order).exists()",
    // The home of our own git.
    "if blocking(move || Ok(home.is_dir() && mirrors.is_dir())).await? {",
];

#[test]
fn no_file_of_an_agent_is_opened_by_path() {
    let opens = Regex::new(concat!(
        r"\b(std::fs|tokio::fs|fs)::[a-z_]+\(|File::(open|create|options|create_new)\b|OpenOptions::",
        r"|DirBuilder::|\bread_dir\(|\.(exists|is_file|is_dir|canonicalize|symlink_metadata|read_link)\(\)",
        r"|Repository::open\(|blob_path\(|\bDir::"
    ))
    .unwrap();
    let names_theirs = Regex::new(r"checkout|\bhome\b|self\.tmp|request\.tmp").unwrap();
    let (mut strangers, mut wrong, mut seen) = (Vec::new(), Vec::new(), 0);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in sources(&root.join("src")) {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        for line in lines.filter(|line| opens.is_match(line)) {
            seen += 1;
            let is_own = |(own, _): &&(&str, &str)| {
                name == *own || (own.ends_with('/') && name.starts_with(*own))
            };
            if !OWN.iter().any(|own| is_own(&own)) {
                strangers.push(format!("{name}: {line}"));
            }
            let elsewhere = ["src/demo", "src/bench", "src/cli/", "src/config/"];
            let is_theirs = !elsewhere.iter().any(|folder| name.starts_with(folder));
            if is_theirs && names_theirs.is_match(line) && !RIGHT.contains(&line) {
                wrong.push(format!("{name}: {line}"));
            }
        }
    }
    assert!(seen > 150, "the test sees only {seen} lines: its pattern is out of date");
    assert!(
        strangers.is_empty(),
        "files are opened by path; what an agent may change is read through disk::Beneath, and for anything \
         else this test says whose it is: {strangers:#?}"
    );
    assert!(wrong.is_empty(), "files of an agent are opened by path: {wrong:#?}");
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs" || name == "tests");
        if path.is_dir() && !is_test {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") && !is_test {
            found.push(path);
        }
    }
    found
}
