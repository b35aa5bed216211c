//! The examples of docs/agents.md, taken from the page itself. Shared by several test binaries.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Writes the example of that language into a folder, as a program.
pub fn example(language: &str, folder: &Path) -> PathBuf {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/agents.md"));
    let page = page.unwrap();
    let start = format!("```{language}\n#!");
    let at = page.find(&start).unwrap_or_else(|| panic!("no {language} program on the page"));
    let text = &page[at + start.len() - 2..];
    let text = &text[..=text.find("\n```").unwrap()];
    program(text, &folder.join(format!("example-{language}")))
}

/// Writes a program.
pub fn program(text: &str, file: &Path) -> PathBuf {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    file.to_owned()
}
