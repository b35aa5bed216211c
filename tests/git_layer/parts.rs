//! What a repository brings along, over HTTPS: sparse checkouts, little history, submodules and Git LFS.

use std::{fs, path::Path};

use crate::{
    git_place::{Place, branch, git_in, order},
    https_remote::HttpsRemote,
    lfs_server::LfsServer,
};
use archon_awo::{
    domain::{
        Credential, Credentials, ErrorClass, Redactor, RemoteRules, RepositoryUrl, SandboxType,
    },
    git::{GitError, History, Parts, Plan, Remote, Sandbox, Transfer},
};

const TOKEN: &str = "ghp_x7Kq2vN9pWmL4tRz8sYb3cDf6gHj1aEu";

/// A server with `acme/app.git`, of which `seed` is a checkout, and a place whose git may use it.
struct Yard {
    place: Place,
    server: HttpsRemote,
}

impl Yard {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(lfs: Option<&LfsServer>) -> Self {
        let server = HttpsRemote::start_with(TOKEN, lfs.map(|server| server.port));
        let rules = RemoteRules { allowed_hosts: vec![server.host()], allow_local: false };
        let mut credentials = Credentials::default();
        assert!(credentials.add(&server.host(), Credential::token(TOKEN)));
        let place = Place::with(|settings| {
            settings.ca_file = Some(server.ca_file());
            settings.remotes = rules;
            settings.credentials = credentials;
        });
        let yard = Self { place, server };
        fs::remove_dir_all(yard.place.path("remote/app.git")).unwrap();
        yard.serve("app", &yard.place.path("seed"));
        yard
    }

    /// Serves what is in a checkout as `acme/NAME.git`, from now on.
    fn serve(&self, name: &str, checkout: &Path) {
        let bare = self.bare(name);
        if !bare.exists() {
            fs::create_dir_all(&bare).unwrap();
            git_in(&bare, &["init", "--quiet", "--bare", "--initial-branch=main"]);
            git_in(&bare, &["config", "http.receivepack", "true"]);
        }
        git_in(checkout, &["push", "--quiet", "--all", "--force", bare.to_str().unwrap()]);
    }

    fn bare(&self, name: &str) -> std::path::PathBuf {
        self.server.repositories().join(format!("acme/{name}.git"))
    }

    fn remote(&self) -> Remote {
        let rules = RemoteRules { allowed_hosts: vec![self.server.host()], allow_local: false };
        let url = format!("https://{}/acme/app", self.server.host());
        let url = RepositoryUrl::parse(&url, &rules).unwrap();
        Remote { url, credential: Some(Credential::token(TOKEN)) }
    }

    /// Writes files in `seed` and serves them.
    fn change(&self, files: &[(&str, &str)]) {
        let seed = self.place.path("seed");
        write(&seed, files);
        self.place.seed_commit("Change");
        self.serve("app", &seed);
    }

    async fn open(&self, id: &str, plan: &Plan) -> Result<Sandbox, GitError> {
        let git = &self.place.git;
        let mirror = git.refresh_mirror_of(&self.remote(), plan.history).await?;
        git.open_sandbox(&mirror, &order(id), &branch(&format!("feat/{id}")), plan).await
    }

    /// The files of a branch on the server.
    fn served(&self, branch: &str) -> Vec<String> {
        let listing = git_in(&self.bare("app"), &["ls-tree", "-r", "--name-only", branch]);
        listing.lines().map(str::to_owned).collect()
    }

    /// Loses the volume with its caches and sandboxes.
    fn lose_volume(&self) {
        fs::remove_dir_all(self.place.git.volume().root()).unwrap();
    }
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| format!("{name}: {error}"))
}

fn parts(change: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = Plan::default();
    change(&mut plan);
    plan
}

fn sparse(folders: &[&str]) -> Plan {
    let sparse = folders.iter().map(|folder| folder.parse().unwrap()).collect();
    parts(|plan| plan.parts = Parts { sparse, ..Parts::default() })
}

const FILES: &[(&str, &str)] = &[
    ("services/api/main.txt", "api\n"),
    ("services/api/deep/er.txt", "deeper\n"),
    ("services/web/main.txt", "web\n"),
    ("services/README.md", "services\n"),
    ("docs/guide.md", "guide\n"),
];

