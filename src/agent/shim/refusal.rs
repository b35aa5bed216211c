//! Why a process may not trace its own child here, in words that say what to change.

use std::fs;

use nix::errno::Errno;

/// What the security module Yama allows, where it is.
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Why tracing was not allowed.
pub fn refused(error: Errno) -> String {
    explain(error, fs::read_to_string(YAMA).ok().as_deref())
}

fn explain(error: Errno, scope: Option<&str>) -> String {
    let reason = match scope.map(str::trim) {
        Some("2") => {
            "kernel.yama.ptrace_scope is 2, which leaves it to those with CAP_SYS_PTRACE; set it to 1"
        }
        Some("3") => {
            "kernel.yama.ptrace_scope is 3, which forbids it to all until the machine starts anew with 1 \
             or less"
        }
        _ => "the container's seccomp profile or another security module forbids it",
    };
    format!("tracing is refused ({error}): {reason}")
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::explain;

    #[test]
    fn what_yama_forbids_is_said_with_its_remedy() {
        let said = |scope| explain(Errno::EPERM, scope);
        assert!(
            said(Some("2\n")).contains("ptrace_scope is 2") && said(Some("2")).contains("to 1")
        );
        assert!(said(Some("3\n")).contains("ptrace_scope is 3"));
        for other in [None, Some("0\n"), Some("1\n")] {
            assert!(said(other).contains("seccomp") && !said(other).contains("yama"), "{other:?}");
        }
    }
}
