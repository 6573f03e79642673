//! What the command line says about itself: completions for shells, and manual pages.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Arguments, Failure};

/// The command as users are told of it. The generators show what is hidden, so here it is left out.
fn told() -> Command {
    visible(&Arguments::command())
}

fn visible(command: &Command) -> Command {
    let mut told = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|argument| !argument.is_hide_set()))
        .subcommands(command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(visible))
        .subcommand_required(command.is_subcommand_required_set());
    if let Some(version) = command.get_version() {
        told = told.version(version.to_owned());
    }
    if let Some(about) = command.get_about() {
        told = told.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        told = told.long_about(about.clone());
    }
    if let Some(help) = command.get_after_help() {
        told = told.after_help(help.clone());
    }
    told
}

pub(super) fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    // Into memory first: the generator panics when what it writes to ends early.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut told(), "vswitch", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// The main page on standard output, or a page for each verb in a directory.
pub(super) fn man(directory: Option<&Path>) -> Result<ExitCode, Failure> {
    match directory {
        None => {
            let mut page = Vec::new();
            Man::new(told().disable_help_subcommand(true)).render(&mut page)?;
            io::stdout().write_all(&page)?;
        }
        Some(directory) => std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(told(), directory))
            .map_err(|error| format!("cannot write the pages into {}: {error}", directory.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}