#[tokio::test]
async fn a_sparse_checkout_has_its_folders_and_loses_nothing_of_the_others() {
    let yard = Yard::new();
    yard.change(FILES);
    let sandbox = yard.open("wo-1", &sparse(&["services/api"])).await.unwrap();
    let here = |name: &str| sandbox.checkout.join(name).exists();
    for name in ["README.md", "services/README.md", "services/api/deep/er.txt"] {
        assert!(here(name), "{name}");
    }
    assert!(!here("services/web") && !here("docs") && !here("src"));
    let ask = |arguments: &[&str]| git_in(&sandbox.checkout, arguments);
    assert_eq!(ask(&["sparse-checkout", "list"]), "services/api");
    assert_eq!(ask(&["status", "--porcelain"]), "");

    write(&sandbox.checkout, &[("services/api/main.txt", "changed\n"), ("docs/new.md", "new\n")]);
    fs::remove_file(sandbox.checkout.join("services/api/deep/er.txt")).unwrap();
    let changes = sandbox.changes().await.unwrap();
    assert_eq!((changes.files_changed, changes.uncommitted), (3, true), "{}", changes.diff);
    // Not checked out, so not removed, although it was there for a while.
    fs::remove_file(sandbox.checkout.join("docs/new.md")).unwrap();
    write(&sandbox.checkout, &[("docs/other.md", "other\n")]);
    let commit = sandbox.commit("feat: change").await.unwrap().unwrap();
    assert_eq!(commit.files_changed, 4, "the first new file is not known to have been removed");
    sandbox.push(&yard.remote(), None).await.unwrap();
    let served = yard.served("feat/wo-1");
    for name in ["services/web/main.txt", "docs/guide.md", "src/main.txt", "docs/other.md"] {
        assert!(served.iter().any(|file| file == name), "{name}: {served:?}");
    }
    assert!(!served.iter().any(|file| file.contains("er.txt")), "{served:?}");
    git_in(&yard.bare("app"), &["fsck", "--strict"]);
}

#[tokio::test]
async fn a_sparse_checkout_is_made_again_as_it_was() {
    let yard = Yard::new();
    yard.change(FILES);
    let plan = sparse(&["services/api"]);
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    write(&sandbox.checkout, &[("services/api/main.txt", "changed\n")]);
    sandbox.commit("feat: change").await.unwrap().unwrap();
    write(&sandbox.checkout, &[("services/api/new.txt", "new\n")]);
    let folder = yard.place.path("bundles");
    let git = &yard.place.git;
    let bundle = git.save_unpushed(&sandbox.order, None, &folder).await.unwrap().unwrap();
    yard.lose_volume();

    let mirror = git.refresh_mirror(&yard.remote()).await.unwrap();
    let (id, name) = (&sandbox.order, &sandbox.branch);
    let again = git.restore_sandbox(&mirror, id, name, &plan, &bundle.path).await.unwrap();
    assert!(!again.checkout.join("docs").exists() && !again.checkout.join("services/web").exists());
    let status = git_in(&again.checkout, &["status", "--porcelain"]);
    assert_eq!(status, "?? services/api/new.txt");
    assert_eq!(git_in(&again.checkout, &["log", "--format=%s", "-1"]), "feat: change");
    let commit = again.commit("feat: new").await.unwrap().unwrap();
    assert_eq!((commit.files_changed, commit.commit_count), (2, 2));
}

