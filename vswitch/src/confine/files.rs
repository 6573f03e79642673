//! Which files are left, by landlock: none, or all to read and those of one directory to write.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

/// The newest kernel's whose restrictions we know; an older one does what it can.
const KNOWN: ABI = ABI::V6;

/// Gives up all files, but for any to be read and those in `logs` to be written, if there is such a directory; and signals
/// to other processes.
///
/// # Errors
/// What is not given up, in a sentence.
pub(super) fn keep(logs: Option<&Path>) -> Result<(), String> {
    match restrict(logs) {
        Ok(RulesetStatus::FullyEnforced) => Ok(()),
        Ok(RulesetStatus::PartiallyEnforced) => {
            Err("some access to files is left: the kernel's landlock is an older one (Linux 6.12 has all)"
                .to_owned())
        }
        Ok(RulesetStatus::NotEnforced) => {
            Err("all files are left: the kernel has no landlock, or it is not switched on".to_owned())
        }
        Err(error) => Err(format!("all files are left: {error}")),
    }
}

fn restrict(logs: Option<&Path>) -> Result<RulesetStatus, RulesetError> {
    let ruleset =
        Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?;
    let mut ruleset = ruleset.create()?;
    if let Some(logs) = logs {
        let write = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
        ruleset = ruleset.add_rules(path_beneath_rules(["/"], AccessFs::ReadFile))?;
        ruleset = ruleset.add_rules(path_beneath_rules([logs], write))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}
