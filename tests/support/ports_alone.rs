//! Ports are the host's: tests that need certain ones take turns, those of another run included.

use std::fs::File;

/// Waits for the turn of this test; it lasts as long as the answer.
pub fn ports_alone() -> File {
    let name = format!("archon-awo-test-ports-{}", nix::unistd::geteuid());
    let file = File::create(std::env::temp_dir().join(name)).unwrap();
    file.lock().unwrap();
    file
}