#[tokio::test]
async fn little_history_is_enough_for_an_order() {
    let yard = Yard::new();
    for number in 0..5 {
        yard.change(&[("count.txt", &number.to_string())]);
    }
    let plan = parts(|plan| plan.history = History::Shallow);
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    let count = |folder: &Path| git_in(folder, &["rev-list", "--count", "HEAD"]);
    assert_eq!(count(&sandbox.checkout), "1");
    let mirror = yard.place.git.refresh_mirror_of(&yard.remote(), plan.history).await.unwrap();
    assert_eq!((mirror.transfer, count(&mirror.path).as_str()), (Transfer::UpToDate, "1"));

    // The branch moves on, and another one starts before everything that we have.
    yard.change(&[("count.txt", "moved on\n")]);
    git_in(&yard.bare("app"), &["branch", "old", "main~4"]);
    let next = yard.open("wo-2", &plan).await.unwrap();
    assert_eq!(
        (read(&next.checkout, "count.txt"), count(&next.checkout)),
        ("moved on\n".into(), "1".into())
    );
    assert_eq!(git_in(&mirror.path, &["rev-list", "--count", "old"]), "1");
    for sandbox in [&sandbox, &next] {
        write(&sandbox.checkout, &[("new.txt", "new\n")]);
        let commit = sandbox.commit("feat: new").await.unwrap().unwrap();
        assert_eq!((commit.files_changed, commit.commit_count), (1, 1));
        sandbox.push(&yard.remote(), None).await.unwrap();
        assert!(sandbox.push(&yard.remote(), None).await.unwrap().already_there);
        git_in(&sandbox.checkout, &["fsck"]);
    }
    git_in(&yard.bare("app"), &["fsck", "--strict"]);
    assert_eq!(git_in(&yard.bare("app"), &["rev-list", "--count", "feat/wo-1"]), "7");
    // A cache with all of it is another one.
    let whole = yard.place.git.refresh_mirror(&yard.remote()).await.unwrap();
    assert_eq!((whole.transfer, count(&whole.path).as_str()), (Transfer::Cloned, "7"));
}

#[tokio::test]
async fn work_on_little_history_is_found_again() {
    let yard = Yard::new();
    // More than are fetched beyond our own commits.
    for number in 0..30 {
        yard.change(&[("number.txt", &number.to_string())]);
    }
    yard.change(&[("count.txt", "1")]);
    let plan = parts(|plan| plan.history = History::Shallow);
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    write(&sandbox.checkout, &[("new.txt", "new\n")]);
    sandbox.commit("feat: new").await.unwrap().unwrap();
    sandbox.push(&yard.remote(), None).await.unwrap();
    write(&sandbox.checkout, &[("second.txt", "second\n")]);
    let commit = sandbox.commit("feat: second").await.unwrap().unwrap();
    assert_eq!(commit.commit_count, 2);
    // The answer to the first push was lost.
    sandbox.push(&yard.remote(), None).await.unwrap();
    write(&sandbox.checkout, &[("newer.txt", "newer\n")]);
    let git = &yard.place.git;
    let folder = yard.place.path("bundles");
    let bundle = git.save_unpushed(&sandbox.order, None, &folder).await.unwrap().unwrap();
    // Nothing of what the order started from is at the head of a branch any more.
    yard.change(&[("count.txt", "2")]);
    let (id, name, base) = (&sandbox.order, &sandbox.branch, &sandbox.base_commit);

    yard.lose_volume();
    let mirror = git.refresh_mirror_of(&yard.remote(), plan.history).await.unwrap();
    let pushed = [commit.sha.clone()];
    let again = git.rebuild_sandbox(&mirror, id, name, &plan, base, &pushed).await.unwrap();
    let again = again.expect("the work is on the branch");
    assert_eq!(again.base_commit, *base);
    assert_eq!(git_in(&again.checkout, &["status", "--porcelain"]), "");
    assert_eq!(git_in(&again.checkout, &["rev-parse", "HEAD"]), commit.sha);
    assert_eq!(
        (read(&again.checkout, "new.txt"), read(&again.checkout, "count.txt")),
        ("new\n".into(), "1".into())
    );
    assert_eq!(again.head().await.unwrap().unwrap().commit_count, 2);

    yard.lose_volume();
    let mirror = git.refresh_mirror_of(&yard.remote(), plan.history).await.unwrap();
    let again = git.restore_sandbox(&mirror, id, name, &plan, &bundle.path).await.unwrap();
    assert_eq!(git_in(&again.checkout, &["status", "--porcelain"]), "?? newer.txt");
    again.commit("feat: newer").await.unwrap().unwrap();
    again.push(&yard.remote(), Some(&commit.sha)).await.unwrap();
    git_in(&yard.bare("app"), &["fsck", "--strict"]);
}

