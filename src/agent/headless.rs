//! What keeps the Claude Code CLI from waiting for a person, and from ending its turn while a command of it
//! still runs.

use std::time::Duration;

/// Tools that ask a person, change the mode or the folder of the conversation, or wake it later, when nobody
/// is there. Versions that lack one of them take its name all the same.
pub const DISALLOWED_TOOLS: &str = "AskUserQuestion,EnterPlanMode,ExitPlanMode,EnterWorktree,\
                                    ExitWorktree,ScheduleWakeup,CronCreate,CronDelete,CronList,Monitor";

/// How long a command may take by itself and at most: the CLI's own limits, below which ours make no sense.
const USUAL: Duration = Duration::from_mins(2);
const MOST: Duration = Duration::from_mins(10);
/// The longest that a timer of the CLI can wait; a longer one fires at once.
const LONGEST_TIMER: Duration = Duration::from_millis(i32::MAX as u64);

/// The environment in which a command that takes its time is waited for, instead of being moved to the
/// background after two minutes: a quarter of the step, and three quarters if the agent asks for that much.
/// What is `given` to the agent already stays as it is.
pub fn environment(step: Duration, given: &[(String, String)]) -> Vec<(String, String)> {
    let find = |name: &str| given.iter().rfind(|(known, _)| known == name);
    let most = (step / 4 * 3).max(MOST).min(LONGEST_TIMER);
    let their_most = find("BASH_MAX_TIMEOUT_MS").and_then(|(_, value)| value.parse().ok());
    // The CLI takes the larger of the two for the most.
    let usual = (step / 4).max(USUAL).min(their_most.map_or(most, Duration::from_millis));
    [
        ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1".to_owned()),
        ("BASH_DEFAULT_TIMEOUT_MS", usual.as_millis().to_string()),
        ("BASH_MAX_TIMEOUT_MS", most.as_millis().to_string()),
    ]
    .into_iter()
    .filter(|(name, _)| find(name).is_none())
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::environment;

    fn told(step: Duration, given: &[(&str, &str)]) -> Vec<String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let given: Vec<_> = given.iter().map(own).collect();
        environment(step, &given).iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn commands_may_take_a_part_of_the_step() {
        let hour = told(Duration::from_hours(1), &[]);
        let alone = "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS=1";
        assert_eq!(hour, [alone, "BASH_DEFAULT_TIMEOUT_MS=900000", "BASH_MAX_TIMEOUT_MS=2700000"]);
        let short = told(Duration::from_mins(1), &[]);
        assert_eq!(short[1..], ["BASH_DEFAULT_TIMEOUT_MS=120000", "BASH_MAX_TIMEOUT_MS=600000"]);
        let endless = told(Duration::MAX, &[]);
        assert_eq!(endless[2], "BASH_MAX_TIMEOUT_MS=2147483647");
    }

    #[test]
    fn what_an_administrator_sets_stays() {
        let background = [("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "0")];
        assert_eq!(told(Duration::from_hours(1), &background).len(), 2);
        let most = told(Duration::from_hours(1), &[("BASH_MAX_TIMEOUT_MS", "300000")]);
        assert_eq!(most[1..], ["BASH_DEFAULT_TIMEOUT_MS=300000"]);
        let usual = told(Duration::from_hours(1), &[("BASH_DEFAULT_TIMEOUT_MS", "5000")]);
        assert_eq!(usual[1..], ["BASH_MAX_TIMEOUT_MS=2700000"]);
    }
}
