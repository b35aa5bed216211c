//! How the output of an agent is understood while it runs, by real processes that print what the Claude CLI
//! prints.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "support/agent_run.rs"]
mod agent_run;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use agent_run::{Bench, QUICK};
use archon_awo::{
    agent::{AgentKind, ClaudeSettings, DeniedCall},
    domain::ErrorClass,
};

/// A program in the place of the CLI.
fn claude(bench: &Bench, script: &str) -> AgentKind {
    let file = bench.path("claude");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    AgentKind::Claude(ClaudeSettings::new(file))
}

/// Prints a line with single quotes for double ones.
const SAY: &str = "#!/bin/sh\nsay() { printf '%s\\n' \"$1\" | tr \"'\" '\"'; }\n";

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.kill_plan = QUICK;
    bench.limits.exit_grace = Duration::from_millis(300);
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_final_only_when_nothing_follows() {
    let bench = bench();
    let script = format!(
        "{SAY}
         say \"{{'type':'system','subtype':'task_started','task_id':'b'}}\"
         say \"{{'type':'result','subtype':'success','result':'waiting'}}\"
         sleep 2
         say \"{{'type':'system','subtype':'task_notification','task_id':'b'}}
         {{'type':'system','subtype':'init'}}\"
         sleep 2
         echo done > file
         say \"{{'type':'result','subtype':'success','result':'done'}}\""
    );
    let (report, _) = bench.run(claude(&bench, &script)).await;
    assert_eq!((report.verdict, report.text.as_str()), (Ok(()), "waiting\n\ndone"));
    assert!(bench.request.checkout.join("file").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_woken_and_says_no_more_has_no_result() {
    let bench = bench();
    let script = format!(
        "{SAY}
         say \"{{'type':'result','subtype':'success','result':'waiting'}}\"
         say \"{{'type':'system','subtype':'init'}}\""
    );
    let (report, _) = bench.run(claude(&bench, &script)).await;
    let class = report.verdict.unwrap_err().class;
    assert_eq!((class, report.answer_is_lost), (ErrorClass::ToolError, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_after_our_signal_takes_nothing_back() {
    let bench = bench();
    let script = format!(
        "{SAY}
         trap \"say \\\"{{'type':'user','message':{{}}}}\\\"; exit 0\" INT TERM
         say \"{{'type':'result','subtype':'success','result':'ok'}}\"
         while :; do sleep 0.05; done"
    );
    let (report, _) = bench.run(claude(&bench, &script)).await;
    assert_eq!((report.verdict, report.text.as_str()), (Ok(()), "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_of_a_long_answer_are_a_sign_of_life_and_leave_no_trace() {
    let mut bench = bench();
    bench.request.idle_timeout = Duration::from_secs(3);
    let script = format!(
        "{SAY}
         for i in 1 2 3 4 5 6 7 8 9 10; do
             say \"{{'type':'stream_event','event':{{'type':'content_block_delta','index':0}}}}\"
             sleep 0.5
         done
         say \"{{'type':'result','subtype':'success','result':'long'}}\""
    );
    let (report, chunks) = bench.run(claude(&bench, &script)).await;
    assert_eq!((report.verdict, report.text.as_str()), (Ok(()), "long"));
    let output: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.data).collect();
    let spool = fs::read(&bench.request.spool).unwrap();
    assert_eq!(spool, output);
    assert_eq!(output.split(|byte| *byte == b'\n').count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_is_reported_and_fails_nothing() {
    let bench = bench();
    let script = format!(
        "{SAY}
         say \"{{'type':'result','subtype':'success','result':'ok','permission_denials':
             [{{'tool_name':'Bash','tool_use_id':'1','tool_input':{{'command':'rm -rf build/*'}}}}]}}\" \
             | tr -d '\\n'"
    );
    let (report, _) = bench.run(claude(&bench, &script)).await;
    assert_eq!(report.verdict, Ok(()));
    let call = DeniedCall { tool: "Bash".to_owned(), input: "rm -rf build/*".to_owned() };
    assert_eq!(report.denied, [call]);
}

/// CLI 2.1.138 hands its output to the system in one piece, and exits whether all of that was taken or not.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_prints_arrives_although_it_does_not_wait_for_its_readers() {
    let bench = bench();
    let script = "#!/usr/bin/env python3\n\
                  import fcntl, json, os\n\
                  os.set_blocking(1, False)\n\
                  pad = json.dumps({'type': 'user', 'pad': 'x' * 100_000}) + '\\n'\n\
                  room = fcntl.fcntl(2, 1032)\n\
                  end = json.dumps({'type': 'result', 'subtype': 'success', 'result': str(room)})\n\
                  os.write(1, (80 * pad + end + '\\n').encode())\n";
    let (report, _) = bench.run(claude(&bench, script)).await;
    assert_eq!((report.verdict, report.answer_is_lost), (Ok(()), false));
    // An ordinary user with many pipes may not have the whole MiB.
    let room: u32 = report.text.parse().unwrap();
    assert!(room >= 128 * 1024, "{room}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_an_older_cli_does_not_know_is_left_out() {
    let bench = bench();
    let refusing = |option: &str| {
        format!(
            "{SAY}
             echo \"$*\" >> {}
             case \"$*\" in *{option}*) echo \"error: unknown option '{option}'\" >&2; exit 1;; esac
             say \"{{'type':'result','subtype':'success','result':'done'}}\"",
            bench.path("calls").display()
        )
    };
    let calls = || fs::read_to_string(bench.path("calls")).unwrap_or_default().lines().count();
    let option = "--exclude-dynamic-system-prompt-sections";
    let (report, _) = bench.run(claude(&bench, &refusing(option))).await;
    assert_eq!((report.verdict, report.text.as_str(), calls()), (Ok(()), "done", 2));
    // Others are needed.
    let (report, _) = bench.run(claude(&bench, &refusing("--setting-sources"))).await;
    let said = report.verdict.unwrap_err().message;
    assert!(said.contains("unknown option '--setting-sources'") && calls() == 3, "{said}");
}