/// Serves `acme/lib` and `acme/inner`, one inside the other, and makes the app use the first.
fn add_submodules(yard: &Yard) -> String {
    let checkout = |name: &str| {
        let folder = yard.place.path(name);
        fs::create_dir(&folder).unwrap();
        git_in(&folder, &["init", "--quiet", "--initial-branch=main"]);
        write(&folder, &[("code.txt", &format!("{name}\n"))]);
        folder
    };
    let commit = |folder: &Path| {
        git_in(folder, &["add", "-A"]);
        git_in(folder, &["commit", "--quiet", "-m", "Start"]);
        git_in(folder, &["rev-parse", "HEAD"])
    };
    let link = |folder: &Path, path: &str, url: &str, sha: &str| {
        let list = format!("[submodule \"x/../{path}\"]\n\tpath = {path}\n\turl = {url}\n");
        write(folder, &[(".gitmodules", &list)]);
        git_in(folder, &["add", ".gitmodules"]);
        git_in(folder, &["update-index", "--add", "--cacheinfo", &format!("160000,{sha},{path}")]);
        git_in(folder, &["commit", "--quiet", "-m", "Use another repository"]);
        git_in(folder, &["rev-parse", "HEAD"])
    };
    let inner = checkout("inner");
    let inner_sha = commit(&inner);
    yard.serve("inner", &inner);
    let lib = checkout("lib");
    commit(&lib);
    let lib_sha = link(&lib, "inner", "../inner.git", &inner_sha);
    yard.serve("lib", &lib);
    // The branch of the library moves on; the app stays with what it named.
    write(&lib, &[("code.txt", "newer\n")]);
    git_in(&lib, &["commit", "--quiet", "-am", "Newer"]);
    yard.serve("lib", &lib);
    let url = format!("https://{}/acme/lib.git", yard.server.host());
    let seed = yard.place.path("seed");
    // Without its folder, the next `git add` would take the link away.
    fs::create_dir_all(seed.join("libs/lib")).unwrap();
    link(&seed, "libs/lib", &url, &lib_sha);
    yard.serve("app", &yard.place.path("seed"));
    lib_sha
}

fn with_submodules(sandbox_type: SandboxType) -> Plan {
    let parts = Parts { submodules: true, ..Parts::default() };
    Plan { parts, sandbox_type, ..Plan::default() }
}

#[tokio::test]
async fn submodules_are_fetched_and_left_out_of_commits() {
    let yard = Yard::new();
    let lib = add_submodules(&yard);
    let without = yard.open("wo-0", &Plan::default()).await.unwrap();
    assert_eq!(fs::read_dir(without.checkout.join("libs/lib")).unwrap().count(), 0);
    for (id, form) in [("wo-1", SandboxType::GitWorktree), ("wo-2", SandboxType::GitBranch)] {
        let sandbox = yard.open(id, &with_submodules(form)).await.unwrap();
        let folder = sandbox.checkout.join("libs/lib");
        assert_eq!(read(&folder, "code.txt"), "lib\n");
        assert_eq!(read(&folder, "inner/code.txt"), "inner\n");
        assert_eq!(git_in(&folder, &["rev-parse", "HEAD"]), lib);
        assert_eq!(git_in(&folder, &["status", "--porcelain"]), "");
        assert_eq!(git_in(&sandbox.checkout, &["status", "--porcelain"]), "");
        let borrowed = sandbox.borrowed_objects().unwrap().len();
        assert_eq!(borrowed, if form == SandboxType::GitWorktree { 3 } else { 0 });

        // What an agent does in there is not part of the order.
        write(&folder, &[("code.txt", "changed\n"), ("inner/new.txt", "new\n")]);
        assert_eq!(sandbox.commit("feat: nothing").await.unwrap(), None);
        write(&sandbox.checkout, &[("new.txt", "new\n")]);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(sandbox.commit("feat: new").await.unwrap().unwrap().files_changed, 1);
        sandbox.push(&yard.remote(), None).await.unwrap();
        let entry = git_in(&yard.bare("app"), &["ls-tree", &format!("feat/{id}"), "libs/lib"]);
        assert!(entry.contains(&format!("160000 commit {lib}")), "{entry}");
    }
}

