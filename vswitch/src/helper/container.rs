//! What a container is asked to be, and what became of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::exec::Enter;
use super::exec::NamespaceRef;
use super::spec::{made_of, validate_name};

/// What to run in a namespace, under a name. A container is one program with all its descendants: when the program
/// ends, what it left behind is killed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name within its namespace, of the same octets as a namespace's.
    pub name: String,
    /// The program and its arguments; the program is found by the `PATH` in `env`.
    pub argv: Vec<String>,
    /// The whole environment: nothing of the helper's is passed on.
    pub env: Vec<(String, String)>,
    /// More of it, which may be others at each start without that being another container; what is in `env` counts.
    #[serde(default)]
    pub links: Vec<(String, String)>,
    /// Where it starts, `/` if absent. It is an error of the container (status 125) if the pod has no such directory.
    pub working_dir: Option<PathBuf>,
    /// User and group; the helper's own if absent. Without root there is only user 0, which is the caller.
    pub user: Option<(u32, u32)>,
    /// Whether it can never gain rights by executing a file.
    pub no_new_privs: bool,
    /// Where its output goes, an absolute path. The file is appended to, and renamed with `.1` behind when it is full.
    pub log: PathBuf,
}

impl ContainerSpec {
    /// Checks everything that can be known before anything is started.
    ///
    /// # Errors
    /// A sentence that names the field and what it must be.
    pub fn validate(&self) -> Result<(), String> {
        let name = &self.name;
        validate_name(name).map_err(|why| format!("container {why}"))?;
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(format!("container {name}: there is no program to run"));
        }
        if self.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(format!("container {name}: an argument contains a NUL octet"));
        }
        for (variable, value) in self.links.iter().chain(&self.env) {
            if variable.is_empty() || variable.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!(
                    "container {name}: {variable:?} cannot be an environment variable: its name is not empty and \
                     contains no `=`, and there is no NUL octet in either"
                ));
            }
        }
        if !self.log.is_absolute() || self.log.file_name().is_none() {
            return Err(format!("container {name}: log {} must be an absolute path", self.log.display()));
        }
        Ok(())
    }

    /// What tells it from another of its name.
    pub fn made_of(&self) -> String {
        made_of(&Self { links: Vec::new(), ..self.clone() })
    }

    /// The process that is to stand for it on the host.
    pub(super) fn enter(&self, target: NamespaceRef) -> Option<Enter> {
        let (program, arguments) = self.argv.split_first()?;
        let mut enter = Enter::new(target, program).arguments(arguments).contained(&self.log);
        enter = enter.directory(self.working_dir.clone().unwrap_or_else(|| PathBuf::from("/")));
        if let Some((uid, gid)) = self.user {
            enter = enter.user(uid, gid);
        }
        if self.no_new_privs {
            enter = enter.no_new_privileges();
        }
        Some(enter)
    }
}

/// Where a container stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Its program has not ended.
    Running,
    /// Its program has ended, and all it left behind with it.
    Exited {
        /// Its status as shells have it: 128 and the number of the signal that ended it, or what it returned; 125 to
        /// 127 also say that it could not be started, and then its log says why.
        code: u8,
    },
}

/// A container as the helper knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// The namespace it runs in.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// [`ContainerSpec::made_of`] of what was started last.
    pub made_of: String,
    /// The process that stands for it on the host: it ends when the container has, with its status. The container's
    /// own processes are below it.
    pub pid: u32,
    /// Where it stands.
    pub state: RunState,
    /// How often it has been started, at least 1.
    pub starts: u32,
    /// How long it has been in this state, in milliseconds.
    pub age_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn spec() -> ContainerSpec {
        ContainerSpec {
            name: "web".to_owned(),
            argv: vec!["sleep".to_owned(), "1".to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            links: Vec::new(),
            working_dir: None,
            user: None,
            no_new_privs: false,
            log: "/tmp/web.log".into(),
        }
    }

    #[test]
    fn what_no_program_can_be_started_with_is_refused() {
        type Change = fn(&mut ContainerSpec);
        let changes: [(&str, Change); 8] = [
            ("name", |s| s.name = "../x".to_owned()),
            ("no program", |s| s.argv.clear()),
            ("no program", |s| s.argv = vec![String::new()]),
            ("NUL", |s| s.argv.push("a\0".to_owned())),
            ("environment", |s| s.env.push(("A=B".to_owned(), String::new()))),
            ("environment", |s| s.env.push((String::new(), String::new()))),
            ("environment", |s| s.env.push(("A".to_owned(), "\0".to_owned()))),
            ("log", |s| s.log = "web.log".into()),
        ];
        spec().validate().unwrap();
        for (word, change) in changes {
            let mut spec = spec();
            change(&mut spec);
            let error = spec.validate().unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
