//! An agent that knows a secret prints it in pieces and in code, and writes it into a file.

use std::path::PathBuf;

use serde_json::json;
use sqlx::PgPool;

use crate::{harness::Harness, leaks};

const TOKEN: &str = "ghp_0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f";

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_secret_in_pieces_or_in_code_reaches_neither_rows_nor_files(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("GITHUB_TOKEN", TOKEN);
    let delta = |text: &str| {
        json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": text } })
    };
    let mut lines: Vec<String> = TOKEN
        .as_bytes()
        .chunks(5)
        .map(|piece| delta(std::str::from_utf8(piece).unwrap()).to_string())
        .collect();
    let result = format!("done with {TOKEN}").replace("0a1b", "0\\u0061\\u0031b");
    lines.push(r#"{"type":"content_block_stop","index":0}"#.into());
    lines.push(format!(r#"{{"type":"result","subtype":"success","result":"{result}"}}"#));
    harness.tell_agent("stdout-planning", &(lines.join("\n") + "\n"));
    harness.tell_agent("stderr-execute", &format!("\u{1b}[31m{TOKEN}\n{}", TOKEN.to_uppercase()));
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;

    assert_eq!(leaks::in_rows(&harness.pool, TOKEN).await, Vec::<String>::new());
    let kept = harness.path("work-orders");
    assert_eq!(leaks::in_files(&kept, TOKEN), Vec::<PathBuf>::new());
    let logged: String = sqlx::query_scalar(
        "select string_agg(convert_from(data, 'UTF8'), '' order by seq) from awo.log_chunks
         where step_name = 'planning' and stream = 'stdout'",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    let joined: String = logged
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|line| Some(line.pointer("/delta/text")?.as_str()?.to_owned()))
        .collect();
    assert_eq!(joined, "[redacted]", "{logged}");
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_honest_tools_show_of_a_secret_reaches_neither_rows_nor_files(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("GITHUB_TOKEN", TOKEN);
    let tools = [
        "od",
        "od -c",
        "od -b",
        "od -tx1z",
        "od -x",
        "od -An -tx4",
        "base64 -w 20",
        "cat -n",
        "iconv -t UTF-16LE",
        "iconv -t UTF-16BE",
        "sed 's/./&\\x1b[0m/g'",
    ];
    let show = tools.map(|tool| format!("printf '{TOKEN} z\\n' | {tool}\n")).concat();
    harness.tell_agent("extra", &format!("[ \"$AWO_STEP\" = execute ] || return 0\n{show}"));
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "completed").await;

    let logged: Vec<u8> = sqlx::query_scalar(
        "select string_agg(data, '' order by seq) from awo.log_chunks
         where step_name = 'execute' and stream = 'stdout'",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    let logged = String::from_utf8_lossy(&logged);
    let marks = logged.matches("[redacted]").count();
    assert!(marks >= tools.len(), "{marks} of {}: {logged}", tools.len());
    let mut forms = leaks::forms(TOKEN);
    forms.extend(leaks::pieces_of_dumps(TOKEN));
    assert_eq!(leaks::forms_in_files(&harness.path("work-orders"), &forms), Vec::<PathBuf>::new());
    assert_eq!(leaks::forms_in_rows(&harness.pool, forms).await, Vec::<String>::new());
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_secret_in_a_file_is_not_pushed(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("GITHUB_TOKEN", TOKEN);
    let script =
        format!("[ $AWO_STEP = execute ] && echo 'password = {TOKEN}' | base64 > notes.txt");
    harness.tell_agent("extra", &script);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    let (_, class, message, attempts) = harness.outcome(&order).await;
    assert_eq!((class.as_deref(), attempts), (Some("invalid"), 1), "{message:?}");
    let message = message.unwrap();
    assert!(message.contains("notes.txt") && !message.contains(TOKEN), "{message}");
    let (branches, pulls) = harness.deliveries();
    assert_eq!((branches, pulls), (vec![], vec![]));
    assert_eq!(leaks::in_rows(&harness.pool, TOKEN).await, Vec::<String>::new());
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_secret_in_a_request_is_no_part_of_the_branch(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("GITHUB_TOKEN", TOKEN);
    harness.start_worker();
    let order = harness.order(&format!("Use {TOKEN} now")).await;
    harness.until_status(&order, "completed").await;
    let (branches, _) = harness.deliveries();
    assert_eq!(branches, [format!("refs/heads/feat/use-redacted-now-{order}")]);
    assert_eq!(leaks::in_files(&harness.path("work-orders"), TOKEN), Vec::<PathBuf>::new());
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn a_weak_secret_rewrites_nothing_and_is_named(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("GITHUB_TOKEN", "production");
    harness.tell_agent(
        "extra",
        "[ $AWO_STEP = commit ] && echo 'fix: move production to postgres' && exit 0; true",
    );
    harness.start_worker();
    let request = "Move production to postgres";
    let order = harness.order(request).await;
    harness.until_status(&order, "completed").await;
    let (branches, _) = harness.deliveries();
    assert_eq!(branches, [format!("refs/heads/feat/move-production-to-postgres-{order}")]);
    let subject = harness.git(&["-C", "remote.git", "log", "-1", "--format=%s", &branches[0]]);
    assert_eq!(subject.trim(), "fix: move production to postgres");
    let prompt = std::fs::read_to_string(harness.path(&format!("agent/prompt-{order}-planning-1")));
    assert!(prompt.unwrap().contains(request));
    let said: String = sqlx::query_scalar(
        "select concat_ws(' ', (select string_agg(content, ' ') from agent_work_order_artifacts),
             (select string_agg(output, ' ') from agent_work_order_steps))",
    )
    .fetch_one(&harness.pool)
    .await
    .unwrap();
    assert!(said.contains(request) && !said.contains("[redacted]"), "{said}");
    harness.until_logged("GITHUB_TOKEN: the credential is short or a common word").await;
    harness.assert_sound().await;
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn what_is_saved_of_a_sandbox_holds_no_secret(pool: PgPool) {
    let mut harness = Harness::new(pool);
    harness.set("GITHUB_TOKEN", TOKEN);
    harness.set("AWO_ARCHIVE_URL", format!("file://{}", harness.path("archive").display()));
    // As if the agent had found it: in its conversation, in what git ignores, in what it wants committed, and
    // in a repository of its own, which no commit holds.
    let print = format!(
        r#"[ "$AWO_STEP" = execute ] || return 0
mkdir -p "$HOME/.claude/projects/-there" nested
echo '{{"type":"user","text":"\n{TOKEN}"}}' > "$HOME/.claude/projects/-there/1.jsonl"
echo "export T={TOKEN}" > "$HOME/.bash_history"
echo .env > .gitignore; echo "T={TOKEN}" > .env
echo "the token is {TOKEN}" > notes.txt
cd nested && git init -q && echo "T={TOKEN}" > config.txt && git add .gitignore 2>/dev/null
git commit -q --allow-empty -m x && cd ..
"#
    );
    harness.tell_agent("extra", &print);
    harness.start_worker();
    let order = harness.order("Write a file").await;
    harness.until_status(&order, "failed").await;
    sqlx::query("update awo.jobs set finished_at = now() - interval '30 days'")
        .execute(&harness.pool)
        .await
        .unwrap();
    let (code, said) = harness.command(&["gc"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!harness.path(&format!("repositories/{order}")).exists(), "{said}");

    let looked = harness.path("looked");
    std::fs::create_dir(&looked).unwrap();
    let shell = format!(
        "cd looked && for f in ../archive/*/*.tar.gz ../work-orders/*/bundles/*.tar.gz; do \
         mkdir $(basename $f) && tar xzf $f -C $(basename $f); done && \
         git clone -q ../remote.git clone && cd clone && \
         git fetch -q ../../work-orders/{order}/bundles/*.bundle refs/awo/bundle/files && \
         git checkout -q FETCH_HEAD && rm -rf .git && cd .. && find . -type f"
    );
    let mut command = std::process::Command::new("sh");
    let done = command.args(["-ec", &shell]).current_dir(harness.folder()).output().unwrap();
    let found = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{found} {}", String::from_utf8_lossy(&done.stderr));
    for file in
        ["1.jsonl", ".bash_history", "checkout/.env", "clone/notes.txt", "nested/config.txt"]
    {
        assert!(found.contains(file), "{file} is not among {found}");
    }
    assert_eq!(leaks::in_files(&looked, TOKEN), Vec::<PathBuf>::new());
    let notes = std::fs::read_to_string(looked.join("clone/notes.txt")).unwrap();
    assert_eq!(notes, "the token is [redacted]\n");
}
