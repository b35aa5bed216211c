//! Landlock: what this process and everything below it may open, signal and connect to, for good.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
    path_beneath_rules,
};

use super::grants::Grants;

/// The newest version that the rules below were written for; an older kernel gets what it knows.
const NEWEST: ABI = ABI::V7;

/// What is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// The version of Landlock; 0 for none.
    pub version: u8,
    /// Connections are bound to the one port.
    pub network: bool,
}

/// Shuts this process in. An error means that nothing may be run: a part of it may be in force.
pub fn shut_in(grants: &Grants, only_port: Option<u16>) -> Result<InForce, String> {
    let failed = |error: RulesetError| format!("Landlock cannot be put into force: {error}");
    let status = restrict(grants, only_port).map_err(failed)?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => version(effective_abi),
        _ => 0,
    };
    Ok(InForce { version, network: only_port.is_some() && version >= 4 })
}

/// Has this thread and all it will start signal nobody but each other; the error says why that cannot be.
pub fn scope_signals() -> Result<(), String> {
    let failed = |error: RulesetError| format!("Landlock does not bound signals: {error}");
    let scoped = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal)
        // Every layer refuses to move files between folders, unless it says otherwise.
        .and_then(|rules| rules.handle_access(AccessFs::Refer))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(["/"], AccessFs::Refer)))
        // Each process that a signal to all does not reach would be a line in the machine's audit.
        .and_then(|rules| rules.set_compatibility(CompatLevel::BestEffort).log_same_exec(false))
        .map_err(failed)?;
    scoped.restrict_self().map_err(failed)?;
    Ok(())
}

fn restrict(grants: &Grants, only_port: Option<u16>) -> Result<RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(NEWEST))?;
    if only_port.is_some() {
        rules = rules.handle_access(AccessNet::ConnectTcp)?;
    }
    let (read, write) = (AccessFs::from_read(NEWEST), all & !makes_devices());
    let device: BitFlags<AccessFs> = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::IoctlDev;
    let mut rules = rules
        .create()?
        .add_rules(path_beneath_rules(&grants.read, read))?
        .add_rules(path_beneath_rules(&grants.write, write))?
        .add_rules(path_beneath_rules(&grants.devices, device))?;
    if let Some(port) = only_port {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    rules.restrict_self()
}

/// Lets this process and everything below it connect to these ports alone, where the kernel can.
pub fn reach_only(ports: &[u16]) -> Result<(), String> {
    let restrict = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessNet::ConnectTcp)?
            // Every layer refuses to move files between folders, unless it says otherwise.
            .handle_access(AccessFs::Refer)?
            .create()?
            .add_rules(path_beneath_rules(["/"], AccessFs::Refer))?
            .add_rules(
                ports
                    .iter()
                    .map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp))),
            )?
            .restrict_self()
            .map(drop)
    };
    restrict().map_err(|error| format!("Landlock cannot be put into force: {error}"))
}

/// A device file would open the disk below every file system.
fn makes_devices() -> BitFlags<AccessFs> {
    AccessFs::MakeBlock | AccessFs::MakeChar
}

fn version(abi: ABI) -> u8 {
    // Not a number in the crate: it grows with each version.
    match abi {
        ABI::Unsupported => 0,
        ABI::V1 => 1,
        ABI::V2 => 2,
        ABI::V3 => 3,
        ABI::V4 => 4,
        ABI::V5 => 5,
        ABI::V6 => 6,
        _ => 7,
    }
}