#[tokio::test]
async fn submodules_come_back_with_little_history_and_after_a_loss() {
    let yard = Yard::new();
    let lib = add_submodules(&yard);
    let plan = Plan { history: History::Shallow, ..with_submodules(SandboxType::GitWorktree) };
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    // The commit is behind the head of its branch, which is all that is fetched at first.
    let folder = |sandbox: &Sandbox| sandbox.checkout.join("libs/lib");
    assert_eq!(git_in(&folder(&sandbox), &["rev-list", "--count", "HEAD"]), "1");
    write(&sandbox.checkout, &[("new.txt", "new\n")]);
    let git = &yard.place.git;
    let bundles = yard.place.path("bundles");
    let bundle = git.save_unpushed(&sandbox.order, None, &bundles).await.unwrap().unwrap();
    yard.lose_volume();
    let mirror = git.refresh_mirror_of(&yard.remote(), plan.history).await.unwrap();
    let (id, name) = (&sandbox.order, &sandbox.branch);
    let again = git.restore_sandbox(&mirror, id, name, &plan, &bundle.path).await.unwrap();
    assert_eq!(git_in(&folder(&again), &["rev-parse", "HEAD"]), lib);
    assert_eq!(read(&folder(&again), "inner/code.txt"), "inner\n");
    assert_eq!(again.borrowed_objects().unwrap().len(), 3);
    assert_eq!(git_in(&again.checkout, &["status", "--porcelain"]), "?? new.txt");
}

#[tokio::test]
async fn a_submodule_from_anywhere_else_is_refused_before_it_is_asked_for() {
    let yard = Yard::new();
    let lib = add_submodules(&yard);
    let secret = yard.place.path("lib").display().to_string();
    for (number, (url, expected)) in [
        ("https://evil.example/acme/lib.git", "not allowed"),
        (&*secret, "has no host"),
        ("acme/lib", "has no host"),
        (&*format!("file://{secret}"), "local folder"),
        ("ext::sh -c touch% /tmp/x", "control character or a space"),
        ("ext::touch", "transport helper"),
        ("ssh://git@evil.example/acme/lib", "user name or password"),
        ("--upload-pack=touch:x", "starts with '-'"),
        ("../../../../../../etc", "has no host"),
    ]
    .into_iter()
    .enumerate()
    {
        let list = format!("[submodule \"lib\"]\n\tpath = libs/lib\n\turl = {url}\n");
        yard.change(&[(".gitmodules", &list)]);
        let plan = with_submodules(SandboxType::GitWorktree);
        let error = yard.open(&format!("wo-{number}"), &plan).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("\"libs/lib\""), "{url}: {text}");
        assert_eq!((error.class(), error.retryable()), (ErrorClass::Invalid, false), "{url}");
    }
    let gone = "0".repeat(39) + "1";
    let seed = yard.place.path("seed");
    yard.change(&[(".gitmodules", "[submodule \"l\"]\n\tpath = libs/lib\n\turl = ../lib.git\n")]);
    git_in(&seed, &["update-index", "--cacheinfo", &format!("160000,{gone},libs/lib")]);
    git_in(&seed, &["commit", "--quiet", "-m", "Name a commit that is nowhere"]);
    yard.serve("app", &seed);
    let plan = with_submodules(SandboxType::GitWorktree);
    let error = yard.open("wo-gone", &plan).await.unwrap_err().to_string();
    assert!(error.contains(&gone) && error.contains("push it there"), "{error}");
    yard.change(&[(".gitmodules", "[submodule \"l\n")]);
    let error = yard.open("wo-bad", &plan).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
    assert!(!lib.is_empty());
}

#[tokio::test]
async fn a_repository_inside_itself_ends() {
    let yard = Yard::new();
    let seed = yard.place.path("seed");
    let own = git_in(&seed, &["rev-parse", "HEAD"]);
    let list = "[submodule \"me\"]\n\tpath = me\n\turl = ../app.git\n";
    let mut named = own;
    for _ in 0..8 {
        write(&seed, &[(".gitmodules", list)]);
        git_in(&seed, &["add", ".gitmodules"]);
        git_in(&seed, &["update-index", "--add", "--cacheinfo", &format!("160000,{named},me")]);
        git_in(&seed, &["commit", "--quiet", "-m", "Deeper"]);
        named = git_in(&seed, &["rev-parse", "HEAD"]);
    }
    yard.serve("app", &seed);
    let plan = with_submodules(SandboxType::GitWorktree);
    let error = yard.open("wo-1", &plan).await.unwrap_err().to_string();
    assert!(error.contains("more than 6 in each other"), "{error}");
}

