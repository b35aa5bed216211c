//! seccomp: calls of the kernel that no agent needs and that an attack on it begins with. They answer
//! EPERM, so a program that only tries goes on.

use std::collections::BTreeMap;

use super::sockets::{self, Datagrams};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Calls that are refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // Other mounts, roots and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    // Files without their paths.
    libc::SYS_open_by_handle_at,
    // The memory and the keys of others.
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Code in the kernel, and ways around the checks of other calls.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
];

/// Kinds of sockets that reach around the network: raw packets, the kernel's ciphers, the hypervisor.
const SOCKETS: &[libc::c_int] =
    &[libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_BLUETOOTH];

/// Calls that set how often others run and where, and whose first argument says who; 0 is the caller. Of
/// another thread of its own process a program sets nothing either: only its number would tell whose it is.
const SCHEDULING: &[libc::c_long] = &[
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
];

/// The first argument of `setpriority` and `ioprio_set` that means all processes of a user.
const EVERY_PROCESS_OF_A_USER: [(libc::c_long, u64); 2] =
    [(libc::SYS_setpriority, 2), (libc::SYS_ioprio_set, 3)];

/// Flags of `clone` and `unshare` that make namespaces.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Refuses them for this process and everything below it, for good. `traced` says that something
/// else keeps it from tracing others, `bound` that it shall reach one port alone. Answers whether this
/// kernel can; an error means that nothing may be run.
pub fn forbid(traced: bool, bound: Option<Datagrams>) -> Result<bool, String> {
    if !std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        return Ok(false);
    }
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(false) };
    let failed = |error: &dyn std::fmt::Display| {
        format!("the filter of system calls cannot be put into force: {error}")
    };
    let mut filters = vec![
        (rules(traced).map_err(|e| failed(&e))?, libc::EPERM),
        (
            // Its flags lie in memory, where no filter can look: C libraries then use `clone`.
            with_second_numbers(BTreeMap::from([(libc::SYS_clone3, Vec::new())])),
            libc::ENOSYS,
        ),
    ];
    if let Some(datagrams) = bound {
        let kinds = sockets::kinds(datagrams).map_err(|e| failed(&e))?;
        let sending = sockets::fast_open().map_err(|e| failed(&e))?;
        filters.push((with_second_numbers(kinds), libc::EPROTONOSUPPORT));
        filters.push((with_second_numbers(sending), libc::EOPNOTSUPP));
    }
    for (calls, answer) in filters {
        let answer = SeccompAction::Errno(answer.unsigned_abs());
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, answer, arch);
        let program: BpfProgram =
            filter.and_then(TryInto::try_into).map_err(|error| failed(&error))?;
        seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(true)
}

/// On x86-64 every call has a second number, for programs with short addresses. Kernels built for
/// those obey it, and no filter of the first numbers sees it.
#[cfg(target_arch = "x86_64")]
mod second_numbers {
    use nix::libc;

    /// What marks them.
    pub const BIT: libc::c_long = 0x4000_0000;
    /// Calls whose second number is not the first one with the mark: `ptrace`, `kexec_load`,
    /// `process_vm_readv`, `process_vm_writev`, as in the kernel's `syscall_64.tbl`.
    pub const OTHERS: [libc::c_long; 4] = [521, 528, 539, 540];
    /// `sendmsg` and `sendmmsg`, which look at their flags under these numbers too.
    pub const SENDING: [(libc::c_long, libc::c_long); 2] =
        [(libc::SYS_sendmsg, 518), (libc::SYS_sendmmsg, 538)];
}

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

fn rules(traced: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    if !traced {
        rules.insert(libc::SYS_ptrace, Vec::new());
    }
    let any_of = |values: &[libc::c_int], masked: bool| {
        let rule = |value: &libc::c_int| {
            let value = u64::from(value.unsigned_abs());
            let how = if masked { SeccompCmpOp::MaskedEq(value) } else { SeccompCmpOp::Eq };
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, how, value)?;
            SeccompRule::new(vec![condition])
        };
        values.iter().map(rule).collect::<Result<Vec<_>, _>>()
    };
    rules.insert(libc::SYS_socket, any_of(SOCKETS, false)?);
    rules.insert(libc::SYS_unshare, any_of(NAMESPACES, true)?);
    // A child that is born untraced is none that its tracer could end.
    let untraced = [NAMESPACES, &[libc::CLONE_UNTRACED]].concat();
    rules.insert(libc::SYS_clone, any_of(&untraced, true)?);
    // Landlock does not look at the limits of processes, nor at how often they run: of another one nobody
    // sets them.
    rules.insert(libc::SYS_prlimit64, vec![not_zero(0)?]);
    for call in SCHEDULING {
        rules.insert(*call, vec![not_zero(0)?]);
    }
    for (call, everybody) in EVERY_PROCESS_OF_A_USER {
        let which = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, everybody)?;
        rules.insert(call, vec![SeccompRule::new(vec![which])?, not_zero(1)?]);
    }
    Ok(with_second_numbers(rules))
}

/// The argument that says who names another than the caller itself, which is 0.
fn not_zero(argument: u8) -> Result<SeccompRule, seccompiler::BackendError> {
    let another = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    SeccompRule::new(vec![another])
}

/// Refuses the same under the other numbers of the calls.
#[cfg(target_arch = "x86_64")]
fn with_second_numbers(mut rules: Rules) -> Rules {
    use second_numbers::{BIT, OTHERS, SENDING};
    let mut second: Vec<_> = rules.iter().map(|(call, how)| (call | BIT, how.clone())).collect();
    for (call, other) in SENDING {
        second.extend(rules.get(&call).map(|how| (other | BIT, how.clone())));
    }
    rules.extend(second);
    rules.extend(OTHERS.map(|call| (call | BIT, Vec::new())));
    rules
}

#[cfg(not(target_arch = "x86_64"))]
fn with_second_numbers(rules: Rules) -> Rules {
    rules
}

#[cfg(test)]
mod tests {
    use super::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, rules};

    #[test]
    fn the_filter_fits_into_the_kernel() {
        let rules = rules(false).unwrap();
        let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let filter =
            SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(1), arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        // BPF_MAXINSNS.
        assert!(program.len() < 4096, "{}", program.len());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_call_is_refused_by_its_second_number_too() {
        let rules = rules(true).unwrap();
        for (call, condition) in rules.iter().filter(|(call, _)| **call < 0x4000_0000) {
            assert_eq!(rules.get(&(call | 0x4000_0000)), Some(condition), "{call}");
        }
        assert!(
            rules.contains_key(&(0x4000_0000 + 539)),
            "process_vm_readv has a number of its own"
        );
    }
}
