//! codex, gemini and opencode under the supervisor: called as their documentation says, resumed, and judged.
//! The programs are stand-ins that play samples made by hand.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/agent_run.rs"]
#[expect(dead_code, reason = "shared with other tests, which use all of it")]
mod agent_run;
#[path = "support/fake_cli.rs"]
mod fake_cli;

use agent_run::Bench;
use archon_awo::{
    agent::{AgentKind, Preset, PresetSettings},
    domain::ErrorClass,
};
use fake_cli::FakeCli;
use uuid::Uuid;

const ALL: [Preset; 3] = [Preset::Codex, Preset::Gemini, Preset::OpenCode];

fn bench(preset: Preset) -> (Bench, FakeCli, AgentKind) {
    let mut bench = Bench::new();
    bench.request.resume = true;
    let key = ("GEMINI_API_KEY".to_owned(), "key-0123456789".to_owned());
    bench.request.extra_env.push(key);
    let cli = FakeCli::new(&bench.path("cli"), preset.as_str());
    let agent = AgentKind::Preset(PresetSettings {
        preset,
        program: cli.program(),
        model: Some("some/model".to_owned()),
        extra_arguments: Vec::new(),
    });
    (bench, cli, agent)
}

#[tokio::test]
async fn a_run_ends_well_and_the_next_one_goes_on_with_it() {
    for preset in ALL {
        let (mut bench, cli, agent) = bench(preset);
        let (report, _) = bench.run(agent.clone()).await;
        assert_eq!(report.verdict, Ok(()), "{preset:?}");
        assert_eq!((report.text.as_str(), report.resumed), ("Done.", false));
        assert!(report.usage.consumed(&[]).total().output_tokens > 0, "{preset:?}");
        assert_eq!(report.session, Some(bench.request.session));

        bench.request.run_id = Uuid::new_v4();
        let (report, _) = bench.run(agent.clone()).await;
        assert_eq!((report.verdict, report.resumed), (Ok(()), true), "{preset:?}");

        // Another conversation knows nothing of it.
        bench.request.run_id = Uuid::new_v4();
        bench.request.session = Uuid::new_v4();
        let (report, _) = bench.run(agent).await;
        assert!(!report.resumed);

        let [first, second, third] = cli.arguments().try_into().unwrap();
        let words = |arguments: &[String]| arguments.join(" ");
        assert_eq!(words(&first), words(&third));
        assert!(words(&first).contains("--model=some/model"), "{first:?}");
        let added: Vec<&String> = second.iter().filter(|word| !first.contains(word)).collect();
        let is_flag = |word: &&&String| {
            ["resume", "--resume", "--session"]
                .iter()
                .any(|flag| word.split('=').next() == Some(flag))
        };
        assert!(added.iter().any(|word| is_flag(&word)), "{second:?}");
        assert!(cli.calls().iter().all(|call| call["prompt"] == "do it"));
    }
}

#[tokio::test]
async fn a_conversation_that_is_gone_is_begun_anew() {
    for preset in ALL {
        let (mut bench, cli, agent) = bench(preset);
        bench.run(agent.clone()).await;
        std::fs::remove_dir_all(bench.request.session_folder()).unwrap();
        bench.request.run_id = Uuid::new_v4();
        let (report, _) = bench.run(agent.clone()).await;
        assert_eq!((report.verdict, report.resumed), (Ok(()), false), "{preset:?}");
        // With the new conversation it goes on.
        bench.request.run_id = Uuid::new_v4();
        let (report, _) = bench.run(agent).await;
        assert_eq!((report.verdict, report.resumed), (Ok(()), true), "{preset:?}");
        assert_eq!(cli.calls().len(), 4);
    }
}

#[tokio::test]
async fn a_failure_has_the_class_of_its_cause() {
    for (preset, sample, exit_code, class) in [
        (Preset::Codex, "unauthorized", 1, ErrorClass::Auth),
        (Preset::Codex, "limit", 1, ErrorClass::RateLimited),
        (Preset::Codex, "unfinished", 1, ErrorClass::ToolError),
        // An exit code alone is no result.
        (Preset::Codex, "unfinished", 0, ErrorClass::ToolError),
        (Preset::Gemini, "quota", 1, ErrorClass::RateLimited),
        (Preset::Gemini, "turns", 53, ErrorClass::MaxTurns),
        (Preset::OpenCode, "overloaded", 1, ErrorClass::Overloaded),
        // Versions before 1.15 end with 0 all the same.
        (Preset::OpenCode, "overloaded", 0, ErrorClass::Overloaded),
        (Preset::OpenCode, "unauthorized", 1, ErrorClass::Auth),
    ] {
        let (bench, cli, agent) = bench(preset);
        cli.play(sample, exit_code);
        let (report, _) = bench.run(agent).await;
        let failure = report.verdict.unwrap_err();
        assert_eq!(failure.class, class, "{preset:?} {sample}: {}", failure.message);
        for name in ["ANTHROPIC", "CLAUDE", "Claude"] {
            assert!(!failure.message.contains(name), "{preset:?} {sample}: {}", failure.message);
        }
    }
}

#[tokio::test]
async fn an_exit_code_that_has_a_meaning_is_told() {
    let (mut bench, _cli, agent) = bench(Preset::Gemini);
    bench.request.extra_env.clear();
    let (report, _) = bench.run(agent).await;
    let failure = report.verdict.unwrap_err();
    assert_eq!(failure.class, ErrorClass::Auth);
    assert!(failure.message.contains("GEMINI_API_KEY"), "{}", failure.message);
}

#[tokio::test]
async fn settings_of_a_repository_count_only_when_it_is_trusted() {
    for trusted in [false, true] {
        let (mut bench, cli, agent) = bench(Preset::Codex);
        bench.request.trusted = trusted;
        bench.run(agent).await;
        let config = bench.request.session_folder().join("config.toml");
        let config = std::fs::read_to_string(config).unwrap();
        assert_eq!(config.contains("\"untrusted\""), !trusted, "{config}");
        assert!(config.contains(bench.request.checkout.to_str().unwrap()), "{config}");
        assert_eq!(cli.calls().len(), 1);

        let (mut bench, cli, agent) = self::bench(Preset::Gemini);
        bench.request.trusted = trusted;
        bench.run(agent).await;
        let arguments = cli.arguments().concat();
        assert_eq!(arguments.contains(&"--extensions=none".to_owned()), !trusted);

        let (mut bench, cli, agent) = self::bench(Preset::OpenCode);
        bench.request.trusted = trusted;
        bench.run(agent).await;
        let calls = cli.calls();
        let found = calls[0]["environment"].get("OPENCODE_DISABLE_PROJECT_CONFIG");
        assert_eq!(found.is_some(), !trusted);
    }
}
