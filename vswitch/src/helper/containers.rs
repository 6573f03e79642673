//! Talking to the helper about containers.

use std::os::fd::OwnedFd;

use super::container::{ContainerInfo, ContainerSpec};
use super::protocol::{Failure, FailureKind, Reply, Request};
use super::spec::Namespace;
use super::{Connection, HelperError, unexpected};
use crate::state::StatePaths;

/// A connection to a helper beside its owner's, by which containers are run. It keeps nothing alive: containers live
/// as long as their pod, and the helper as long as its owner allows.
#[derive(Debug)]
pub struct Containers {
    connection: Connection,
}

impl Containers {
    /// Connects to the helper of a state directory; `None` if there is none.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn connect(state: &StatePaths) -> Result<Option<Self>, HelperError> {
        Ok(Connection::find(state)?.map(|connection| Self { connection }))
    }

    /// Starts a container, for the first time or once more after it has ended, and returns the process that stands for
    /// it; see [`ContainerInfo::pid`]. What goes wrong inside the pod is in the container's log and status.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `Invalid` if it is nothing that can be started, `NotFound` if there is no such
    /// pod or it has ended, `Exists` if it runs, `NotPermitted` for a user that cannot be had.
    pub fn run(&mut self, namespace: &str, container: &ContainerSpec) -> Result<u32, HelperError> {
        container.validate().map_err(|why| Failure::new(FailureKind::Invalid, why))?;
        let request =
            Request::Run { namespace: namespace.to_owned(), container: Box::new(container.clone()) };
        match self.connection.ask(request) {
            Ok((Reply::Started { pid }, _)) => Ok(pid),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a signal to a container's program: KILL, TERM, INT, QUIT, HUP, USR1, USR2 or ALRM. KILL ends all its
    /// processes.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `NotFound` if no such container runs, `Invalid` for another signal.
    pub fn signal(&mut self, namespace: &str, container: &str, signal: i32) -> Result<(), HelperError> {
        let (namespace, container) = (namespace.to_owned(), container.to_owned());
        match self.connection.ask(Request::Signal { namespace, container, signal }) {
            Ok((Reply::Signalled, _)) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Forgets the containers of a pod that have ended: whatever is started there next has not been started before.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `NotFound` if there is no such pod.
    pub fn forget(&mut self, namespace: &str) -> Result<(), HelperError> {
        match self.connection.ask(Request::Forget { namespace: namespace.to_owned() }) {
            Ok((Reply::Signalled, _)) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Every container of every pod, running or ended, in order of namespace and name.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn list(&mut self) -> Result<Vec<ContainerInfo>, HelperError> {
        let mut all: Vec<ContainerInfo> = Vec::new();
        loop {
            let after = all.last().map(|container| (container.namespace.clone(), container.name.clone()));
            match self.connection.ask(Request::Containers { after }) {
                Ok((Reply::Containers { page, more }, _)) => {
                    let more = more && !page.is_empty();
                    all.extend(page);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    /// A pipe, non-blocking, on which an octet arrives whenever a container or a pod has ended after this call. Its end
    /// is the helper's.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn watch(&mut self) -> Result<OwnedFd, HelperError> {
        match self.connection.ask(Request::Watch) {
            Ok((Reply::Watching, Some(pipe))) => Ok(pipe),
            other => Err(unexpected(other)),
        }
    }

    /// One namespace.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `NotFound` if there is none of that name.
    pub fn namespace(&mut self, name: &str) -> Result<Namespace, HelperError> {
        match self.connection.ask(Request::Look { name: name.to_owned() }) {
            Ok((Reply::Namespace(namespace), _)) => Ok(*namespace),
            other => Err(unexpected(other)),
        }
    }
}
