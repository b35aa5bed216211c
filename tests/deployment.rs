//! Every setting reaches the containers, and every variable of the Compose files is explained.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use archon_awo::config::keys;

const COMPOSE: [&str; 4] =
    ["compose.yaml", "compose.dev.yaml", "compose.archon.yaml", "compose.hardened.yaml"];
/// Settings that the image decides: where the volumes are, and the port that is published.
const OF_THE_IMAGE: [&str; 6] = [
    "AWO_REPOSITORY_DIR",
    "AWO_WORK_ORDER_DIR",
    "AWO_CONFIG_DIR",
    "ARCHON_AWO_ENABLED",
    "ARCHON_AWO_PORT",
    "AWO_BIND",
];
/// Variables that only developers set.
const OF_DEVELOPERS: [&str; 1] = ["AWO_DEV_IMAGE"];

fn read(name: &str) -> String {
    fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// `NAME=value` and `#NAME=value` lines: what `.env.example` sets and shows.
fn explained() -> BTreeMap<String, String> {
    let text = read(".env.example");
    let pairs = text.lines().filter_map(|line| line.trim_start_matches('#').split_once('='));
    let upper = |name: &str| {
        !name.is_empty() && !name.contains(|c: char| c != '_' && !c.is_ascii_uppercase())
    };
    pairs
        .filter(|(name, _)| upper(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The `${NAME…}` of a Compose file; `$$` is a dollar of the container's shell.
fn used(text: &str) -> BTreeSet<String> {
    let text = text.replace("$$", "");
    let names = text.split("${").skip(1).map(|rest| {
        rest.chars()
            .take_while(|c| *c == '_' || c.is_ascii_uppercase() || c.is_ascii_digit())
            .collect()
    });
    names.collect()
}

#[test]
fn every_setting_can_be_set_through_compose() {
    let compose = read("compose.yaml");
    let missing: Vec<&str> = keys::ALL
        .iter()
        .map(|key| key.name())
        .filter(|name| !OF_THE_IMAGE.contains(name))
        .filter(|name| !compose.contains(&format!("\n      {name}: ${{{name}:-")))
        .collect();
    assert!(missing.is_empty(), "compose.yaml does not pass on {missing:?}");
}

#[test]
fn the_example_shows_the_defaults_that_the_program_has() {
    let explained = explained();
    for key in keys::ALL {
        if OF_THE_IMAGE.contains(&key.name()) {
            continue;
        }
        let shown = explained.get(key.name());
        let shown = shown.unwrap_or_else(|| panic!(".env.example does not explain {}", key.name()));
        // What Compose itself gives is no default of the program.
        if !["DATABASE_URL", "DATABASE_PASSWORD_FILE"].contains(&key.name()) {
            assert_eq!(shown, key.default.unwrap_or_default(), "default of {}", key.name());
        }
    }
}

#[test]
fn every_variable_of_the_compose_files_is_explained_and_every_one_explained_is_used() {
    let used: BTreeSet<String> = COMPOSE.iter().flat_map(|name| used(&read(name))).collect();
    let explained: BTreeSet<String> = explained().into_keys().collect();
    let own = |name: &&String| !OF_DEVELOPERS.contains(&name.as_str());
    let unexplained: Vec<&String> = used.difference(&explained).filter(own).collect();
    assert!(unexplained.is_empty(), ".env.example does not explain {unexplained:?}");
    let compose_itself = "COMPOSE_PROJECT_NAME".to_owned();
    let unused: Vec<&String> =
        explained.difference(&used).filter(|name| **name != compose_itself).collect();
    assert!(unused.is_empty(), ".env.example explains {unused:?}, which no Compose file uses");
}

#[test]
fn a_variable_of_the_compose_files_has_a_default_or_a_message() {
    for name in COMPOSE {
        let text = read(name).replace("$$", "");
        for reference in text.split("${").skip(1) {
            let expression = reference.split('}').next().unwrap();
            assert!(
                expression.contains('-') || expression.contains(":?"),
                "${{{expression}}} in {name} has neither default nor message"
            );
        }
        assert!(!text.contains("container_name:"), "{name} could not be scaled");
    }
}
