//! Whole orders on a repository that brings more along than its files, over HTTPS.

use std::{fs, path::Path};

use sqlx::PgPool;

use crate::{https_place::Place, lfs_server::LfsServer};

const ORDER: &str = "wo-9a475";
const BRANCH: &str = "feat/write-a-file-wo-9a475";
const STEPS: &str = "create-branch planning execute prp-review commit create-pr";

/// Notes what the agent finds, and changes the file that Git LFS keeps.
const LOOK: &str = r#"
if [ "$AWO_STEP" = execute ]; then
    { ls; wc -c < data/big.bin; cat libs/lib/code.txt; git rev-list --count HEAD; git status --porcelain; } > "$folder/saw"
    printf more >> data/big.bin
    echo changed > libs/lib/code.txt
fi
"#;

fn commit_all(place: &Place, folder: &str) {
    place.harness.git(&["-C", folder, "add", "--all"]);
    place.harness.git(&["-C", folder, "commit", "--quiet", "--message=Change"]);
}

fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

async fn set_policy(place: &Place, policy: &str) {
    sqlx::query("select awo_set_repository_policy($1, $2::text::jsonb)")
        .bind(place.harness.remote_url())
        .bind(policy)
        .execute(&place.harness.pool)
        .await
        .unwrap();
}

/// Another repository on the same server, used by the order's as `libs/lib`; answers its commit.
fn add_submodule(place: &Place, url: &str) -> String {
    let lib = place.harness.path("lib");
    write(&lib.join("code.txt"), "lib\n");
    place.harness.git(&["init", "--quiet", "--initial-branch=main", "lib"]);
    commit_all(place, "lib");
    let served = place.server.repositories().join("acme/lib.git");
    let served = served.to_str().unwrap();
    place.harness.git(&["clone", "--quiet", "--bare", "lib", served]);
    let sha = place.harness.git(&["-C", "lib", "rev-parse", "HEAD"]).trim().to_owned();
    let list = format!("[submodule \"lib\"]\n\tpath = libs/lib\n\turl = {url}\n");
    write(&place.harness.path("seed/.gitmodules"), &list);
    fs::create_dir_all(place.harness.path("seed/libs/lib")).unwrap();
    let entry = format!("160000,{sha},libs/lib");
    place.harness.git(&["-C", "seed", "update-index", "--add", "--cacheinfo", &entry]);
    sha
}

fn publish(place: &Place) {
    commit_all(place, "seed");
    place.harness.git(&["-C", "seed", "push", "--quiet", "origin", "HEAD:main"]);
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn an_order_works_on_the_parts_its_repository_names(pool: PgPool) {
    let lfs = LfsServer::start();
    let mut place = Place::with_lfs(pool, Some(lfs.port)).await;
    let token = place.token.clone();
    place.harness.set("GITHUB_TOKEN", &token);
    let seed = place.harness.path("seed");
    write(&seed.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    write(&seed.join("docs/guide.md"), "guide\n");
    write(&seed.join("data/readme.txt"), "data\n");
    let lib = add_submodule(&place, "../lib.git");
    publish(&place);
    place
        .harness
        .tell_agent("extra", "[ \"$AWO_STEP\" = execute ] && seq 1 200000 > data/big.bin || true");
    set_policy(&place, r#"{"lfs": true, "submodules": true}"#).await;
    place.harness.start_worker();

    // The first order brings the large file.
    let first = "wo-f1257";
    place.harness.order_named(first, "Write a file", STEPS).await;
    place.harness.until_status(first, "completed").await;
    let from = format!("refs/heads/feat/write-a-file-{first}");
    place.harness.git(&["-C", "remote.git", "update-ref", "refs/heads/main", &from]);
    let sent: Vec<usize> = lfs.contents().iter().map(Vec::len).collect();
    assert_eq!(sent, [1_288_895]);

    // The second one has all there is: folders, little history, contents and submodules.
    place.harness.tell_agent("extra", LOOK);
    let policy = r#"{"sparse_paths": ["data", "libs"], "clone_depth": "shallow"}"#;
    set_policy(&place, policy).await;
    place.harness.order_named(ORDER, "Write a file", STEPS).await;
    place.harness.until_status(ORDER, "completed").await;
    let saw = fs::read_to_string(place.harness.path("agent/saw")).unwrap();
    for expected in ["data\nlibs\n", "1288895\nlib\n1\n"] {
        assert!(saw.contains(expected), "{saw}");
    }
    assert!(!saw.contains("docs") && !saw.contains("M data/big.bin"), "{saw}");
    let mut sent: Vec<usize> = lfs.contents().iter().map(Vec::len).collect();
    sent.sort_unstable();
    assert_eq!(sent, [1_288_895, 1_288_899]);
    let show =
        |name: &str| place.harness.git(&["-C", "remote.git", "show", &format!("{BRANCH}:{name}")]);
    assert!(show("data/big.bin").starts_with("version https://git-lfs.github.com/spec/v1\n"));
    assert_eq!(show("docs/guide.md"), "guide\n");
    let entry = place.harness.git(&["-C", "remote.git", "ls-tree", BRANCH, "libs/lib"]);
    assert!(entry.contains(&lib), "{entry}");
    place.harness.git(&["-C", "remote.git", "fsck", "--strict"]);
    assert_eq!(place.github.pulls().len(), 2);
    place.harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_submodule_on_a_host_that_is_not_allowed_fails_the_order_with_a_sentence(pool: PgPool) {
    let mut place = Place::new(pool).await;
    let token = place.token.clone();
    place.harness.set("GITHUB_TOKEN", &token);
    add_submodule(&place, "https://elsewhere.example/acme/lib.git");
    publish(&place);
    place.harness.start_worker();
    set_policy(&place, r#"{"submodules": true}"#).await;
    place.harness.order_named(ORDER, "Write a file", STEPS).await;
    place.harness.until_status(ORDER, "failed").await;
    let (_, class, message, attempts) = place.harness.outcome(ORDER).await;
    assert_eq!((class.as_deref(), attempts), (Some("invalid"), 1), "{message:?}");
    let message = message.unwrap();
    assert!(message.contains("libs/lib") && message.contains("elsewhere.example"), "{message}");

    // The administrator decides, and the order goes on.
    set_policy(&place, r#"{"submodules": false}"#).await;
    sqlx::query("select awo_requeue($1)").bind(ORDER).execute(&place.harness.pool).await.unwrap();
    place.harness.until_status(ORDER, "completed").await;
    place.harness.assert_sound().await;
}
