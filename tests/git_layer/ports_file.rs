//! `.ports.env` in a checkout that an agent has arranged.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use archon_awo::git::Sandbox;

use crate::git_place::{Place, branch, git_in, order};

async fn sandbox(place: &Place) -> Sandbox {
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    place.git.open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), None).await.unwrap()
}

/// The files of the runner's commit.
async fn committed(sandbox: &Sandbox) -> Vec<String> {
    fs::write(sandbox.checkout.join("work.txt"), "work\n").unwrap();
    let commit = sandbox.commit("feat: work").await.unwrap().unwrap();
    let trusted = sandbox.root.parent().unwrap().join(".cache/trusted/wo-1.git");
    let files = git_in(&trusted, &["ls-tree", "-r", "--name-only", &commit.sha]);
    files.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn it_replaces_what_an_agent_put_there_and_follows_no_link() {
    let place = Place::new();
    let sandbox = sandbox(&place).await;
    let precious = place.path("precious");
    fs::write(&precious, "precious").unwrap();
    let file = sandbox.checkout.join(".ports.env");
    let staged = sandbox.root.join(".ports.env.staged");
    for path in [&file, &staged] {
        symlink(&precious, path).unwrap();
    }
    assert!(sandbox.write_ports_file("PORT=1\n".to_owned()).await.unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap(), "PORT=1\n");
    assert!(!fs::symlink_metadata(&file).unwrap().is_symlink());
    assert!(!staged.exists());
    // A folder in its place is the agent's own doing: an error, and nothing of it is committed.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(file.join("inside"), "x").unwrap();
    sandbox.write_ports_file("PORT=2\n".to_owned()).await.unwrap_err();
    assert!(!staged.exists());
    assert_eq!(committed(&sandbox).await, [".gitignore", "README.md", "src/main.txt", "work.txt"]);
    // Nor is a checkout followed that is a link to somewhere else.
    let elsewhere = place.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(&sandbox.checkout, place.path("moved")).unwrap();
    symlink(&elsewhere, &sandbox.checkout).unwrap();
    sandbox.write_ports_file("PORT=3\n".to_owned()).await.unwrap_err();
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[tokio::test]
async fn a_folder_of_that_name_belongs_to_the_repository_that_tracks_it() {
    let place = Place::new();
    let folder = place.path("seed/.ports.env");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("ports"), "80\n").unwrap();
    // Sorts between the folder's name and what is in it.
    fs::write(place.path("seed/.ports.env.example"), "PORT=\n").unwrap();
    place.seed_commit("Ports");
    place.publish();
    let sandbox = sandbox(&place).await;
    assert!(!sandbox.write_ports_file("PORT=1\n".to_owned()).await.unwrap());
    fs::write(sandbox.checkout.join(".ports.env/more"), "81\n").unwrap();
    let files = committed(&sandbox).await;
    for name in [".ports.env/more", ".ports.env/ports", ".ports.env.example"] {
        assert!(files.iter().any(|file| file == name), "{name} is not in {files:?}");
    }
}

#[tokio::test]
async fn only_the_file_at_the_top_is_ours() {
    let place = Place::new();
    let sandbox = sandbox(&place).await;
    assert!(sandbox.write_ports_file("PORT=1\n".to_owned()).await.unwrap());
    fs::write(sandbox.checkout.join("src/.ports.env"), "MINE=1\n").unwrap();
    let mode = fs::metadata(sandbox.checkout.join(".ports.env")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "the agent may be another user");
    let files = committed(&sandbox).await;
    assert!(files.iter().any(|file| file == "src/.ports.env"), "{files:?}");
    assert!(!files.iter().any(|file| file == ".ports.env"), "{files:?}");
}
