//! seccomp: calls of the kernel that no agent needs and that an attack on it begins with. They answer
//! EPERM, so a program that only tries goes on.

use std::collections::BTreeMap;

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
/// else keeps it from tracing others. Answers whether this kernel can; an error means that nothing may
/// be run.
pub fn forbid(traced: bool) -> Result<bool, String> {
    if !std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        return Ok(false);
    }
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(false) };
    let failed = |error: &dyn std::fmt::Display| {
        format!("the filter of system calls cannot be put into force: {error}")
    };
    for (calls, answer) in [
        (rules(traced).map_err(|e| failed(&e))?, libc::EPERM),
        (
            // Its flags lie in memory, where no filter can look: C libraries then use `clone`.
            BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
            libc::ENOSYS,
        ),
    ] {
        let answer = SeccompAction::Errno(answer.unsigned_abs());
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, answer, arch);
        let program: BpfProgram =
            filter.and_then(TryInto::try_into).map_err(|error| failed(&error))?;
        seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(true)
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
    rules.insert(libc::SYS_clone, any_of(NAMESPACES, true)?);
    Ok(rules)
}
