//! Caches that stay small and never lose what a sandbox borrows.

use std::{fs, time::Duration};

use crate::git_place::{Place, branch, git_in, order};
use archon_awo::git::CacheLimits;

const NOW: CacheLimits = CacheLimits { idle: Some(Duration::ZERO), bytes: None };

#[tokio::test]
async fn many_packs_become_one_and_what_no_branch_reaches_is_still_there() {
    let place = Place::new();
    git_in(&place.path("seed"), &["branch", "topic"]);
    place.publish();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    // A sandbox on a commit that its remote then forgets.
    git_in(&place.path("seed"), &["checkout", "--quiet", "-b", "gone"]);
    fs::write(place.path("seed/gone.txt"), "only here\n").unwrap();
    place.seed_commit("Gone");
    place.publish();
    place.git.refresh_mirror(&place.remote()).await.unwrap();
    let base = branch("gone");
    let sandbox = place
        .git
        .open_sandbox(&mirror, &order("wo-1"), &branch("feat/x"), Some(&base))
        .await
        .unwrap();
    place.ask_remote(&["branch", "-D", "gone"]);
    git_in(&place.path("seed"), &["checkout", "--quiet", "main"]);
    git_in(&place.path("seed"), &["branch", "-D", "gone"]);
    // Small fetches leave loose objects.
    for number in 0..30 {
        fs::write(place.path("seed/more.txt"), format!("{number}\n")).unwrap();
        place.seed_commit("More");
        if number % 10 == 9 {
            place.publish();
            place.git.refresh_mirror(&place.remote()).await.unwrap();
        }
    }
    let report = place.git.maintain_cache(CacheLimits::default()).await.unwrap();
    assert_eq!((report.repacked, report.evicted, report.busy), (1, 0, 0), "{report:?}");
    let packs = fs::read_dir(mirror.path.join("objects/pack")).unwrap();
    let kinds = packs.map(|entry| entry.unwrap().path().extension().unwrap().to_owned());
    assert_eq!(kinds.filter(|kind| kind == "pack").count(), 1);
    git_in(&sandbox.checkout, &["fsck", "--no-dangling"]);
    assert_eq!(git_in(&sandbox.checkout, &["show", "HEAD:gone.txt"]), "only here");
    fs::write(sandbox.checkout.join("new.txt"), "work\n").unwrap();
    assert!(sandbox.commit("feat: work").await.unwrap().is_some());
    let again = place.git.maintain_cache(CacheLimits::default()).await.unwrap();
    assert_eq!(again.repacked, 0, "it is one pack");
}

#[tokio::test]
async fn a_cache_goes_when_nobody_borrows_from_it_and_is_made_again() {
    let place = Place::new();
    let mirror = place.git.refresh_mirror(&place.remote()).await.unwrap();
    let id = order("wo-1");
    place.git.open_sandbox(&mirror, &id, &branch("feat/x"), None).await.unwrap();
    let report = place.git.maintain_cache(NOW).await.unwrap();
    assert_eq!((report.evicted, report.borrowed), (0, 1), "{report:?}");
    assert!(mirror.path.exists());
    place.git.remove_sandbox(&id).await.unwrap();

    // A clone or fetch that is under way keeps it.
    let lock = fs::File::open(mirror.path.with_file_name("lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(place.git.maintain_cache(NOW).await.unwrap().busy, 1);
    drop(lock);
    // Too large, but used a moment ago.
    let small = CacheLimits { idle: None, bytes: Some(1) };
    assert_eq!(place.git.maintain_cache(small).await.unwrap().evicted, 0);
    let days = CacheLimits { idle: Some(Duration::from_hours(24)), bytes: None };
    assert_eq!(place.git.maintain_cache(days).await.unwrap().evicted, 0);

    let report = place.git.maintain_cache(NOW).await.unwrap();
    assert_eq!((report.evicted, report.bytes), (1, 0), "{report:?}");
    assert!(report.evicted_bytes > 0 && !mirror.path.exists());
    let again = place.git.refresh_mirror(&place.remote()).await.unwrap();
    place.git.open_sandbox(&again, &id, &branch("feat/y"), None).await.unwrap();
}