fn with_lfs() -> Plan {
    parts(|plan| plan.parts.lfs = true)
}

const RULES: (&str, &str) = (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");

/// A server of Git LFS, and an app whose `data/big.bin` it keeps.
async fn lfs_yard() -> (LfsServer, Yard, Vec<u8>) {
    let lfs = LfsServer::start();
    let yard = Yard::with(Some(&lfs));
    yard.change(&[RULES]);
    let sandbox = yard.open("wo-first", &with_lfs()).await.unwrap();
    let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    fs::create_dir(sandbox.checkout.join("data")).unwrap();
    fs::write(sandbox.checkout.join("data/big.bin"), &content).unwrap();
    sandbox.commit("feat: a large file").await.unwrap().unwrap();
    sandbox.push(&yard.remote(), None).await.unwrap();
    git_in(&yard.bare("app"), &["update-ref", "refs/heads/main", "refs/heads/feat/wo-first"]);
    (lfs, yard, content)
}

#[tokio::test]
async fn contents_of_git_lfs_are_fetched_and_sent() {
    let (lfs, yard, content) = lfs_yard().await;
    let pointer = git_in(&yard.bare("app"), &["show", "main:data/big.bin"]);
    assert!(pointer.starts_with("version https://git-lfs.github.com/spec/v1\noid sha256:"));
    assert_eq!(lfs.contents(), std::slice::from_ref(&content));
    let file = |sandbox: &Sandbox| fs::read(sandbox.checkout.join("data/big.bin")).unwrap();

    // Whoever does not want them sees what stands for them, and changes nothing by it.
    let without = yard.open("wo-0", &Plan::default()).await.unwrap();
    assert_eq!(String::from_utf8(file(&without)).unwrap().trim_end(), pointer);
    assert_eq!(without.commit("feat: nothing").await.unwrap(), None);

    yard.lose_volume();
    let sandbox = yard.open("wo-1", &with_lfs()).await.unwrap();
    assert_eq!(file(&sandbox), content);
    assert_eq!(git_in(&sandbox.checkout, &["status", "--porcelain"]), "");
    assert_eq!(sandbox.commit("feat: nothing").await.unwrap(), None);

    let changed = [&content[..], b"more"].concat();
    fs::write(sandbox.checkout.join("data/big.bin"), &changed).unwrap();
    fs::write(sandbox.checkout.join("new.bin"), "small, and kept all the same").unwrap();
    fs::write(sandbox.checkout.join("empty.bin"), "").unwrap();
    // An attempt that is not committed is not sent either.
    sandbox.changes().await.unwrap();
    fs::write(sandbox.checkout.join("new.bin"), "second thoughts").unwrap();
    let commit = sandbox.commit("feat: more").await.unwrap().unwrap();
    assert_eq!(commit.files_changed, 3);
    sandbox.push(&yard.remote(), None).await.unwrap();
    let mut kept = lfs.contents();
    kept.sort_by_key(Vec::len);
    assert_eq!(kept, [b"second thoughts".to_vec(), content, changed.clone()]);

    // A colleague with git and git-lfs.
    let url = format!("https://x-access-token:{TOKEN}@{}/acme/app", yard.server.host());
    let authority = format!("http.sslCAInfo={}", yard.server.ca_file().display());
    let mut arguments = vec!["-c", &authority];
    let filter = [
        "filter.lfs.process=git-lfs filter-process",
        "filter.lfs.smudge=git-lfs smudge -- %f",
        "filter.lfs.required=true",
    ];
    arguments.extend(filter.iter().flat_map(|setting| ["-c", setting]));
    arguments.extend(["clone", "--quiet", "--branch", "feat/wo-1", &url, "colleague"]);
    git_in(yard.place.folder.path(), &arguments);
    let theirs = yard.place.path("colleague");
    assert_eq!(fs::read(theirs.join("data/big.bin")).unwrap(), changed);
    assert_eq!(read(&theirs, "new.bin"), "second thoughts");
}

#[tokio::test]
async fn contents_that_nobody_has_yet_survive_in_a_bundle() {
    let (lfs, yard, _) = lfs_yard().await;
    let plan = with_lfs();
    let sandbox = yard.open("wo-1", &plan).await.unwrap();
    fs::write(sandbox.checkout.join("committed.bin"), "committed and not sent").unwrap();
    let commit = sandbox.commit("feat: a file").await.unwrap().unwrap();
    fs::write(sandbox.checkout.join("loose.bin"), "not even committed").unwrap();
    let git = &yard.place.git;
    let bundles = yard.place.path("bundles");
    let bundle = git.save_unpushed(&sandbox.order, None, &bundles).await.unwrap().unwrap();
    yard.lose_volume();
    let mirror = git.refresh_mirror(&yard.remote()).await.unwrap();
    let (id, name) = (&sandbox.order, &sandbox.branch);
    let again = git.restore_sandbox(&mirror, id, name, &plan, &bundle.path).await.unwrap();
    assert_eq!(read(&again.checkout, "committed.bin"), "committed and not sent");
    assert_eq!(fs::metadata(again.checkout.join("data/big.bin")).unwrap().len(), 1_200_000);
    assert_eq!(git_in(&again.checkout, &["status", "--porcelain"]), "?? loose.bin");
    again.commit("feat: the rest").await.unwrap().unwrap();
    again.push(&yard.remote(), None).await.unwrap();
    for file in ["committed.bin", "loose.bin"] {
        let stands = git_in(&yard.bare("app"), &["show", &format!("feat/wo-1:{file}")]);
        assert!(stands.starts_with("version https://git-lfs"), "{file}: {stands}");
    }
    let mut kept = lfs.contents();
    kept.sort_by_key(Vec::len);
    assert_eq!(kept[..2], [b"not even committed".to_vec(), b"committed and not sent".to_vec()]);
    assert_eq!(again.head().await.unwrap().unwrap().parent, commit.sha);
    // All of it is there now.
    assert_eq!(git.save_unpushed(id, Some(&yard.remote()), &bundles).await.unwrap(), None);
}

#[tokio::test]
async fn contents_are_searched_for_secrets_and_come_from_nowhere_else() {
    let (lfs, yard, _) = lfs_yard().await;
    let sandbox = yard.open("wo-1", &with_lfs()).await.unwrap();
    let hidden = format!("{}{TOKEN}", "x".repeat(100_000));
    fs::write(sandbox.checkout.join("loot.bin"), hidden).unwrap();
    let git = yard.place.git.with_redactor(Redactor::new([TOKEN.into()]));
    let found = git.find_sandbox(&sandbox.order, &yard.remote().url).await.unwrap().unwrap();
    let error = found.commit("feat: loot").await.unwrap_err();
    assert!(matches!(&error, GitError::Secret { path } if path == "loot.bin"), "{error}");

    // A repository that names another server is not obeyed.
    let elsewhere = "[lfs]\n\turl = https://evil.example/x\n\tpushurl = https://evil.example/x\n\
                     \tfetchexclude = *\n[remote \"origin\"]\n\tlfsurl = https://evil.example/x\n";
    git_in(
        &yard.place.path("seed"),
        &["pull", "--quiet", yard.bare("app").to_str().unwrap(), "main"],
    );
    yard.change(&[(".lfsconfig", elsewhere)]);
    yard.lose_volume();
    let sandbox = yard.open("wo-2", &with_lfs()).await.unwrap();
    assert_eq!(fs::metadata(sandbox.checkout.join("data/big.bin")).unwrap().len(), 1_200_000);

    // One that lost its contents is told so.
    lfs.forget();
    yard.lose_volume();
    let error = yard.open("wo-3", &with_lfs()).await.unwrap_err();
    assert!(!error.to_string().is_empty());
    assert_eq!((error.class(), error.retryable()), (ErrorClass::Invalid, false), "{error}");
}
