//! Contents of Git LFS, over HTTPS and from a real server of theirs.

use std::fs;

use crate::{
    git_place::{branch, git_in, order},
    lfs_server::LfsServer,
    parts_yard::{TOKEN, Yard, parts, read},
};
use archon_awo::{
    domain::{ErrorClass, Redactor, RemoteRules, RepositoryUrl},
    git::{GitError, Plan, Remote, Sandbox},
};

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
    sandbox.push(&yard.remote(), &[]).await.unwrap();
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
    sandbox.push(&yard.remote(), &[]).await.unwrap();
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
    again.push(&yard.remote(), &[]).await.unwrap();
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

#[tokio::test]
async fn a_redirect_of_git_lfs_stays_within_the_allowed_hosts() {
    let (_lfs, yard, _) = lfs_yard().await;
    let owner = yard.server.repositories();
    for name in ["led", "sent"] {
        std::os::unix::fs::symlink(owner.join("acme"), owner.join(name)).unwrap();
    }
    let own = yard.open("wo-own", &with_lfs()).await.unwrap();
    fs::write(own.checkout.join("data/new.bin"), "new").unwrap();
    own.commit("feat: one more").await.unwrap().unwrap();
    let host = yard.server.host();
    let rules = RemoteRules { allowed_hosts: vec![host.clone()], allow_local: false };
    // To a host somewhere, and to one on loopback, for which git-lfs asks no proxy.
    let remotes =
        [("sent", "elsewhere.example"), ("led", "permission denied")].map(|(name, words)| {
            let url = RepositoryUrl::parse(&format!("https://{host}/{name}/app"), &rules).unwrap();
            (name, Remote { url, ..yard.remote() }, words)
        });
    let is_refused = |name: &str, error: &GitError, words: &str| {
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert_eq!(matches!(error, GitError::LedAway { .. }), name == "sent", "{error}");
    };
    for (name, remote, words) in &remotes {
        is_refused(name, &own.push(remote, &[]).await.unwrap_err(), words);
    }
    yard.lose_volume();
    for (name, remote, words) in &remotes {
        let git = &yard.place.git;
        let mirror = git.refresh_mirror(remote).await.unwrap();
        let (id, branch) = (order(&format!("wo-{name}")), branch("feat/led"));
        let error = git.open_sandbox(&mirror, &id, &branch, &with_lfs()).await.unwrap_err();
        is_refused(name, &error, words);
    }
}
