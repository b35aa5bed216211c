//! Every statement in `sql/` fits the migrated schema and is used, and `src/` holds no other SQL.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgPool, SqlSafeStr};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Files below `folder` with the extension `extension`, sorted.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn statements() -> Vec<PathBuf> {
    let found = files(&Path::new(ROOT).join("sql"), "sql");
    assert!(!found.is_empty(), "no statement in sql/");
    found
}

/// Rust sources as (path, text without comment lines).
fn sources() -> Vec<(PathBuf, String)> {
    let code = |text: String| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let read = |path: PathBuf| (path.clone(), code(fs::read_to_string(&path).unwrap()));
    let found = files(&Path::new(ROOT).join("src"), "rs");
    assert!(!found.is_empty(), "no source in src/");
    found.into_iter().map(read).collect()
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn every_statement_is_accepted_by_the_schema(pool: PgPool) {
    let mut refused = Vec::new();
    // Statements of the bench name its own table.
    sqlx::raw_sql(archon_awo::sql!("bench/create_floor")).execute(&pool).await.unwrap();
    for path in statements() {
        let text = fs::read_to_string(&path).unwrap();
        let mut connection = pool.acquire().await.unwrap();
        let prepared = connection.prepare(AssertSqlSafe(text).into_sql_str()).await;
        if let Err(error) = prepared {
            refused.push(format!("{}: {error}", path.display()));
        }
        connection.ping().await.unwrap();
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_statement_is_used() {
    let sources = sources();
    let folder = Path::new(ROOT).join("sql");
    let unused: Vec<_> = statements()
        .into_iter()
        .filter(|path| {
            let name = path.strip_prefix(&folder).unwrap().with_extension("");
            let mention = format!("sql!(\"{}\")", name.display());
            !sources.iter().any(|(_, text)| text.contains(&mention))
        })
        .collect();
    assert!(unused.is_empty(), "no sql!(…) names {unused:?}: use or delete them");
}

#[test]
fn every_statement_begins_with_a_known_word() {
    // A file that starts with something else is a fragment, or two statements.
    for path in statements() {
        let text = fs::read_to_string(&path).unwrap();
        let code: Vec<_> =
            text.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let code = code.join("\n");
        let code = code.trim().trim_end_matches(';');
        let first = code.split_whitespace().next().unwrap_or_default();
        let known = [
            "SELECT",
            "INSERT",
            "UPDATE",
            "DELETE",
            "WITH",
            "LISTEN",
            "NOTIFY",
            "SET",
            "DEALLOCATE",
        ];
        // The bench makes and empties a database of its own.
        let own = ["CREATE", "ALTER", "TRUNCATE", "VACUUM", "CHECKPOINT"];
        let known = known.contains(&first)
            || (own.contains(&first) && path.parent().is_some_and(|p| p.ends_with("sql/bench")));
        assert!(known, "{} begins with {first:?}", path.display());
        assert!(!code.contains(";\n"), "{} holds two statements", path.display());
    }
}

/// The places in `text` where SQL stands in a string of Rust.
fn inline_sql(text: &str) -> Vec<String> {
    const BEGINNINGS: [&str; 13] = [
        "SELECT ",
        "INSERT INTO",
        "UPDATE ",
        "DELETE FROM",
        "WITH ",
        "CREATE ",
        "ALTER ",
        "DROP ",
        "LISTEN ",
        "NOTIFY ",
        "TRUNCATE ",
        "LOCK TABLE",
        "SET LOCAL",
    ];
    let mut found = Vec::new();
    for (at, _) in text.match_indices('"') {
        let inside = text[at + 1..].trim_start();
        if BEGINNINGS.iter().any(|word| inside.starts_with(word)) {
            found.push(inside.lines().next().unwrap_or_default().to_owned());
        }
    }
    // A call of a driver's function with a literal, whatever it begins with.
    for call in
        ["query", "query_as", "query_scalar", "raw_sql", "query!", "query_as!", "query_scalar!"]
    {
        for (at, _) in text.match_indices(call) {
            let mut rest = &text[at + call.len()..];
            if let Some(generics) = rest.strip_prefix("::<") {
                let Some((_, after)) = generics.split_once(">(") else { continue };
                rest = after;
            } else if let Some(after) = rest.strip_prefix('(') {
                rest = after;
            } else {
                continue;
            }
            if rest.trim_start().starts_with(['"', 'r']) && rest.trim_start().contains('"') {
                let literal = rest.trim_start();
                if literal.starts_with('"')
                    || literal.starts_with("r\"")
                    || literal.starts_with("r#")
                {
                    found.push(literal.lines().next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn no_source_file_holds_sql_of_its_own() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        for line in inline_sql(&text) {
            found.push(format!("{}: {line}", path.display()));
        }
    }
    assert!(
        found.is_empty(),
        "put these into sql/ and name them with sql!(…):\n{}",
        found.join("\n")
    );
}

#[test]
fn the_search_for_sql_finds_it_in_every_dress() {
    for text in [
        r#"query("select 1")"#,
        r##"sqlx::query_as::<_, (i32,)>(r#"select 1"#)"##,
        "query_scalar(\n    \"values (1)\")",
        "let text = \"SELECT 1\";",
        "execute(\"\n  INSERT INTO t VALUES (1)\")",
    ] {
        assert!(!inline_sql(text).is_empty(), "not found in {text}");
    }
    assert!(inline_sql(r#"query(sql!("orders/find")); let s = "select a step";"#).is_empty());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_examples_for_people_at_psql_run_as_written(pool: PgPool) {
    let readme = fs::read_to_string(Path::new(ROOT).join("sql/README.md")).unwrap();
    let blocks: Vec<&str> =
        readme.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 5, "sql/README.md holds {} examples", blocks.len());
    for block in blocks {
        // As psql sends them: one string, several statements.
        let result = sqlx::raw_sql(AssertSqlSafe(block.to_owned())).execute(&pool).await;
        assert!(result.is_ok(), "{block}: {result:?}");
    }
    let requeued = "SELECT count(*) FROM agent_work_orders WHERE status = 'pending'";
    let pending: i64 = sqlx::query_scalar(requeued).fetch_one(&pool).await.unwrap();
    assert_eq!(pending, 3, "three were ordered, one was cancelled and requeued");
}

#[test]
fn every_source_file_has_its_line_in_the_architecture() {
    let page = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let mut named: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("- `"))
        .filter_map(|line| line.split('`').next())
        .filter(|name| name.starts_with("src/"))
        .collect();
    let folder = Path::new(ROOT);
    let relative = |path: PathBuf| path.strip_prefix(folder).unwrap().display().to_string();
    let mut there: Vec<String> = sources().into_iter().map(|(path, _)| relative(path)).collect();
    named.sort_unstable();
    there.sort_unstable();
    assert_eq!(named, there, "the list of files in ARCHITECTURE.md");
}

#[test]
fn one_source_file_alone_may_be_unsafe() {
    let allows = |text: &str| text.contains("(unsafe_code");
    let allowed: Vec<PathBuf> =
        sources().into_iter().filter(|(_, text)| allows(text)).map(|(path, _)| path).collect();
    assert_eq!(allowed, [Path::new(ROOT).join("src/agent/shim/ptrace.rs")]);
}
