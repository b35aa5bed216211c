//! What agents leave in their sandboxes, kept in object storage: a folder, and a server that speaks S3.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/python_place.rs"]
mod python_place;
#[path = "support/s3_server.rs"]
mod s3_server;

use std::{fs, path::Path};

use archon_awo::{
    archive::{Archive, ArchiveError},
    config::ArchiveConfig,
    domain::Redactor,
};
use s3_server::S3Server;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn local(place: &Path, max_bytes: u64) -> Archive {
    let url = url::Url::from_directory_path(place).unwrap();
    Archive::open(&ArchiveConfig { url, options: Vec::new(), max_bytes }).unwrap()
}

/// A sandbox with a file that git would ignore, and the agent's conversation.
fn sandbox() -> TempDir {
    let place = folder();
    for (name, text) in [("checkout/target/built", "built"), ("home/.claude/turns", "said")] {
        let file = place.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    place
}

fn folders(place: &Path) -> Vec<(&'static str, std::path::PathBuf)> {
    vec![("checkout", place.join("checkout")), ("home", place.join("home"))]
}

async fn there_and_back(archive: &Archive) {
    let order = "wo-1".parse().unwrap();
    let (from, to) = (sandbox(), folder());
    let large = vec![7u8; 12 << 20];
    fs::write(from.path().join("checkout/large"), &large).unwrap();
    let stored = archive
        .save(&order, "first", folders(from.path()), &Redactor::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.key, "wo-1/first.tar.gz");
    archive.check().await.unwrap();
    archive.fetch(&stored.key, &stored.sha256, to.path()).await.unwrap();
    for (name, text) in [("checkout/target/built", "built"), ("home/.claude/turns", "said")] {
        assert_eq!(fs::read_to_string(to.path().join(name)).unwrap(), text);
    }
    assert!(fs::read(to.path().join("checkout/large")).unwrap() == large, "the large file");

    let changed = archive.fetch(&stored.key, &"0".repeat(64), folder().path()).await.unwrap_err();
    assert!(matches!(changed, ArchiveError::Changed { .. }), "{changed}");
    let untouched = folder();
    let wrong = archive.fetch(&stored.key, &"0".repeat(64), untouched.path()).await;
    assert!(wrong.is_err() && fs::read_dir(untouched.path()).unwrap().count() == 0, "unpacked");
    let gone = archive.fetch("wo-1/second.tar.gz", &stored.sha256, folder().path()).await;
    assert!(matches!(gone, Err(ArchiveError::Storage { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_sandboxes() {
    let place = folder();
    there_and_back(&local(place.path(), 64 << 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_server_keeps_sandboxes() {
    let server = S3Server::start("awo-archive").await;
    there_and_back(&Archive::open(&server.config("sandboxes/eu")).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_leaves_nothing_behind() {
    let (place, from) = (folder(), sandbox());
    let archive = local(place.path(), 6);
    let order = "wo-1".parse().unwrap();
    assert_eq!(
        archive.save(&order, "first", folders(from.path()), &Redactor::default()).await.unwrap(),
        None
    );
    let left = fs::read_dir(place.path().join("wo-1")).map(Iterator::count);
    assert!(left.is_err() || left.is_ok_and(|count| count == 0), "an object was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away_is_an_error_that_names_it() {
    let mut server = S3Server::start("awo-archive").await;
    let archive = Archive::open(&server.config("x")).unwrap();
    server.stop();
    let error = archive.check().await.unwrap_err().to_string();
    assert!(error.contains("s3://awo-archive/x"), "{error}");
    assert!(!error.contains(S3Server::SECRET), "{error}");
}
